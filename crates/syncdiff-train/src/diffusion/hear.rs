//! Batches whose speech is encoded by the very encoder that learns.
//!
//! # Source
//! SyncDiff, table 6: the last layers of AV-HuBERT learn with the denoiser, the first ones are frozen.

use super::{Batch, DenoiserStage, DiffusionTask, Pick};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use syncdiff_model::audio::AudioEncoder;

impl DiffusionTask<'_> {
    /// A batch with its windows of speech: those kept with the clips, or those that the model's own encoder makes now.
    pub(super) fn batch(&self, model: &DenoiserStage, picks: &[Pick<'_>], first: u64, device: &Device) -> Batch {
        let batch = self.gather(picks, first, device);
        match &model.audio {
            Some(encoder) => Batch { windows: self.encoded_windows(encoder, picks, device), ..batch },
            None => batch,
        }
    }

    /// Each sample's whole utterance encoded, and the rows that its target hears cut out.
    ///
    /// # Shapes
    /// -> [picks, window, dim]
    fn encoded_windows(&self, encoder: &AudioEncoder, picks: &[Pick<'_>], device: &Device) -> Tensor<3> {
        let width = self.sizes.row;
        let lengths: Vec<usize> = picks.iter().map(|pick| pick.clip.rows.len() / width).collect();
        let time = lengths.iter().copied().max().unwrap_or(0);
        let mut rows = Vec::with_capacity(picks.len() * time * width);
        for pick in picks {
            rows.extend_from_slice(&pick.clip.rows);
            rows.resize(rows.len() + time * width - pick.clip.rows.len(), 0.0);
        }
        let rows = Tensor::from_data(TensorData::new(rows, [picks.len(), time, width]), (device, DType::F32));
        let encoded = encoder.forward(rows, Some(&lengths));
        let (dim, window) = (encoded.dims()[2], self.sizes.window);
        // One zero row behind all utterances serves what is not heard.
        let silent = picks.len() * time;
        let encoded = Tensor::cat(vec![encoded.reshape([silent, dim]), Tensor::zeros([1, dim], device)], 0);
        let at = |(i, pick): (usize, &Pick<'_>)| -> Vec<i64> {
            pick.heard(window).map(|row| row.map_or(silent, |row| i * time + row) as i64).collect()
        };
        let indices: Vec<i64> = picks.iter().enumerate().flat_map(at).collect();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [picks.len() * window]), device);
        encoded.select(0, indices).reshape([picks.len(), window, dim])
    }
}
