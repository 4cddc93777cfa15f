//! Layers with bf16 weights: products of 16-bit values, summed in f32. Activations come and leave as f32 and
//! are rounded on the way into a product.
//!
//! All layers are one kind of product: rows of weights times columns of pixels or tokens, in steps of up to 32 values
//! (a tap and some input channels). Values of neighbouring channels lie beside each other, a pair in 32 bits, which is
//! how the processors' instructions want the right side; the copy that pads an image makes the pairs. Weights are read
//! where they lie, with the input channels last (`bf16_weights`), so that nothing is packed per call.

#[cfg(target_arch = "x86_64")]
mod amx;
pub(crate) mod gradients;
mod layers;
mod lines;
mod pairs;
mod plain;
mod product;
#[cfg(test)]
mod tests;
mod unit;
#[cfg(target_arch = "x86_64")]
mod vector;
mod window;

pub(crate) use layers::{conv1x1, conv3x3, conv3x3_upsampled, linear};
pub(crate) use lines::{MAX_TO_LINE, to_line};
pub use unit::{Unit, available, force};
