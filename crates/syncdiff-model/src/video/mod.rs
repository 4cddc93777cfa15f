//! Sight: from grey mouth pictures to rows of the audio-visual encoder.
//!
//! ```text
//! mouths  = mouth::mouth_tensor(&grey, frames, height, width, device)   [1, frames, 88, 88]
//! rows    = front_end.forward(mouths)                                   [1, frames, dim]
//! encoded = AudioVisualEncoder::forward(sound, sight, lengths)          [1, frames, dim]
//! ```

pub mod encoder;
pub mod mouth;
pub mod resnet;
pub mod small;

pub use encoder::AudioVisualEncoder;
pub use mouth::{MOUTH_SIDE, mouth_tensor};
pub use resnet::{RESNET_WIDTH, ResNet, VideoFrontEnd};
pub use small::SmallFrontEnd;
