//! The second pass without files and networks: a made-up face, a model that records what it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncdiff::cast::{Cast, Faces};
use syncdiff::clock::Clock;
use syncdiff::mouth::{MouthModel, MouthSequence};
use syncdiff::progress::{Cancel, Watch};
use syncdiff::render::{Counts, Scene, render};
use syncdiff::settings::{BATCH, Composite};
use syncdiff::{Error, Outcome};
use syncdiff_face::{
    FaceBox, FaceChoice, FacesInFrame, KeepMask, KeepMaskKind, Mesh, NUM_LANDMARKS, PasteMask, RIGID_POINTS,
    SmoothOptions, TEMPLATE, TrackedFace, touched_pixels,
};
use syncdiff_media::{Frame, FrameIndex, LengthPolicy, Plan, Rational, Time, WalkedFrame};

const WIDTH: usize = 96;
const HEIGHT: usize = 80;
const CROP: usize = 64;

/// What the model was asked, in order.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Start,
    Restart,
    Next(usize),
}

/// Where a test makes the model slow, or makes it fail.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Look,
    Draw,
    Picture,
}

/// Draws bright crops, one shade for each model frame, and remembers.
#[derive(Default)]
struct Recorder {
    asked: Mutex<Vec<Asked>>,
    /// Takes some milliseconds longer for every second frame.
    slow: Option<Step>,
    /// Fails at this model frame.
    fail: Option<(Step, usize)>,
    /// Panics at this model frame.
    panic: Option<(Step, usize)>,
    /// Memory for so many crops at once, if it is scarce.
    room: Option<usize>,
    /// Memory for drawing or decoding runs out at this model frame.
    full: Option<(Step, usize)>,
    /// How many crops it was asked to look at together.
    looked_at: Mutex<Vec<usize>>,
}

/// How a GPU's back end says that its memory is full.
fn run_out() -> ! {
    panic!("Error while reading data: out of device memory allocating 4096 bytes")
}

impl Recorder {
    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push(asked);
    }

    fn go(&self, step: Step, model_frame: usize) -> Outcome<()> {
        if self.slow == Some(step) && model_frame.is_multiple_of(2) {
            std::thread::sleep(Duration::from_millis(8));
        }
        if self.full == Some((step, model_frame)) {
            run_out();
        }
        if self.panic == Some((step, model_frame)) {
            panic!("frame {model_frame} is cursed");
        }
        match self.fail == Some((step, model_frame)) {
            true => Err(Error::Internal { stage: "test", detail: format!("{step:?} of {model_frame}") }),
            false => Ok(()),
        }
    }
}

impl MouthModel for Recorder {
    type Seen = usize;
    type Drawn = usize;

    fn crop_size(&self) -> usize {
        CROP
    }

    fn keep_mask(&self) -> KeepMaskKind {
        KeepMaskKind::AlignedFixed
    }

    fn look(&self, masked: &[(Frame, usize)], _: &mut Clock) -> Outcome<Vec<usize>> {
        assert!((1..=4).contains(&masked.len()), "{} crops at once", masked.len());
        self.looked_at.lock().unwrap().push(masked.len());
        if self.room.is_some_and(|room| masked.len() > room) {
            run_out();
        }
        for (crop, model_frame) in masked {
            // The middle of the mouth region is hidden.
            assert_eq!(crop.pixel(CROP / 2, CROP * 3 / 4), [0, 0, 0]);
            self.go(Step::Look, *model_frame)?;
        }
        Ok(masked.iter().map(|(_, model_frame)| *model_frame).collect())
    }

    fn start(&self, identity: &Frame) -> Outcome<Box<dyn MouthSequence<Self> + '_>> {
        assert_eq!((identity.width, identity.height), (CROP, CROP));
        self.note(Asked::Start);
        Ok(Box::new(RecorderSequence(self)))
    }

    fn picture(&self, drawn: usize) -> Outcome<Frame> {
        self.go(Step::Picture, drawn)?;
        Ok(Frame::filled(CROP, CROP, [250, 40, 40 + drawn as u8]))
    }
}

struct RecorderSequence<'a>(&'a Recorder);

impl MouthSequence<Recorder> for RecorderSequence<'_> {
    fn draw(&mut self, seen: usize, _: &mut Clock) -> Outcome<usize> {
        self.0.note(Asked::Next(seen));
        self.0.go(Step::Draw, seen)?;
        Ok(seen)
    }

    fn restart(&mut self) {
        self.0.note(Asked::Restart);
    }
}

