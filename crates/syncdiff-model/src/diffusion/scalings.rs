//! Scalings round a network that make the boundary of its noise range exact: those of EDM, of consistency models and of
//! latent consistency models.
//!
//! EDM and consistency models wrap a network F of a variance-exploding latent x = x_0 + sigma noise as
//! D(x; sigma) = c_skip x + c_out F(c_in x; c_noise). A latent consistency model has a discrete noise level, and its
//! network's estimate of x_0 takes the place of F.

use burn::tensor::{DType, Tensor, TensorData};

/// The four numbers of one noise level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scalings {
    /// Share of the input in the result.
    pub c_skip: f64,
    /// Factor on the network's output.
    pub c_out: f64,
    /// Factor on the network's input: brings it to unit variance.
    pub c_in: f64,
    /// What the network is told of the noise level.
    pub c_noise: f64,
}

impl Scalings {
    /// EDM's at noise level `sigma`, for data of deviation `sigma_data` (0.5 in the source; measure it for latents).
    ///
    /// # Source
    /// Karras et al. 2022, table 1; NVlabs/edm `EDMPrecond`.
    pub fn edm(sigma: f64, sigma_data: f64) -> Self {
        let sum = sigma * sigma + sigma_data * sigma_data;
        Self {
            c_skip: sigma_data * sigma_data / sum,
            c_out: sigma * sigma_data / sum.sqrt(),
            c_in: 1.0 / sum.sqrt(),
            c_noise: sigma.ln() / 4.0,
        }
    }

    /// As [`Self::edm`], shifted so that the result at `sigma_min` is the input itself.
    ///
    /// # Source
    /// Song et al. 2023, appendix C; openai/consistency_models `get_scalings_for_boundary_condition`.
    pub fn consistency(sigma: f64, sigma_min: f64, sigma_data: f64) -> Self {
        let above = sigma - sigma_min;
        let edm = Self::edm(sigma, sigma_data);
        Self {
            c_skip: sigma_data * sigma_data / (above * above + sigma_data * sigma_data),
            c_out: above * sigma_data * edm.c_in,
            ..edm
        }
    }
}

/// D(x; sigma) of EDM: the network's wrapped estimate of the clean latent. `network` gets c_in x and c_noise.
///
/// # Shapes
/// `x` [batch, channels, height, width] and one noise level per batch element; `network`: the same and [batch] ->
/// the same
pub fn edm_denoised(
    x: Tensor<4>,
    sigmas: &[f64],
    sigma_data: f64,
    network: impl FnOnce(Tensor<4>, Tensor<1>) -> Tensor<4>,
) -> Tensor<4> {
    let device = x.device();
    let column = |f: fn(Scalings) -> f64| {
        let values: Vec<f32> = sigmas.iter().map(|sigma| f(Scalings::edm(*sigma, sigma_data)) as f32).collect();
        Tensor::<1>::from_data(TensorData::new(values, [sigmas.len()]), (&device, DType::F32))
    };
    let wide = |f: fn(Scalings) -> f64| column(f).reshape([sigmas.len(), 1, 1, 1]);
    let output = network(x.clone() * wide(|s| s.c_in), column(|s| s.c_noise));
    x * wide(|s| s.c_skip) + output * wide(|s| s.c_out)
}

/// Weight of EDM's loss, (sigma^2 + sigma_data^2) / (sigma sigma_data)^2: 1 / c_out^2.
pub fn edm_loss_weight(sigma: f64, sigma_data: f64) -> f64 {
    Scalings::edm(sigma, sigma_data).c_out.powi(-2)
}

/// EDM's noise level of a training sample: ln sigma is normal with mean -1.2 and deviation 1.2.
pub fn edm_training_sigma(unit_normal: f64) -> f64 {
    (1.2 * unit_normal - 1.2).exp()
}

/// Boundary condition of a latent consistency model: f = c_skip x_t + c_out x_0, which is x_t itself at timestep 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LcmBoundary {
    /// Deviation of the data.
    pub sigma_data: f64,
    /// Factor on the timestep.
    pub timestep_scaling: f64,
}

impl LcmBoundary {
    /// The published values, which diffusers samples with too.
    pub const PUBLISHED: Self = Self { sigma_data: 0.5, timestep_scaling: 10.0 };

    /// (c_skip, c_out) at a timestep.
    ///
    /// # Source
    /// Luo et al. 2023; `scalings_for_boundary_conditions` of its training script.
    pub fn at(self, timestep: usize) -> (f64, f64) {
        let scaled = self.timestep_scaling * timestep as f64;
        let sum = scaled * scaled + self.sigma_data * self.sigma_data;
        (self.sigma_data * self.sigma_data / sum, scaled / sum.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_returns_the_input() {
        let at_min = Scalings::consistency(0.0388, 0.0388, 0.5);
        assert_eq!((at_min.c_skip, at_min.c_out), (1.0, 0.0));
        assert_eq!(LcmBoundary::PUBLISHED.at(0), (1.0, 0.0));
    }

    #[test]
    fn edm_keeps_unit_variance() {
        for sigma in [0.002, 0.3, 1.0, 80.0] {
            let s = Scalings::edm(sigma, 0.5);
            assert!((s.c_in.powi(2) * (sigma * sigma + 0.25) - 1.0).abs() < 1e-12);
            // Target variance: ((1 - c_skip)^2 sigma_data^2 + c_skip^2 sigma^2) / c_out^2 = 1.
            let variance = (1.0 - s.c_skip).powi(2) * 0.25 + (s.c_skip * sigma).powi(2);
            assert!((variance * edm_loss_weight(sigma, 0.5) - 1.0).abs() < 1e-9);
        }
        assert!((edm_training_sigma(1.0) - 1.0).abs() < 1e-15);
    }
}
