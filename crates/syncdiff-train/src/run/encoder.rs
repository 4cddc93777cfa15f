//! Prepared clips as the denoiser learns from them: seen and heard by the frozen networks, once, and kept.

use super::{DataSettings, RunInputs};
use crate::diffusion::{
    DiffusionTask, DiffusionTraining, EstimateNets, LatentClip, SheetDrawing, Sizes, position_weights,
};
use crate::error::{TrainError, TrainResult};
use crate::exchange::Partners;
use crate::images::to_tensor;
use crate::seeds::mix;
use crate::speech::SpeechAugmentation;
use burn::tensor::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use syncdiff_data::{
    Clip, Dataset, FaceError, Frame, KeepMask, KeepMaskKind, LatentKey, LatentStore, LatentType, Look, seed_of_clip,
};
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::diffusion::{Sampler, Schedule};
use syncdiff_model::lipsync::SpeechEncoder;
use syncdiff_model::scorers::OwnSyncNet;
use syncdiff_model::scorers::own_syncnet::WINDOW_FRAMES;
use syncdiff_model::weights::sha256_of_module;
use syncdiff_model::{LipSyncConfig, ModelResult};

/// Frames encoded at once.
const ENCODE_BATCH: usize = 8;
/// Held-out clips of one speaker that are encoded.
const VALID_CLIPS_PER_SPEAKER: usize = 4;
/// How the sound of copies differs: as loud noise and as dull or sharp microphones as the speech encoder has learned
/// with. The pace stays, since the pictures keep theirs.
const COPIES_SOUND: SpeechAugmentation = SpeechAugmentation { noise: 0.5, equaliser: 0.5, warp: 0.0, speed: 0.0 };
/// Name of the kept rows of speech.
const ROWS: &str = "rows";

/// What is hidden from the denoiser.
pub(super) struct HiddenRegion {
    kind: KeepMaskKind,
    fixed: KeepMask,
}

impl HiddenRegion {
    pub(super) fn new(config: &LipSyncConfig) -> TrainResult<Self> {
        let kind = config.keep_mask.parse().map_err(|error: FaceError| TrainError::Parameter {
            name: "keep_mask",
            value: config.keep_mask.clone(),
            allowed: error.to_string(),
        })?;
        Ok(Self { kind, fixed: KeepMask::aligned_fixed(config.crop_size) })
    }

    /// The mask of a frame in a copy of this look. Where there is no face, nothing is learned and the mask does not
    /// matter.
    fn of(&self, clip: &Clip, frame: usize, look: &Look) -> TrainResult<Cow<'_, KeepMask>> {
        if self.kind == KeepMaskKind::AlignedFixed {
            return Ok(Cow::Borrowed(&self.fixed));
        }
        let (Some(face_box), Some(crop_from_frame)) = (clip.face_box(frame)?, clip.crop_from_frame(frame)) else {
            return Ok(Cow::Borrowed(&self.fixed));
        };
        let mask = KeepMask::of_kind(self.kind, &face_box, &crop_from_frame, self.fixed.size);
        if *look == Look::PLAIN {
            return Ok(Cow::Owned(mask));
        }
        let mut picture: Vec<u8> = mask.keep.iter().flat_map(|keep| [255 * keep; 3]).collect();
        look.place(&mut picture, mask.size);
        Ok(Cow::Owned(KeepMask { keep: picture.chunks_exact(3).map(|pixel| pixel[0] / 128).collect(), ..mask }))
    }

    /// Share of hidden pixels behind each latent position; the mean over the middle frames of these clips.
    fn shares(&self, data: &Dataset, clips: &[usize], side: usize) -> TrainResult<Vec<f32>> {
        if self.kind == KeepMaskKind::AlignedFixed {
            return Ok(hidden_shares(&self.fixed, side));
        }
        let mut sum = vec![0.0; side * side];
        for number in clips {
            let clip = data.load(*number)?;
            let mask = self.of(&clip, clip.num_frames() / 2, &Look::PLAIN)?;
            sum.iter_mut().zip(hidden_shares(&mask, side)).for_each(|(sum, share)| *sum += share);
        }
        Ok(sum.into_iter().map(|sum| sum / clips.len().max(1) as f32).collect())
    }
}

