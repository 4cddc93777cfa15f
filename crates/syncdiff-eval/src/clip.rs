//! Every figure of one generated clip against its reference, in two passes over the files.

use std::path::Path;

use syncdiff_face::{Tracker, TrackerOptions};
use syncdiff_media::{Frame, Tools, decode_speech, probe};

use crate::error::{EvalError, EvalResult};
use crate::faces::{FaceSeries, Lips, measure_faces};
use crate::figures::{Figures, explain_absent};
use crate::inputs::{ClipInputs, Instruments, Scored, Wanted};
use crate::lips::{MOST_LAG, best_correlation, correlation, deviation, jitter, landmark_distance, paired, shifted};
use crate::listen::{Listener, Protocol};
use crate::metrics::Group;
use crate::pairs::PairReader;
use crate::perceptual::LpipsMean;
use crate::picture::{EQUAL_DB, psnr, psnr_u8wrap, ssim};
use crate::read::{Mouths, word_figures};
use crate::region::{Region, mouth};

/// A face in the generated frame is the reference's if their boxes overlap by more.
const SAME_FACE_IOU: f32 = 0.25;

/// The faces of a reference: the first pass, which serves every clip that is compared with it. Without face models, or
/// without a face, a series of nothing.
///
/// # Errors
/// A clip that cannot be decoded, and those of `each`, which is asked before every frame.
pub fn truth_of(
    tools: &Tools,
    instruments: &Instruments,
    reference: &Path,
    each: &dyn Fn() -> EvalResult<()>,
) -> EvalResult<FaceSeries> {
    match &instruments.faces {
        Ok(models) => measure_faces(tools, models, reference, each),
        Err(_) => Ok(FaceSeries::default()),
    }
}

/// Scores a clip: the second pass. `each` is asked before every frame and may stop the work.
///
/// # Errors
/// A clip that cannot be decoded, and those of `each`.
pub fn score_clip(
    tools: &Tools,
    instruments: &Instruments,
    wanted: &Wanted,
    inputs: &ClipInputs<'_>,
    truth: &FaceSeries,
    each: &dyn Fn() -> EvalResult<()>,
) -> EvalResult<Scored> {
    let mut scorer = Scorer::new(instruments, wanted, inputs, truth)?;
    let mut pairs = PairReader::open(tools, inputs.generated, inputs.reference)?;
    while pairs.advance()? {
        each()?;
        if let Some((generated, secs, reference, index)) = pairs.pair() {
            scorer.push(generated, secs, reference, index)?;
        }
    }
    if pairs.num_pairs() == 0 {
        let detail = format!("{:?} and {:?} have no frame in common", inputs.generated, inputs.reference);
        return Err(EvalError::Unequal { what: "clips", detail });
    }
    scorer.finish(tools, inputs, &pairs)
}

/// A sum that knows how many values it has.
#[derive(Clone, Copy, Debug, Default)]
struct MeanOf {
    sum: f64,
    count: usize,
}