/// A mesh whose skull lies in the middle of the frame, with an edge that reaches a fifth of the crop from the mouth.
fn mesh() -> Mesh {
    let place = |[u, v]: [f64; 2]| [(16.0 + 64.0 * u) as f32, (8.0 + 64.0 * v) as f32, 0.0];
    let mut points = vec![place([0.5, 0.5]); NUM_LANDMARKS];
    for (i, point) in points[400..].iter_mut().enumerate() {
        let (sin, cos) = (0.1 * i as f64).sin_cos();
        *point = place([0.5 + 0.2 * cos, 0.62 + 0.2 * sin]);
    }
    for (point, at) in RIGID_POINTS.iter().zip(TEMPLATE) {
        points[*point] = place(at);
    }
    Mesh { points, presence: 5.0 }
}

/// A face in all frames but some; a cut begins a new shot, and with it a new track.
fn faces(frames: usize, without: &[usize], cuts: &[usize]) -> Faces {
    let mut faces = Faces::new(WIDTH, HEIGHT);
    let mut track = 0;
    for frame in 0..frames {
        let cut = cuts.contains(&frame);
        track += u32::from(cut);
        let face_box = FaceBox { x0: 24.0, y0: 16.0, x1: 72.0, y1: 70.0 };
        let face = TrackedFace { track, face_box, mesh: mesh() };
        let seen = if without.contains(&frame) { vec![] } else { vec![face] };
        faces.push(&FacesInFrame { faces: seen, cut });
    }
    faces
}

/// A source picture; every frame is another.
fn picture(source: usize) -> Frame {
    let mut frame = Frame::filled(WIDTH, HEIGHT, [90, 100, 110]);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            frame.set_pixel(x, y, [(x * 2) as u8, (y * 2 + source) as u8, ((x * y + source * 7) % 251) as u8]);
        }
    }
    frame
}

struct Run {
    asked: Vec<Asked>,
    frames: Vec<(Frame, bool)>,
    counts: Counts,
    cast: Cast,
}

fn run(faces: &Faces, index: &FrameIndex, policy: LengthPolicy, secs: f64, composite: Composite) -> Run {
    let plan = Plan::new(index, policy, Time::from_samples((secs * 16_000.0) as i64)).expect("a plan");
    let smooth = SmoothOptions { bridge_frames: 0, ..SmoothOptions::default() };
    let cast = faces.cast(&FaceChoice::Largest, &smooth).expect("a face");
    let model = Recorder::default();
    let scene = Scene { plan: &plan, cast: &cast, speech_opacity: None, composite, batch: BATCH, model: &model };
    let walk = plan.frames().map(|frame| {
        let picture = Arc::new(picture(frame.source));
        Ok(WalkedFrame { output: frame.output, source: frame.source, pts: frame.pts, frame: picture })
    });
    let mut frames = Vec::new();
    let mut sink = |rendered: syncdiff::render::Rendered<'_>, _: &mut Clock| {
        assert_eq!(rendered.output, frames.len());
        frames.push((rendered.frame.clone(), rendered.touched.is_some()));
        Ok(())
    };
    let counts =
        render(&scene, 0..plan.len(), walk, &mut sink, &mut Clock::default(), &mut Watch::silent()).expect("rendered");
    Run { asked: model.asked.into_inner().unwrap(), frames, counts, cast }
}

fn even(frames: usize, rate: i64) -> FrameIndex {
    FrameIndex::new(Rational::new(1, rate), (0..frames as i64).collect(), 1).expect("an index")
}

#[test]
fn pixels_outside_of_the_mask_are_the_sources_own() {
    let run = run(&faces(6, &[], &[]), &even(6, 25), LengthPolicy::Video, 1.0, Composite::Soft);
    assert_eq!(run.counts, Counts { frames: 6, changed: 6, drawn: 6 });
    let mask = PasteMask::from_keep(&KeepMask::aligned_fixed(CROP), 0.06);
    for (source, (made, _)) in run.frames.iter().enumerate() {
        let map = run.cast.crop_from_frame(source, CROP).expect("a face");
        let touched = touched_pixels(WIDTH, HEIGHT, &map, &mask).expect("pixels");
        let before = picture(source);
        let mut changed = 0;
        for (at, touched) in touched.iter().enumerate() {
            let (x, y) = (at % WIDTH, at / WIDTH);
            let same = before.pixel(x, y) == made.pixel(x, y);
            assert!(same || *touched, "frame {source}: {x},{y} lies outside of the mask and has changed");
            changed += usize::from(!same);
        }
        assert!(changed > 300, "frame {source}: only {changed} pixels have changed");
    }
}

