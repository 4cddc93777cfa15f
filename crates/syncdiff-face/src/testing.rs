//! Where tests find models, golden data and clips; each says so when something is absent.

use crate::{Affine, FaceModels, Mesh, NUM_LANDMARKS, RIGID_POINTS, TEMPLATE};
use syncdiff_media::{Frame, FrameReader, ReadOptions, Tools};

#[path = "../../syncdiff-model/tests/common/find.rs"]
pub(crate) mod find;
#[path = "../../syncdiff-model/tests/common/plain.rs"]
pub(crate) mod plain;

/// The face models, if they are on disk; files that are there but damaged are a failure.
pub(crate) fn models() -> Option<FaceModels> {
    Some(FaceModels::load(&find::models("face")?).unwrap())
}

/// A mesh with the template's points in place, about a crop of side `side` centred at `(x, y)`.
pub(crate) fn face_at(x: f32, y: f32, side: f32, angle: f64) -> Mesh {
    let map = Affine::scale_shift(1.0, -0.5, -0.5).then(&Affine::similarity(
        f64::from(side),
        angle,
        [f64::from(x), f64::from(y)],
    ));
    let mut points = Vec::with_capacity(NUM_LANDMARKS);
    for i in 0..NUM_LANDMARKS {
        // A ring for the outline, then the rigid points over it.
        let turn = i as f64 * 0.7;
        let [px, py] = map.apply([0.5 + 0.35 * turn.cos(), 0.5 + 0.4 * turn.sin()]);
        points.push([px as f32, py as f32, 0.0]);
    }
    for (i, t) in RIGID_POINTS.iter().zip(TEMPLATE) {
        let [px, py] = map.apply(t);
        points[*i] = [px as f32, py as f32, 0.0];
    }
    Mesh { points, presence: 20.0 }
}

/// The bytes of one model file.
pub(crate) fn model_bytes(name: &str) -> Option<Vec<u8>> {
    let path = find::models("face")?.join(name);
    Some(std::fs::read(path).unwrap())
}

/// Up to `count` frames of a clip, given by its path in the folder of real clips.
pub(crate) fn clip_frames(path: &str, count: usize) -> Option<Vec<Frame>> {
    let path = find::folder("SYNCDIFF_DATA", "../shared/data")?.join(path);
    if !path.is_file() {
        println!("skipped: {} absent", path.display());
        return None;
    }
    let tools = Tools::default();
    let info = syncdiff_media::probe(&tools, &path).unwrap();
    let reader = FrameReader::open(&tools, &info, &ReadOptions::default()).unwrap();
    Some(reader.take(count).map(|frame| frame.unwrap().frame).collect())
}
