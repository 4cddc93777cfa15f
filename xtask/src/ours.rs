//! Our side of `bench-torch`: loads what PyTorch has stored, compares outputs, then runs a round for each line that it
//! reads.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use syncdiff_kernels::cpu_has_bf16;
use syncdiff_model::Precision;
use syncdiff_model::autoencoder::{Autoencoder, AutoencoderConfig};
use syncdiff_model::nn::{attend, linear};
use syncdiff_model::unet::{UNet, UNetConfig};
use syncdiff_model::weights::{Remap, TensorMap, load_into, open_safetensors};
use syncdiff_train::{Shard, Stats, StepLoss, Task, TrainOptions, TrainResult, train};

use crate::Failure;

/// Seconds that a round lasts at least, unless one run takes longer.
const ROUND_SECONDS: f64 = 0.2;
/// Training steps whose losses are compared: the later ones see what the optimiser did.
const COMPARED_STEPS: usize = 3;

/// The case in a folder.
struct Case {
    settings: Value,
    io: TensorMap,
    weights: TensorMap,
    device: Device,
    /// Resident memory before the weights were loaded.
    start_mb: Option<f64>,
}

/// Serves a case until the input ends.
///
/// # Errors
/// When the folder cannot be read, or holds another network.
pub(crate) fn run(folder: &Path) -> Result<(), Failure> {
    let start_mb = resident_mb("VmRSS");
    let settings: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json"))?)?;
    let io = open_safetensors(&folder.join("io.safetensors"))?;
    let weights = open_safetensors(&folder.join("weights.safetensors"))?;
    let op = settings["op"].as_str().unwrap_or_default().to_owned();
    let mut case = Case { settings, io, weights, device: Device::flex(), start_mb };
    match op.as_str() {
        "unet_forward" => {
            let (net, x, t, context) = (
                case.precision().convert(case.unet()?),
                case.tensor::<4>("x")?,
                case.timesteps()?,
                case.tensor("context")?,
            );
            case.serve(|| net.forward(x.clone(), &t, context.clone()))
        }
        "vq_encode" => {
            let (net, image) = (case.autoencoder()?, case.tensor::<4>("image")?);
            case.serve(|| net.encode(image.clone()))
        }
        "vq_decode" => {
            let (net, latent) = (case.autoencoder()?, case.tensor::<4>("latent")?);
            case.serve(|| net.decode(latent.clone()))
        }
        "attention" => {
            let parts: [Tensor<3>; 3] = [case.tensor("q")?, case.tensor("k")?, case.tensor("v")?];
            let heads = case.settings["heads"].as_u64().ok_or("no number of heads")? as usize;
            case.serve(|| {
                let [q, k, v] = parts.clone();
                attend(q, k, v, heads)
            })
        }
        "linear" => {
            let (x, weight, bias) = (case.tensor::<3>("x")?, case.tensor("weight")?, case.tensor("bias")?);
            let layer = Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) };
            case.serve(|| linear(&layer, x.clone()))
        }
        "unet_train_step" => {
            case.device = case.device.clone().autodiff();
            case.train()
        }
        other => Err(format!("unknown operation {other:?}").into()),
    }
}

impl Case {
    fn config<T: DeserializeOwned>(&self, name: &str) -> Result<T, Failure> {
        Ok(serde_json::from_value(self.settings[name].clone())?)
    }

    fn values(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>), Failure> {
        let stored = self.io.get(name).ok_or_else(|| format!("io.safetensors holds no {name}"))?;
        Ok((stored.to_f32()?, stored.shape().to_vec()))
    }

