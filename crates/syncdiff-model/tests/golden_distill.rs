//! Scalings and one distillation step against the scripts of LCM, of the consistency models and of EDM.

mod common;
#[path = "common/stand_in.rs"]
mod stand_in;

use burn::tensor::{Device, Tensor};
use common::{Golden, assert_close_f64, goldens, values_f64};
use stand_in::StandIn;
use syncdiff_model::diffusion::scalings::{edm_denoised, edm_loss_weight};
use syncdiff_model::diffusion::{LcmBoundary, LcmStep, Scalings, Schedule, pseudo_huber};

/// What is not compared.
const LEFT: [(&str, &str); 1] =
    [("out.ema_*", "the case does not store what was averaged; `golden_train10` compares our moving average")];

fn boundary(golden: &Golden) -> LcmBoundary {
    LcmBoundary {
        sigma_data: golden.float("/config/sigma_data"),
        timestep_scaling: golden.float("/config/timestep_scaling"),
    }
}

fn unsigned(values: Vec<i64>) -> Vec<usize> {
    values.into_iter().map(|value| value as usize).collect()
}

fn scalings(golden: &Golden) {
    let exact = golden.tolerance_before("out", " in f64");
    let at: Vec<(f64, f64)> = unsigned(golden.i64("out.lcm_t")).into_iter().map(|t| boundary(golden).at(t)).collect();
    let (skip, out): (Vec<f64>, Vec<f64>) = at.into_iter().unzip();
    assert_close_f64("lcm c_skip", &skip, &golden.f64("out.lcm_c_skip"), exact, 0.0);
    assert_close_f64("lcm c_out", &out, &golden.f64("out.lcm_c_out"), exact, 0.0);

    let (sigmas, sigma_data) = (golden.f64("out.sigmas"), golden.float("/config/sigma_data"));
    let rows = |of: &dyn Fn(f64) -> Scalings| -> Vec<f64> {
        let all: Vec<Scalings> = sigmas.iter().map(|sigma| of(*sigma)).collect();
        let row = |f: fn(&Scalings) -> f64| all.iter().map(f).collect::<Vec<f64>>();
        [row(|s| s.c_skip), row(|s| s.c_out), row(|s| s.c_in)].concat()
    };
    let edm = rows(&|sigma| Scalings::edm(sigma, sigma_data));
    assert_close_f64("edm", &edm, &golden.f64("out.karras_skip_out_in"), exact, 0.0);
    // The first of the listed levels is the smallest.
    let consistency = rows(&|sigma| Scalings::consistency(sigma, sigmas[0], sigma_data));
    assert_close_f64("consistency", &consistency, &golden.f64("out.cm_boundary_skip_out_in"), exact, 0.0);
}

fn edm_preconditioning(golden: &Golden) {
    let device = Device::default();
    let (sigmas, sigma_data) = (golden.f64("in.edm_sigma"), golden.float("/config/sigma_data"));
    let x = golden.tensor::<4>("in.edm_x", &device);
    let denoised = edm_denoised(x, &sigmas, sigma_data, |scaled, c_noise| {
        golden.assert_within("out.edm_c_in_x", scaled.clone(), "edm");
        golden.assert_within("out.edm_c_noise", c_noise.clone(), "edm");
        (scaled * 2.0).sin() + c_noise.reshape([sigmas.len(), 1, 1, 1]) * 0.1
    });
    golden.assert_within("out.edm_D", denoised, "edm");
    let weights: Vec<f64> = sigmas.iter().map(|sigma| edm_loss_weight(*sigma, sigma_data)).collect();
    assert_close_f64("loss weight", &weights, &golden.f64("out.edm_loss_weight"), 0.0, 1e-6);
}

fn lcm_distillation_step(golden: &Golden) {
    let exact = golden.tolerance_before("out", " in f64");
    let device = Device::default();
    let schedule = Schedule::paper();
    let grid = golden.number("/config/ddim_timesteps");
    let every: Vec<usize> = (0..grid).collect();
    let all = LcmStep::new(&schedule, boundary(golden), grid, &every).unwrap();
    assert_eq!(all.start_timesteps(), unsigned(golden.i64("out.ddim_timesteps")));
    let cumprod =
        |timesteps: &[usize]| -> Vec<f64> { timesteps.iter().map(|t| schedule.alphas_cumprod()[*t]).collect() };
    let stored = golden.f64("out.ddim_alpha_cumprods");
    assert_close_f64("alphas", &cumprod(all.start_timesteps()), &stored, exact, 0.0);
    let stored = golden.f64("out.ddim_alpha_cumprods_prev");
    assert_close_f64("alphas_prev", &cumprod(all.target_timesteps()), &stored, exact, 0.0);

    let step = LcmStep::new(&schedule, boundary(golden), grid, &unsigned(golden.i64("in.index"))).unwrap();
    assert_eq!(step.start_timesteps(), unsigned(golden.i64("out.start_timesteps")));
    assert_eq!(step.target_timesteps(), unsigned(golden.i64("out.target_timesteps")));
    // In f64, as the case: at sigma 84 the clean latent magnifies the rounding of f32 beyond its tolerance.
    let near = |name: &str, found: Tensor<4>| {
        assert_close_f64(name, &values_f64(found), &golden.f64(name), exact, exact);
    };
    let z_noisy = step.noisy(golden.tensor_f64("in.z0", &device), golden.tensor_f64("in.noise", &device));
    near("out.z_noisy", z_noisy.clone());
    let student = StandIn::scaled(golden, &schedule, 1.1);
    let said = step.student(&student, z_noisy.clone());
    near("out.student_pred", said.clone());
    let x_prev = step.teacher(&StandIn::scaled(golden, &schedule, 1.0), z_noisy);
    near("out.teacher_x_prev", x_prev.clone());
    let target = step.target(&StandIn::scaled(golden, &schedule, 1.05), x_prev);
    near("out.target", target.clone());
    golden.assert_values("out.student_x0", &student.trace.take().clean[0], "out");

    let huber = pseudo_huber(said.clone(), target.clone(), golden.float("/config/huber_c"));
    assert_close_f64("huber", &values_f64(huber), &golden.f64("out.huber_loss"), exact, exact);
    let square = (said - target).powi_scalar(2).mean();
    assert_close_f64("l2", &values_f64(square), &golden.f64("out.l2_loss"), exact, exact);
}

#[test]
fn golden_lcm_distill() {
    for golden in goldens("lcm_distill") {
        scalings(&golden);
        edm_preconditioning(&golden);
        lcm_distillation_step(&golden);
        golden.assert_all_read(&LEFT);
    }
}
