//! Schedule and samplers against latent-diffusion, diffusers, and the original DPM-Solver and EDM samplers.

mod common;
#[path = "common/stand_in.rs"]
mod stand_in;

use burn::tensor::{Device, Tensor};
use common::find::Tolerance;
use common::{Golden, assert_close, assert_close_f64, goldens, values};
use stand_in::{StandIn, Trace, stand_in};
use syncdiff_model::diffusion::sampler::ddim::{DdimStep, ddim, ddim_steps};
use syncdiff_model::diffusion::sampler::dpm::{self, End, Level, dpm_plus_plus_2m};
use syncdiff_model::diffusion::sampler::edm::{self, Order, karras_sigmas, karras_timesteps};
use syncdiff_model::diffusion::sampler::lcm::{lcm, lcm_timesteps};
use syncdiff_model::diffusion::{LcmBoundary, Prediction, Schedule, Spacing};

fn noise_of(golden: &Golden) -> impl FnMut(usize) -> Tensor<4> {
    let noise = golden.tensor::<5>("in.noise", &Device::default());
    move |step| noise.clone().narrow(0, step, 1).squeeze_dim(0)
}

fn start_of(golden: &Golden) -> Tensor<4> {
    golden.tensor::<4>("in.x_T", &Device::default())
}

fn ldm_schedule(golden: &Golden) -> Schedule {
    let (start, end) = (golden.float("/config/linear_start"), golden.float("/config/linear_end"));
    Schedule::scaled_linear(golden.number("/config/timesteps"), start, end).unwrap()
}

fn ldm_schedule_and_ddim_arrays(golden: &Golden) {
    let schedule = ldm_schedule(golden);
    golden.assert_values_f64("out.betas_f64", schedule.betas(), "schedule");
    golden.assert_values_f64("out.alphas_cumprod_f64", schedule.alphas_cumprod(), "schedule");
    let arrays: Vec<(usize, &str, f64)> = golden
        .io
        .keys()
        .filter_map(|name| {
            let (size, eta) = name.strip_prefix("out.S")?.split_once(".sigmas_eta")?;
            Some((size.parse().ok()?, name.as_str(), eta.parse().ok()?))
        })
        .collect();
    assert!(!arrays.is_empty());
    for (size, sigmas, eta) in arrays {
        // The original lists them in ascending order.
        let mut steps = ddim_steps(&schedule, size, Spacing::Ldm, eta).unwrap();
        steps.reverse();
        let name = |array: &str| format!("out.S{size}.{array}");
        let timesteps: Vec<i64> = steps.iter().map(|step| step.timestep as i64).collect();
        assert_eq!(timesteps, golden.i64(&name("timesteps")));
        let column = |f: fn(&DdimStep) -> f64| -> Vec<f64> { steps.iter().map(f).collect() };
        golden.assert_values_f64(&name("alphas"), &column(|s| s.alpha), "schedule");
        golden.assert_values_f64(&name("alphas_prev"), &column(|s| s.alpha_prev), "schedule");
        golden.assert_values_f64(sigmas, &column(|s| s.sigma), "sigmas");
    }
}

fn ldm_ddim_trajectories_in_every_form_of_prediction(golden: &Golden) {
    let schedule = ldm_schedule(golden);
    let runs: Vec<String> = golden
        .io
        .keys()
        .filter_map(|name| name.strip_prefix("out.ddim_S")?.strip_suffix(".final").map(str::to_owned))
        .collect();
    assert!(!runs.is_empty());
    for run in runs {
        let (steps, eta) = run.split_once("_eta").expect("steps and eta in the name");
        let (steps, eta): (usize, f64) = (steps.parse().unwrap(), eta.parse().unwrap());
        for form in [Prediction::Epsilon, Prediction::X0, Prediction::V] {
            let name = format!("out.ddim_S{run}");
            let denoiser = StandIn::new(golden, &schedule, form);
            let mut noise = noise_of(golden);
            let end = ddim(&denoiser, &schedule, start_of(golden), steps, Spacing::Ldm, eta, &mut noise).unwrap();
            let trace = denoiser.trace.take();
            assert_eq!(trace.timesteps, golden.i64(&format!("{name}.model_t")));
            // Tolerances of the case; other forms round once more, at sigma up to 84.
            let (path, last) = match form {
                Prediction::Epsilon => (golden.tolerance("samples"), golden.tolerance("final")),
                _ => (Tolerance { abs: 5e-4, rel: 5e-4 }, Tolerance { abs: 1e-4, rel: 0.0 }),
            };
            let (inter, clean) = (golden.f32(&format!("{name}.x_inter")), golden.f32(&format!("{name}.pred_x0")));
            for (i, (x, x_0)) in trace.asked.iter().zip(&trace.clean).enumerate() {
                let part = |all: &[f32], k: usize| all[k * x.len()..][..x.len()].to_vec();
                assert_close(&format!("{name} {form:?} x {i}"), x, &part(&inter, i), path.abs, path.rel);
                // The first entry of the original's list is the start.
                assert_close(&format!("{name} {form:?} x_0 {i}"), x_0, &part(&clean, i + 1), path.abs, path.rel);
            }
            golden.assert_close(&format!("{name}.final"), end, last.abs, last.rel);
        }
    }
}

