//! Fréchet distance against pytorch-fid, error rates against jiwer.

mod common;

use common::plain::Case;
use syncdiff_eval::{EditCounts, FeatureStatistics, frechet_distance};

/// What other tests read.
const LEFT: [(&str, &str); 4] = [
    ("in.p*", "pictures: golden_picture"),
    ("out.p*", "pictures: golden_picture"),
    ("in.l*", "LPIPS: golden_scorers"),
    ("out.lpips_*", "LPIPS: golden_scorers"),
];

fn features(case: &Case, name: &str) -> FeatureStatistics {
    FeatureStatistics::of(&case.f32(name), case.shape(name)[1]).unwrap()
}

fn frechet_distances(case: &Case) {
    for name in case.case["config"]["fid"].as_array().unwrap() {
        let name = format!("fid_{}", name.as_str().unwrap());
        // The root of a singular product is less sure in the original: each case has its own tolerance.
        let tolerance = case.tolerance(&name);
        let (x, y) = (features(case, &format!("in.{name}.x")), features(case, &format!("in.{name}.y")));
        let expected = case.f64(&format!("out.{name}"))[0];
        for found in [frechet_distance(&x, &y).unwrap(), frechet_distance(&y, &x).unwrap()] {
            let allowed = tolerance.abs + tolerance.rel * expected;
            assert!((found - expected).abs() <= allowed, "{name}: {found}, expected {expected}");
        }
    }
}

fn error_rates(case: &Case) {
    let exact = case.tolerance("wer").abs;
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let pairs: Vec<(String, String)> =
        case.case["config"]["wer_pairs"].as_array().unwrap().iter().map(|p| (text(&p[0]), text(&p[1]))).collect();
    let words: Vec<EditCounts> = pairs.iter().map(|(a, b)| EditCounts::of_words(a, b)).collect();
    let numbers: Vec<usize> = case.i64("out.wer_hits_sub_del_ins").into_iter().map(|count| count as usize).collect();
    for ((found, expected), rate) in words.iter().zip(numbers.chunks(4)).zip(case.f64("out.wer_each")) {
        // How the edits divide may differ between ways that need equally many.
        assert_eq!(found.edits(), expected[1..].iter().sum::<usize>());
        assert_eq!(found.reference_length(), expected[..3].iter().sum::<usize>());
        assert!((found.rate() - rate).abs() <= exact);
    }
    assert_eq!(words.len() * 4, numbers.len());
    let corpus = words.into_iter().sum::<EditCounts>().rate();
    assert!((corpus - case.f64("out.wer_corpus")[0]).abs() <= exact, "WER {corpus}");
    let characters: EditCounts = pairs.iter().map(|(a, b)| EditCounts::of_characters(a, b)).sum();
    let expected = case.f64("out.cer_corpus")[0];
    assert!((characters.rate() - expected).abs() <= exact, "CER {}, expected {expected}", characters.rate());
}

#[test]
fn golden_features_and_words() {
    for case in Case::all("metrics") {
        frechet_distances(&case);
        error_rates(&case);
        case.assert_all_read(&LEFT);
    }
}
