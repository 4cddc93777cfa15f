//! Picture metrics against scikit-image and TalkLip's script, and the closed-form oracles.

mod common;

use common::find::{copy_case, damage};
use common::plain::Case;
use std::panic::{AssertUnwindSafe, catch_unwind};
use syncdiff_eval::{mse, psnr, psnr_u8wrap, ssim};
use syncdiff_media::Frame;

/// What other tests read.
const LEFT: [(&str, &str); 6] = [
    ("in.fid_*", "golden_features_and_words"),
    ("out.fid_*", "golden_features_and_words"),
    ("out.wer_*", "golden_features_and_words"),
    ("out.cer_*", "golden_features_and_words"),
    ("in.l*", "LPIPS: golden_scorers"),
    ("out.lpips_*", "LPIPS: golden_scorers"),
];

fn frames(case: &Case, name: &str) -> Vec<Frame> {
    let [count, height, width, 3] = case.shape(name)[..] else { panic!("{name}: {:?}", case.shape(name)) };
    let (size, bytes) = (height * width * 3, case.bytes(name));
    (0..count).map(|i| Frame { width, height, data: bytes[i * size..(i + 1) * size].to_vec() }).collect()
}

/// The picture that has the first channel of another in all three.
fn first_channel(frame: &Frame) -> Frame {
    let data = frame.data.as_chunks::<3>().0.iter().flat_map(|pixel| [pixel[0]; 3]).collect();
    Frame { data, ..*frame }
}

/// Mean of a stored map of SSIM without its borders, which the metric leaves out.
fn mean_of_map(case: &Case, name: &str) -> f64 {
    const BORDER: usize = 5;
    let [height, width, 3] = case.shape(name)[..] else { panic!("{name}: {:?}", case.shape(name)) };
    let map = case.f32(name);
    let rows = BORDER..height - BORDER;
    let inside = rows.clone().flat_map(|y| &map[(y * width + BORDER) * 3..(y * width + width - BORDER) * 3]);
    inside.map(|value| f64::from(*value)).sum::<f64>() / (rows.len() * (width - 2 * BORDER) * 3) as f64
}

fn check(case: &Case) {
    let [close, exact, wrapped] = ["ssim", "psnr", "psnr_u8wrap"].map(|what| case.tolerance(what).abs);
    let names = case.names();
    let groups = names.iter().filter_map(|name| name.strip_prefix("out.")?.strip_suffix(".ssim"));
    let mut compared = 0;
    for group in groups {
        let (x, y) = (frames(case, &format!("in.{group}.x")), frames(case, &format!("in.{group}.y")));
        let expected = |name: &str| case.f64(&format!("out.{group}.{name}"));
        let (e_ssim, e_grey, e_psnr) = (expected("ssim"), expected("ssim_gray"), expected("psnr_skimage"));
        let (e_wrap, e_mse, e_mse_wrap) = (expected("psnr_talklip_u8wrap"), expected("mse"), expected("mse_u8wrap"));
        for (i, (x, y)) in x.iter().zip(&y).enumerate() {
            let got = ssim(x, y).unwrap();
            assert!((got - e_ssim[i]).abs() <= close, "{group} {i}: SSIM {got}, expected {}", e_ssim[i]);
            let got = ssim(&first_channel(x), &first_channel(y)).unwrap();
            assert!((got - e_grey[i]).abs() <= close, "{group} {i}: grey SSIM {got}, expected {}", e_grey[i]);
            // The case states no tolerance of its own for mean squares.
            assert!((mse(x, y).unwrap() - e_mse[i]).abs() <= exact, "{group} {i}: MSE");
            let got = psnr(x, y).unwrap();
            // -1 stands for infinity in the stored data.
            let same = if e_psnr[i] < 0.0 { got.is_infinite() } else { (got - e_psnr[i]).abs() <= exact };
            assert!(same, "{group} {i}: PSNR {got}, expected {}", e_psnr[i]);
            let got = psnr_u8wrap(x, y).unwrap();
            assert!((got - e_wrap[i]).abs() <= wrapped, "{group} {i}: wrapped {got}, expected {}", e_wrap[i]);
            // What the decibels were made of; the script says 100 where nothing is left of the error.
            let from_mse = if e_mse_wrap[i] == 0.0 { 100.0 } else { 10.0 * (255.0 * 255.0 / e_mse_wrap[i]).log10() };
            assert!((got - from_mse).abs() <= wrapped, "{group} {i}: wrapped {got}, of the mean square {from_mse}");
            compared += 1;
        }
        let maps = names.iter().filter_map(|name| Some((name, name.strip_prefix(&format!("out.{group}.ssim_map_"))?)));
        for (map, pair) in maps {
            let pairs = case.case["config"]["pairs"].as_array().unwrap();
            let i = pairs.iter().position(|name| name == pair).unwrap_or_else(|| panic!("no pair {pair}"));
            let (got, expected) = (ssim(&x[i], &y[i]).unwrap(), mean_of_map(case, map));
            // The map is stored in f32.
            assert!((got - expected).abs() < 1e-6, "{map}: SSIM {got}, the map's mean {expected}");
        }
    }
    assert!(compared > 0, "{} holds no pictures", case.folder.display());
}

