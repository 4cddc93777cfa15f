//! Every architecture of this program with what a frame costs and whose weights are public.

use burn::tensor::Device;
use serde::Serialize;

use crate::audio::{AudioNet, Moonshine};
use crate::autoencoder::{AutoencoderConfig, PatchDiscriminator};
use crate::baselines::difftalk::DiffTalkCondition;
use crate::baselines::wav2lip::{ColourSyncNet, Wav2LipDiscriminator, Wav2LipGenerator};
use crate::cost::Cost;
use crate::diffusion::SamplerKind;
use crate::official;
use crate::preset::{LipSyncConfig, PoseFeedback};
use crate::reader::LipReaderConfig;
use crate::scorers::{Lpips, LpipsTrunk, S3fd, SyncNet};
use crate::unet::UNetConfig;
use crate::weights::import::Layout;

/// Rows of the utterance over which what hears or sees a whole utterance is averaged: ten seconds.
pub const UTTERANCE_ROWS: usize = 250;
/// Tokens of the readers: characters would need fewer, the public readers have 1000 pieces of words.
const VOCABULARY: usize = 1000;
/// Side of the pictures that LPIPS compares for the paper's tables.
const LPIPS_SIDE: usize = 96;
/// The picture in which faces are looked for.
const DETECTED_SIZE: [usize; 2] = [360, 640];

/// One architecture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Architecture {
    /// Name; that of its [`Layout`] where its public checkpoints can be imported, `PRESET.PART` for a part of a preset.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Learned values.
    pub parameters: u64,
    /// Multiply-accumulates a frame.
    pub macs_per_frame: u64,
    /// What is counted as a frame.
    pub frame: String,
    /// Whose weights are public, under which terms; none where nobody's are.
    pub public_weights: Option<PublicWeights>,
}

/// Weights that a project has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PublicWeights {
    /// Whose.
    pub project: &'static str,
    /// Terms, as far as the project states them.
    pub licence: &'static str,
}

impl Architecture {
    fn new(name: &str, title: &str, cost: Cost, frame: impl Into<String>) -> Self {
        let Cost { parameters, macs: macs_per_frame } = cost;
        let (name, title, frame) = (name.to_owned(), title.to_owned(), frame.into());
        Self { name, title, parameters, macs_per_frame, frame, public_weights: None }
    }

    /// The network of a layout that can be imported, with its title and terms.
    fn of_layout(name: &str, cost: Cost, frame: impl Into<String>) -> Self {
        let architecture = Self::new(name, "", cost, frame).with_weights_of(name);
        let title = Layout::by_name(name).map_or("", |layout| layout.title).to_owned();
        Self { title, ..architecture }
    }

    fn with_weights_of(self, layout: &str) -> Self {
        let layout = Layout::by_name(layout);
        let public_weights = layout.map(|layout| PublicWeights { project: layout.project, licence: layout.licence });
        Self { public_weights, ..self }
    }
}

