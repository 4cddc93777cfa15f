//! Comparison with the original networks and graphs (`face` case of the golden data).

use crate::mesh::Roi;
use crate::testing::find::{copy_case, damage};
use crate::testing::models;
use crate::testing::plain::Case;
use crate::{Detector, DetectorKind, FaceModels, MeshNet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What nothing of ours gives.
const LEFT: [(&str, &str); 4] = [
    ("out.best_anchor", "anchors have no numbers once they are candidates; score and box of the best are compared"),
    ("out.box_best", "the box before the merging, which `merge` gives only merged"),
    ("out.detector_regressor_at_best", "a row of the regressors, which are compared whole where they are stored"),
    ("out.nms_group", "how many candidates were merged; the merged box and key points are compared"),
];

fn largest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn mean_distance(a: &[[f32; 3]], b: &[f32]) -> f32 {
    assert_eq!(a.len() * 3, b.len());
    let sum: f32 = a.iter().zip(b.as_chunks::<3>().0).map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1])).sum();
    sum / a.len() as f32
}

/// The networks alone, on the stored bytes. The stored outputs come from another build of the same
/// networks (f32 where ours stores f16), and with the tolerances of the case it makes no difference.
fn networks(case: &Case, frame: usize, models: &FaceModels) -> [f32; 3] {
    let mut detector = Detector::new(models, DetectorKind::ShortRange).unwrap();
    let bytes = case.bytes(&format!("mid.{frame}.detector_input_u8"));
    let input: Vec<f32> = bytes.iter().map(|&b| f32::from(b) * (2.0 / 255.0) - 1.0).collect();
    let (scores, regressors) = detector.raw(&input);
    let want = case.f32("out.detector_raw_scores");
    let score_error = largest(scores, &want[frame * 896..(frame + 1) * 896]);
    let box_error = largest(regressors, &case.f32(&format!("mid.{frame}.detector_regressors")));
    let mut mesh = MeshNet::new(models).unwrap();
    let bytes = case.bytes(&format!("mid.{frame}.landmark_input_u8"));
    let input: Vec<f32> = bytes.iter().map(|&b| f32::from(b) / 255.0).collect();
    let (points, _) = mesh.raw(&input);
    let want = case.f32("out.landmarks_raw");
    let point_error = largest(points, &want[frame * 1404..(frame + 1) * 1404]);
    [score_error, box_error, point_error]
}