fn hidden_shares(mask: &KeepMask, side: usize) -> Vec<f32> {
    let factor = mask.size / side;
    let mut shares = vec![0f32; side * side];
    for (i, &keep) in mask.keep.iter().enumerate() {
        if keep == 0 {
            shares[i / mask.size / factor * side + i % mask.size / factor] += 1.0 / (factor * factor) as f32;
        }
    }
    shares
}

fn hide(mask: &KeepMask, crop: &[u8]) -> TrainResult<Vec<u8>> {
    let mut frame = Frame { width: mask.size, height: mask.size, data: crop.to_vec() };
    mask.apply(&mut frame).map_err(|e| TrainError::Parameter {
        name: "keep_mask",
        value: e.to_string(),
        allowed: "a crop of the model's size".into(),
    })?;
    Ok(frame.data)
}

/// Where latents of a first stage are kept: by its parameters, so that weights which differ elsewhere find them too.
pub(super) fn latent_store(
    folder: &Path,
    first_stage: &Autoencoder,
    config: &LipSyncConfig,
) -> TrainResult<LatentStore> {
    let side = config.latent_size();
    let key = LatentKey {
        network: sha256_of_module(first_stage)?,
        input: config.keep_mask.clone(),
        shape: [config.autoencoder.z_channels, side, side],
        dtype: LatentType::F16,
        copy: 0,
    };
    Ok(LatentStore::new(folder, key))
}

/// Where the rows of speech are kept: what the encoder makes of it, or, where layers of it learn, what it is given.
pub(super) fn speech_store(
    folder: &Path,
    listener: &SpeechEncoder,
    encoder_learns: bool,
    config: &LipSyncConfig,
) -> TrainResult<LatentStore> {
    let hash = |name: &str, hash: Option<ModelResult<String>>| -> TrainResult<String> {
        Ok(format!("{name} {}", hash.transpose()?.unwrap_or_default()))
    };
    let frozen = listener.audio.as_ref().filter(|_| !encoder_learns);
    let network = [
        hash("moonshine", listener.moonshine.as_ref().map(sha256_of_module))?,
        hash("audio", frozen.map(sha256_of_module))?,
    ];
    let width = if encoder_learns { config.row_width() } else { config.speech_dim() };
    let key = LatentKey {
        network: network.join(", "),
        input: format!("speech; copies: {COPIES_SOUND:?}"),
        shape: [width, 1, 1],
        dtype: LatentType::F32,
        copy: 0,
    };
    Ok(LatentStore::new(&folder.join("speech"), key))
}

/// From prepared clips to what the denoiser learns from.
pub(super) struct ClipEncoder<'a> {
    pub(super) judge: Option<&'a OwnSyncNet>,
    pub(super) first_stage: &'a Autoencoder,
    pub(super) listener: &'a SpeechEncoder,
    /// Layers of it learn: it is run in every step, not once.
    pub(super) encoder_learns: bool,
    pub(super) hidden: HiddenRegion,
    pub(super) pictures: LatentStore,
    pub(super) sounds: LatentStore,
    pub(super) offsets: BTreeMap<String, isize>,
    pub(super) device: &'a Device,
    pub(super) config: &'a LipSyncConfig,
}

fn latents(first_stage: &Autoencoder, crops: &[Vec<u8>], side: usize, device: &Device) -> Vec<f32> {
    let encode = |part: &[Vec<u8>]| {
        let z = first_stage.encode(to_tensor(part, side, device));
        z.into_data().convert::<f32>().try_into_vec::<f32>().expect("converted to f32")
    };
    crops.chunks(ENCODE_BATCH).flat_map(encode).collect()
}

