//! The rows round a frame.

use burn::tensor::{Int, Tensor, TensorData};

/// The default window: rows t - 4 to t + 3.
pub const DEFAULT_WINDOW: usize = 8;

/// For each frame t the rows t - size / 2 .. t + size - size / 2; rows outside the utterance are zero.
///
/// # Shapes
/// rows [time, dim] -> [frames, size, dim]
///
/// # Source
/// DiffTalk's data set (`smo_half_win_size`).
pub fn windows(rows: Tensor<2>, frames: &[usize], size: usize) -> Tensor<3> {
    let [time, dim] = rows.dims();
    let device = rows.device();
    // One zero row behind the utterance serves every row outside.
    let padded = Tensor::cat(vec![rows, Tensor::zeros([1, dim], &device)], 0);
    let row = |frame: usize, k: usize| (frame + k).checked_sub(size / 2).filter(|t| *t < time).unwrap_or(time);
    let indices: Vec<i64> = frames.iter().flat_map(|frame| (0..size).map(move |k| row(*frame, k) as i64)).collect();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [frames.len() * size]), &device);
    padded.select(0, indices).reshape([frames.len(), size, dim])
}

/// Rows of an utterance that is too long to be heard at once: `part` rows at a time, of which neighbouring ones overlap
/// by `overlap` rows on each side; what lies in the overlap is dropped.
///
/// # Shapes
/// hear: first row and end of a part -> [rows of the part, dim]; -> [num_rows, dim]
pub(crate) fn in_parts(
    num_rows: usize,
    part: usize,
    overlap: usize,
    mut hear: impl FnMut(usize, usize) -> Tensor<2>,
) -> Tensor<2> {
    let step = part - 2 * overlap;
    let mut parts = Vec::new();
    let mut from = 0;
    while from < num_rows {
        // The kept rows are from..to; what is heard reaches over by the overlap on both sides.
        let to = if num_rows <= part { num_rows } else { (from + step).min(num_rows) };
        let (left, right) = (from.saturating_sub(overlap), (to + overlap).min(num_rows));
        parts.push(hear(left, right).narrow(0, from - left, to - from));
        from = to;
    }
    Tensor::cat(parts, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn windows_are_centred_and_zero_outside() {
        let device = Device::default();
        let rows = Tensor::<1, Int>::arange(1..7, &device).float().reshape([6, 1]);
        let got = windows(rows.clone(), &[0, 3, 5, 20], 4).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(got, [0., 0., 1., 2., 2., 3., 4., 5., 4., 5., 6., 0., 0., 0., 0., 0.]);
        let odd = windows(rows, &[1], 3).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(odd, [1., 2., 3.]);
    }
}
