//! Who judges whether lips and sound agree: networks that embed both, so that their distance can be measured.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use syncdiff_media::Frame;
use syncdiff_model::audio::filterbank::{NUM_CEPSTRA, SAMPLES_PER_ROW, mfcc};
use syncdiff_model::scorers::syncnet::{
    EMBEDDING_DIM, FRAME_SIZE, WINDOW_FRAMES, lip_windows, num_windows, sound_windows,
};
use syncdiff_model::scorers::{AboutSyncNet, OwnSyncNet, SyncNet, own_syncnet};

use crate::error::EvalResult;
use crate::listen::Protocol;
use crate::perceptual::tensor;

/// Embeds lips and speech. Frames come at 25 a second, speech at 16 kHz.
///
/// A judge must not be the network of any training loss; its description says what it learnt from.
pub trait Judge {
    /// Short name, for tables.
    fn name(&self) -> String;
    /// What it is, where it comes from, and how its pictures differ from the original protocol's.
    fn description(&self) -> String;
    /// What it can be shown.
    fn protocols(&self) -> &'static [Protocol];
    /// Side of the square pictures that it looks at.
    fn side(&self) -> usize;
    /// Frames of a window.
    fn window_frames(&self) -> usize;
    /// Length of an embedding.
    fn embedding_dim(&self) -> usize;
    /// Windows of a clip.
    fn num_windows(&self, num_frames: usize, num_samples: usize) -> usize;
    /// Embeddings of the windows that begin with each of these frames but the last `window_frames - 1`, row-major.
    ///
    /// # Errors
    /// Those of the network.
    fn lips(&self, frames: &[Frame]) -> EvalResult<Vec<f32>>;
    /// Embeddings of the first `windows` windows of the speech, row-major.
    ///
    /// # Errors
    /// Those of the network.
    fn speech(&self, samples: &[i16], windows: usize) -> EvalResult<Vec<f32>>;
}

/// Side of the aligned crops that our own network sees pixel by pixel.
const OWN_SIDE: usize = 128;
/// Windows of speech that go through the network at a time.
const BATCH: usize = 16;

/// The scorer of the paper's LSE-C and LSE-D, `syncnet_v2`, from imported weights.
pub struct SyncNetV2 {
    net: SyncNet,
    device: Device,
    weights: String,
}

impl SyncNetV2 {
    /// The network with its weights, and where they came from in words.
    pub fn new(net: SyncNet, device: &Device, weights: impl Into<String>) -> Self {
        SyncNetV2 { net, device: device.clone(), weights: weights.into() }
    }
}

impl Judge for SyncNetV2 {
    fn name(&self) -> String {
        "syncnet_v2".into()
    }

    fn description(&self) -> String {
        format!(
            "syncnet_v2 of joonson/syncnet_python ({}). Unlike in the original scripts frames do not pass through \
             JPEG, and faces of the in-the-wild protocol come from the face mesh of the reference instead of S3FD: \
             expect small differences from published figures",
            self.weights
        )
    }

    fn protocols(&self) -> &'static [Protocol] {
        &[Protocol::Lrs, Protocol::Wild]
    }

    fn side(&self) -> usize {
        FRAME_SIZE
    }

    fn window_frames(&self) -> usize {
        WINDOW_FRAMES
    }

    fn embedding_dim(&self) -> usize {
        EMBEDDING_DIM
    }

    fn num_windows(&self, num_frames: usize, num_samples: usize) -> usize {
        num_windows(num_frames, num_samples)
    }

    fn lips(&self, frames: &[Frame]) -> EvalResult<Vec<f32>> {
        let Some(windows) = (frames.len() + 1).checked_sub(WINDOW_FRAMES).filter(|windows| *windows > 0) else {
            return Ok(Vec::new());
        };
        let windows = lip_windows(&blue_green_red(frames, &self.device), 0, windows);
        Ok(host(self.net.forward_lip(windows)))
    }

    fn speech(&self, samples: &[i16], windows: usize) -> EvalResult<Vec<f32>> {
        let cepstra = mfcc::<NUM_CEPSTRA>(samples);
        let mut rows = Vec::with_capacity(windows * EMBEDDING_DIM);
        for start in (0..windows).step_by(BATCH) {
            let batch = BATCH.min(windows - start);
            rows.extend(host(self.net.forward_aud(sound_windows(&cepstra, start, batch, &self.device))));
        }
        Ok(rows)
    }
}

/// Our own SyncNet, from a file that `syncdiff train syncnet` wrote. Its figures have their own keys: its distances are
/// at most 2, and no published figure was made with it.
pub struct OwnJudge {
    net: OwnSyncNet,
    about: AboutSyncNet,
    device: Device,
}

impl OwnJudge {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that is absent, damaged, or holds another network.
    pub fn load(path: &Path, device: &Device) -> EvalResult<Self> {
        let about = OwnSyncNet::about(path)?;
        Ok(OwnJudge { net: OwnSyncNet::load(path, device)?, about, device: device.clone() })
    }
}

impl Judge for OwnJudge {
    fn name(&self) -> String {
        format!("own SyncNet, seed {}", self.about.seed)
    }

    fn description(&self) -> String {
        let AboutSyncNet { steps, data, .. } = &self.about;
        format!(
            "this program's own small network on aligned mouths, {steps} steps on {data}. Not comparable with LSE-C and \
             LSE-D of syncnet_v2. It must not be the network of a loss that the scored model was trained with: compare \
             the seeds"
        )
    }

