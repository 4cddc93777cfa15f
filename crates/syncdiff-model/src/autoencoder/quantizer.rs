//! Vector quantisation of latents.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use syncdiff_kernels::nearest_rows;

/// Weight of the term that pulls the codes; upstream's legacy form puts it there, not on the encoder.
const BETA: f64 = 0.25;

/// Codebook of `n_embed` rows.
#[derive(Module, Debug)]
pub struct Quantizer {
    embedding: Codebook,
}

#[derive(Module, Debug)]
struct Codebook {
    /// [n_embed, z_channels]
    weight: Param<Tensor<2>>,
}

/// Result of quantisation in training.
pub struct Quantized {
    /// Codebook vectors with the straight-through gradient.
    pub z: Tensor<4>,
    /// mean((sg[zq] - z)^2) + 0.25 mean((zq - sg[z])^2).
    pub loss: Tensor<1>,
    /// Row of the codebook per position, [batch * h * w] in (batch, row, column) order.
    pub indices: Vec<u32>,
}

impl Quantizer {
    pub(super) fn new(rows: usize, dim: usize, device: &Device) -> Self {
        let bound = 1.0 / rows as f64;
        let weight = Initializer::Uniform { min: -bound, max: bound }.init([rows, dim], device);
        Self { embedding: Codebook { weight } }
    }

    /// The codebook, [n_embed, z_channels].
    pub fn codebook(&self) -> Tensor<2> {
        self.embedding.weight.val()
    }

    /// Replaces the codebook, keeping the parameter's identity.
    pub fn with_codebook(mut self, codebook: Tensor<2>) -> Self {
        self.embedding.weight = self.embedding.weight.map(|before| learn(codebook, &before));
        self
    }

    /// Row of the codebook nearest to each position.
    ///
    /// # Shapes
    /// z: [batch, channels, h, w] -> batch * h * w indices
    pub fn indices(&self, z: Tensor<4>) -> Vec<u32> {
        let dim = z.dims()[1];
        let points = host(z.detach().permute([0, 2, 3, 1]).reshape([-1, dim as i32]));
        nearest_rows(&points, &host(self.codebook().detach()), dim)
    }

    fn rows(&self, indices: &[u32], shape: [usize; 4], device: &Device) -> Tensor<4> {
        let [batch, channels, height, width] = shape;
        let at: Vec<i32> = indices.iter().map(|&i| i as i32).collect();
        let at = Tensor::<1, Int>::from_data(TensorData::new(at, [indices.len()]), device);
        self.codebook().select(0, at).reshape([batch, height, width, channels]).permute([0, 3, 1, 2])
    }

    /// Codebook vectors of the nearest rows; no gradient passes to `z`.
    pub fn quantize(&self, z: Tensor<4>) -> Tensor<4> {
        let (shape, device) = (z.dims(), z.device());
        self.rows(&self.indices(z), shape, &device)
    }

    /// Quantisation with straight-through gradient and codebook loss.
    pub fn quantize_for_training(&self, z: Tensor<4>) -> Quantized {
        let (shape, device) = (z.dims(), z.device());
        let indices = self.indices(z.clone());
        let zq = self.rows(&indices, shape, &device);
        let commit = (zq.clone().detach() - z.clone()).powi_scalar(2).mean();
        let pull = (zq.clone() - z.clone().detach()).powi_scalar(2).mean();
        let z = z.clone() + (zq - z).detach();
        Quantized { z, loss: commit + pull * BETA, indices }
    }
}

/// A parameter's new value after a change outside of the gradient; it learns if the old one did.
pub(super) fn learn<const D: usize>(value: Tensor<D>, before: &Tensor<D>) -> Tensor<D> {
    let value = value.detach();
    if before.is_require_grad() { value.require_grad() } else { value }
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
}
