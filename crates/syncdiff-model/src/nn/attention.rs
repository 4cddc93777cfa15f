//! Scaled dot-product attention over heads.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

/// softmax(q k^T * scale) v per head.
///
/// # Shapes
/// q: [batch, queries, heads * size], k and v: [batch, keys, heads * size] -> [batch, queries, heads * size]
pub fn attend(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize) -> Tensor<3> {
    let [batch, queries, dim] = q.dims();
    let size = dim / heads;
    let split = |x: Tensor<3>| {
        let [_, rows, _] = x.dims();
        x.reshape([batch, rows, heads, size]).swap_dims(1, 2) // [batch, heads, rows, size]
    };
    let scores = split(q).matmul(split(k).swap_dims(2, 3)).mul_scalar((size as f64).powf(-0.5));
    let out = softmax(scores, 3).matmul(split(v)); // [batch, heads, queries, size]
    out.swap_dims(1, 2).reshape([batch, queries, dim])
}
