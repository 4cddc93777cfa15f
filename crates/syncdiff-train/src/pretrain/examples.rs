//! Clips of a step: what is heard and seen of each, what of it is hidden, and what is to be guessed.

use super::PretrainTraining;
use super::mask::{spans, substituted};
use crate::error::TrainResult;
use crate::images::{Area, View};
use crate::talk::{TalkSource, TalkingClip};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use syncdiff_model::audio::{FEATURES_PER_ROW, speech_rows};
use syncdiff_model::video::{MOUTH_SIDE, mouth_tensor};

/// AV-HuBERT cuts 96 pixels round the mouth, of which the network sees the middle 88. On the aligned crop the 96 are
/// 0.465 of the side round (0.5, 0.64), as for the lip reader that judges words.
const SPAN: f64 = 0.465 * MOUTH_SIDE as f64 / 96.0;
const MOUTH: Area = Area { left: 0.5 - SPAN / 2.0, top: 0.64 - SPAN / 2.0, side: SPAN };

/// A piece of a clip, on the time line of its sound.
pub(super) struct Example {
    /// [frames * 104]
    rows: Vec<f32>,
    /// Grey, [frames * 88 * 88].
    mouths: Vec<u8>,
    /// Cluster of each frame.
    pub(super) labels: Vec<u16>,
    hidden_sound: Vec<bool>,
    hidden_sight: Vec<bool>,
    /// Whether the face is there.
    seen: Vec<bool>,
    /// Whether sound and sight are there at all.
    hears: bool,
    sees: bool,
}

impl Example {
    /// Draws a clip, a piece of it, and what is hidden.
    pub(super) fn draw(
        clips: &dyn TalkSource,
        labels: &[Vec<u16>],
        settings: &PretrainTraining,
        seed: u64,
    ) -> TrainResult<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let index = random.random_range(0..clips.num_clips());
        let talk = clips.clip(index)?;
        let frames = talk.clip.num_frames();
        let length = frames.min(settings.max_frames);
        let first = random.random_range(0..=frames - length);
        let mut within = |most: f32| random.random_range(-1.0..=1.0f32) * most;
        let shift = [within(settings.shift), within(settings.shift)];
        let view = View { shift, zoom: 1.0, mirrored: random.random() };
        let one_only = random.random_bool(settings.modality_dropout);
        let sight_only = random.random_bool(settings.audio_dropout);
        let masks = Masks::draw(length, settings, &mut random);
        let rows = settings.augment.features(talk.clip.speech(), frames, &mut random);
        let mut example = Self::cut(&talk, &rows, first..first + length, view, masks);
        example.labels = labels[index][first..first + length].to_vec();
        (example.hears, example.sees) = (!(one_only && sight_only), !one_only || sight_only);
        Ok(example)
    }

    /// A whole clip as it is, with what is hidden drawn from a seed.
    pub(super) fn held_out(talk: &TalkingClip, labels: &[u16], settings: &PretrainTraining, seed: u64) -> Self {
        let frames = talk.clip.num_frames();
        let masks = Masks::draw(frames, settings, &mut ChaCha8Rng::seed_from_u64(seed));
        Self { labels: labels.to_vec(), ..Self::whole(talk, masks) }
    }

    /// A whole clip with nothing hidden, and nothing to be guessed.
    pub(super) fn plain(talk: &TalkingClip) -> Self {
        Self::whole(talk, Masks::none(talk.clip.num_frames()))
    }

    fn whole(talk: &TalkingClip, masks: Masks) -> Self {
        let frames = talk.clip.num_frames();
        let rows: Vec<f32> = speech_rows(talk.clip.speech(), frames).into_iter().flatten().collect();
        Self::cut(talk, &rows, 0..frames, View::PLAIN, masks)
    }

    fn cut(talk: &TalkingClip, rows: &[f32], piece: Range<usize>, view: View, masks: Masks) -> Self {
        let clip = &talk.clip;
        let last = clip.num_frames() - 1;
        let mut mouths = Vec::with_capacity(piece.len() * MOUTH_SIDE.pow(2));
        for shown in &masks.shown {
            // Where the picture begins later or ends earlier than the sound, its first or last frame stands.
            let frame = (piece.start + shown).saturating_add_signed(talk.offset).min(last);
            let mouth = MOUTH.cut(clip.frame(frame), clip.crop_size(), MOUTH_SIDE, view);
            mouths.extend(mouth.as_chunks::<3>().0.iter().map(grey));
        }
        let seen = |heard: usize| {
            let frame = heard.checked_add_signed(talk.offset);
            frame.and_then(|frame| clip.valid().get(frame)).is_some_and(|valid| *valid != 0)
        };
        Self {
            rows: rows[piece.start * FEATURES_PER_ROW..piece.end * FEATURES_PER_ROW].to_vec(),
            mouths,
            labels: vec![0; piece.len()],
            hidden_sound: masks.sound,
            hidden_sight: masks.sight,
            seen: piece.map(seen).collect(),
            hears: true,
            sees: true,
        }
    }

    /// Frames.
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether anything of a frame was hidden.
    pub(super) fn is_hidden(&self, frame: usize) -> bool {
        self.hidden_sound[frame] || self.hidden_sight[frame]
    }

    /// Whether the face is there.
    pub(super) fn is_seen(&self, frame: usize) -> bool {
        self.seen[frame]
    }

    /// Whether there is anything that a frame could be guessed from: who hears nothing has to see.
    pub(super) fn is_asked(&self, frame: usize) -> bool {
        self.hears || self.seen[frame]
    }
}

