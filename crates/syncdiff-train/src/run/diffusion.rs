//! The denoiser's run.

use super::{DataSettings, Report, RunInputs, autoencoder, speech};
use crate::diffusion::{
    DenoiserStage, DiffusionTask, DiffusionTraining, EstimateNets, LatentClip, SheetDrawing, Sizes, position_weights,
};
use crate::error::{TrainError, TrainResult};
use crate::exchange::Partners;
use crate::images::to_tensor;
use crate::speech::read_offsets;
use burn::tensor::{Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use syncdiff_data::{Clip, Frame, KeepMask, KeepMaskKind, LatentKey, LatentStore, LatentType, Look};
use syncdiff_model::audio::{AudioEncoder, AudioEncoderConfig, Conditioner};
use syncdiff_model::autoencoder::Autoencoder;
use syncdiff_model::denoiser::LatentDenoiser;
use syncdiff_model::diffusion::{Sampler, Schedule};
use syncdiff_model::lipsync::SpeechEncoder;
use syncdiff_model::preset::SpeechFeatures;
use syncdiff_model::scorers::own_syncnet::WINDOW_FRAMES;
use syncdiff_model::scorers::{Lpips, LpipsTrunk, OwnSyncNet};
use syncdiff_model::weights::{Storage, load_into, open_safetensors, sha256_of_module};
use syncdiff_model::{LipSync, LipSyncConfig};

/// Name of the resulting weights folder in the run folder.
pub const MODEL_FOLDER: &str = "model";
/// Frames encoded at once.
const ENCODE_BATCH: usize = 8;
/// Held-out clips of one speaker that are encoded.
const VALID_CLIPS_PER_SPEAKER: usize = 4;

/// What `diffusion` reads beside the data.
pub struct DiffusionFiles<'a> {
    /// Result of the first stage.
    pub autoencoder: &'a Path,
    /// Result of the speech encoder's stage.
    pub speech: &'a Path,
    /// How far picture and sound of each clip are apart, a table of that stage; clips that it lacks are not moved.
    pub offsets: Option<&'a Path>,
    /// Folder that keeps latents.
    pub latents: &'a Path,
    /// Weights to start from.
    pub init_from: Option<&'a Path>,
    /// Result of [`super::syncnet`], for a sync loss: not the one that will judge.
    pub syncnet: Option<&'a Path>,
    /// Folder of the LPIPS networks, for a loss.
    pub lpips: Option<&'a Path>,
}

/// Trains the denoiser on latents of the frozen autoencoder and on rows of the frozen speech encoder. Latents are
/// computed once and kept in a folder (which another run with the same autoencoder and mask uses too). Writes a whole
/// weights folder, [`MODEL_FOLDER`], into the run folder and returns its path.
///
/// # Errors
/// Data, weights or settings that cannot be used, a loss that is not finite, a folder that cannot be written.
pub fn diffusion(
    inputs: &RunInputs<'_>,
    files: &DiffusionFiles<'_>,
    licence: &str,
    report: Report<'_>,
) -> TrainResult<PathBuf> {
    let config = inputs.config;
    let model_config = config.model()?;
    let settings = config.part("diffusion", &config.diffusion)?.clone().for_priors(&model_config.priors);
    if settings.prediction != model_config.prediction {
        return Err(TrainError::Parameter {
            name: "diffusion.prediction",
            value: format!("{:?}", settings.prediction),
            allowed: format!("the preset predicts {:?}", model_config.prediction),
        });
    }
    let mut partners = inputs.begin()?;
    let plain = inputs.device;
    let first_stage = load_into(
        Autoencoder::new(&model_config.autoencoder, plain),
        &open_safetensors(files.autoencoder)?,
        &autoencoder::names(),
    )?;
    let load_encoder = |config: &AudioEncoderConfig, device: &Device| -> TrainResult<AudioEncoder> {
        Ok(load_into(config.init(device)?, &open_safetensors(files.speech)?, &speech::names())?)
    };
    let listener = match model_config.features {
        SpeechFeatures::Encoder => Some(load_encoder(&model_config.audio, plain)?),
        SpeechFeatures::FilterBank => None,
    };
    let moonshine = match model_config.moonshine_layers {
        0 => None,
        layers => Some(speech::moonshine(files.speech, layers, plain)?),
    };
    let listener = SpeechEncoder { moonshine, audio: listener, conditioner: model_config.conditioning.init(plain)? };
    let learns = config.model.as_ref().is_some_and(|changes| changes.encoder_learns(&model_config));
    let judge = files.syncnet.map(|path| OwnSyncNet::load(path, plain)).transpose()?;
    let encoder = ClipEncoder {
        judge: judge.as_ref(),
        first_stage: &first_stage,
        listener: &listener,
        encoder_learns: learns,
        mask: FixedMask::new(&model_config)?,
        store: latent_store(files.latents, &first_stage, &model_config)?,
        offsets: files.offsets.map(read_offsets).transpose()?.unwrap_or_default(),
        device: plain,
        config: &model_config,
    };
    let [clips, valid] = encoder.splits(inputs, settings.varied_copies, partners.as_mut())?;

    let device = inputs.differentiating();
    let mut stage = DenoiserStage {
        denoiser: LatentDenoiser::new(&model_config.unet, model_config.priors, &device),
        conditioner: model_config.conditioning.init(&device)?,
        // Without dropout: its draws would come from the generator that all parts of a step share.
        audio: match learns {
            true => Some(load_encoder(&AudioEncoderConfig { dropout: 0.0, ..model_config.audio.clone() }, &device)?),
            false => None,
        },
    };
    if let Some(path) = files.init_from {
        stage = started_from(stage, path, &model_config)?;
    }
    let decoder = || -> TrainResult<Autoencoder> {
        let weights = open_safetensors(files.autoencoder)?;
        Ok(load_into(Autoencoder::new(&model_config.autoencoder, &device), &weights, &autoencoder::names())?)
    };
    let estimate = estimate_nets(&settings, files.syncnet, files.lpips, &device, decoder)?;
    let drawn_by = (model_config.sampler, model_config.guidance);
    let task = encoder.task(inputs, settings, [&clips, &valid], device, estimate, drawn_by);
    let folder = inputs.folder.join(MODEL_FOLDER);
    let Some(trained) = inputs.train(&task, stage, partners, report)? else { return Ok(folder) };
    let audio = trained.shadow.audio.or_else(|| listener.audio.clone());
    let speech =
        SpeechEncoder { moonshine: listener.moonshine.clone(), audio, conditioner: trained.shadow.conditioner };
    let model = LipSync::from_parts(model_config, first_stage.clone(), trained.shadow.denoiser, speech, plain)?;
    let changes = config.model.as_ref().map(toml::to_string).transpose().unwrap_or_default().unwrap_or_default();
    let changes =
        if changes.is_empty() { changes } else { format!("Changed: {}.\n\n", changes.trim().replace('\n', ", ")) };
    let card =
        format!("# {}\n\n{changes}Trained for {} steps, {:.0} s.\n", config.preset, trained.step, trained.seconds);
    model.save(&folder, Storage::F16, &card, licence)?;
    Ok(folder)
}

