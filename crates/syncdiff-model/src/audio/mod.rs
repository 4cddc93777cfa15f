//! Speech: from 16 kHz samples to the rows that condition one video frame.
//!
//! ```text
//! rows      = filterbank::speech_rows(&samples, num_frames)    [frames, 104], one row per video frame; or
//!             moonshine.rows(&samples, num_frames, device)     [frames, 576]
//! encoded   = encoder.encode(rows)                             [frames, dim], over the whole utterance, once
//! windows   = window::windows(encoded, &frames, 8)             [batch, 8, dim], rows round each wanted frame
//! condition = conditioner.forward(windows)                     [batch, K, dim], for cross-attention
//! ```

pub mod audio_net;
pub mod conditioning;
pub mod deep_speech;
pub mod encoder;
pub mod encoder_layer;
pub mod filterbank;
pub mod mel;
pub mod moonshine;
pub mod positional;
pub mod temporal_filter;
pub mod window;

pub use audio_net::AudioNet;
pub use conditioning::{Conditioner, ConditioningConfig, ConditioningTokens};
pub use encoder::{AudioEncoder, AudioEncoderConfig, EncoderOutput};
pub use filterbank::{
    Bands, FEATURES_PER_ROW, NUM_BANDS, SAMPLES_PER_ROW, SpeechRow, log_filterbank, normalise, speech_rows, stack,
};
pub use moonshine::Moonshine;
pub use temporal_filter::TemporalFilter;
pub use window::windows;
