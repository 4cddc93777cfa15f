//! Fréchet distance against pytorch-fid, error rates against jiwer.

mod common;

use common::variants;
use safetensors::SafeTensors;
use std::path::Path;
use syncdiff_eval::{EditCounts, FeatureStatistics, frechet_distance};

struct Case {
    case: serde_json::Value,
    bytes: Vec<u8>,
}

impl Case {
    fn open(variant: &Path) -> Self {
        let text = std::fs::read_to_string(variant.join("case.json")).unwrap();
        Self {
            case: serde_json::from_str(&text).unwrap(),
            bytes: std::fs::read(variant.join("io.safetensors")).unwrap(),
        }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        let file = self.file();
        file.tensor(name).unwrap().data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn features(&self, name: &str) -> FeatureStatistics {
        let file = self.file();
        let tensor = file.tensor(name).unwrap();
        let values: Vec<f32> =
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        FeatureStatistics::of(&values, tensor.shape()[1]).unwrap()
    }
}

#[test]
fn golden_frechet_distance() {
    for variant in variants("metrics") {
        let case = Case::open(&variant);
        for name in case.case["config"]["fid"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            // The root of a singular product is less sure in the original.
            let tolerance = if name.contains("rankdef") { 1e-3 } else { 1e-6 };
            let (x, y) = (case.features(&format!("in.fid_{name}.x")), case.features(&format!("in.fid_{name}.y")));
            let expected = case.f64(&format!("out.fid_{name}"))[0];
            for found in [frechet_distance(&x, &y).unwrap(), frechet_distance(&y, &x).unwrap()] {
                assert!((found - expected).abs() <= tolerance * expected, "{name}: {found}, expected {expected}");
            }
        }
    }
}

#[test]
fn golden_error_rates() {
    for variant in variants("metrics") {
        let case = Case::open(&variant);
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let pairs: Vec<(String, String)> =
            case.case["config"]["wer_pairs"].as_array().unwrap().iter().map(|p| (text(&p[0]), text(&p[1]))).collect();
        let words: Vec<EditCounts> = pairs.iter().map(|(a, b)| EditCounts::of_words(a, b)).collect();
        let file = case.file();
        let counts = file.tensor("out.wer_hits_sub_del_ins").unwrap();
        let numbers = counts.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize);
        let numbers: Vec<usize> = numbers.collect();
        for ((found, expected), rate) in words.iter().zip(numbers.chunks(4)).zip(case.f64("out.wer_each")) {
            // How the edits divide may differ between ways that need equally many.
            assert_eq!(found.edits(), expected[1..].iter().sum::<usize>());
            assert_eq!(found.reference_length(), expected[..3].iter().sum::<usize>());
            assert!((found.rate() - rate).abs() < 1e-12);
        }
        assert_eq!(words.len() * 4, numbers.len());
        let corpus = words.into_iter().sum::<EditCounts>().rate();
        assert!((corpus - case.f64("out.wer_corpus")[0]).abs() < 1e-12, "WER {corpus}");
        let characters: EditCounts = pairs.iter().map(|(a, b)| EditCounts::of_characters(a, b)).sum();
        let expected = case.f64("out.cer_corpus")[0];
        assert!((characters.rate() - expected).abs() < 1e-12, "CER {}, expected {expected}", characters.rate());
    }
}