#[test]
fn gaps_pass_through_and_begin_anew() {
    let run = run(&faces(12, &[5, 6], &[]), &even(12, 25), LengthPolicy::Video, 1.0, Composite::Soft);
    assert_eq!(run.counts, Counts { frames: 12, changed: 10, drawn: 10 });
    for gap in [5, 6] {
        assert_eq!(run.frames[gap], (picture(gap), false));
    }
    let mut expected = vec![Asked::Start];
    expected.extend((0..5).map(Asked::Next));
    expected.push(Asked::Restart);
    expected.extend((7..12).map(Asked::Next));
    assert_eq!(run.asked, expected);
    // The mouth fades towards the gap.
    let strength = |frame: usize| {
        let (before, made) = (picture(frame), &run.frames[frame].0);
        before.data.iter().zip(&made.data).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
    };
    assert!(strength(4) < strength(3) && strength(3) < strength(2), "{} {} {}", strength(4), strength(3), strength(2));
    assert!(strength(7) < strength(8) && strength(8) < strength(9));
}

#[test]
fn a_cut_begins_a_new_sequence() {
    let seen = faces(6, &[], &[3]);
    let run = run(&seen, &even(6, 25), LengthPolicy::Video, 1.0, Composite::Soft);
    let expected = [
        Asked::Start,
        Asked::Next(0),
        Asked::Next(1),
        Asked::Next(2),
        Asked::Start,
        Asked::Next(3),
        Asked::Next(4),
        Asked::Next(5),
    ];
    assert_eq!(run.asked, expected);
    assert_eq!((run.cast.ids(), seen.cuts()), (vec![0, 1], vec![3]));
}