    fn tensor<const D: usize>(&self, name: &str) -> Result<Tensor<D>, Failure> {
        let (values, shape) = self.values(name)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), (&self.device, DType::F32)))
    }

    fn timesteps(&self) -> Result<Vec<usize>, Failure> {
        Ok(self.values("t")?.0.into_iter().map(|t| t as usize).collect())
    }

    /// That of the case, where this processor has it.
    fn precision(&self) -> Precision {
        if self.settings["dtype"] == "bf16" && cpu_has_bf16() { Precision::Bf16 } else { Precision::F32 }
    }

    fn unet(&self) -> Result<UNet, Failure> {
        let config: UNetConfig = self.config("unet")?;
        let unet = load_into(UNet::new(&config, &self.device), &self.weights, &config.remap())?;
        Ok(unet)
    }

    fn autoencoder(&self) -> Result<Autoencoder, Failure> {
        let config: AutoencoderConfig = self.config("autoencoder")?;
        let autoencoder = load_into(Autoencoder::new(&config, &self.device), &self.weights, &Remap::identity())?;
        Ok(autoencoder.in_precision(self.precision()))
    }

    /// Compares the output with the stored one, then runs rounds on demand.
    fn serve<const D: usize>(&self, forward: impl Fn() -> Tensor<D>) -> Result<(), Failure> {
        let found = forward().into_data().convert::<f32>().try_into_vec::<f32>().map_err(|e| format!("{e:?}"))?;
        let started = Instant::now();
        // Reading the result waits for it.
        drop(forward().into_data());
        let runs = runs_a_round(started.elapsed().as_secs_f64());
        reset_peak();
        say(&json!({ "error": self.error("out", &found)? }))?;
        for request in std::io::stdin().lock().lines() {
            match request?.as_str() {
                "round" => {
                    let started = Instant::now();
                    for _ in 0..runs {
                        drop(forward().into_data());
                    }
                    say(&json!({ "ms": started.elapsed().as_secs_f64() * 1e3 / runs as f64 }))?;
                }
                _ => return self.say_peak(),
            }
        }
        Ok(())
    }

    /// Largest difference from a stored output, as a share of its largest value.
    fn error(&self, name: &str, found: &[f32]) -> Result<f64, Failure> {
        let (expected, _) = self.values(name)?;
        if expected.len() != found.len() {
            return Err(format!("{name} has {} values, not {}", expected.len(), found.len()).into());
        }
        let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        // A NaN is worse than anything.
        Ok(f64::from(worst.fold(0.0f32, |most, e| if e.is_nan() { f32::INFINITY } else { most.max(e) }) / largest))
    }

    fn say_peak(&self) -> Result<(), Failure> {
        let peak = resident_mb("VmHWM").zip(self.start_mb).map(|(peak, start)| peak - start);
        say(&json!({ "peak_mb": peak }))
    }

    /// The training loop of the program itself; its report after each step waits for the next round.
    fn train(&self) -> Result<(), Failure> {
        let threads = self.settings["threads"].as_u64().unwrap_or(1) as usize;
        let task = Regression {
            x: self.tensor("x")?,
            context: self.tensor("context")?,
            target: self.tensor("target")?,
            timesteps: self.timesteps()?,
            shards: if threads > 1 { Shard::count_for(self.timesteps()?.len()) } else { 1 },
        };
        let options = TrainOptions {
            steps: u64::MAX,
            batch_size: task.timesteps.len(),
            accumulate: 1,
            checkpoint_activations: false,
            precision: self.precision(),
            learning_rate: 1e-4,
            warmup_steps: 1,
            final_rate: 1.0,
            weight_decay: 0.01,
            clip_norm: 0.1,
            ema_decay: 0.9999,
            seed: 0,
            checkpoint_every: u64::MAX,
            keep_checkpoints: 1,
            log_every: 1,
        };
        let mut losses = Vec::new();
        let (mut started, mut runs, mut left) = (Instant::now(), 1, 0);
        let mut failure = None;
        let mut lines = std::io::stdin().lock().lines();
        let mut answer = |stats: &Stats| -> Result<bool, Failure> {
            if losses.len() < COMPARED_STEPS {
                losses.push(stats.loss);
                if losses.len() < COMPARED_STEPS {
                    started = Instant::now();
                    return Ok(true);
                }
                runs = runs_a_round(started.elapsed().as_secs_f64());
                reset_peak();
                say(&json!({ "error": self.error("losses", &losses)? }))?;
            } else {
                left -= 1;
                if left > 0 {
                    return Ok(true);
                }
                say(&json!({ "ms": started.elapsed().as_secs_f64() * 1e3 / runs as f64 }))?;
            }
            if lines.next().transpose()?.as_deref() == Some("round") {
                (left, started) = (runs, Instant::now());
                return Ok(true);
            }
            self.say_peak()?;
            Ok(false)
        };
        let mut report = |stats: &Stats| {
            answer(stats).unwrap_or_else(|error| {
                failure = Some(error);
                false
            })
        };
        let folder = tempfile::tempdir()?;
        let clock = Instant::now();
        train(&task, self.unet()?, &options, folder.path(), &|| clock.elapsed().as_secs_f64(), &mut report)?;
        failure.map_or(Ok(()), Err)
    }
}

/// One batch, again and again.
struct Regression {
    x: Tensor<4>,
    context: Tensor<3>,
    target: Tensor<4>,
    timesteps: Vec<usize>,
    shards: usize,
}

impl Task<UNet> for Regression {
    fn num_shards(&self) -> usize {
        self.shards
    }

    fn in_precision(&self, model: UNet, precision: Precision) -> TrainResult<UNet> {
        Ok(precision.convert(model))
    }

    fn loss(&self, model: &UNet, _step: u64, shard: Shard) -> TrainResult<StepLoss> {
        let range = shard.range(self.timesteps.len());
        let (start, len) = (range.start, range.len());
        let context = self.context.clone().narrow(0, start, len);
        let predicted = model.forward(self.x.clone().narrow(0, start, len), &self.timesteps[range], context);
        let error = predicted - self.target.clone().narrow(0, start, len);
        Ok(StepLoss { loss: (error.clone() * error).mean(), parts: Vec::new() })
    }
}

fn runs_a_round(seconds: f64) -> usize {
    (ROUND_SECONDS / seconds.max(1e-6)).ceil().max(1.0) as usize
}

fn say(answer: &Value) -> Result<(), Failure> {
    println!("{answer}");
    Ok(std::io::stdout().flush()?)
}

/// A figure of `/proc/self/status` in MB; none on systems without it.
fn resident_mb(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

/// Peak memory from here on: reading and comparing do not count.
fn reset_peak() {
    // Where this is not allowed, the peak is that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
