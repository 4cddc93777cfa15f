//! Schedule and samplers against latent-diffusion and diffusers.

mod common;

use std::cell::RefCell;

use burn::tensor::{Device, Tensor};
use common::{Golden, assert_close, assert_close_f64, goldens, values};
use syncdiff_model::diffusion::sampler::ddim::{ddim, ddim_steps};
use syncdiff_model::diffusion::sampler::dpm::{End, dpm_plus_plus_2m};
use syncdiff_model::diffusion::sampler::lcm::{boundary_scalings, lcm, lcm_timesteps};
use syncdiff_model::diffusion::{Denoiser, Prediction, Schedule, Spacing};

/// The stand-in denoiser of the golden data, in any form of prediction; keeps what it was asked.
struct StandIn<'a> {
    mu: Tensor<4>,
    schedule: &'a Schedule,
    form: Prediction,
    asked: RefCell<Vec<Vec<f32>>>,
    timesteps: RefCell<Vec<i64>>,
}

impl<'a> StandIn<'a> {
    fn new(golden: &Golden, schedule: &'a Schedule, form: Prediction) -> Self {
        let mu = golden.tensor::<3>("in.mu", &Device::default()).unsqueeze::<4>();
        Self { mu, schedule, form, asked: RefCell::default(), timesteps: RefCell::default() }
    }
}

impl Denoiser for StandIn<'_> {
    fn denoise(&self, x: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let t = timesteps[0];
        assert!(timesteps.iter().all(|other| *other == t) && timesteps.len() == x.dims()[0]);
        self.asked.borrow_mut().push(values(x.clone()));
        self.timesteps.borrow_mut().push(t as i64);
        let sigma = self.schedule.sigma(t);
        let norm = (1.0 + sigma * sigma).sqrt();
        let (a, s) = (f64::from((1.0 / norm) as f32), f64::from((sigma / norm) as f32));
        let eps = (x.clone() - self.mu.clone() * a) * s / (0.25 * a * a + s * s) + (x.clone() * 3.0 + 0.5).sin() * 0.05;
        match self.form {
            Prediction::Epsilon => eps,
            Prediction::X0 => Prediction::Epsilon.to_x0(self.schedule, eps, x, timesteps),
            Prediction::V => (eps - x * s) / a,
        }
    }

    fn prediction(&self) -> Prediction {
        self.form
    }
}

fn noise_of(golden: &Golden) -> impl FnMut(usize) -> Tensor<4> {
    let noise = golden.tensor::<5>("in.noise", &Device::default());
    move |step| noise.clone().narrow(0, step, 1).squeeze_dim(0)
}

fn schedule_of(golden: &Golden, keys: [&str; 3]) -> Schedule {
    let number = |key: &str| golden.case.pointer(key).unwrap_or_else(|| panic!("no {key}")).as_f64().unwrap();
    Schedule::scaled_linear(number(keys[0]) as usize, number(keys[1]), number(keys[2])).unwrap()
}

#[test]
fn golden_ldm_schedule_and_ddim_arrays() {
    for golden in goldens("ldm_ddim") {
        let schedule = schedule_of(&golden, ["/config/timesteps", "/config/linear_start", "/config/linear_end"]);
        assert_close_f64("betas", schedule.betas(), &golden.f64("out.betas_f64"), 1e-12, 0.0);
        assert_close_f64("abar", schedule.alphas_cumprod(), &golden.f64("out.alphas_cumprod_f64"), 1e-12, 0.0);
        let sizes: Vec<usize> = golden
            .io
            .keys()
            .filter_map(|name| name.strip_prefix("out.S")?.strip_suffix(".timesteps")?.parse().ok())
            .collect();
        assert!(!sizes.is_empty());
        for size in sizes {
            for eta in [0.0, 1.0] {
                // The original lists them in ascending order.
                let mut steps = ddim_steps(&schedule, size, Spacing::Ldm, eta).unwrap();
                steps.reverse();
                let name = |array: &str| format!("out.S{size}.{array}");
                let timesteps: Vec<i64> = steps.iter().map(|step| step.timestep as i64).collect();
                assert_eq!(timesteps, golden.i64(&name("timesteps")));
                let column = |f: fn(&syncdiff_model::diffusion::sampler::ddim::DdimStep) -> f64| -> Vec<f64> {
                    steps.iter().map(f).collect()
                };
                assert_close_f64("alphas", &column(|s| s.alpha), &golden.f64(&name("alphas")), 1e-12, 0.0);
                assert_close_f64("prev", &column(|s| s.alpha_prev), &golden.f64(&name("alphas_prev")), 1e-12, 0.0);
                let sigmas = golden.f64(&name(&format!("sigmas_eta{eta}")));
                assert_close_f64("sigmas", &column(|s| s.sigma), &sigmas, 1e-10, 0.0);
            }
        }
    }
}