impl MeanOf {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// PSNR, wrapped PSNR and SSIM of one region.
#[derive(Clone, Copy, Debug, Default)]
struct Pictures {
    psnr: MeanOf,
    wrapped: MeanOf,
    ssim: MeanOf,
    equal: usize,
}

impl Pictures {
    fn add(&mut self, truth: &Frame, ours: &Frame, wanted: &Wanted) -> EvalResult<()> {
        if wanted.has(Group::Psnr) {
            let value = psnr(truth, ours)?;
            self.equal += usize::from(value.is_infinite());
            self.psnr.add(value.min(EQUAL_DB));
            self.wrapped.add(psnr_u8wrap(truth, ours)?);
        }
        // A mouth of fewer pixels has no window of SSIM.
        if wanted.has(Group::Ssim) && truth.width.min(truth.height) > 10 {
            self.ssim.add(ssim(truth, ours)?);
        }
        Ok(())
    }
}

/// The state of one clip while it streams by.
struct Scorer<'a> {
    wanted: &'a Wanted,
    instruments: &'a Instruments,
    truth: &'a FaceSeries,
    tracker: Option<Tracker>,
    regions: [Pictures; 3],
    aligned: Pictures,
    lpips: Vec<(String, Region, usize, LpipsMean<'a>)>,
    listeners: Vec<(Protocol, Listener<'a>)>,
    /// For the reader: the generated clip's, the reference's.
    mouths: Option<[Mouths; 2]>,
    /// Aligned mouths of the last pair: the reference's, the generated clip's.
    before: Option<(usize, Frame, Frame)>,
    change: [MeanOf; 3],
    lips: [Vec<Option<Lips>>; 2],
    face_pairs: usize,
    end_secs: f64,
    step_secs: f64,
}

impl<'a> Scorer<'a> {
    fn new(
        instruments: &'a Instruments,
        wanted: &'a Wanted,
        inputs: &ClipInputs<'_>,
        truth: &'a FaceSeries,
    ) -> EvalResult<Self> {
        let mut lpips = Vec::new();
        for region in Region::ALL {
            let paper = region == Region::Crop96;
            let vgg = if region == Region::Full { Group::LpipsVggFull } else { Group::LpipsVgg };
            let nets = [("alex", Group::Lpips, &instruments.alex), ("vgg", vgg, &instruments.vgg)];
            for (trunk, group, net) in nets {
                if let (true, Ok(net)) = (wanted.has(group), net) {
                    let every = if paper && trunk == "alex" { 1 } else { wanted.every.max(1) };
                    let key = format!("{}.lpips_{trunk}", region.key());
                    lpips.push((key, region, every, LpipsMean::new(net, &instruments.device)));
                }
            }
        }
        let mut listeners = Vec::new();
        if let (true, Ok(judge)) = (wanted.has(Group::Lse), &instruments.judge) {
            for protocol in judge.protocols().iter().copied() {
                if protocol == Protocol::Lrs || truth.has_face() {
                    listeners.push((protocol, Listener::new(&**judge, protocol, truth)));
                }
            }
        }
        let follow = wanted.has(Group::Lips) || wanted.has(Group::Time);
        let tracker = match &instruments.faces {
            Ok(models) if follow && truth.has_face() => Some(Tracker::new(models, TrackerOptions::default())?),
            _ => None,
        };
        let mouths = match &instruments.reader {
            Ok(reader) if wanted.has(Group::Wer) && inputs.read.is_none() && inputs.transcript.is_some() => {
                truth.has_face().then(|| [Mouths::new(reader.window()), Mouths::new(reader.window())])
            }
            _ => None,
        };
        Ok(Scorer {
            wanted,
            instruments,
            truth,
            tracker,
            regions: Default::default(),
            aligned: Pictures::default(),
            lpips,
            listeners,
            mouths,
            before: None,
            change: Default::default(),
            lips: Default::default(),
            face_pairs: 0,
            end_secs: 0.0,
            step_secs: 0.0,
        })
    }

    fn push(&mut self, generated: &Frame, secs: f64, reference: &Frame, index: usize) -> EvalResult<()> {
        let resized;
        let ours = if (generated.width, generated.height) == (reference.width, reference.height) {
            generated
        } else {
            resized = generated.resized(reference.width, reference.height);
            &resized
        };
        let number = self.lips[0].len();
        let (face_box, crop) = (self.truth.face_box_at(index), self.truth.crop_at(index));
        self.face_pairs += usize::from(face_box.is_some());
        for (at, region) in Region::ALL.into_iter().enumerate() {
            let parts = [reference, ours].map(|frame| region.cut(frame, face_box, crop));
            let [Some(x), Some(y)] = parts else { continue };
            self.regions[at].add(&x, &y, self.wanted)?;
            for (_, of, every, mean) in &mut self.lpips {
                if *of == region && number.is_multiple_of(*every) {
                    mean.push(x.clone(), y.clone())?;
                }
            }
        }
        if let Some(crop) = crop {
            let (x, y) = (mouth(reference, crop), mouth(ours, crop));
            self.aligned.add(&x, &y, self.wanted)?;
            if self.wanted.has(Group::Time) {
                self.flicker(number, x, y);
            }
        }
        for (_, listener) in &mut self.listeners {
            listener.push(ours, secs, index)?;
        }
        if let (Some([mouths, originals]), Ok(reader)) = (&mut self.mouths, &self.instruments.reader) {
            mouths.push(ours, crop);
            if reader.reads_originals() {
                originals.push(reference, crop);
            }
        }
        let found = self.tracker.as_mut().map(|tracker| tracker.push(ours));
        let overlap = |face: &syncdiff_face::TrackedFace| face_box.map_or(0.0, |b| b.iou(&face.face_box));
        let face = found.as_ref().and_then(|found| {
            let best = found.faces.iter().max_by(|a, b| overlap(a).total_cmp(&overlap(b)))?;
            (overlap(best) > SAME_FACE_IOU).then_some(best)
        });
        self.lips[0].push(self.truth.lips.get(index).cloned().flatten());
        self.lips[1].push(face.map(|face| Lips::of(&face.mesh)));
        self.step_secs = if number == 0 { 0.04 } else { secs - (self.end_secs - self.step_secs) };
        self.end_secs = secs + self.step_secs;
        Ok(())
    }

    /// Change from the last pair to this one: of the reference, of the generated clip, and of their difference.
    fn flicker(&mut self, number: usize, x: Frame, y: Frame) {
        if let Some((_, last_x, last_y)) = self.before.take().filter(|(last, _, _)| last + 1 == number) {
            let sum = |change: &dyn Fn(usize) -> u32| {
                (0..x.data.len()).map(|i| u64::from(change(i))).sum::<u64>() as f64 / x.data.len() as f64
            };
            let step = |now: &Frame, last: &Frame, i: usize| i32::from(now.data[i]) - i32::from(last.data[i]);
            self.change[0].add(sum(&|i| step(&x, &last_x, i).unsigned_abs()));
            self.change[1].add(sum(&|i| step(&y, &last_y, i).unsigned_abs()));
            self.change[2].add(sum(&|i| (step(&y, &last_y, i) - step(&x, &last_x, i)).unsigned_abs()));
        }
        self.before = Some((number, x, y));
    }

    fn finish(self, tools: &Tools, inputs: &ClipInputs<'_>, pairs: &PairReader) -> EvalResult<Scored> {
        let wanted = self.wanted;
        let mut figures = Figures::default();
        let regions = Region::ALL.iter().map(|region| region.key()).zip(self.regions);
        let mut remarks = pairs.remarks();
        for (key, pictures) in regions.chain([("aligned_mouth", self.aligned)]) {
            figures.put(&format!("{key}.psnr"), pictures.psnr.mean());
            figures.put(&format!("{key}.psnr_u8wrap"), pictures.wrapped.mean());
            figures.put(&format!("{key}.ssim"), pictures.ssim.mean());
            if pictures.equal > 0 {
                let count = pictures.equal;
                remarks.push(format!("{key}: {count} frames are equal to the reference's and count as {EQUAL_DB} dB"));
            }
        }
        for (key, _, _, mean) in self.lpips {
            figures.put(&key, mean.mean());
        }
        if wanted.has(Group::Lips) {
            lip_figures(&mut figures, &self.lips);
        }
        if wanted.has(Group::Time) {
            let [truth, ours, apart] = self.change.map(MeanOf::mean);
            figures.put("time.flicker", apart);
            figures.put("time.flicker_ratio", ratio(ours, truth));
            let [truth, ours] = [&self.lips[0], &self.lips[1]].map(|lips| jitter(lips));
            figures.put("time.jitter", ours);
            figures.put("time.jitter_ratio", ratio(ours, truth));
        }
        sync_figures(&mut figures, tools, inputs, pairs, self.listeners, self.end_secs, &mut remarks)?;
        let words = match wanted.has(Group::Wer) {
            true => word_figures(&mut figures, &self.instruments.reader, inputs, self.mouths.as_ref())?,
            false => None,
        };
        explain_absent(&mut figures, wanted, self.instruments, self.truth, inputs);
        Ok(Scored {
            figures: figures.values,
            absent: figures.absent,
            remarks,
            facts: pairs.facts(),
            pairs: pairs.num_pairs(),
            face_pairs: self.face_pairs,
            words,
            opening: self.lips.map(|lips| lips.iter().map(|lips| lips.as_ref().map(|lips| lips.opening)).collect()),
        })
    }
}

fn ratio(ours: Option<f64>, truth: Option<f64>) -> Option<f64> {
    Some(ours? / truth?).filter(|ratio| ratio.is_finite())
}

fn lip_figures(figures: &mut Figures, lips: &[Vec<Option<Lips>>; 2]) {
    let [truth, ours] =
        [&lips[0], &lips[1]].map(|lips| lips.iter().map(|l| l.as_ref().map(|l| l.opening)).collect::<Vec<_>>());
    let (a, b) = paired(&truth, &ours);
    figures.put("lips.opening_correlation", correlation(&a, &b));
    let best = best_correlation(&truth, &ours, MOST_LAG);
    figures.put("lips.opening_best", best.map(|(r, _)| r));
    figures.put("lips.opening_lag", best.map(|(_, lag)| lag as f64));
    figures.put("lips.opening_other_time", correlation(&a, &shifted(&a)));
    figures.put("lips.opening_range_ratio", ratio(Some(deviation(&b)), Some(deviation(&a))));
    figures.put("lips.landmark_distance", landmark_distance(&lips[0], &lips[1]));
}

fn sync_figures(
    figures: &mut Figures,
    tools: &Tools,
    inputs: &ClipInputs<'_>,
    pairs: &PairReader,
    listeners: Vec<(Protocol, Listener<'_>)>,
    end_secs: f64,
    remarks: &mut Vec<String>,
) -> EvalResult<()> {
    if listeners.is_empty() {
        return Ok(());
    }
    let [generated, reference] = pairs.facts();
    let speech = match inputs.speech {
        Some(speech) => speech,
        None if generated.sound => inputs.generated,
        None if reference.sound => {
            remarks.push("the generated clip is mute: its lips were judged with the reference's sound".into());
            inputs.reference
        }
        None => return Ok(()),
    };
    let samples = decode_speech(tools, &probe(tools, speech)?)?.samples;
    for (protocol, listener) in listeners {
        match listener.finish(&samples, end_secs) {
            Ok(score) => {
                figures.put(&format!("{}.lse_c", protocol.key()), Some(score.confidence));
                figures.put(&format!("{}.lse_d", protocol.key()), Some(score.distance));
                figures.put(&format!("{}.unmoved", protocol.key()), Some(score.distance_unmoved));
                figures.put(&format!("{}.offset", protocol.key()), Some(f64::from(score.offset_frames)));
            }
            Err(error) => {
                for figure in ["lse_c", "lse_d", "unmoved", "offset"] {
                    figures.absent.insert(format!("{}.{figure}", protocol.key()), error.to_string());
                }
            }
        }
    }
    Ok(())
}
