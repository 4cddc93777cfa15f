//! Wav2Lip as the renderer sees it: the same crops, masks and paste as for the model, so that the two can be compared.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use syncdiff_face::{KeepMask, KeepMaskKind};
use syncdiff_media::Frame;
use syncdiff_model::baselines::Wav2LipLite;
use syncdiff_model::baselines::wav2lip::FACE_SIZE;
use syncdiff_model::baselines::wav2lip_lite::FrameSounds;
use syncdiff_model::nn::conv_norm::count_learned;
use syncdiff_model::preset::{LipSyncConfig, PoseFeedback};
use syncdiff_model::weights::sha256_of_file;

use crate::clock::{Clock, Phase};
use crate::error::Outcome;
use crate::mouth::{MouthModel, MouthSequence};
use crate::report::ModelReport;

/// Name in reports.
const NAME: &str = "wav2lip lite";

/// A trained Wav2Lip that has the speech.
pub struct Wav2Lip {
    generator: Wav2LipLite,
    sounds: FrameSounds,
    /// 1 where the target is shown.
    keep: Vec<f32>,
    device: Device,
    about: ModelReport,
}

impl Wav2Lip {
    /// Whether weights are of this kind: one file, where the model has a folder.
    pub fn is_meant(weights: &Path) -> bool {
        weights.is_file()
    }

    /// Reads a file that `syncdiff train wav2lip` wrote.
    ///
    /// # Errors
    /// Those of the file.
    pub fn load(file: &Path, samples: &[i16], device: &Device) -> Outcome<Self> {
        let generator = Wav2LipLite::load(file, device)?;
        let about = ModelReport {
            name: NAME.into(),
            weights_sha256: sha256_of_file(file)?,
            licence: Wav2LipLite::about(file)?.licence,
            parameters: count_learned(&generator),
            crop_size_px: FACE_SIZE,
            keep_mask: KeepMaskKind::AlignedFixed.to_string(),
            sampler: "none".into(),
            steps: 1,
            guidance: LipSyncConfig::NO_GUIDANCE,
            feedback: PoseFeedback::Latent,
        };
        let keep = KeepMask::aligned_fixed(FACE_SIZE).keep.iter().map(|v| if *v == 0 { 0.0 } else { 1.0 }).collect();
        Ok(Self { generator, sounds: FrameSounds::new(samples), keep, device: device.clone(), about })
    }

    /// What the report says of it.
    pub fn about(&self) -> ModelReport {
        self.about.clone()
    }

    /// [1, 3, 96, 96] in [0, 1]
    fn tensor(&self, crop: &Frame) -> Tensor<4> {
        let planes = (0..3).flat_map(|c| crop.data.iter().skip(c).step_by(3)).map(|v| f32::from(*v) / 255.0);
        let values = TensorData::new(planes.collect::<Vec<f32>>(), [1, 3, FACE_SIZE, FACE_SIZE]);
        Tensor::from_data(values, (&self.device, DType::F32))
    }
}

/// The face that a sequence is told to be.
struct Sequence<'a> {
    model: &'a Wav2Lip,
    reference: Tensor<4>,
}

impl MouthModel for Wav2Lip {
    /// The masked face and its model frame.
    type Seen = (Tensor<4>, usize);
    type Drawn = Frame;

    fn crop_size(&self) -> usize {
        FACE_SIZE
    }

    fn keep_mask(&self) -> KeepMaskKind {
        KeepMaskKind::AlignedFixed
    }

    fn look(&self, masked: &[(Frame, usize)], _clock: &mut Clock) -> Outcome<Vec<Self::Seen>> {
        let keep = TensorData::new(self.keep.clone(), [1, 1, FACE_SIZE, FACE_SIZE]);
        // Whatever colour the mask has: in training it was zero.
        let keep = Tensor::<4>::from_data(keep, (&self.device, DType::F32));
        Ok(masked.iter().map(|(crop, frame)| (self.tensor(crop) * keep.clone(), *frame)).collect())
    }

    fn start(&self, identity: &Frame) -> Outcome<Box<dyn MouthSequence<Self> + '_>> {
        Ok(Box::new(Sequence { model: self, reference: self.tensor(identity) }))
    }

    fn picture(&self, drawn: Frame) -> Outcome<Frame> {
        Ok(drawn)
    }
}

impl MouthSequence<Wav2Lip> for Sequence<'_> {
    fn draw(&mut self, (shown, frame): (Tensor<4>, usize), clock: &mut Clock) -> Outcome<Frame> {
        clock.time(Phase::Denoise, || {
            let faces = Tensor::cat(vec![shown, self.reference.clone()], 1);
            let sound = self.model.sounds.chunks([frame], &self.model.device);
            let face = self.model.generator.forward(sound, faces).permute([0, 2, 3, 1]);
            let values: Vec<f32> = face.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
            let bytes = values.into_iter().map(|value| (value * 255.0).round() as u8).collect();
            Ok(Frame::from_rgb(FACE_SIZE, FACE_SIZE, bytes)?)
        })
    }

    /// Frames are drawn each by itself.
    fn restart(&mut self) {}
}