/// Scalars z = 0.7 and eps = 0.3 through the first and the last of 200 steps.
fn ldm_ddim_oracle(golden: &Golden) {
    if !golden.has("out.oracle_D") {
        return;
    }
    let steps = ddim_steps(&ldm_schedule(golden), 200, Spacing::Ldm, 0.0).unwrap();
    let of = |step: &DdimStep| {
        let (z, eps) = (0.7, 0.3);
        let x_0 = (z - (1.0 - step.alpha).sqrt() * eps) / step.alpha.sqrt();
        [x_0, step.alpha_prev.sqrt() * x_0 + (1.0 - step.alpha_prev).sqrt() * eps]
    };
    let got = [of(&steps[0]), of(&steps[199])].concat();
    // The original rounds alphas_cumprod to f32 first.
    assert_close_f64("oracle", &got, &golden.f64("out.oracle_D"), 1e-6, 1e-5);
}

/// diffusers keeps alphas_cumprod in f32; near timestep 0, where it is almost 1, that much of sigma is rounding.
const F32_SIGMA: f64 = 5e-5;

/// Compares everything stored of one run; the original lists x *after* each evaluation, or from the start on.
fn assert_run(golden: &Golden, run: &str, trace: &Trace, end: Tensor<4>, from_the_start: bool) {
    let name = |part: &str| format!("{run}.{part}");
    if golden.has(&name("model_sigmas")) {
        assert_close_f64(&name("model_sigmas"), &trace.sigmas, &golden.f64(&name("model_sigmas")), 0.0, 1e-5);
    }
    let compare = |part: &str, found: &[Vec<f32>]| {
        if golden.has(&name(part)) {
            let (stored, Tolerance { abs, rel }) = (golden.f32(&name(part)), golden.tolerance("x"));
            for (i, x) in found.iter().enumerate() {
                assert_close(&format!("{run}.{part} {i}"), x, &stored[i * x.len()..][..x.len()], abs, rel);
            }
        }
    };
    compare("x", if from_the_start { &trace.asked } else { &trace.asked[1..] });
    compare("x0", &trace.clean);
    golden.assert_within(&name("final"), end, "final");
}

/// One run of diffusers on our integer timesteps.
fn discrete(golden: &Golden, schedule: &Schedule, run: &str, family: &str, steps: usize, eta: f64) {
    let denoiser = StandIn::new(golden, schedule, Prediction::Epsilon);
    let (start, noise) = (start_of(golden), &mut noise_of(golden));
    let mut ends_at = None;
    let end = match family {
        "ddim_trailing" => ddim(&denoiser, schedule, start, steps, Spacing::Trailing, eta, noise),
        "dpmpp2m_linspace" => {
            ends_at = Some(0.0);
            dpm_plus_plus_2m(&denoiser, schedule, start, steps, Spacing::Linspace, End::Clean)
        }
        "dpmpp2m_trailing" => {
            ends_at = Some(0.0);
            dpm_plus_plus_2m(&denoiser, schedule, start, steps, Spacing::Trailing, End::Clean)
        }
        "dpmpp2m_sigmamin" => {
            ends_at = Some(schedule.sigma(0));
            dpm_plus_plus_2m(&denoiser, schedule, start, steps, Spacing::Linspace, End::FirstTimestep)
        }
        "lcm" => lcm(&denoiser, schedule, start, steps, noise),
        _ => panic!("{run}: no sampler of this name is known"),
    };
    let mut trace = denoiser.trace.take();
    let timesteps: Vec<f64> = trace.timesteps.iter().map(|t| *t as f64).collect();
    assert_close_f64(run, &timesteps, &golden.f64(&format!("{run}.timesteps")), 0.0, 0.0);
    if let Some(last) = ends_at {
        let grid = [&trace.sigmas[..], &[last]].concat();
        assert_close_f64(run, &grid, &golden.f64(&format!("{run}.sigmas")), 0.0, F32_SIGMA);
    }
    if family == "lcm" {
        let timesteps = lcm_timesteps(steps, schedule.num_timesteps()).unwrap();
        let scalings = timesteps.iter().map(|t| LcmBoundary::PUBLISHED.at(*t));
        let (skip, out): (Vec<f64>, Vec<f64>) = scalings.unzip();
        assert_close_f64("c_skip", &skip, &golden.f64(&format!("{run}.c_skip")), 0.0, 1e-6);
        assert_close_f64("c_out", &out, &golden.f64(&format!("{run}.c_out")), 0.0, 1e-6);
        // The original's x0 has the boundary condition applied.
        for (i, clean) in trace.clean.iter_mut().enumerate() {
            for (x_0, x) in clean.iter_mut().zip(&trace.asked[i]) {
                *x_0 = (f64::from(*x_0) * out[i] + f64::from(*x) * skip[i]) as f32;
            }
        }
    }
    assert_run(golden, run, &trace, end.unwrap(), false);
}