#[test]
fn golden_ldm_ddim_trajectories_in_every_form_of_prediction() {
    for golden in goldens("ldm_ddim") {
        let schedule = schedule_of(&golden, ["/config/timesteps", "/config/linear_start", "/config/linear_end"]);
        for steps in golden.case["config"]["sample_S"].as_array().unwrap() {
            let steps = steps.as_u64().unwrap() as usize;
            for (eta, form) in
                [(0, Prediction::Epsilon), (1, Prediction::Epsilon), (0, Prediction::X0), (1, Prediction::V)]
            {
                let name = format!("out.ddim_S{steps}_eta{eta}");
                let stand_in = StandIn::new(&golden, &schedule, form);
                let start = golden.tensor::<4>("in.x_T", &Device::default());
                let mut noise = noise_of(&golden);
                let end = ddim(&stand_in, &schedule, start, steps, Spacing::Ldm, f64::from(eta), &mut noise).unwrap();
                assert_eq!(stand_in.timesteps.take(), golden.i64(&format!("{name}.model_t")));
                let inter = golden.f32(&format!("{name}.x_inter"));
                let asked = stand_in.asked.take();
                for (i, x) in asked.iter().enumerate() {
                    let want = &inter[i * x.len()..][..x.len()];
                    assert_close(&format!("{name} {form:?} x_inter {i}"), x, want, 2e-4, 2e-4);
                }
                // Tolerances of the case; other forms round once more at sigma up to 69.
                let abs = if form == Prediction::Epsilon { 2e-5 } else { 5e-5 };
                golden.assert_close(&format!("{name}.final"), end, abs, 0.0);
            }
        }
    }
}

const DIFFUSERS: [&str; 3] =
    ["/config/scheduler/num_train_timesteps", "/config/scheduler/beta_start", "/config/scheduler/beta_end"];

/// Compares the timesteps asked for and the latents between the steps; the golden lists x *after* each step.
fn assert_path(golden: &Golden, name: &str, stand_in: &StandIn<'_>, end: Tensor<4>) {
    let timesteps: Vec<f64> = stand_in.timesteps.take().into_iter().map(|t| t as f64).collect();
    assert_close_f64(name, &timesteps, &golden.f64(&format!("{name}.timesteps")), 0.0, 0.0);
    let path = golden.f32(&format!("{name}.x"));
    for (i, x) in stand_in.asked.take().iter().skip(1).enumerate() {
        assert_close(&format!("{name}.x {i}"), x, &path[i * x.len()..][..x.len()], 5e-4, 5e-4);
    }
    golden.assert_close(&format!("{name}.final"), end, 1e-4, 0.0);
}

#[test]
fn golden_diffusers_samplers() {
    for golden in goldens("diffusers_schedulers") {
        let schedule = schedule_of(&golden, DIFFUSERS);
        let start = || golden.tensor::<4>("in.x_T", &Device::default());
        let runs: Vec<String> =
            golden.io.keys().filter_map(|name| Some(name.strip_suffix(".final")?.to_owned())).collect();
        let mut compared = 0;
        for run in runs {
            let stand_in = StandIn::new(&golden, &schedule, Prediction::Epsilon);
            let steps = |tail: &str| tail.split('_').next().unwrap().parse::<usize>().unwrap();
            let end = if let Some(tail) = run.strip_prefix("out.ddim_trailing_S") {
                let eta = if tail.ends_with("eta1") { 1.0 } else { 0.0 };
                ddim(&stand_in, &schedule, start(), steps(tail), Spacing::Trailing, eta, &mut noise_of(&golden))
            } else if let Some(tail) = run.strip_prefix("out.dpmpp2m_linspace_S") {
                dpm_plus_plus_2m(&stand_in, &schedule, start(), steps(tail), Spacing::Linspace, End::Clean)
            } else if let Some(tail) = run.strip_prefix("out.dpmpp2m_trailing_S") {
                dpm_plus_plus_2m(&stand_in, &schedule, start(), steps(tail), Spacing::Trailing, End::Clean)
            } else if let Some(tail) = run.strip_prefix("out.dpmpp2m_sigmamin_S") {
                dpm_plus_plus_2m(&stand_in, &schedule, start(), steps(tail), Spacing::Linspace, End::FirstTimestep)
            } else if let Some(tail) = run.strip_prefix("out.lcm_S") {
                let timesteps = lcm_timesteps(steps(tail), schedule.num_timesteps()).unwrap();
                let scalings: Vec<_> = timesteps.iter().map(|t| boundary_scalings(*t as f64)).collect();
                let (skip, out): (Vec<f64>, Vec<f64>) = scalings.into_iter().unzip();
                assert_close_f64("c_skip", &skip, &golden.f64(&format!("{run}.c_skip")), 0.0, 1e-6);
                assert_close_f64("c_out", &out, &golden.f64(&format!("{run}.c_out")), 0.0, 1e-6);
                lcm(&stand_in, &schedule, start(), steps(tail), &mut noise_of(&golden))
            } else {
                continue; // Karras grids and the continuous-time solver: not offered
            };
            assert_path(&golden, &run, &stand_in, end.unwrap());
            compared += 1;
        }
        assert!(compared > 0);
    }
}
