//! Systems that syncdiff is compared with.

pub mod difftalk;
pub mod wav2lip;
pub mod wav2lip_lite;

pub use difftalk::{DiffTalkCondition, LandmarkNet};
pub use wav2lip::{ColourSyncNet, Wav2LipDiscriminator, Wav2LipGenerator};
pub use wav2lip_lite::{AboutWav2Lip, FaceCritic, Wav2LipLite};
