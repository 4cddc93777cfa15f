//! The adversarial loss of the first stage, balanced against its reconstruction.
//!
//! # Source
//! taming-transformers `VQLPIPSWithDiscriminator` (`calculate_adaptive_weight`, hinge loss); METHOD section 4.5.

use crate::gradients::own_leaves;
use crate::trainer::StepLoss;
use burn::module::Module;
use burn::tensor::Tensor;
use syncdiff_model::autoencoder::PatchDiscriminator;
use syncdiff_model::autoencoder::discriminator::{adaptive_weight, deception_loss, hinge_loss};
use syncdiff_model::nn::Conv3;

/// Pictures of a decoder on their way to its adversary.
pub(super) struct Drawn<'a> {
    /// The decoder's last layer.
    pub(super) last_layer: &'a Conv3,
    /// What that layer saw: [batch, ch, height, width].
    pub(super) features: Tensor<4>,
    /// What it made of it: [batch, 3, height, width].
    pub(super) pictures: Tensor<4>,
}

impl Drawn<'_> {
    /// Reconstruction loss and adversarial loss of the pictures, and the loss of the critic, which learns in the same
    /// step from pictures that it cannot change.
    ///
    /// The adversarial loss weighs `weight` times as much as makes its gradient at the last layer as large as that of
    /// the reconstruction. Both losses are differentiated to the pictures and no further; the graph of the result begins
    /// there, so that the balance costs no second walk through the decoder. Each part of a batch has its own balance, as
    /// each device has in the source.
    ///
    /// # Shapes
    /// truth: [batch, 3, height, width] in [-1, 1]
    pub(super) fn against(
        self,
        critic: &PatchDiscriminator,
        weight: f64,
        truth: Tensor<4>,
        reconstruction: impl FnOnce(Tensor<4>) -> Tensor<1>,
    ) -> StepLoss {
        let frozen = critic.clone().no_grad();
        let reconstruction = Slope::of(&self.pictures, reconstruction);
        let deception = Slope::of(&self.pictures, |pictures| deception_loss(frozen.forward(pictures)));
        let norms = [&reconstruction, &deception].map(|slope| self.norm_at_last_layer(slope));
        let weight = adaptive_weight(norms[0], norms[1], weight);
        let gradient = reconstruction.gradient + deception.gradient * weight;
        // Its gradient with respect to the pictures is what was found above, and its value nothing.
        let along = (self.pictures.clone() * gradient.autodiff()).sum();
        let along = along.clone() - along.detach();
        let value = f64::from(reconstruction.value) + weight * f64::from(deception.value);
        let critic = hinge_loss(critic.forward(truth), critic.forward(self.pictures.detach()));
        let parts = vec![
            ("adversarial", deception.value),
            ("adversarial_weight", weight as f32),
            ("critic", critic.clone().into_scalar::<f32>()),
        ];
        StepLoss { loss: along + value + critic, parts }
    }

    fn norm_at_last_layer(&self, slope: &Slope) -> f64 {
        let layer = own_leaves(self.last_layer);
        let pictures = layer.forward(self.features.clone().detach());
        let gradients = (pictures * slope.gradient.clone().autodiff()).sum().backward();
        let gradient = layer.weight.val().grad(&gradients).expect("the layer learns");
        f64::from(gradient.powi_scalar(2).sum().sqrt().into_scalar::<f32>())
    }
}

/// A loss of pictures and its gradient with respect to them.
struct Slope {
    value: f32,
    /// As the pictures, outside of automatic differentiation.
    gradient: Tensor<4>,
}

impl Slope {
    fn of(pictures: &Tensor<4>, loss: impl FnOnce(Tensor<4>) -> Tensor<1>) -> Self {
        let leaf = pictures.clone().detach().require_grad();
        let loss = loss(leaf.clone());
        let value = loss.clone().into_scalar::<f32>();
        Self { value, gradient: leaf.grad(&loss.backward()).expect("a loss of the pictures") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{ModuleVisitor, Param};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Distribution};
    use syncdiff_model::autoencoder::{Autoencoder, AutoencoderConfig};

    /// Loss and gradients are those of the sum of all losses, differentiated as a whole.
    #[test]
    fn gradients_are_those_of_the_whole_graph() {
        let device = Device::flex().autodiff();
        device.seed(4);
        let config = AutoencoderConfig {
            ch: 8,
            ch_mult: vec![1, 2],
            num_res_blocks: 1,
            n_embed: 32,
            norm_groups: 4,
            ..AutoencoderConfig::paper()
        };
        let net = Autoencoder::new(&config, &device);
        let critic = PatchDiscriminator::new(3, 8, &device);
        let truth = Tensor::<4>::random([2, 3, 32, 32], Distribution::Uniform(-1.0, 1.0), &device);
        let reconstruction = |pictures: Tensor<4>| (pictures - truth.clone()).abs().mean();
        let drawn = || {
            let features = net.decode_features(net.encode(truth.clone()));
            let last_layer = net.decoder.last_layer();
            Drawn { last_layer, pictures: last_layer.forward(features.clone()), features }
        };
        let found = drawn().against(&critic, 0.75, truth.clone(), reconstruction);
        let part = |name: &str| f64::from(found.parts.iter().find(|(other, _)| *other == name).unwrap().1);

        // Each walk spends its graph.
        let deception = |pictures: Tensor<4>| deception_loss(critic.clone().no_grad().forward(pictures));
        let norm = |loss: Tensor<1>| {
            let gradient = net.decoder.last_layer().weight.val().grad(&loss.backward()).unwrap();
            f64::from(gradient.powi_scalar(2).sum().sqrt().into_scalar::<f32>())
        };
        let weight = 0.75 * norm(reconstruction(drawn().pictures)) / (norm(deception(drawn().pictures)) + 1e-4);
        assert!((part("adversarial_weight") - weight).abs() < 1e-4 * weight, "{weight} {:?}", found.parts);
        let pictures = drawn().pictures;
        let whole = reconstruction(pictures.clone())
            + deception(pictures.clone()) * weight
            + hinge_loss(critic.forward(truth.clone()), critic.forward(pictures.detach()));
        let [value, expected] = [&found.loss, &whole].map(|loss| loss.clone().into_scalar::<f32>());
        assert!((value - expected).abs() < 1e-4 * expected.abs(), "{value} {expected}");
        let [found, whole] = [found.loss, whole].map(|loss| {
            let both = (net.clone(), critic.clone());
            let mut flat = Flat { gradients: GradientsParams::from_grads(loss.backward(), &both), values: Vec::new() };
            both.visit(&mut flat);
            flat.values
        });
        assert!(found.len() > 10_000 && found.len() == whole.len(), "{} {}", found.len(), whole.len());
        let largest = whole.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        for (at, (found, whole)) in found.iter().zip(&whole).enumerate() {
            assert!((found - whole).abs() < 1e-4 * largest, "{at}: {found} {whole}, of {largest}");
        }
    }

    /// All gradients one after the other.
    struct Flat {
        gradients: GradientsParams,
        values: Vec<f32>,
    }

    impl ModuleVisitor for Flat {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(param.id) {
                self.values.extend(gradient.into_data().try_into_vec::<f32>().expect("f32"));
            }
        }
    }
}
