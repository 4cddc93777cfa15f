//! Ten training steps of a U-Net against PyTorch: losses, gradient norms, weights, moving average and Adam's moments.

#[path = "../../syncdiff-model/tests/common/mod.rs"]
mod common;
#[path = "../../syncdiff-model/tests/common/unet_config.rs"]
mod unet_config;

use burn::module::{Module, ModuleVisitor, Param};
use burn::store::burn_pack::Reader;
use burn::tensor::{Device, Tensor};
use common::find::{Tolerance, number_after};
use common::{Golden, assert_close, goldens};
use std::path::Path;
use syncdiff_model::diffusion::{LossWeighting, Prediction, Schedule, diffusion_loss};
use syncdiff_model::unet::UNet;
use syncdiff_model::weights::{Remap, TensorMap, load_into, module_tensors, open_safetensors};
use syncdiff_train::{Shard, Stats, StepLoss, Task, TrainOptions, TrainResult, train};
use unet_config::unet_config;

/// The stored batches, one a step.
struct Stored {
    z_0: Tensor<5>,
    condition: Tensor<5>,
    noise: Tensor<5>,
    context: Tensor<4>,
    timesteps: Vec<Vec<usize>>,
    schedule: Schedule,
}

impl Stored {
    fn new(golden: &Golden, device: &Device) -> Self {
        let batch = golden.shape("in.t")[1];
        let timesteps: Vec<usize> = golden.i64("in.t").iter().map(|t| *t as usize).collect();
        let (start, end) = (golden.float("/config/linear_start"), golden.float("/config/linear_end"));
        Self {
            z_0: golden.tensor("in.z0", device),
            condition: golden.tensor("in.cond", device),
            noise: golden.tensor("in.noise", device),
            context: golden.tensor("in.context", device),
            timesteps: timesteps.chunks(batch).map(<[usize]>::to_vec).collect(),
            schedule: Schedule::scaled_linear(1000, start, end).unwrap(),
        }
    }

    fn predicted(&self, model: &UNet, step: usize) -> Tensor<4> {
        let of = |all: &Tensor<5>| all.clone().narrow(0, step, 1).squeeze_dim::<4>(0);
        let z = self.schedule.q_sample(of(&self.z_0), of(&self.noise), &self.timesteps[step]);
        let x = Tensor::cat(vec![z, of(&self.condition)], 1);
        model.forward(x, &self.timesteps[step], self.context.clone().narrow(0, step, 1).squeeze_dim(0))
    }
}

impl Task<UNet> for Stored {
    fn loss(&self, model: &UNet, step: u64, _: Shard) -> TrainResult<StepLoss> {
        let step = step as usize;
        let predicted = self.predicted(model, step);
        let of = |all: &Tensor<5>| all.clone().narrow(0, step, 1).squeeze_dim::<4>(0);
        let loss = diffusion_loss(
            &self.schedule,
            Prediction::Epsilon,
            LossWeighting::Uniform,
            predicted,
            of(&self.z_0),
            of(&self.noise),
            &self.timesteps[step],
            None,
        );
        Ok(StepLoss { loss: loss.mean, parts: Vec::new() })
    }
}

/// Bounds of the case for the mean and the largest difference; the second, of averages too, is that of the weights.
fn bounds(golden: &Golden, what: &str) -> (f64, f64) {
    let bound = |what: &str, words: &str| number_after(Tolerance::text(&golden.case, what), words).expect("a bound");
    (bound(what, "mean abs diff < "), bound("weights", "max < "))
}

fn assert_weights(what: &str, found: &[f32], want: &[f32], (most_in_the_mean, most): (f64, f64)) {
    assert_eq!(found.len(), want.len(), "{what}");
    let differences: Vec<f64> = found.iter().zip(want).map(|(a, b)| f64::from((a - b).abs())).collect();
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    let worst = differences.iter().fold(0.0, |a: f64, b| a.max(*b));
    println!("{what}: mean {mean:.1e}, largest {worst:.1e}");
    assert!(mean < most_in_the_mean && worst < most, "{what}: mean {mean:e}, largest {worst:e}");
}

fn assert_stored(golden: &Golden, prefix: &str, found: &TensorMap, what: &str) {
    let names: Vec<&str> = golden.io.keys().filter_map(|name| name.strip_prefix(prefix)).collect();
    assert!(names.len() >= 5, "{prefix}: {names:?}");
    for name in names {
        let full = format!("{prefix}{name}");
        assert_eq!(found[name].shape(), golden.shape(&full), "{full}");
        assert_weights(&full, &found[name].to_f32().unwrap(), &golden.f32(&full), bounds(golden, what));
    }
}

