//! The few curves that the drawn head is made of, colours as linear light, and fields of numbers over a grid.

/// A colour as linear light.
pub(super) type Light = [f32; 3];

/// An sRGB colour, 0 to 1, as linear light.
pub(super) fn linear(rgb: [f32; 3]) -> Light {
    rgb.map(|v| v.max(0.0).powf(2.2))
}

/// Linear light as an sRGB byte.
pub(super) fn srgb_byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0).powf(1.0 / 2.2) * 255.0 + 0.5) as u8
}

/// 0 at `low`, 1 at `high`, smooth between; `high` may be the smaller one.
pub(super) fn smooth(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A bell of height 1 round 0, of this width.
pub(super) fn bell(x: f32, width: f32) -> f32 {
    (-(x / width) * (x / width)).exp()
}

/// A bell of height 1 round (cx, cy).
pub(super) fn bump(x: f32, y: f32, cx: f32, cy: f32, rx: f32, ry: f32) -> f32 {
    let (u, v) = ((x - cx) / rx, (y - cy) / ry);
    let square = u * u + v * v;
    // Below 1e-8 nothing is seen; most points are far from most features.
    if square > 18.0 { 0.0 } else { (-square).exp() }
}

/// 1 in the middle, 0 from |t| = 1 on.
pub(super) fn arch(t: f32, power: f32) -> f32 {
    let inner = 1.0 - t * t;
    if inner <= 0.0 { 0.0 } else { inner.powf(power) }
}

/// `a`, replaced by `b` where `amount` is 1.
pub(super) fn mix(a: Light, b: Light, amount: f32) -> Light {
    if amount < 1e-4 { a } else { std::array::from_fn(|i| a[i] * (1.0 - amount) + b[i] * amount) }
}

/// A colour, lighter or darker.
pub(super) fn times(colour: Light, by: f32) -> Light {
    colour.map(|v| v * by)
}

/// The sum of products.
pub(super) fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// The same direction, of length 1.
pub(super) fn unit(a: [f32; 3]) -> [f32; 3] {
    let length = dot(a, a).sqrt();
    a.map(|v| v / length)
}

/// Nearly a Gaussian over rows of `width` values: two box means each way, edges repeated.
pub(super) fn blur(field: &[f32], width: usize, radius: usize) -> Vec<f32> {
    let height = field.len() / width;
    let mut from = field.to_vec();
    for _ in 0..2 {
        from = box_mean(&from, height, width, (width, 1), radius);
        from = box_mean(&from, width, height, (1, width), radius);
    }
    from
}

/// Means over `2 radius + 1` values along each of `lines` lines of `len` values; steps between lines and values.
fn box_mean(from: &[f32], lines: usize, len: usize, (line, value): (usize, usize), radius: usize) -> Vec<f32> {
    let mut to = vec![0.0; from.len()];
    let scale = 1.0 / (2 * radius + 1) as f64;
    for at in 0..lines {
        let get = |i: isize| f64::from(from[at * line + i.clamp(0, len as isize - 1) as usize * value]);
        let reach = radius as isize;
        let mut sum: f64 = (-reach..=reach).map(get).sum();
        for i in 0..len as isize {
            to[at * line + i as usize * value] = (sum * scale) as f32;
            sum += get(i + reach + 1) - get(i - reach);
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blur_keeps_what_is_even_and_spreads_what_is_not() {
        assert!(blur(&[3.0; 35], 7, 2).iter().all(|v| (v - 3.0).abs() < 1e-6));
        let mut spike = vec![0.0; 21 * 21];
        spike[10 * 21 + 10] = 1.0;
        let spread = blur(&spike, 21, 2);
        assert!((spread.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!((spread[10 * 21 + 12] - spread[12 * 21 + 10]).abs() < 1e-7 && spread[10 * 21 + 12] > 0.01);
    }

    #[test]
    fn curves_run_from_0_to_1() {
        assert_eq!((smooth(0.0, 2.0, -1.0), smooth(0.0, 2.0, 1.0), smooth(2.0, 0.0, 0.0)), (0.0, 0.5, 1.0));
        assert_eq!((arch(0.0, 0.7), arch(1.5, 0.7), bump(1.0, 1.0, 1.0, 1.0, 0.1, 0.1)), (1.0, 0.0, 1.0));
        for byte in [0u8, 17, 128, 255] {
            assert_eq!(srgb_byte(linear([f32::from(byte) / 255.0; 3])[0]), byte);
        }
    }
}