/// The stage with the values of a `model.safetensors`, whose shapes must be its own.
pub(super) fn started_from(stage: DenoiserStage, path: &Path, config: &LipSyncConfig) -> TrainResult<DenoiserStage> {
    let weights = open_safetensors(path)?;
    let names = LatentDenoiser::remap(&config.unet).with_prefix("denoiser.");
    Ok(DenoiserStage {
        denoiser: load_into(stage.denoiser, &weights, &names)?,
        conditioner: load_into(stage.conditioner, &weights, &Conditioner::remap().with_prefix("conditioner."))?,
        audio: stage.audio.map(|audio| load_into(audio, &weights, &speech::names())).transpose()?,
    })
}

/// The networks of the losses on pictures, where the settings have such; `decoder` lies on the device that
/// differentiates, as they do.
///
/// # Errors
/// [`TrainError::Parameter`] for networks without settings, and as [`EstimateNets::new`].
pub(super) fn estimate_nets(
    settings: &DiffusionTraining,
    syncnet: Option<&Path>,
    lpips: Option<&Path>,
    device: &Device,
    decoder: impl FnOnce() -> TrainResult<Autoencoder>,
) -> TrainResult<Option<EstimateNets>> {
    match &settings.estimate {
        Some(estimate) => {
            let decoder = decoder()?;
            let syncnet = syncnet.map(|path| OwnSyncNet::load(path, device)).transpose()?;
            let lpips = lpips.map(|folder| Lpips::open(LpipsTrunk::Alex, folder, device)).transpose()?;
            EstimateNets::new(estimate, decoder, syncnet, lpips).map(Some)
        }
        None if syncnet.or(lpips).is_some() => Err(TrainError::Parameter {
            name: "diffusion.estimate",
            value: "absent".into(),
            allowed: "--syncnet and --lpips need a table [diffusion.estimate] with their weights".into(),
        }),
        None => Ok(None),
    }
}

/// A mask that is the same for every crop.
pub(super) struct FixedMask {
    mask: KeepMask,
    size: usize,
}

impl FixedMask {
    pub(super) fn new(config: &LipSyncConfig) -> TrainResult<Self> {
        let kind: KeepMaskKind = config.keep_mask.parse().map_err(|_| TrainError::Parameter {
            name: "keep_mask",
            value: config.keep_mask.clone(),
            allowed: "aligned_fixed".into(),
        })?;
        if kind != KeepMaskKind::AlignedFixed {
            return Err(TrainError::Parameter {
                name: "keep_mask",
                value: config.keep_mask.clone(),
                allowed: "training on cached latents needs a mask that is the same for every frame: aligned_fixed"
                    .into(),
            });
        }
        Ok(Self { mask: KeepMask::aligned_fixed(config.crop_size), size: config.crop_size })
    }

    fn apply(&self, crop: &[u8]) -> TrainResult<Vec<u8>> {
        let mut frame = Frame { width: self.size, height: self.size, data: crop.to_vec() };
        self.mask.apply(&mut frame).map_err(|e| TrainError::Parameter {
            name: "keep_mask",
            value: e.to_string(),
            allowed: "a crop of the model's size".into(),
        })?;
        Ok(frame.data)
    }