/// One run of an Euler or Heun sampler on unrounded Karras levels; diffusers spans the schedule, EDM has its own ends.
fn karras(golden: &Golden, schedule: &Schedule, run: &str, order: Order, steps: usize) {
    let stored = golden.f64(&format!("{run}.model_sigmas"));
    let (high, low) = (stored[0], stored[stored.len() - 1]);
    let sigmas = karras_sigmas(steps, low, high);
    let timesteps = format!("{run}.timesteps");
    if golden.has(&timesteps) {
        let last = schedule.num_timesteps() - 1;
        assert_close_f64(run, &[low, high], &[schedule.sigma(0), schedule.sigma(last)], 0.0, F32_SIGMA);
        // The original interpolates the logarithm between timesteps where ours takes the nearest.
        let mut between = golden.f64(&timesteps);
        between.dedup();
        let ours: Vec<f64> = karras_timesteps(schedule, steps).unwrap().iter().map(|t| *t as f64).collect();
        assert_close_f64("nearest timesteps", &ours, &between, 0.55, 0.0);
    }
    let mu = golden.tensor::<3>("in.mu", &Device::default()).unsqueeze::<4>();
    let mut trace = Trace::default();
    let start = start_of(golden) * sigmas[0];
    let end = edm::solve(&sigmas, order, start, &mut |x, i| {
        let sigma = sigmas[i];
        let eps = stand_in(&mu, x.clone() / (1.0 + sigma * sigma).sqrt(), sigma);
        let x_0 = x.clone() - eps * sigma;
        trace.sigmas.push(sigma);
        trace.asked.push(values(x.clone()));
        trace.clean.push(values(x_0.clone()));
        x_0
    });
    // The grid of diffusers is that of the evaluations and 0, its start the noise times the highest level.
    for (part, ours) in [("sigmas", [&trace.sigmas[..], &[0.0]].concat()), ("init_noise_sigma", vec![sigmas[0]])] {
        let name = format!("{run}.{part}");
        if golden.has(&name) {
            assert_close_f64(&name, &ours, &golden.f64(&name), 0.0, F32_SIGMA);
        }
    }
    assert_run(golden, run, &trace, end, false);
}

/// One run of the original DPM-Solver on its own, continuous levels.
fn original_dpm(golden: &Golden, schedule: &Schedule, run: &str) {
    let rows = golden.f64(&format!("{run}.t_alpha_sigma"));
    let mut levels: Vec<Level> = rows.chunks(3).map(|row| Level { signal: row[1], noise: row[2] }).collect();
    let steps = levels.len();
    levels.push(Level::of(schedule, 0));
    let mu = golden.tensor::<3>("in.mu", &Device::default()).unsqueeze::<4>();
    let mut trace = Trace::default();
    // The original lowers the order at the end of fewer than 10 steps.
    let end = dpm::solve(&levels, steps < 10, start_of(golden), &mut |x, i| {
        let Level { signal, noise } = levels[i];
        trace.asked.push(values(x.clone()));
        (x.clone() - stand_in(&mu, x.clone(), noise / signal) * noise) / signal
    });
    assert_run(golden, run, &trace, end, true);
}

fn diffusers_samplers(golden: &Golden) {
    let number = |name: &str| golden.float(&format!("/config/scheduler/{name}"));
    let num_timesteps = golden.number("/config/scheduler/num_train_timesteps");
    let schedule = Schedule::scaled_linear(num_timesteps, number("beta_start"), number("beta_end")).unwrap();
    let runs: Vec<&str> = golden.io.keys().filter_map(|name| name.strip_suffix(".final")).collect();
    assert!(!runs.is_empty());
    for run in runs {
        let (family, tail) = run["out.".len()..].rsplit_once("_S").expect("steps in the name");
        let (steps, eta) = tail.split_once("_eta").unwrap_or((tail, "0"));
        let (steps, eta): (usize, f64) = (steps.parse().unwrap(), eta.parse().unwrap());
        match family {
            "euler_karras" => karras(golden, &schedule, run, Order::First, steps),
            "heun_karras" | "edm_heun" => karras(golden, &schedule, run, Order::Second, steps),
            "dpmsolver_repo_time_uniform" | "dpmsolver_repo_logSNR" => original_dpm(golden, &schedule, run),
            _ => discrete(golden, &schedule, run, family, steps, eta),
        }
    }
}

#[test]
fn golden_ldm_ddim() {
    for golden in goldens("ldm_ddim") {
        ldm_schedule_and_ddim_arrays(&golden);
        ldm_ddim_trajectories_in_every_form_of_prediction(&golden);
        ldm_ddim_oracle(&golden);
        golden.assert_all_read(&[]);
    }
}

#[test]
fn golden_diffusers_schedulers() {
    for golden in goldens("diffusers_schedulers") {
        diffusers_samplers(&golden);
        golden.assert_all_read(&[]);
    }
}
