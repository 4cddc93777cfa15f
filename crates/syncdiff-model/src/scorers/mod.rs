//! Networks that judge pictures and lips: how well lips and sound agree, how far two pictures are apart for the eye,
//! where a face is. They hold no opinion on files; frames and samples come in as tensors and slices.

pub mod lpips;
pub mod own_syncnet;
pub mod s3fd;
pub mod sync_distance;
pub mod syncnet;

pub use lpips::{LPIPS_FILES, Lpips, LpipsFile, LpipsTrunk};
pub use own_syncnet::{AboutSyncNet, OwnSyncNet};
pub use s3fd::S3fd;
pub use sync_distance::{SyncDistances, SyncScore};
pub use syncnet::SyncNet;
