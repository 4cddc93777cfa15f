//! Systems that syncdiff is compared with.

pub mod difftalk;
pub mod wav2lip;

pub use difftalk::{DiffTalkCondition, LandmarkNet};
pub use wav2lip::{ColourSyncNet, Wav2LipDiscriminator, Wav2LipGenerator};