impl ClipEncoder<'_> {
    fn arrays(&self, clip: &Clip, look: Look) -> TrainResult<Vec<(&'static str, Vec<f32>)>> {
        let crops: Vec<Vec<u8>> = (0..clip.num_frames()).map(|frame| look.of_frame(clip, frame)).collect();
        let masked = |(frame, crop): (usize, &Vec<u8>)| hide(self.hidden.of(clip, frame, &look)?.as_ref(), crop);
        let masked = crops.iter().enumerate().map(masked).collect::<TrainResult<Vec<_>>>()?;
        // Much of an encoder pass runs on one thread: the two kinds of frames go side by side.
        let (side, device, other) = (self.config.crop_size, self.device.clone(), self.first_stage.clone());
        let (target, masked) = std::thread::scope(|scope| {
            let masked = scope.spawn(move || latents(&other, &masked, side, &device));
            (latents(self.first_stage, &crops, side, self.device), masked.join().expect("a panic is passed on"))
        });
        Ok(vec![("target", target), ("masked", masked)])
    }

    /// What is kept of a clip's speech; a copy has been recorded by another microphone in another room.
    fn speech(&self, clip: &Clip, copy: usize) -> Vec<(&'static str, Vec<f32>)> {
        let samples = match copy {
            0 => Cow::Borrowed(clip.speech()),
            copy => {
                let seed = mix(seed_of_clip(&clip.meta().clip), copy as u64, 0);
                Cow::Owned(COPIES_SOUND.waveform(clip.speech(), &mut ChaCha8Rng::seed_from_u64(seed)))
            }
        };
        let rows = self.listener.rows(&samples, clip.num_frames(), self.device);
        let rows = if self.encoder_learns { rows } else { self.listener.encode(rows) };
        vec![(ROWS, rows.into_data().convert::<f32>().try_into_vec().expect("converted to f32"))]
    }

    /// What the SyncNet of a loss hears; nothing without one, or in a clip shorter than its windows.
    fn embeddings(&self, clip: &Clip) -> TrainResult<Vec<f32>> {
        let Some(judge) = self.judge.filter(|_| clip.num_frames() >= WINDOW_FRAMES) else { return Ok(Vec::new()) };
        let rows = judge.speech(clip.speech(), self.device)?;
        Ok(rows.into_data().convert::<f32>().try_into_vec().expect("converted to f32"))
    }

    /// Clips of the training split with their copies, and a few of each speaker held out: a few dozen samples are drawn
    /// from these.
    pub(super) fn splits(
        &self,
        inputs: &RunInputs<'_>,
        copies: usize,
        mut partners: Option<&mut Partners<'_>>,
    ) -> TrainResult<[Vec<LatentClip>; 2]> {
        let all = &inputs.config.data;
        let few = DataSettings { max_clips_per_speaker: VALID_CLIPS_PER_SPEAKER, ..all.clone() };
        let train = self.encode_all(inputs, partners.as_deref_mut(), "train", all, copies)?;
        Ok([train, self.encode_all(inputs, partners, "valid", &few, 0)?])
    }

    /// What draws samples of these clips, training and held out, and knows their loss; and by which sampler and guidance
    /// it draws the sheets of its checkpoints.
    pub(super) fn task<'c>(
        &self,
        inputs: &RunInputs<'_>,
        settings: DiffusionTraining,
        [clips, valid]: [&'c [LatentClip]; 2],
        device: Device,
        estimate: Option<EstimateNets>,
        (sampler, guidance): (Sampler, f32),
    ) -> TrainResult<DiffusionTask<'c>> {
        let (config, options, side) = (self.config, &inputs.config.options, self.config.latent_size());
        let chosen = inputs.config.data.choose(inputs.data, "train")?;
        let hidden = self.hidden.shares(inputs.data, &chosen, side)?;
        Ok(DiffusionTask {
            estimate,
            drawing: Some(SheetDrawing::new(self.first_stage.clone(), sampler, guidance)),
            weights: position_weights(&hidden, side, &settings),
            settings,
            batch_size: options.batch_size,
            seed: options.seed,
            device,
            sizes: Sizes {
                channels: config.autoencoder.z_channels,
                side,
                speech: config.speech_dim(),
                row: config.row_width(),
                window: config.conditioning.window,
                previous_frames: config.priors.pose_frames,
            },
            clips,
            valid,
            schedule: Schedule::paper(),
        })
    }

    fn encode_all(
        &self,
        inputs: &RunInputs<'_>,
        partners: Option<&mut Partners<'_>>,
        split: &str,
        choice: &DataSettings,
        copies: usize,
    ) -> TrainResult<Vec<LatentClip>> {
        let chosen = choice.choose(inputs.data, split)?;
        let stores: Vec<[LatentStore; 2]> =
            (0..=copies).map(|copy| [self.pictures.of_copy(copy), self.sounds.of_copy(copy)]).collect();
        let fill = || -> TrainResult<()> {
            for (copy, [pictures, sounds]) in stores.iter().enumerate() {
                let look = |clip: &Clip| Look::of_copy(&clip.meta().clip, copy);
                pictures.fill(inputs.data, &chosen, |_, clip| self.arrays(clip, look(clip)))?;
                sounds.fill(inputs.data, &chosen, |_, clip| TrainResult::Ok(self.speech(clip, copy)))?;
            }
            Ok(())
        };
        // The other processes find all latents there.
        match partners {
            Some(partners) => partners.after_leader(&format!("latents-{split}"), fill)?,
            None => fill()?,
        };
        let mut clips = Vec::with_capacity(chosen.len() * stores.len());
        for number in chosen {
            let clip = inputs.data.load(number)?;
            let entry = &inputs.data.clips()[number];
            let valid: Vec<bool> = clip.valid().iter().map(|v| *v != 0).collect();
            let sounds = self.embeddings(&clip)?;
            for [pictures, heard] in &stores {
                let latents = pictures.read(entry)?;
                let plane = |name: &str| -> TrainResult<Vec<u16>> {
                    Ok(latents.values(name)?.map(|value| half::f16::from_f32(value).to_bits()).collect())
                };
                let rows: Vec<f32> = heard.read(entry)?.values(ROWS)?.collect();
                let (speech, rows) = if self.encoder_learns { (Vec::new(), rows) } else { (rows, Vec::new()) };
                clips.push(LatentClip {
                    frames: plane("target")?,
                    masked: plane("masked")?,
                    speech,
                    rows,
                    offset: self.offsets.get(&entry.clip).copied().unwrap_or(0),
                    valid: valid.clone(),
                    sounds: sounds.clone(),
                });
            }
        }
        Ok(clips)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncdiff_data::{ClipArrays, ClipMeta};

    const SIDE: usize = 64;

    /// Two frames of a face whose box lies left in the first and right in the second, none in the third.
    fn clip(boxes: Vec<f32>) -> Clip {
        let frames = 3;
        let arrays = ClipArrays {
            crop_size: SIDE,
            frames: vec![200; frames * SIDE * SIDE * 3],
            crop_from_frame: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0].repeat(frames),
            face_box: boxes,
            landmarks: vec![0.0; frames * 468 * 2],
            opening: vec![0.0; frames],
            valid: vec![1, 1, 0],
            speech: vec![0; frames * 640],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.safetensors");
        arrays.write(&path, &ClipMeta { clip: "train/x".into(), ..ClipMeta::default() }).unwrap();
        Clip::read(&path).unwrap()
    }

    fn region(keep_mask: &str) -> HiddenRegion {
        let config = LipSyncConfig { keep_mask: keep_mask.into(), crop_size: SIDE, ..LipSyncConfig::lite() };
        HiddenRegion::new(&config).unwrap()
    }

    #[test]
    fn the_lower_half_of_the_box_is_hidden_and_follows_it() {
        let boxes = [[8.0, 4.0, 40.0, 60.0], [20.0, 4.0, 52.0, 60.0], [0.0; 4]].concat();
        let (clip, region) = (clip(boxes), region("face_box_lower_half"));
        let hidden = |frame: usize, look: &Look| -> Vec<usize> {
            let mask = region.of(&clip, frame, look).unwrap().into_owned();
            let row = &mask.keep[50 * SIDE..51 * SIDE];
            assert!(mask.keep[20 * SIDE..21 * SIDE].iter().all(|keep| *keep == 1), "the upper half is seen");
            (0..SIDE).filter(|x| row[*x] == 0).collect()
        };
        assert_eq!(hidden(0, &Look::PLAIN), (8..=40).collect::<Vec<_>>());
        assert_eq!(hidden(1, &Look::PLAIN), (20..=52).collect::<Vec<_>>());
        let mirrored = Look { mirrored: true, ..Look::PLAIN };
        assert_eq!(hidden(0, &mirrored), (23..=55).collect::<Vec<_>>());
        assert_eq!(*region.of(&clip, 2, &Look::PLAIN).unwrap(), region.fixed, "no face, nothing is learned");
    }

    #[test]
    fn the_fixed_shape_is_the_same_in_every_look() {
        let (clip, region) = (clip(vec![0.0; 12]), region("aligned_fixed"));
        for copy in 0..4 {
            assert_eq!(*region.of(&clip, 0, &Look::of_copy("x", copy)).unwrap(), KeepMask::aligned_fixed(SIDE));
        }
        let other = LipSyncConfig { keep_mask: "beard".into(), ..LipSyncConfig::lite() };
        let error = HiddenRegion::new(&other).err().expect("no such mask").to_string();
        assert!(error.contains("beard") && error.contains("face_box_lower_half"), "{error}");
    }
}
