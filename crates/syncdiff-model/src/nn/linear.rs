//! Linear layers on the kernels.

use burn::nn::Linear;
use burn::tensor::Tensor;
use syncdiff_kernels as kernels;

/// Applies a linear layer.
///
/// # Shapes
/// [.., in] -> [.., out]
pub fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    kernels::linear(x, layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()))
}
