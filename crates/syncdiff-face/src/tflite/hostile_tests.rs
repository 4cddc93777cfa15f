//! Damaged model files give an error or a network, never a panic.

use super::{Interpreter, Model};
use crate::testing::model_bytes;
use crate::{FaceError, Fault};

fn is_error(file: &[u8]) -> bool {
    let result = Model::parse("test", file).and_then(|m| Interpreter::new(&m));
    if let Err(error) = &result {
        assert_eq!(error.fault(), Fault::Weights);
        assert!(matches!(error, FaceError::BadModel { .. }));
    }
    result.is_err()
}

#[test]
fn nothing_and_noise_are_errors() {
    assert!(is_error(b""));
    assert!(is_error(b"TFL3"));
    assert!(is_error(b"\x10\0\0\0TFL3"));
    assert!(is_error(b"\xff\xff\xff\x7fTFL3\xff\xff\xff\xff"));
    let mut noise = b"\x08\0\0\0TFL3".to_vec();
    let mut state = 1u32;
    for _ in 0..4000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push((state >> 24) as u8);
    }
    assert!(is_error(&noise));
}

#[test]
fn truncated_models_are_errors() {
    let Some(file) = model_bytes("face_detection_full_range_sparse.tflite") else { return };
    for part in 0..40 {
        assert!(is_error(&file[..file.len() * part / 40]), "{part} of 40");
    }
}

/// Every byte outside the weights (the structure lies at the end of these files) decides about
/// offsets, shapes and options; wrong ones must be noticed or harmless.
#[test]
fn models_with_wrong_bytes_do_not_panic() {
    let Some(file) = model_bytes("face_detection_short_range.tflite") else { return };
    let mut state = 7u32;
    let mut errors = 0;
    for round in 0..200 {
        let mut damaged = file.clone();
        for _ in 0..1 + round % 4 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let reach = if round % 2 == 0 { 40_000 } else { file.len() };
            let at = file.len() - 1 - state as usize % reach.min(file.len());
            damaged[at] = (state >> 9) as u8;
        }
        errors += usize::from(is_error(&damaged));
        if round % 40 == 0
            && let Ok(model) = Model::parse("test", &damaged)
            && let Ok(mut network) = Interpreter::new(&model)
        {
            network.run();
        }
    }
    println!("{errors} of 200 damaged models were refused");
    assert!(errors > 10);
}