/// Name on disk, identity and shape of every parameter.
struct Identities<'a> {
    remap: &'a Remap,
    path: Vec<String>,
    found: Vec<(String, u64, Vec<usize>)>,
}

impl ModuleVisitor for Identities<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.remap.disk_name(&self.path.join("."));
        self.found.push((name, param.id.val(), param.dims().to_vec()));
    }
}

fn assert_moments(golden: &Golden, model: &UNet, remap: &Remap, optimizer: &Path) {
    let mut identities = Identities { remap, path: Vec::new(), found: Vec::new() };
    model.visit(&mut identities);
    let file = Reader::from_file(optimizer).unwrap();
    let mut compared = 0;
    for (prefix, moment) in [("out.adam_m.", "moment_1"), ("out.adam_v.", "moment_2")] {
        for name in golden.io.keys().filter_map(|name| name.strip_prefix(prefix)) {
            let (_, id, shape) = identities.found.iter().find(|(found, ..)| found == name).expect("a parameter");
            let bytes = file.tensor_data(&format!("{id}.momentum.{moment}")).unwrap();
            let mut values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            if let [rows, columns] = shape[..] {
                // A linear map lies transposed on disk.
                values = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
            }
            let want = golden.f32(&format!("{prefix}{name}"));
            let largest = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            assert_close(&format!("{prefix}{name}"), &values, &want, 1e-3 * f64::from(largest), 0.0);
            compared += 1;
        }
    }
    assert!(compared >= 2);
}

#[test]
fn golden_ten_training_steps() {
    let device = Device::default().autodiff();
    for golden in goldens("train10") {
        let config = unet_config(&golden);
        let remap = config.remap();
        let start = golden.folder.join(golden.case["config"]["weights"].as_str().expect("where the weights lie"));
        let model = load_into(UNet::new(&config, &device), &open_safetensors(&start).unwrap(), &remap).unwrap();
        let task = Stored::new(&golden, &device);
        let run = tempfile::tempdir().unwrap();
        let options = |steps: usize| TrainOptions {
            steps: steps as u64,
            accumulate: 1,
            checkpoint_activations: false,
            precision: syncdiff_model::Precision::F32,
            batch_size: golden.shape("in.t")[1],
            learning_rate: golden.float("/config/lr"),
            warmup_steps: 0,
            final_rate: 1.0,
            weight_decay: golden.float("/config/wd"),
            clip_norm: golden.float("/config/clip"),
            ema_decay: golden.float("/config/ema_decay"),
            seed: 0,
            checkpoint_every: 1,
            keep_checkpoints: 1,
            log_every: 1,
        };
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        let mut report = |stats: &Stats| {
            losses.push(stats.loss);
            norms.push(stats.gradient_norm as f32);
            true
        };
        // After the first step the run is resumed from its checkpoint, which must change nothing.
        let first = train(&task, model.clone(), &options(1), run.path(), &|| 0.0, &mut report).unwrap();
        assert_stored(&golden, "out.step1.", &module_tensors(&first.model, &remap), "weights");
        assert_stored(&golden, "out.ema1.", &module_tensors(&first.shadow, &remap), "ema");
        let steps = task.timesteps.len();
        let last = train(&task, model, &options(steps), run.path(), &|| 0.0, &mut report).unwrap();
        assert_stored(&golden, &format!("out.step{steps}."), &module_tensors(&last.model, &remap), "weights");
        assert_stored(&golden, &format!("out.ema{steps}."), &module_tensors(&last.shadow, &remap), "ema");
        golden.assert_values("out.loss", &losses, "loss");
        golden.assert_values("out.grad_norm_before_clip", &norms, "grad_norm");
        let optimizer = run.path().join(format!("checkpoints/step-{steps:010}/optimizer.bpk"));
        assert_moments(&golden, &last.model, &remap, &optimizer);
        // What the trained network says, of the last step's inputs: the weights' tolerance, magnified.
        golden.assert_close("out.eps_after", task.predicted(&last.model, steps - 1), 2e-3, 1e-3);
        let shadow_device = Device::default();
        let plain = Stored::new(&golden, &shadow_device);
        golden.assert_close("out.eps_ema", plain.predicted(&last.shadow, steps - 1), 2e-3, 1e-3);
        golden.assert_all_read(&[]);
    }
}
