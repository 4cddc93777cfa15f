//! Properties of pasting: nothing outside the region moves, and align and paste undo each other.

use crate::{Affine, ColourMatch, KeepMask, PasteMask, SkinMatch, Tone, Touched, paste_back, touched_pixels, warp};
use proptest::prelude::*;
use syncdiff_media::Frame;

/// A smooth picture with some structure, so that resampling twice loses little.
fn picture(width: usize, height: usize) -> Frame {
    let mut frame = Frame::filled(width, height, [0; 3]);
    for y in 0..height {
        for x in 0..width {
            let (x_, y_) = (x as f32, y as f32);
            let a = (x_ / 23.0).sin() * (y_ / 31.0).cos();
            let b = ((x_ + y_) / 40.0).sin();
            frame.set_pixel(x, y, [(128.0 + 90.0 * a) as u8, (120.0 + 80.0 * b) as u8, (90.0 + 60.0 * a * b) as u8]);
        }
    }
    frame
}

fn mask(size: usize) -> PasteMask {
    PasteMask::from_keep(&KeepMask::aligned_fixed(size), 0.06)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn paste_undoes_align(side in 40.0f64..300.0, angle in -0.6f64..0.6,
                          x in -40.0f64..360.0, y in -40.0f64..280.0,
                          bright in 0.0f32..1.0) {
        let size = 96;
        let frame = picture(320, 240);
        let unit = Affine::similarity(side / size as f64, angle, [x, y]);
        let map = Affine::scale_shift(1.0, -48.0, -48.0).then(&unit).invert().unwrap();
        let mask = mask(size);
        let crop = warp(&frame, &map, size);
        let touched = touched_pixels(320, 240, &map, &mask).unwrap();

        // The same crop comes back as the same picture, inside and outside.
        let mut same = frame.clone();
        let rect = paste_back(&mut same, &crop, &map, &mask, Tone::AsDrawn, 1.0).unwrap();
        // Another crop changes nothing outside.
        let mut other = frame.clone();
        let strange = Frame::filled(size, size, [255, 0, (bright * 255.0) as u8]);
        let (mut colour, mut skin) = (ColourMatch::new(), SkinMatch::new());
        let tone = if side > 170.0 { Tone::Seam(&mut colour) } else { Tone::Skin(&mut skin) };
        paste_back(&mut other, &strange, &map, &mask, tone, bright).unwrap();
        let step = side / size as f64;
        let close = if step > 1.0 { 6.0 * step * step } else { 4.0 };
        for py in 0..240 {
            for px in 0..320 {
                let old = frame.pixel(px, py);
                let inside = touched[py * 320 + px];
                if !inside {
                    prop_assert_eq!(same.pixel(px, py), old);
                    prop_assert_eq!(other.pixel(px, py), old);
                }
                prop_assert!(
                    !inside || (rect.x0..rect.x1).contains(&px) && (rect.y0..rect.y1).contains(&py)
                );
                for (a, b) in same.pixel(px, py).into_iter().zip(old) {
                    prop_assert!(f64::from(a.abs_diff(b)) <= close, "{a} {b} at {px} {py}");
                }
            }
        }
    }
}

#[test]
fn weights_vanish_at_the_masks_border_and_reach_one() {
    for size in [64, 128, 256] {
        let keep = KeepMask::aligned_fixed(size);
        let mask = PasteMask::from_keep(&keep, 0.06);
        for y in 0..size {
            for x in 0..size {
                let near_kept = (y.saturating_sub(1)..(y + 2).min(size)).any(|ny| keep.keep[ny * size + x] == 1)
                    || keep.keep[y * size + (x + 1).min(size - 1)] == 1;
                if near_kept || x == 0 || y == size - 1 {
                    assert_eq!(mask.weight()[y * size + x], 0.0, "{x} {y} of {size}");
                }
            }
        }
        assert_eq!(mask.weight()[(size * 5 / 8) * size + size / 2], 1.0);
    }
}

#[test]
fn no_opacity_touches_nothing() {
    let frame = picture(200, 200);
    let mut copy = frame.clone();
    let crop = Frame::filled(64, 64, [200, 10, 10]);
    let map = Affine::scale_shift(0.5, -20.0, -20.0);
    let touched = paste_back(&mut copy, &crop, &map, &mask(64), Tone::AsDrawn, 0.0).unwrap();
    assert_eq!((touched, &copy), (Touched::default(), &frame));
    assert!(paste_back(&mut copy, &crop, &map, &mask(128), Tone::AsDrawn, 1.0).is_err());
    let flat = Affine { m: [[0.0; 3]; 2] };
    assert!(paste_back(&mut copy, &crop, &flat, &mask(64), Tone::AsDrawn, 1.0).is_err());
}

#[test]
fn a_colour_cast_is_taken_back() {
    let frame = picture(300, 300);
    let map = Affine::similarity(0.5, 0.1, [-8.0, -20.0]);
    let mask = mask(128);
    let mut crop = warp(&frame, &map, 128);
    for pixel in crop.data.as_chunks_mut::<3>().0 {
        let [r, g, b] = pixel.map(f32::from);
        *pixel = [r * 0.9, g, b * 1.1].map(|v| v as u8);
    }
    let worst = |tone: Tone<'_>| {
        let mut pasted = frame.clone();
        paste_back(&mut pasted, &crop, &map, &mask, tone, 1.0).unwrap();
        pasted.data.iter().zip(&frame.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    };
    let (plain, matched) = (worst(Tone::AsDrawn), worst(Tone::Seam(&mut ColourMatch::new())));
    assert!(plain >= 15 && matched <= 8, "{plain} {matched}");
}