/// What is hidden of a piece.
struct Masks {
    sound: Vec<bool>,
    sight: Vec<bool>,
    /// The frame that is shown in the place of each.
    shown: Vec<usize>,
}

impl Masks {
    fn none(frames: usize) -> Self {
        Self { sound: vec![false; frames], sight: vec![false; frames], shown: (0..frames).collect() }
    }

    fn draw(frames: usize, settings: &PretrainTraining, random: &mut impl Rng) -> Self {
        let sound = spans(frames, settings.audio_mask, settings.audio_span, random);
        let sight = spans(frames, settings.video_mask, settings.video_span, random);
        let shown = substituted(&sight, random);
        Self { sound, sight, shown }
    }
}

/// As OpenCV's `COLOR_BGR2GRAY`.
fn grey([r, g, b]: &[u8; 3]) -> u8 {
    (0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b)).round() as u8
}

/// Examples on a device, the shorter ones filled up.
pub(super) struct Batch {
    /// Filter bank, [batch, time, 104].
    pub(super) rows: Tensor<3>,
    /// 1 where the sound is hidden, [batch, time, 1].
    pub(super) hidden: Tensor<3>,
    /// [batch, time, 88, 88]
    pub(super) mouths: Tensor<4>,
    /// 1 for who hears, [batch, 1, 1].
    pub(super) hears: Tensor<3>,
    /// 1 for who sees.
    pub(super) sees: Tensor<3>,
    pub(super) lengths: Vec<usize>,
    pub(super) time: usize,
}

impl Batch {
    /// `examples` is not empty.
    pub(super) fn of(examples: &[Example], device: &Device) -> TrainResult<Self> {
        let lengths: Vec<usize> = examples.iter().map(Example::len).collect();
        let (count, time) = (lengths.len(), lengths.iter().copied().max().unwrap_or(0));
        let (mut rows, mut hidden, mut mouths) = (Vec::new(), Vec::new(), Vec::new());
        for example in examples {
            rows.extend_from_slice(&example.rows);
            rows.resize(rows.len() + (time - example.len()) * FEATURES_PER_ROW, 0.0);
            hidden.extend((0..time).map(|t| flag(t < example.len() && example.hidden_sound[t])));
            let own = mouth_tensor(&example.mouths, example.len(), MOUTH_SIDE, MOUTH_SIDE, device)?;
            let missing = time - example.len();
            // What the front end takes for pictures beyond the end.
            let rest = || Tensor::zeros([1, missing, MOUTH_SIDE, MOUTH_SIDE], device);
            mouths.push(if missing == 0 { own } else { Tensor::cat(vec![own, rest()], 1) });
        }
        let on_device = |values: Vec<f32>, shape: [usize; 3]| {
            Tensor::<3>::from_data(TensorData::new(values, shape), (device, DType::F32))
        };
        let of_clips = |which: fn(&Example) -> bool| {
            on_device(examples.iter().map(|example| flag(which(example))).collect(), [count, 1, 1])
        };
        Ok(Self {
            rows: on_device(rows, [count, time, FEATURES_PER_ROW]),
            hidden: on_device(hidden, [count, time, 1]),
            mouths: Tensor::cat(mouths, 0),
            hears: of_clips(|example| example.hears),
            sees: of_clips(|example| example.sees),
            lengths,
            time,
        })
    }
}

fn flag(is: bool) -> f32 {
    if is { 1.0 } else { 0.0 }
}