    /// Share of hidden pixels behind each latent position.
    pub(super) fn hidden_shares(&self, side: usize) -> Vec<f32> {
        let factor = self.size / side;
        let mut shares = vec![0f32; side * side];
        for (i, &keep) in self.mask.keep.iter().enumerate() {
            if keep == 0 {
                shares[i / self.size / factor * side + i % self.size / factor] += 1.0 / (factor * factor) as f32;
            }
        }
        shares
    }
}

/// Where latents of a first stage are kept: by its parameters, so that weights which differ elsewhere find them too.
pub(super) fn latent_store(
    folder: &Path,
    first_stage: &Autoencoder,
    config: &LipSyncConfig,
) -> TrainResult<LatentStore> {
    let side = config.latent_size();
    let key = LatentKey {
        autoencoder: sha256_of_module(first_stage)?,
        mask: config.keep_mask.clone(),
        shape: [config.autoencoder.z_channels, side, side],
        dtype: LatentType::F16,
        copy: 0,
    };
    Ok(LatentStore::new(folder, key))
}

/// From prepared clips to what the denoiser learns from.
pub(super) struct ClipEncoder<'a> {
    pub(super) judge: Option<&'a OwnSyncNet>,
    pub(super) first_stage: &'a Autoencoder,
    pub(super) listener: &'a SpeechEncoder,
    /// Layers of it learn: it is run in every step, not once.
    pub(super) encoder_learns: bool,
    pub(super) mask: FixedMask,
    pub(super) store: LatentStore,
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
        let seen = |frame: usize| {
            let mut crop = clip.frame(frame).to_vec();
            look.apply(&mut crop, clip.crop_size());
            crop
        };
        let crops: Vec<Vec<u8>> = (0..clip.num_frames()).map(seen).collect();
        let masked = crops.iter().map(|crop| self.mask.apply(crop)).collect::<TrainResult<Vec<_>>>()?;
        // Much of an encoder pass runs on one thread: the two kinds of frames go side by side.
        let (side, device, other) = (self.config.crop_size, self.device.clone(), self.first_stage.clone());
        let (target, masked) = std::thread::scope(|scope| {
            let masked = scope.spawn(move || latents(&other, &masked, side, &device));
            (latents(self.first_stage, &crops, side, self.device), masked.join().expect("a panic is passed on"))
        });
        Ok(vec![("target", target), ("masked", masked)])
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
    ) -> DiffusionTask<'c> {
        let (config, options, side) = (self.config, &inputs.config.options, self.config.latent_size());
        DiffusionTask {
            estimate,
            drawing: Some(SheetDrawing::new(self.first_stage.clone(), sampler, guidance)),
            weights: position_weights(&self.mask.hidden_shares(side), side, &settings),
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
        }
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
        let stores: Vec<LatentStore> = (0..=copies).map(|copy| self.store.of_copy(copy)).collect();
        let fill = || -> TrainResult<()> {
            for store in &stores {
                let look = |clip: &Clip| Look::of_copy(&clip.meta().clip, store.key().copy);
                store.fill(inputs.data, &chosen, |_, clip| self.arrays(clip, look(clip)))?;
            }
            Ok(())
        };
        // The other processes find all latents there.
        match partners {
            Some(partners) => partners.after_leader(&format!("latents-{split}"), fill)?,
            None => fill()?,
        };
        let len = self.store.key().shape.iter().product::<usize>();
        let mut frame = vec![0f32; len];
        let mut clips = Vec::with_capacity(chosen.len() * stores.len());
        for number in chosen {
            let clip = inputs.data.load(number)?;
            let entry = &inputs.data.clips()[number];
            let rows = self.listener.rows(clip.speech(), clip.num_frames(), self.device);
            let values = |rows: Tensor<2>| -> Vec<f32> {
                rows.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
            };
            let (speech, rows) = match self.encoder_learns {
                true => (Vec::new(), values(rows)),
                false => (values(self.listener.encode(rows)), Vec::new()),
            };
            let valid: Vec<bool> = clip.valid().iter().map(|v| *v != 0).collect();
            let sounds = self.embeddings(&clip)?;
            for store in &stores {
                let latents = store.read(entry)?;
                let mut plane = |name: &str| -> TrainResult<Vec<u16>> {
                    let mut bits = Vec::with_capacity(clip.num_frames() * len);
                    for f in 0..clip.num_frames() {
                        latents.copy_frame(name, f, &mut frame)?;
                        bits.extend(frame.iter().map(|v| half::f16::from_f32(*v).to_bits()));
                    }
                    Ok(bits)
                };
                clips.push(LatentClip {
                    frames: plane("target")?,
                    masked: plane("masked")?,
                    speech: speech.clone(),
                    rows: rows.clone(),
                    offset: self.offsets.get(&entry.clip).copied().unwrap_or(0),
                    valid: valid.clone(),
                    sounds: sounds.clone(),
                });
            }
        }
        Ok(clips)
    }
}