#[test]
fn golden_psnr_and_ssim() {
    for case in Case::all("metrics") {
        check(&case);
        case.assert_all_read(&LEFT);
    }
}

/// A case is found by what its `case.json` says, and what is wrong in it is seen.
#[test]
fn golden_metrics_in_folders_of_other_names_are_compared() {
    let Some(case) = Case::all("metrics").into_iter().next() else { return };
    let root = tempfile::tempdir().unwrap();
    copy_case(&case.folder, &root.path().join("pictures/of/all/kinds"));
    let damaged = root.path().join("zz");
    copy_case(&case.folder, &damaged);
    let group = case.names().iter().find_map(|name| Some(name.strip_suffix(".ssim_gray")?.to_owned())).unwrap();
    damage(&damaged, &format!("{group}.ssim_gray"));
    let found = Case::all_in(root.path(), "metrics");
    assert_eq!(found.len(), 2);
    check(&found[0]);
    assert!(catch_unwind(AssertUnwindSafe(|| check(&found[1]))).is_err(), "nothing compares the second");
    assert!(Case::all_in(root.path(), "face").is_empty());
}

/// The byte generator of the oracles: v <- 1664525 v + 1013904223 mod 2^32, output v >> 24.
fn noise(seed: u32) -> Vec<u8> {
    let mut v = seed;
    let mut next = || {
        v = v.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (v >> 24) as u8
    };
    (0..96 * 96 * 3).map(|_| next()).collect()
}

fn frame(data: Vec<u8>) -> Frame {
    Frame { width: 96, height: 96, data }
}

#[test]
fn oracles() {
    let (a, c) = (frame(noise(1)), frame(noise(3)));
    assert_eq!(a.data[..3], [60, 94, 129]);
    assert!((ssim(&a, &c).unwrap() + 0.001059).abs() < 1e-6);
    assert!((psnr(&a, &c).unwrap() - 7.70206).abs() < 1e-5);
    assert!((psnr_u8wrap(&a, &c).unwrap() - 27.91775).abs() < 1e-5);
    let jitter = noise(2);
    let b = a.data.iter().zip(&jitter).map(|(&v, &j)| (i32::from(v) + i32::from(j % 21) - 10).clamp(0, 255) as u8);
    let b = frame(b.collect());
    assert_eq!(b.data[..3], [68, 96, 125]);
    assert!((ssim(&a, &b).unwrap() - 0.996610).abs() < 1e-6);
    assert!((psnr(&a, &b).unwrap() - 32.54846).abs() < 1e-5);
    // Differences below 16 do not wrap.
    assert!((psnr_u8wrap(&a, &b).unwrap() - 32.54846).abs() < 1e-5);

    let ramps = |pixel: fn(usize, usize) -> [usize; 3]| {
        let pixels = (0..96 * 96).flat_map(|i| pixel(i % 96, i / 96));
        frame(pixels.map(|value| value as u8).collect())
    };
    let r = ramps(|x, y| [2 * x, 2 * y, x + y]);
    let r2 = ramps(|x, y| [2 * x + 20, 2 * y, (x + y) / 2]);
    assert!((ssim(&r, &r2).unwrap() - 0.910781).abs() < 1e-6);
    assert!((psnr(&r, &r2).unwrap() - 18.03901).abs() < 1e-5);
    assert!((psnr_u8wrap(&r, &r2).unwrap() - 28.75043).abs() < 1e-5);
}

#[test]
fn unequal_sizes_are_refused() {
    let small = Frame { width: 4, height: 4, data: vec![0; 48] };
    assert!(ssim(&small, &small).is_err());
    assert!(psnr(&small, &frame(noise(1))).is_err());
}
