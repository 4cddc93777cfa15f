//! Who judges whether lips and sound agree: networks that embed both, so that their distance can be measured.

use burn::tensor::{DType, Device, Tensor, TensorData};
use syncdiff_media::Frame;
use syncdiff_model::audio::filterbank::{NUM_CEPSTRA, mfcc};
use syncdiff_model::scorers::SyncNet;
use syncdiff_model::scorers::syncnet::{
    EMBEDDING_DIM, FRAME_SIZE, WINDOW_FRAMES, lip_windows, num_windows, sound_windows,
};

use crate::error::EvalResult;

/// Embeds lips and speech. Frames come at 25 a second, speech at 16 kHz.
///
/// A judge must not be the network of any training loss; its description says what it learnt from.
pub trait Judge {
    /// Short name, for tables.
    fn name(&self) -> String;
    /// What it is, where it comes from, and how its pictures differ from the original protocol's.
    fn description(&self) -> String;
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
    use crate::listen::{Listener, Protocol};

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
        let mut listener = Listener::new(&judge, Protocol::Lrs, &[]);
        for (i, frame) in frames.iter().enumerate() {
            listener.push(frame, i as f64 / 25.0, i).unwrap();
        }
        let found = listener.finish(&samples, 12.0 / 25.0).unwrap();
        assert_eq!(found.offset_frames, expected.offset_frames);
        assert!((found.distance - expected.distance).abs() < 1e-4, "{found:?} {expected:?}");
        assert!((found.confidence - expected.confidence).abs() < 1e-4, "{found:?} {expected:?}");
    }
}
