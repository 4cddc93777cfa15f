//! Picture metrics against scikit-image and TalkLip's script, and the closed-form oracles.

mod common;

use common::variants;
use safetensors::SafeTensors;
use syncdiff_eval::{mse, psnr, psnr_u8wrap, ssim};
use syncdiff_media::Frame;

fn frames(file: &SafeTensors<'_>, name: &str) -> Vec<Frame> {
    let tensor = file.tensor(name).unwrap();
    let [count, height, width, 3] = *tensor.shape() else { panic!("{name}: {:?}", tensor.shape()) };
    let size = height * width * 3;
    (0..count).map(|i| Frame { width, height, data: tensor.data()[i * size..(i + 1) * size].to_vec() }).collect()
}

fn values(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let tensor = file.tensor(name).unwrap();
    tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn golden_psnr_and_ssim() {
    for variant in variants("metrics") {
        let bytes = std::fs::read(variant.join("io.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let groups: Vec<String> = file
            .names()
            .into_iter()
            .filter_map(|name| name.strip_prefix("out.")?.strip_suffix(".ssim").map(str::to_owned))
            .collect();
        assert!(!groups.is_empty());
        for group in groups {
            let (x, y) = (frames(&file, &format!("in.{group}.x")), frames(&file, &format!("in.{group}.y")));
            let expected = |name: &str| values(&file, &format!("out.{group}.{name}"));
            let (e_ssim, e_psnr) = (expected("ssim"), expected("psnr_skimage"));
            let (e_wrap, e_mse) = (expected("psnr_talklip_u8wrap"), expected("mse"));
            for (i, (x, y)) in x.iter().zip(&y).enumerate() {
                let got = ssim(x, y).unwrap();
                assert!((got - e_ssim[i]).abs() < 1e-10, "{group} {i}: SSIM {got}, expected {}", e_ssim[i]);
                assert!((mse(x, y).unwrap() - e_mse[i]).abs() < 1e-9, "{group} {i}: MSE");
                let got = psnr(x, y).unwrap();
                // -1 stands for infinity in the stored data.
                let same = if e_psnr[i] < 0.0 { got.is_infinite() } else { (got - e_psnr[i]).abs() < 1e-9 };
                assert!(same, "{group} {i}: PSNR {got}, expected {}", e_psnr[i]);
                let got = psnr_u8wrap(x, y).unwrap();
                assert!((got - e_wrap[i]).abs() < 1e-9, "{group} {i}: wrapped {got}, expected {}", e_wrap[i]);
            }
        }
    }
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
    assert!((ssim(&a, &b).unwrap() - 0.996610).abs() < 1e-6);
    assert!((psnr(&a, &b).unwrap() - 32.54846).abs() < 1e-5);
}

#[test]
fn unequal_sizes_are_refused() {
    let small = Frame { width: 4, height: 4, data: vec![0; 48] };
    assert!(ssim(&small, &small).is_err());
    assert!(psnr(&small, &frame(noise(1))).is_err());
}
