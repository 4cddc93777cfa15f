//! Systems that syncdiff is compared with.

pub mod wav2lip;

pub use wav2lip::{ColourSyncNet, Wav2LipDiscriminator, Wav2LipGenerator};
