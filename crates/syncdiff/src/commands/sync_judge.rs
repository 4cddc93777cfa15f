//! Our SyncNet as the judge of prepared clips.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use syncdiff::Outcome;
use syncdiff_data::{ClipArrays, ClipSync, SyncJudge};
use syncdiff_model::generate::rgb_to_tensor;
use syncdiff_model::scorers::OwnSyncNet;
use syncdiff_model::weights::sha256_of_file;

/// Frames of a clip that are looked at, so that memory does not grow with its length: 30 s.
const MOST_FRAMES: usize = 750;

/// Says of a clip how far lips and sound are apart, and how surely.
pub(super) struct OwnSyncJudge {
    net: OwnSyncNet,
    /// Of the file's bytes.
    name: String,
}

impl OwnSyncJudge {
    /// Reads a result of `train syncnet`.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn load(file: &Path) -> Outcome<Self> {
        Ok(OwnSyncJudge { name: sha256_of_file(file)?, net: OwnSyncNet::load(file, &Device::flex())? })
    }
}

impl SyncJudge for OwnSyncJudge {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn judge(&self, clip: &ClipArrays) -> Result<ClipSync, String> {
        let side = clip.crop_size;
        let frames = clip.frames.chunks_exact(3 * side * side).take(MOST_FRAMES);
        let crops: Vec<Tensor<4>> = frames.map(|rgb| rgb_to_tensor(rgb, side, &Device::flex())).collect();
        if crops.is_empty() {
            return Err("the clip has no frames".into());
        }
        let score = self.net.score(Tensor::cat(crops, 0), &clip.speech).map_err(|error| error.to_string())?;
        Ok(ClipSync { offset_frames: score.offset_frames, confidence: score.confidence as f32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncdiff_model::scorers::own_syncnet::AboutSyncNet;

    fn clip(num_frames: usize) -> ClipArrays {
        let side = 32;
        ClipArrays {
            crop_size: side,
            frames: (0..num_frames * side * side * 3).map(|i| (i * i % 251) as u8).collect(),
            crop_from_frame: vec![0.0; 6 * num_frames],
            face_box: vec![0.0; 4 * num_frames],
            landmarks: vec![0.0; 2 * 468 * num_frames],
            opening: vec![0.0; num_frames],
            valid: vec![1; num_frames],
            speech: (0..num_frames * 640).map(|i| (i * 37 % 2000) as i16).collect(),
        }
    }

    #[test]
    fn clips_are_judged_or_told_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("syncnet.safetensors");
        let about = AboutSyncNet { seed: 1, steps: 0, data: String::new(), licence: "CC0-1.0".into() };
        OwnSyncNet::new(&Device::flex()).save(&file, &about).unwrap();
        let judge = OwnSyncJudge::load(&file).unwrap();
        assert_eq!(judge.name().len(), 64);
        let sync = judge.judge(&clip(12)).unwrap();
        assert!((0.0..=2.0).contains(&sync.confidence) && sync.offset_frames.abs() <= 15, "{sync:?}");
        assert!(judge.judge(&clip(3)).unwrap_err().contains("five"), "too short");
        assert!(judge.judge(&clip(0)).unwrap_err().contains("no frames"));
        assert!(OwnSyncJudge::load(&folder.path().join("none")).is_err());
    }
}