fn check(case: &Case, models: &FaceModels) {
    let allowed = |what: &str| case.tolerance(what).abs as f32;
    let (raw, points) = (allowed("raw"), allowed("landmarks_raw"));
    for frame in case.case["config"]["full_tensors_for"].as_array().unwrap() {
        let frame = frame.as_u64().unwrap() as usize;
        let [score, regressor, point] = networks(case, frame, models);
        println!("frame {frame}: scores {score:.1e}, regressors {regressor:.1e}, points {point:.1e}");
        // Regressors are pixels of the network's input, as landmarks are.
        assert!(score < raw && regressor < points && point < points);
    }
    let (boxes, keypoints) = (case.f32("out.box"), case.f32("out.keypoints"));
    let (rois, flags, scores) = (case.f64("out.roi"), case.f32("out.face_flag"), case.f32("out.score"));
    let landmarks = case.f32("out.landmarks_image");
    // The same of the original package: -1 where it saw no face.
    let package = ["score", "box", "keypoints", "landmarks"].map(|part| case.f32(&format!("out.mediapipe_{part}")));
    let (box_limit, keypoint_limit, landmark_limit) =
        (allowed("box"), allowed("keypoints"), allowed("landmarks_image"));
    let mut detector = Detector::new(models, DetectorKind::ShortRange).unwrap();
    let mut full_range = Detector::new(models, DetectorKind::FullRange).unwrap();
    let mut net = MeshNet::new(models).unwrap();
    for (i, entry) in case.case["frames"].as_array().unwrap().iter().enumerate() {
        let frame = syncdiff_media::read_png(&case.folder.join(entry["png"].as_str().unwrap())).unwrap();
        let found = &detector.detect(&frame)[0];
        let b = found.face_box;
        // The golden data hold nothing of the full-range network: it must see the same face.
        let other = full_range.detect(&frame);
        let overlap = other.first().map_or(0.0, |d| d.face_box.iou(&b));
        assert!(overlap > 0.6, "frame {i}: full range overlaps by {overlap}");
        let corners = [b.x0, b.y0, b.x1, b.y1];
        let box_error = largest(&corners, &boxes[4 * i..4 * i + 4]);
        let points = found.keypoints.concat();
        let keypoint_error = largest(&points, &keypoints[12 * i..12 * i + 12]);
        let score_error = (found.score - scores[i]).abs();
        let roi = Roi::from_detection(found);
        let want = &rois[5 * i..5 * i + 5];
        let roi_error = [roi.centre[0] - want[0], roi.centre[1] - want[1], roi.side - want[2]]
            .iter()
            .fold(0.0f64, |a, b| a.max(b.abs()));
        let turn = (roi.angle - want[4]).abs();
        let mesh = net.run(&frame, &roi);
        let point_error = mean_distance(&mesh.points, &landmarks[1404 * i..1404 * (i + 1)]);
        println!(
            "frame {i}: box {box_error:.3} px, key points {keypoint_error:.3} px, score {score_error:.4}, square \
             {roi_error:.3} px, {turn:.4} rad, landmarks {point_error:.3} px, presence {:.2} ({:.2})",
            mesh.presence, flags[i]
        );
        assert!(box_error < box_limit && keypoint_error < keypoint_limit && point_error < landmark_limit);
        // Of these the case states no tolerance.
        assert!(roi_error < 0.75 && turn < 0.01 && (mesh.presence - flags[i]).abs() < 1.0 && score_error < 0.02);
        if package[0][i] >= 0.0 {
            let error = (found.score - package[0][i]).abs();
            assert!(error < 0.02, "frame {i}: score of the package off by {error}");
            let error = largest(&corners, &package[1][4 * i..4 * i + 4]);
            assert!(error < box_limit, "frame {i}: box of the package off by {error} px");
            let error = largest(&points, &package[2][12 * i..12 * i + 12]);
            assert!(error < keypoint_limit, "frame {i}: key points of the package off by {error} px");
        }
        let want = &package[3][1404 * i..1404 * (i + 1)];
        if want.iter().any(|value| *value != -1.0) {
            let error = mean_distance(&mesh.points, want);
            assert!(error < landmark_limit, "frame {i}: landmarks of the package off by {error} px");
        }
    }
}

#[test]
fn golden_face() {
    let cases = Case::all("face");
    let Some(models) = models() else { return };
    for case in cases {
        check(&case, &models);
        case.assert_all_read(&LEFT);
    }
}

/// A case is found by what its `case.json` says, and what is wrong in it is seen.
#[test]
fn golden_face_in_folders_of_other_names_is_compared() {
    let (Some(case), Some(models)) = (Case::all("face").into_iter().next(), models()) else { return };
    let root = std::env::temp_dir().join(format!("syncdiff-golden-face-{}", std::process::id()));
    copy_case(&case.folder, &root.join("people/one"));
    copy_case(&case.folder, &root.join("people/two"));
    damage(&root.join("people/two"), "out.box");
    let found = Case::all_in(&root, "face");
    let right = catch_unwind(AssertUnwindSafe(|| check(&found[0], &models))).is_ok();
    let wrong = catch_unwind(AssertUnwindSafe(|| check(&found[1], &models))).is_ok();
    std::fs::remove_dir_all(&root).unwrap();
    assert_eq!((found.len(), right, wrong), (2, true, false), "found, the whole one passes, the damaged one passes");
}
