//! Means of LPIPS over the frames of a clip, several pictures at a time.

use burn::tensor::{DType, Device, Tensor, TensorData};
use syncdiff_media::Frame;
use syncdiff_model::scorers::Lpips;

use crate::error::EvalResult;
use crate::picture::mse;

/// Smaller pictures do not reach the last layer of AlexNet.
pub const SMALLEST_LPIPS_SIDE: usize = 32;
/// Pixels that go through the network at a time: eight of the paper's crops.
const BATCH_PIXELS: usize = 8 * 96 * 96;

/// Collects pairs of pictures and their distances.
pub struct LpipsMean<'a> {
    net: &'a Lpips,
    device: Device,
    waiting: Vec<(Frame, Frame)>,
    sum: f64,
    count: usize,
}

impl<'a> LpipsMean<'a> {
    /// Nothing yet.
    pub fn new(net: &'a Lpips, device: &Device) -> Self {
        LpipsMean { net, device: device.clone(), waiting: Vec::new(), sum: 0.0, count: 0 }
    }

    /// Adds a pair; one with a side below [`SMALLEST_LPIPS_SIDE`] is left out.
    ///
    /// # Errors
    /// Pictures of different sizes.
    pub fn push(&mut self, a: Frame, b: Frame) -> EvalResult<()> {
        mse(&a, &b)?;
        if a.width.min(a.height) < SMALLEST_LPIPS_SIDE {
            return Ok(());
        }
        let size = |frame: &Frame| (frame.width, frame.height);
        let pixels = a.width * a.height;
        let other = self.waiting.first().is_some_and(|(first, _)| size(first) != size(&a));
        if other || (self.waiting.len() + 1) * pixels > BATCH_PIXELS {
            self.flush();
        }
        self.waiting.push((a, b));
        Ok(())
    }

    fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (a, b): (Vec<Frame>, Vec<Frame>) = self.waiting.drain(..).unzip();
        let distances = self.net.forward(tensor(&a, &self.device), tensor(&b, &self.device));
        let distances: Vec<f32> = distances.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
        self.sum += distances.iter().map(|distance| f64::from(*distance)).sum::<f64>();
        self.count += distances.len();
    }

    /// The mean over all pairs; none without one.
    pub fn mean(mut self) -> Option<f64> {
        self.flush();
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// Pictures of one size, bytes to [-1, 1]: [pictures, 3, height, width].
pub(crate) fn tensor(frames: &[Frame], device: &Device) -> Tensor<4> {
    let (width, height) = frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
    let values: Vec<f32> = frames.iter().flat_map(|frame| &frame.data).map(|v| f32::from(*v) / 127.5 - 1.0).collect();
    let data = TensorData::new(values, [frames.len(), height, width, 3]);
    Tensor::<4>::from_data(data, (device, DType::F32)).permute([0, 3, 1, 2])
}
