//! What a run will cost, before it begins: `--dry-run`.

use super::RunConfig;
use super::reader::commands;
use crate::error::TrainResult;
use crate::options::only_f32;
use crate::pretrain::Pretrainee;
use crate::trainer::Clock;
use burn::tensor::{Device, Tensor};
use syncdiff_data::Dataset;
use syncdiff_model::Precision;
use syncdiff_model::baselines::Wav2LipLite;
use syncdiff_model::cost::Cost;
use syncdiff_model::nn::Conv3;
use syncdiff_model::reader::GridReader;
use syncdiff_model::scorers::OwnSyncNet;
use syncdiff_model::scorers::own_syncnet::WINDOW_FRAMES;

/// Passes that forward and gradient cost together, in forward passes: one for the values, two for the gradients of
/// inputs and weights.
const PASSES_OF_A_STEP: u64 = 3;
/// Copies of the weights: themselves, their gradient, two moments, the moving average.
const COPIES: u64 = 5;
/// Seconds for which the machine is measured.
const MEASURED_SECS: f64 = 0.5;

/// Which trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// [`super::autoencoder`]
    Autoencoder,
    /// [`super::pretrain`]
    Pretrain,
    /// [`super::speech`]
    Speech,
    /// [`super::diffusion`]
    Diffusion,
    /// [`super::student`]
    Student,
    /// [`super::syncnet`]
    SyncNet,
    /// [`super::wav2lip`]
    Wav2Lip,
    /// [`super::reader`]
    Reader,
}

/// Sizes and cost of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunPlan {
    /// Training clips.
    pub clips: usize,
    /// Frames with a face in them.
    pub frames: usize,
    /// Values that learn.
    pub parameters: u64,
    /// Bytes of weights, gradient, two moments and moving average; activations come on top.
    pub state_bytes: u64,
    /// Multiply-accumulates of a step, gradients included.
    pub macs_per_step: u64,
    /// Steps.
    pub steps: u64,
    /// Seconds of all steps, were all of it convolutions, by which the device was timed just now.
    pub seconds: f64,
}

/// Plans a run: reads the index of the data and times the device for half a second; writes nothing.
///
/// # Errors
/// A configuration without the part of the stage, a precision that stage or device lack, data without clips.
pub fn plan(
    stage: Stage,
    config: &RunConfig,
    data: &Dataset,
    device: &Device,
    clock: Clock<'_>,
) -> TrainResult<RunPlan> {
    let precision = config.options.precision;
    match stage {
        Stage::Autoencoder | Stage::Diffusion | Stage::Student => precision.check_learning(device)?,
        _ => only_f32(precision)?,
    }
    let chosen = match stage {
        Stage::Reader => commands(config, data, "train")?.0,
        _ => config.data.choose(data, "train")?,
    };
    let entries = || chosen.iter().map(|clip| &data.clips()[*clip]);
    let frames: usize = entries().map(|clip| clip.num_valid).sum();
    let length = entries().map(|clip| clip.num_frames).sum::<usize>().div_ceil(chosen.len());
    let sample = per_sample(stage, config, length)?;
    let macs_per_step = PASSES_OF_A_STEP * sample.macs * config.options.batch_size as u64;
    let steps = config.options.steps;
    Ok(RunPlan {
        clips: chosen.len(),
        frames,
        parameters: sample.parameters,
        state_bytes: 4 * COPIES * sample.parameters,
        macs_per_step,
        steps,
        seconds: (macs_per_step * steps) as f64 / macs_per_second(device, precision, clock),
    })
}

/// What learns, and a forward pass over one sample of a batch.
fn per_sample(stage: Stage, config: &RunConfig, length: usize) -> TrainResult<Cost> {
    let model = config.model()?;
    // Layers of which only sizes are asked; parameters are drawn at first use, so that this costs nothing.
    let device = Device::flex();
    Ok(match stage {
        Stage::Autoencoder => {
            let settings = config.part("autoencoder", &config.autoencoder)?;
            model.autoencoder.cost(settings.window, 1, 1) + settings.cost_of_lookers()
        }
        Stage::Pretrain => {
            let settings = config.part("pretrain", &config.pretrain)?;
            Pretrainee::cost(&model.hearing(0).audio, settings.clusters, length.min(settings.max_frames))
        }
        Stage::Speech => {
            config.part("speech", &config.speech)?;
            // Moonshine does not learn: it is passed through once, not three times; counted as if it did not cost.
            model.audio.cost(length)
        }
        Stage::Diffusion => {
            config.part("diffusion", &config.diffusion)?;
            let side = model.latent_size();
            let denoiser = model.unet.cost(side, model.conditioning.num_tokens());
            // Where layers of the encoder learn, each sample is heard whole; their share of the gradient is counted as if
            // all of them learnt.
            let learns = config.model.as_ref().is_some_and(|changes| changes.encoder_learns(&model));
            let encoder = if learns { model.audio.cost(length) } else { Cost::default() };
            encoder
                + denoiser
                + model.priors.bottleneck_cost(model.autoencoder.z_channels, side)
                + model.conditioning.cost()
        }
        Stage::Student => {
            config.part("student", &config.student)?;
            let learns = per_sample(Stage::Diffusion, config, length)?;
            // Beside its own passes: the teacher's with and without speech, and the target's.
            learns + Cost { parameters: 0, ..learns }
        }
        Stage::SyncNet => {
            let windows = config.part("syncnet", &config.syncnet)?.windows_per_clip;
            OwnSyncNet::new(&device).cost().times(windows)
        }
        Stage::Wav2Lip => {
            config.part("wav2lip", &config.wav2lip)?;
            let judge = Cost { parameters: 0, ..OwnSyncNet::new(&device).cost() };
            Wav2LipLite::new(&device).cost().times(WINDOW_FRAMES) + judge
        }
        Stage::Reader => {
            config.part("reader", &config.reader)?;
            GridReader::cost(length)
        }
    })
}

/// How fast a convolution and its gradient are here.
fn macs_per_second(device: &Device, precision: Precision, clock: Clock<'_>) -> f64 {
    const CHANNELS: usize = 64;
    const SIDE: usize = 32;
    const BATCH: usize = 16;
    let device = device.clone().autodiff();
    let conv = Conv3::new(CHANNELS, CHANNELS, &device);
    let x = Tensor::<4>::ones([BATCH, CHANNELS, SIDE, SIDE], &device).require_grad();
    let once = || {
        let conv = precision.convert(conv.clone());
        let seen = x.clone().cast(conv.bias.val().dtype());
        let gradients = conv.forward(seen).sum().backward();
        // Read back: a device may only have been asked to do it.
        x.grad(&gradients).map(|gradient| gradient.sum().into_scalar::<f32>())
    };
    once();
    let (begun, mut count) = (clock(), 0);
    while clock() - begun < MEASURED_SECS {
        once();
        count += 1;
    }
    let macs = PASSES_OF_A_STEP * (BATCH * CHANNELS * CHANNELS * 9 * SIDE * SIDE) as u64;
    macs as f64 * f64::from(count.max(1)) / (clock() - begun).max(1e-9)
}