#[test]
fn a_choice_by_number_or_point_means_one_shot() {
    let seen = faces(8, &[6], &[4]);
    let smooth = SmoothOptions { bridge_frames: 0, ..SmoothOptions::default() };
    let gaps = |choice: FaceChoice| {
        let cast = seen.cast(&choice, &smooth)?;
        Ok::<_, syncdiff::Error>(cast.gaps().into_iter().map(|gap| (gap.start, gap.end)).collect::<Vec<_>>())
    };
    assert_eq!(gaps(FaceChoice::Largest).unwrap(), [(6, 7)]);
    assert_eq!(gaps(FaceChoice::Id(0)).unwrap(), [(4, 8)]);
    assert_eq!(gaps(FaceChoice::Id(1)).unwrap(), [(0, 4), (6, 7)]);
    assert_eq!(gaps(FaceChoice::Point { frame: 5, x: 48.0, y: 40.0 }).unwrap(), [(0, 4), (6, 7)]);
    for (choice, words) in [
        (FaceChoice::Id(7), "id:0, id:1"),
        (FaceChoice::Point { frame: 5, x: 1.0, y: 1.0 }, "frame 5 holds id:1"),
        (FaceChoice::Point { frame: 6, x: 48.0, y: 40.0 }, "frame 6 holds no face"),
        (FaceChoice::Point { frame: 90, x: 1.0, y: 1.0 }, "8 frames"),
    ] {
        let error = gaps(choice).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn starting_over_begins_anew_and_turning_round_does_not() {
    let (seen, index) = (faces(5, &[], &[]), even(5, 25));
    let over = run(&seen, &index, LengthPolicy::Loop, 0.4, Composite::Soft);
    assert_eq!(over.asked.iter().filter(|asked| **asked == Asked::Restart).count(), 1);
    assert_eq!(over.asked[6], Asked::Restart);
    let round = run(&seen, &index, LengthPolicy::Bounce, 0.4, Composite::Soft);
    assert!(!round.asked.contains(&Asked::Restart), "{:?}", round.asked);
    assert_eq!((over.counts.frames, round.counts.frames), (10, 10));
}

#[test]
fn every_rate_gets_each_mouth_once() {
    for (rate, frames) in [(50, 21), (30, 15), (24, 12), (12, 9)] {
        let run = run(&faces(frames, &[], &[]), &even(frames, rate), LengthPolicy::Video, 1.0, Composite::Soft);
        assert_eq!(run.counts.frames, frames, "{rate}");
        assert_eq!(run.counts.changed, frames, "{rate}");
        let numbers: Vec<usize> =
            run.asked.iter().filter_map(|asked| if let Asked::Next(at) = asked { Some(*at) } else { None }).collect();
        assert_eq!(numbers, (0..run.counts.drawn).collect::<Vec<_>>(), "{rate}");
        let needed = ((frames - 1) as f64 * 25.0 / rate as f64).round() as usize + 1;
        assert_eq!(run.counts.drawn, needed, "{rate}");
    }
}

#[test]
fn a_long_frozen_frame_costs_no_drawing() {
    let index = FrameIndex::new(Rational::new(1, 1000), vec![0, 40, 20_000, 20_040], 40).expect("an index");
    let run = run(&faces(4, &[], &[]), &index, LengthPolicy::Video, 1.0, Composite::Soft);
    assert_eq!((run.counts.frames, run.counts.changed), (4, 4));
    assert!(run.counts.drawn < 12, "{}", run.counts.drawn);
}

#[test]
fn the_whole_crop_is_shown_without_compositing() {
    let (seen, index) = (faces(2, &[], &[]), even(2, 25));
    let soft = run(&seen, &index, LengthPolicy::Video, 1.0, Composite::Soft);
    let hard = run(&seen, &index, LengthPolicy::Video, 1.0, Composite::None);
    let red = |run: &Run| run.frames[0].0.data.chunks_exact(3).filter(|pixel| *pixel == [250, 40, 40]).count();
    // 64 x 64 pixels but for the outermost, which have no weight.
    assert!(red(&hard) > 58 * 58, "{}", red(&hard));
    assert!(red(&soft) < red(&hard));
    // Of the hidden region, 46 pixels wide, the face covers 26, and the margin round it some more.
    let source = picture(0);
    let changed = |run: &Run| {
        let pixels = run.frames[0].0.data.chunks_exact(3).zip(source.data.chunks_exact(3));
        pixels.filter(|(made, source)| made != source).count()
    };
    let inside = run(&seen, &index, LengthPolicy::Video, 1.0, Composite::Face);
    assert!(changed(&inside) > 20 * 20, "{}", changed(&inside));
    assert!(5 * changed(&inside) < 4 * changed(&soft), "{} {}", changed(&inside), changed(&soft));
}

/// What a run with this model came to: the outputs that were made, each with the shade of its mouth.
struct Trial {
    result: Outcome<Counts>,
    shades: Vec<u8>,
    /// The most source frames that were read and not yet shown.
    most_held: usize,
}

const TRIAL_FRAMES: usize = 60;

/// Runs 60 frames through the model; the wish to stop is raised, or the sink fails, at an output.
fn trial(model: &Recorder, stop_at: Option<usize>, sink_fails_at: Option<usize>) -> Trial {
    trial_in_batches(model, BATCH, stop_at, sink_fails_at)
}

fn trial_in_batches(model: &Recorder, batch: usize, stop_at: Option<usize>, sink_fails_at: Option<usize>) -> Trial {
    let index = even(TRIAL_FRAMES, 25);
    let plan = Plan::new(&index, LengthPolicy::Video, Time::from_samples(16_000)).expect("a plan");
    let smooth = SmoothOptions { bridge_frames: 0, ..SmoothOptions::default() };
    let cast = faces(TRIAL_FRAMES, &[], &[]).cast(&FaceChoice::Largest, &smooth).expect("a face");
    let scene = Scene { plan: &plan, cast: &cast, speech_opacity: None, composite: Composite::None, batch, model };
    let read = AtomicUsize::new(0);
    let walk = plan.frames().map(|frame| {
        read.fetch_add(1, Ordering::SeqCst);
        let picture = Arc::new(picture(frame.source));
        Ok(WalkedFrame { output: frame.output, source: frame.source, pts: frame.pts, frame: picture })
    });
    let (cancel, mut shades, mut most_held) = (Cancel::default(), Vec::new(), 0);
    let mut watch = Watch::new(cancel.clone(), |_| {});
    let mut sink = |rendered: syncdiff::render::Rendered<'_>, _: &mut Clock| {
        assert_eq!(rendered.output, shades.len());
        most_held = most_held.max(read.load(Ordering::SeqCst) - rendered.output);
        if sink_fails_at == Some(rendered.output) {
            return Err(Error::usage("the sink", "none"));
        }
        if stop_at == Some(rendered.output) {
            cancel.raise();
        }
        shades.push(rendered.frame.pixel(WIDTH / 2, HEIGHT / 2)[2]);
        Ok(())
    };
    let result = render(&scene, 0..plan.len(), walk, &mut sink, &mut Clock::default(), &mut watch);
    Trial { result, shades, most_held }
}

#[test]
fn the_pace_of_the_threads_changes_nothing_and_what_is_held_is_bounded() {
    for slow in [None, Some(Step::Look), Some(Step::Draw), Some(Step::Picture)] {
        let model = Recorder { slow, ..Recorder::default() };
        let Trial { result, shades, most_held } = trial(&model, None, None);
        assert_eq!(result.unwrap(), Counts { frames: 60, changed: 60, drawn: 60 }, "{slow:?}");
        assert_eq!(shades, (40..100).collect::<Vec<u8>>(), "{slow:?}");
        let mut expected = vec![Asked::Start];
        expected.extend((0..60).map(Asked::Next));
        assert_eq!(model.asked.into_inner().unwrap(), expected, "{slow:?}");
        assert!(most_held <= 20, "{slow:?}: {most_held} frames were held");
    }
}

#[test]
fn an_error_of_any_thread_ends_the_work_after_the_frames_before_it() {
    for (step, at, made) in [(Step::Draw, 9, 9..=9), (Step::Picture, 9, 9..=9), (Step::Look, 9, 0..=9)] {
        let model = Recorder { fail: Some((step, at)), ..Recorder::default() };
        let Trial { result, shades, .. } = trial(&model, None, None);
        assert!(result.unwrap_err().to_string().contains(&format!("{step:?} of 9")), "{step:?}");
        assert!(made.contains(&shades.len()), "{step:?}: {} frames", shades.len());
    }
    let Trial { result, shades, .. } = trial(&Recorder::default(), None, Some(9));
    assert_eq!((result.unwrap_err().exit_code(), shades.len()), (2, 9));
}

#[test]
fn a_wish_to_stop_ends_all_threads() {
    let model = Recorder::default();
    let Trial { result, shades, .. } = trial(&model, Some(5), None);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(shades.len(), 6);
    assert!(model.asked.into_inner().unwrap().len() < 30);
}

#[test]
fn a_defect_in_a_thread_is_told_in_its_own_words() {
    for step in [Step::Look, Step::Draw] {
        let model = Recorder { panic: Some((step, 7)), ..Recorder::default() };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| trial(&model, None, None).result));
        let words = caught.unwrap_err().downcast_ref::<String>().cloned().unwrap_or_default();
        assert_eq!(words, "frame 7 is cursed", "{step:?}");
    }
}