    fn protocols(&self) -> &'static [Protocol] {
        &[Protocol::Own]
    }

    fn side(&self) -> usize {
        OWN_SIDE
    }

    fn window_frames(&self) -> usize {
        own_syncnet::WINDOW_FRAMES
    }

    fn embedding_dim(&self) -> usize {
        own_syncnet::EMBEDDING_DIM
    }

    fn num_windows(&self, num_frames: usize, num_samples: usize) -> usize {
        num_frames.min(num_samples / SAMPLES_PER_ROW).saturating_sub(own_syncnet::WINDOW_FRAMES - 1)
    }

    fn lips(&self, frames: &[Frame]) -> EvalResult<Vec<f32>> {
        Ok(host(self.net.lips(tensor(frames, &self.device))?))
    }

    fn speech(&self, samples: &[i16], windows: usize) -> EvalResult<Vec<f32>> {
        let mut rows = host(self.net.speech(samples, &self.device)?);
        rows.truncate(windows * own_syncnet::EMBEDDING_DIM);
        Ok(rows)
    }
}

/// Square pictures as OpenCV would hold them, values 0 to 255: [frames, 3, side, side].
fn blue_green_red(frames: &[Frame], device: &Device) -> Tensor<4> {
    let side = frames.first().map_or(0, |frame| frame.width);
    let mut values = Vec::with_capacity(frames.len() * 3 * side * side);
    for frame in frames {
        for channel in [2, 1, 0] {
            values.extend(frame.data.iter().skip(channel).step_by(3).map(|value| f32::from(*value)));
        }
    }
    Tensor::from_data(TensorData::new(values, [frames.len(), 3, side, side]), (device, DType::F32))
}

fn host(x: Tensor<2>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faces::FaceSeries;
    use crate::listen::Listener;
    use syncdiff_face::Affine;

    /// The way window by window gives what the network's own scorer gives for a clip as a whole.
    #[test]
    fn streaming_equals_the_whole_clip() {
        let device = Device::flex();
        device.seed(5);
        let net = SyncNet::new(&device);
        let picture = |at: usize| {
            let value = |i: usize| ((i * 31 + at * 1999) % 251) as u8;
            Frame { width: FRAME_SIZE, height: FRAME_SIZE, data: (0..FRAME_SIZE * FRAME_SIZE * 3).map(value).collect() }
        };
        let frames: Vec<Frame> = (0..12).map(picture).collect();
        let samples: Vec<i16> = (0..12 * 640).map(|i| ((i * i) % 9001) as i16 - 4500).collect();
        let expected = net.score(blue_green_red(&frames, &device), &samples).unwrap();
        let judge = SyncNetV2::new(net, &device, "random");
        let mut listener = Listener::new(&judge, Protocol::Lrs, &FaceSeries::default());
        for (i, frame) in frames.iter().enumerate() {
            listener.push(frame, i as f64 / 25.0, i).unwrap();
        }
        let found = listener.finish(&samples, 12.0 / 25.0).unwrap();
        assert_eq!(found.offset_frames, expected.offset_frames);
        assert!((found.distance - expected.distance).abs() < 1e-4, "{found:?} {expected:?}");
        assert!((found.confidence - expected.confidence).abs() < 1e-4, "{found:?} {expected:?}");
    }

    /// As above, through a file of weights and the alignment of a face.
    #[test]
    fn streaming_equals_the_whole_clip_for_our_own() {
        let device = Device::flex();
        device.seed(6);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("syncnet.safetensors");
        let about = AboutSyncNet { seed: 6, steps: 0, data: "nothing".into(), licence: "MIT".into() };
        OwnSyncNet::new(&device).save(&path, &about).unwrap();
        let judge = OwnJudge::load(&path, &device).unwrap();
        assert!(judge.name().contains("seed 6") && judge.description().contains("0 steps on nothing"));
        // The alignment takes the middle 160 pixels of a frame of 200; of these the judge sees 128.
        let picture = |at: usize| {
            let value = |i: usize| ((i / 3 % 200 + at * 7 + i % 3 * 50) % 256) as u8;
            Frame { width: 200, height: 200, data: (0..200 * 200 * 3).map(value).collect() }
        };
        let frames: Vec<Frame> = (0..25).map(picture).collect();
        let crop = Affine::scale_shift(1.0, -20.0, -20.0);
        let faces = FaceSeries { crop_from_frame: vec![Some(crop); 20], ..FaceSeries::default() };
        let samples: Vec<i16> = (0..25 * 640).map(|i| ((i * i) % 9001) as i16 - 4500).collect();
        let small = Affine::scale_shift(0.8, -16.1, -16.1);
        let crops: Vec<Frame> = frames.iter().map(|frame| syncdiff_face::warp(frame, &small, 128)).collect();
        let expected = judge.net.score(tensor(&crops, &device), &samples).unwrap();
        let mut listener = Listener::new(&judge, Protocol::Own, &faces);
        for (i, frame) in frames.iter().enumerate() {
            listener.push(frame, i as f64 / 25.0, i).unwrap();
        }
        let found = listener.finish(&samples, 1.0).unwrap();
        assert_eq!(found.offset_frames, expected.offset_frames);
        assert!((found.distance - expected.distance).abs() < 1e-4, "{found:?} {expected:?}");
        assert!((found.confidence - expected.confidence).abs() < 1e-4, "{found:?} {expected:?}");
    }
}