/// A large count in four digits: `171.4 G`.
pub fn short(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, "");
    for larger in ["k", "M", "G", "T"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    let digits = if unit.is_empty() { 0 } else { 3usize.saturating_sub(value.log10().floor() as usize) };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

/// What an utterance costs a frame.
fn a_row(cost: Cost) -> Cost {
    Cost { macs: cost.macs / UTTERANCE_ROWS as u64, ..cost }
}

fn utterance(signal: &str) -> String {
    format!("one {signal}, {UTTERANCE_ROWS} encoded together")
}

/// The parts of a preset: first stage, denoiser, speech. A frame is one frame of output as the preset samples it.
pub fn preset_parts(config: &LipSyncConfig) -> [Architecture; 3] {
    let (size, side) = (config.crop_size, config.latent_size());
    let named = |part: &str, title: &str, cost: Cost, frame: String| {
        Architecture::new(&format!("{}.{part}", config.name), title, cost, frame)
    };
    let (encoded, encodings) = match config.feedback {
        PoseFeedback::Decoded => ("masked and previous frame", 2),
        PoseFeedback::Latent => ("masked frame", 1),
    };
    let autoencoder = config.autoencoder.cost(size, encodings, 1);
    let steps = config.sampler.num_steps;
    let evaluations = if config.sampler.kind == SamplerKind::Heun { 2 * steps - 1 } else { steps };
    let guided = config.guidance != LipSyncConfig::NO_GUIDANCE;
    let evaluation = config.unet.cost(side, config.conditioning.num_tokens());
    let bottleneck = config.priors.bottleneck_cost(config.autoencoder.z_channels, side);
    let denoiser = evaluation.times(evaluations * if guided { 2 } else { 1 }) + bottleneck;
    let twice = if guided { ", with and without speech" } else { "" };
    let heard = match config.moonshine_layers {
        0 => Cost::default(),
        layers => Moonshine::cost(layers, UTTERANCE_ROWS),
    };
    let speech = a_row(heard + config.audio.cost(UTTERANCE_ROWS)) + config.conditioning.cost();
    [
        named(
            "autoencoder",
            "first stage: pixels to latents and back",
            autoencoder,
            format!("{encoded} encoded, one frame decoded, {size}x{size}"),
        ),
        named(
            "denoiser",
            "U-Net with its bottleneck",
            denoiser,
            format!("{evaluations} evaluations of {}{twice}", short(evaluation.macs)),
        ),
        named("speech", "speech encoder and temporal filter", speech, utterance("row of speech")),
    ]
}

/// The architectures that are no part of a preset, and those of the paper as their projects publish them. The device
/// is not computed on.
pub fn architectures(device: &Device) -> Vec<Architecture> {
    let paper = LipSyncConfig::paper();
    let vq = AutoencoderConfig::paper();
    let unet = UNetConfig::paper();
    let talk = official::difftalk_unet();
    let picture = paper.crop_size;
    let latent = paper.latent_size();
    let evaluation = format!("one evaluation, latent {latent}x{latent}");
    let (base, large) = (LipReaderConfig::base(VOCABULARY), LipReaderConfig::large(VOCABULARY));
    let read = |reader: &LipReaderConfig| a_row(reader.cost(UTTERANCE_ROWS, UTTERANCE_ROWS));
    let reading = format!("{}; one token a frame, one hypothesis", utterance("picture of lips"));
    let [rows, columns] = DETECTED_SIZE;
    let lpips = |name, trunk| {
        let cost = Lpips::cost(trunk, LPIPS_SIDE, LPIPS_SIDE);
        Architecture::of_layout(name, cost, format!("one pair of pictures, {LPIPS_SIDE}x{LPIPS_SIDE}"))
    };
    vec![
        Architecture::of_layout(
            "ldm_vq_f4",
            vq.cost(picture, 1, 1),
            format!(
                "one picture, {picture}x{picture}, encoded ({}) and decoded ({})",
                short(vq.encoder_cost(picture).macs),
                short(vq.decoder_cost(picture).macs)
            ),
        ),
        Architecture::new(
            "ldm_vq_f4_discriminator",
            "adversary that a first stage is trained against",
            PatchDiscriminator::cost(vq.in_channels, 64, picture),
            format!("one picture, {picture}x{picture}"),
        )
        .with_weights_of("ldm_vq_f4"),
        Architecture::new(
            "ldm_unet",
            "U-Net of the paper (10 channels in); public ones of this layout have other widths",
            unet.cost(latent, 1),
            &*evaluation,
        )
        .with_weights_of("ldm_unet"),
        Architecture::of_layout("difftalk_unet", talk.cost(latent, 1), &*evaluation),
        Architecture::of_layout(
            "difftalk_condition",
            DiffTalkCondition::cost(),
            "eight windows of 16 rows of logits, 39 landmarks",
        ),
        Architecture::new(
            "deepspeech_audio_net",
            "AudioNet over DeepSpeech logits, 128 values (the paper's ablation)",
            AudioNet::cost(128),
            "16 rows of logits",
        ),
        Architecture::new(
            "avhubert_base",
            "AV-HuBERT base, hearing",
            a_row(base.encoder.cost(UTTERANCE_ROWS)),
            utterance("row of speech"),
        )
        .with_weights_of("avhubert_base"),
        Architecture::new(
            "avhubert_base_video",
            "AV-HuBERT base, seeing: video front end and encoder",
            a_row(base.encoder_cost(UTTERANCE_ROWS)),
            utterance("picture of lips"),
        )
        .with_weights_of("avhubert_base"),
        Architecture::new("avhubert_reader_base", "lip reader, base: encoder and decoder", read(&base), &*reading)
            .with_weights_of("avhubert_finetuned"),
        Architecture::new("avhubert_finetuned", "lip reader, large: encoder and decoder", read(&large), &*reading)
            .with_weights_of("avhubert_finetuned"),
        Architecture::of_layout(
            "syncnet_v2",
            SyncNet::lip_cost() + SyncNet::sound_cost(),
            "one window of five frames with its sound",
        ),
        Architecture::of_layout("wav2lip", Wav2LipGenerator::new(device).cost(), "one face with its sound, 96x96"),
        Architecture::of_layout(
            "wav2lip_expert",
            ColourSyncNet::new(device).cost(),
            "one window of five frames with its sound",
        ),
        Architecture::of_layout("wav2lip_disc", Wav2LipDiscriminator::new(device).cost(), "one face, 96x96"),
        Architecture::of_layout("s3fd", S3fd::cost(rows, columns), format!("one picture, {columns}x{rows}")),
        lpips("lpips_alex", LpipsTrunk::Alex),
        lpips("lpips_vgg", LpipsTrunk::Vgg),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LipSync;
    use crate::weights::import::LAYOUTS;

    #[test]
    fn counts_in_four_digits() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1000, "1.000 k"), (36_960, "36.96 k"), (171_415_699_456, "171.4 G")]
        {
            assert_eq!(short(count), text);
        }
        assert_eq!(short(34_283_139_891_200), "34.28 T");
    }

    /// 200 evaluations of 171.4 10^9, two pictures encoded and one decoded; four steps with the latent fed back need
    /// 686 + 508 10^9: both as published.
    #[test]
    fn frames_of_the_paper() {
        let [autoencoder, denoiser, _] = preset_parts(&LipSyncConfig::paper());
        let giga = |part: &Architecture| part.macs_per_frame as f64 / 1e9;
        assert!((giga(&denoiser) - 34_283.0).abs() < 1.0, "{}", giga(&denoiser));
        assert!((giga(&autoencoder) - (2.0 * 172.6 + 335.3)).abs() < 0.5, "{}", giga(&autoencoder));
        let mut few = LipSyncConfig { feedback: PoseFeedback::Latent, ..LipSyncConfig::paper() };
        few.sampler.num_steps = 4;
        let [autoencoder, denoiser, _] = preset_parts(&few);
        assert!((giga(&denoiser) - 686.0).abs() < 0.5 && (giga(&autoencoder) - 508.0).abs() < 0.5);
        // Guidance doubles the evaluations; Heun's last step has one.
        few.guidance = 2.0;
        few.sampler.kind = SamplerKind::Heun;
        let [_, guided, _] = preset_parts(&few);
        assert!((giga(&guided) / giga(&denoiser) - 14.0 / 4.0).abs() < 1e-3);
    }

    #[test]
    fn parts_have_the_parameters_of_the_model() {
        for name in LipSyncConfig::PRESETS {
            let config = LipSyncConfig::preset(name).unwrap();
            let model = LipSync::random(&config, 0, &Device::default()).unwrap();
            let parts = preset_parts(&config).map(|part| part.parameters as usize);
            assert_eq!(parts, model.num_params(), "{name}");
        }
    }

    /// Counted by PyTorch on the networks of the original projects: `tools/torch/count_costs.py`.
    #[test]
    fn frames_cost_what_pytorch_counts() {
        let listed = architectures(&Device::default());
        let macs = |name: &str| listed.iter().find(|architecture| architecture.name == name).unwrap().macs_per_frame;
        for (name, counted) in [
            ("ldm_unet", 171_415_699_456),
            ("difftalk_unet", 171_390_205_952),
            ("difftalk_condition", 577_840),
            ("syncnet_v2", 1_802_188_192),
            ("wav2lip", 3_966_984_192),
            ("wav2lip_expert", 1_210_281_984),
            ("wav2lip_disc", 1_255_850_496),
            ("s3fd", 73_037_008_896),
            ("lpips_alex", 205_906_944),
            ("lpips_vgg", 5_638_662_144),
            // Whole utterances; PyTorch's convolution over positions makes one row too many, which is cut off.
            ("avhubert_base", (23_884_910_592 - 768 * 48 * 128) / UTTERANCE_ROWS as u64),
            ("avhubert_base_video", (103_002_990_592 - 768 * 48 * 128) / UTTERANCE_ROWS as u64),
            ("avhubert_finetuned", (200_678_852_608 - 1024 * 64 * 128) / UTTERANCE_ROWS as u64),
        ] {
            assert_eq!(macs(name), counted, "{name}");
        }
        assert_eq!(UNetConfig::paper().cost(64, 5).macs, 171_524_751_360);
        let vq = AutoencoderConfig::paper();
        assert_eq!((vq.encoder_cost(256).macs, vq.decoder_cost(256).macs), (172_618_678_272, 335_290_564_608));
    }

    #[test]
    fn every_layout_is_listed_with_its_published_parameters() {
        let listed = architectures(&Device::default());
        for layout in &LAYOUTS {
            let architecture = listed.iter().find(|architecture| architecture.name == layout.name).unwrap();
            let expected = match layout.name {
                // The layout leaves out the decoder, whose vocabulary differs.
                "avhubert_finetuned" => layout.parameters + 151_172_096 + 1024 * VOCABULARY as u64,
                _ => layout.parameters,
            };
            assert_eq!(architecture.parameters, expected, "{}", layout.name);
            let weights = architecture.public_weights.unwrap();
            assert_eq!((weights.project, weights.licence), (layout.project, layout.licence));
        }
        for architecture in &listed {
            assert!(architecture.macs_per_frame > 0 && !architecture.title.is_empty(), "{architecture:?}");
        }
    }
}