#[test]
fn out_of_memory_halves_what_is_looked_at_and_goes_on() {
    for (room, batch, begins) in [(3, 4, vec![4, 2]), (2, 4, vec![4, 2]), (1, 4, vec![4, 2, 1]), (1, 2, vec![2, 1])] {
        let model = Recorder { room: Some(room), ..Recorder::default() };
        let Trial { result, shades, .. } = trial_in_batches(&model, batch, None, None);
        assert_eq!(result.unwrap(), Counts { frames: 60, changed: 60, drawn: 60 }, "{room} of {batch}");
        assert_eq!(shades, (40..100).collect::<Vec<u8>>(), "{room} of {batch}");
        let looked_at = model.looked_at.into_inner().unwrap();
        assert!(looked_at.starts_with(&begins), "{looked_at:?}");
        // Once is enough: what did not fit is not tried again.
        assert_eq!(looked_at.iter().filter(|count| **count > room).count(), begins.len() - 1, "{looked_at:?}");
    }
    let model = Recorder::default();
    assert!(trial_in_batches(&model, 1, None, None).result.is_ok());
    assert_eq!(model.looked_at.into_inner().unwrap(), [1; 60]);
}

#[test]
fn memory_that_does_not_do_for_one_picture_ends_the_work_and_says_so() {
    let no_room = Recorder { room: Some(0), ..Recorder::default() };
    let full = |step| Recorder { full: Some((step, 9)), ..Recorder::default() };
    for (model, made) in [(no_room, 0), (full(Step::Draw), 9), (full(Step::Picture), 9)] {
        let Trial { result, shades, .. } = trial(&model, None, None);
        let error = result.unwrap_err();
        assert_eq!((error.exit_code(), shades.len()), (6, made), "{error}");
        assert!(error.to_string().contains("4096 bytes") && error.to_string().contains("--batch 1"), "{error}");
    }
}
