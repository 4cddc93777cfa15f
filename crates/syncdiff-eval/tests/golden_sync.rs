//! LSE-C, LSE-D and offset of stored embeddings, along the way that the command takes: frame by frame, through a judge.

mod common;

use common::plain::Case;
use syncdiff_eval::{EvalResult, FaceSeries, Judge, Listener, Protocol};
use syncdiff_media::Frame;

/// Gives stored embeddings: of lips by the number that its pictures carry, of speech in order.
struct Stored {
    lips: Vec<f32>,
    speech: Vec<f32>,
    dim: usize,
}

impl Judge for Stored {
    fn name(&self) -> String {
        "stored".into()
    }

    fn description(&self) -> String {
        "embeddings of a file".into()
    }

    fn protocols(&self) -> &'static [Protocol] {
        &[Protocol::Lrs]
    }

    fn side(&self) -> usize {
        2
    }

    fn window_frames(&self) -> usize {
        5
    }

    fn embedding_dim(&self) -> usize {
        self.dim
    }

    fn num_windows(&self, num_frames: usize, _num_samples: usize) -> usize {
        num_frames - 5
    }

    fn lips(&self, frames: &[Frame]) -> EvalResult<Vec<f32>> {
        let row = |frame: &Frame| {
            let at = usize::from(frame.data[0]);
            // The window after the last stored one is left out by the count of windows.
            self.lips.get(at * self.dim..(at + 1) * self.dim).map_or(vec![0.0; self.dim], <[f32]>::to_vec)
        };
        Ok(frames[..frames.len() - 4].iter().flat_map(row).collect())
    }

    fn speech(&self, _samples: &[i16], windows: usize) -> EvalResult<Vec<f32>> {
        Ok(self.speech[..windows * self.dim].to_vec())
    }
}

fn check(case: &Case) {
    let close = case.tolerance("dists").abs;
    let clips = case.names().iter().filter(|name| name.starts_with("in.emb_lip")).count();
    assert!(clips > 0, "{}: no embeddings", case.folder.display());
    for i in 0..clips {
        let name = format!("in.emb_lip{i}");
        let [windows, dim] = case.shape(&name)[..] else { panic!("{name}: {:?}", case.shape(&name)) };
        let judge = Stored { lips: case.f32(&name), speech: case.f32(&format!("in.emb_aud{i}")), dim };
        let mut listener = Listener::new(&judge, Protocol::Lrs, &FaceSeries::default());
        let frames = windows + 5;
        for frame in 0..frames {
            let number = u8::try_from(frame).expect("few frames");
            listener.push(&Frame::filled(2, 2, [number; 3]), frame as f64 / 25.0, frame).unwrap();
        }
        let score = listener.finish(&[], frames as f64 / 25.0).unwrap();
        assert_eq!(i64::from(score.offset_frames), case.i64(&format!("out.offset{i}"))[0]);
        for (what, found) in [("min_distance", score.distance), ("confidence", score.confidence)] {
            let expected = f64::from(case.f32(&format!("out.{what}{i}"))[0]);
            assert!((found - expected).abs() <= close, "{what}{i}: {found}, expected {expected}");
        }
    }
}

#[test]
fn golden_lse_of_stored_embeddings() {
    for case in Case::all("syncnet_s") {
        check(&case);
    }
}
