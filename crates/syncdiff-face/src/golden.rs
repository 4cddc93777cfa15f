//! Comparison with the original networks and graphs (`face` case of the golden data).

use crate::mesh::Roi;
use crate::testing::{goldens, models};
use crate::{Detector, DetectorKind, FaceModels, MeshNet};
use safetensors::SafeTensors;
use std::path::Path;

fn floats(data: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = data.tensor(name).unwrap().data();
    bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect()
}

fn doubles(data: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let bytes = data.tensor(name).unwrap().data();
    bytes.as_chunks().0.iter().map(|c| f64::from_le_bytes(*c)).collect()
}

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
fn networks(data: &SafeTensors<'_>, frame: usize, models: &FaceModels) -> [f32; 3] {
    let bytes = |name: String| data.tensor(&name).unwrap().data().to_vec();
    let mut detector = Detector::new(models, DetectorKind::ShortRange).unwrap();
    let input: Vec<f32> =
        bytes(format!("mid.{frame}.detector_input_u8")).iter().map(|&b| f32::from(b) * (2.0 / 255.0) - 1.0).collect();
    let (scores, regressors) = detector.raw(&input);
    let want = floats(data, "out.detector_raw_scores");
    let score_error = largest(scores, &want[frame * 896..(frame + 1) * 896]);
    let box_error = largest(regressors, &floats(data, &format!("mid.{frame}.detector_regressors")));
    let mut mesh = MeshNet::new(models).unwrap();
    let input: Vec<f32> =
        bytes(format!("mid.{frame}.landmark_input_u8")).iter().map(|&b| f32::from(b) / 255.0).collect();
    let (points, _) = mesh.raw(&input);
    let want = floats(data, "out.landmarks_raw");
    let point_error = largest(points, &want[frame * 1404..(frame + 1) * 1404]);
    [score_error, box_error, point_error]
}

fn check_variant(folder: &Path, models: &FaceModels) {
    let case: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let file = std::fs::read(folder.join("io.safetensors")).unwrap();
    let data = SafeTensors::deserialize(&file).unwrap();
    for frame in case["config"]["full_tensors_for"].as_array().unwrap() {
        let frame = frame.as_u64().unwrap() as usize;
        let [score, regressor, point] = networks(&data, frame, models);
        println!("frame {frame}: scores {score:.1e}, regressors {regressor:.1e}, points {point:.1e}");
        assert!(score < 1e-2 && regressor < 5e-2 && point < 5e-2);
    }
    let (boxes, keypoints) = (floats(&data, "out.box"), floats(&data, "out.keypoints"));
    let (rois, flags) = (doubles(&data, "out.roi"), floats(&data, "out.face_flag"));
    let landmarks = floats(&data, "out.landmarks_image");
    let mut detector = Detector::new(models, DetectorKind::ShortRange).unwrap();
    let mut full_range = Detector::new(models, DetectorKind::FullRange).unwrap();
    let mut net = MeshNet::new(models).unwrap();
    for (i, entry) in case["frames"].as_array().unwrap().iter().enumerate() {
        let frame = syncdiff_media::read_png(&folder.join(entry["png"].as_str().unwrap())).unwrap();
        let found = &detector.detect(&frame)[0];
        let b = found.face_box;
        // The golden data hold nothing of the full-range network: it must see the same face.
        let other = full_range.detect(&frame);
        let overlap = other.first().map_or(0.0, |d| d.face_box.iou(&b));
        assert!(overlap > 0.6, "frame {i}: full range overlaps by {overlap}");
        let box_error = largest(&[b.x0, b.y0, b.x1, b.y1], &boxes[4 * i..4 * i + 4]);
        let points = found.keypoints.concat();
        let keypoint_error = largest(&points, &keypoints[12 * i..12 * i + 12]);
        let roi = Roi::from_detection(found);
        let want = &rois[5 * i..5 * i + 5];
        let roi_error = [roi.centre[0] - want[0], roi.centre[1] - want[1], roi.side - want[2]]
            .iter()
            .fold(0.0f64, |a, b| a.max(b.abs()));
        let turn = (roi.angle - want[4]).abs();
        let mesh = net.run(&frame, &roi);
        let point_error = mean_distance(&mesh.points, &landmarks[1404 * i..1404 * (i + 1)]);
        println!(
            "frame {i}: box {box_error:.3} px, key points {keypoint_error:.3} px, square \
             {roi_error:.3} px, {turn:.4} rad, landmarks {point_error:.3} px, presence {:.2} ({:.2})",
            mesh.presence, flags[i]
        );
        assert!(box_error < 0.5 && keypoint_error < 0.5 && point_error < 0.5);
        assert!(roi_error < 0.75 && turn < 0.01 && (mesh.presence - flags[i]).abs() < 1.0);
    }
}

#[test]
fn golden_face() {
    let (Some(models), Some(case)) = (models(), goldens("face")) else { return };
    let mut variants = 0;
    for entry in std::fs::read_dir(case).unwrap() {
        let folder = entry.unwrap().path();
        if folder.join("case.json").is_file() {
            check_variant(&folder, &models);
            variants += 1;
        }
    }
    assert!(variants > 0, "the face case has no variant");
}
