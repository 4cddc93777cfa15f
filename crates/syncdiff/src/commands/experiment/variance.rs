//! The fourth table: how much the network's latent representation varies while one input is varied.
//!
//! IDENT: ten clips; the second frame is drawn knowing the first, while the identity frame runs over later frames. POSE:
//! five clips of one speaker; each clip's pose frame is the one whose mouth is open as the speaker's usually is (the
//! paper marks frames of one word by hand), the frame after it is drawn, the identity frame is the first of the first
//! clip.
//!
//! # Source
//! SyncDiff, table 4; METHOD section 7, which also says what the paper leaves open.

use std::sync::Arc;

use burn::tensor::Tensor;
use syncdiff::{Error, Outcome};
use syncdiff_data::{Clip, ClipEntry, ClipFilter, Frame};
use syncdiff_eval::bootstrap;
use syncdiff_face::KeepMask;
use syncdiff_model::LipSync;
use syncdiff_model::denoiser::VisualPriors;
use syncdiff_model::diffusion::{NoiseKey, NoiseUse, Schedule, normal_batch};
use syncdiff_model::generate::rgb_to_tensor;
use syncdiff_train::run::PriorsName;

use super::Lab;
use super::plan::{RowPlan, Varied, of_priors};
use super::report::{Cell, RowResult};

/// Timestep at which the network is asked.
const TIMESTEP: usize = 500;
/// Clips whose identity frame is varied.
const IDENTITY_CLIPS: usize = 10;
/// Identity frames of a clip, spread over its later frames.
const IDENTITIES: usize = 8;
/// Clips of one speaker whose poses are compared.
const POSE_CLIPS: usize = 5;
/// Elements that hardly vary over all pictures cannot be standardised.
const LEAST_VARIANCE: f64 = 1e-12;

/// The frames that one answer of the network is asked for.
#[derive(Clone)]
struct Asked {
    clip: Arc<Clip>,
    target: usize,
    pose: usize,
    identity: (Arc<Clip>, usize),
}

impl Lab<'_> {
    /// The row of what is varied, with a figure for each of the two models.
    pub(super) fn variance(&self, plan: &RowPlan, varied: Varied) -> Outcome<RowResult> {
        let groups = match varied {
            Varied::Identity => self.identities()?,
            Varied::Pose => self.poses()?,
        };
        let (mut cells, mut hows) = (Vec::new(), Vec::new());
        for (column, priors) in [("RND", PriorsName::Rnd), ("RND+PRV-", PriorsName::RndPrvBottleneck)] {
            let variant = of_priors(priors);
            hows.push(self.variant(&variant, &self.folder("variants", &variant.folder))?.how);
            let model = self.load(&self.model_folder(&variant))?;
            let mut answers = Vec::with_capacity(groups.len());
            for group in &groups {
                self.cancel.check()?;
                answers.push(group.iter().map(|asked| middle(&model, asked)).collect::<Outcome<Vec<_>>>()?);
            }
            let [plain, standardised] = variances(&answers);
            for (name, values) in [(column.to_owned(), plain), (format!("{column} standardised"), standardised)] {
                let mean = |chosen: &[usize]| chosen.iter().map(|at| values[*at]).sum::<f64>() / chosen.len() as f64;
                let Some(interval) = bootstrap(values.len(), mean) else { continue };
                let metric = format!("variance.{}", plan.name.to_lowercase());
                cells.push(Cell { column: name, metric, interval, clips: values.len() });
            }
        }
        hows.dedup();
        Ok(RowResult::of_cells(plan, hows.join("; "), groups.len(), cells))
    }

    /// Prepared clips of the split that is scored, by speaker.
    fn prepared(&self) -> Outcome<Vec<usize>> {
        let chosen = self.data.select(&ClipFilter::split(&self.args.split));
        let size = self.model.crop_size;
        match chosen.iter().map(|at| &self.data.clips()[*at]).find(|entry| entry.crop_size != size) {
            Some(ClipEntry { clip, crop_size, .. }) => Err(Error::usage(
                format!("{clip} was prepared with crops of {crop_size} pixels, the model takes {size}"),
                "prepare the data with the model's --crop-size",
            )),
            None if chosen.is_empty() => Err(Error::usage(
                format!("{:?} has no prepared clip of the split {:?}", self.args.data, self.args.split),
                "name another --split",
            )),
            None => Ok(chosen),
        }
    }

    fn identities(&self) -> Outcome<Vec<Vec<Asked>>> {
        let chosen = self.prepared()?;
        let mut groups = Vec::new();
        for at in 0..chosen.len().min(IDENTITY_CLIPS) {
            let clip = self.data.load(chosen[at * chosen.len() / chosen.len().min(IDENTITY_CLIPS)])?;
            let later: Vec<usize> = (2..clip.num_frames()).filter(|frame| clip.valid()[*frame] != 0).collect();
            if later.len() < 2 || clip.valid()[0] == 0 || clip.valid()[1] == 0 {
                continue;
            }
            let count = later.len().min(IDENTITIES);
            let asked = |i: usize| Asked {
                clip: clip.clone(),
                target: 1,
                pose: 0,
                identity: (clip.clone(), later[i * later.len() / count]),
            };
            groups.push((0..count).map(asked).collect());
        }
        some(groups, "clips with a face in their first frames and two later ones")
    }

    fn poses(&self) -> Outcome<Vec<Vec<Asked>>> {
        let chosen = self.prepared()?;
        let mut groups = Vec::new();
        let speaker = |at: &usize| (&self.data.clips()[*at].corpus, &self.data.clips()[*at].speaker);
        for same in chosen.chunk_by(|a, b| speaker(a) == speaker(b)).filter(|same| same.len() >= POSE_CLIPS) {
            let load = |at: usize| self.data.load(same[at * same.len() / POSE_CLIPS]);
            let clips = (0..POSE_CLIPS).map(load).collect::<Result<Vec<_>, _>>()?;
            let mut openings: Vec<f32> = clips.iter().flat_map(|clip| clip.opening().iter().copied()).collect();
            openings.sort_by(f32::total_cmp);
            let usual = openings.get(openings.len() / 2).copied().unwrap_or_default();
            let asked: Vec<Asked> = clips
                .iter()
                .filter_map(|clip| {
                    let seen = |frame: &usize| clip.valid()[*frame] != 0 && clip.valid()[*frame + 1] != 0;
                    let far = |frame: &usize| (clip.opening()[*frame] - usual).abs();
                    let frames = (0..clip.num_frames().saturating_sub(1)).filter(seen);
                    let pose = frames.min_by(|a, b| far(a).total_cmp(&far(b)))?;
                    Some(Asked { clip: clip.clone(), target: pose + 1, pose, identity: (clips[0].clone(), 0) })
                })
                .collect();
            if asked.len() == POSE_CLIPS && clips[0].valid()[0] != 0 {
                groups.push(asked);
            }
        }
        some(groups, "a speaker with five clips")
    }
}

fn some(groups: Vec<Vec<Asked>>, what: &str) -> Outcome<Vec<Vec<Asked>>> {
    if groups.is_empty() {
        return Err(Error::usage(format!("the prepared split has no {what}"), "name another --split"));
    }
    Ok(groups)
}

/// The middle block's answer, flat.
fn middle(model: &LipSync, asked: &Asked) -> Outcome<Vec<f32>> {
    let (config, device) = (model.config(), model.device());
    let size = config.crop_size;
    let latent = |rgb: &[u8]| model.autoencoder.encode(rgb_to_tensor(rgb, size, device));
    let target = asked.clip.frame(asked.target);
    let mut masked = Frame { width: size, height: size, data: target.to_vec() };
    KeepMask::aligned_fixed(size).apply(&mut masked)?;
    let pose = latent(asked.clip.frame(asked.pose));
    let priors = VisualPriors {
        masked: latent(&masked.data),
        identity: latent(asked.identity.0.frame(asked.identity.1)),
        pose: vec![pose; config.priors.pose_frames],
    };
    let rows = model.speech.rows(asked.clip.speech(), asked.clip.num_frames(), device);
    let tokens = model.speech.conditioner.tokens_of_frames(model.speech.encode(rows), &[asked.target]);
    let side = config.latent_size();
    let key = NoiseKey { seed: 0, noise_use: NoiseUse::Training, index: 0, step: 0 };
    let noise = normal_batch(&[key], [config.autoencoder.z_channels, side, side], device);
    let z = Schedule::paper().q_sample(latent(target), noise, &[TIMESTEP]);
    let condition = model.denoiser.condition(&priors);
    let answer: Tensor<4> = model.denoiser.middle(z, condition, &[TIMESTEP], tokens);
    Ok(answer.into_data().convert::<f32>().try_into_vec().expect("converted to f32"))
}

/// For each group the mean over elements of the variance over its answers; as it is, and of elements divided by their
/// deviation over all answers.
fn variances(groups: &[Vec<Vec<f32>>]) -> [Vec<f64>; 2] {
    let all: Vec<&Vec<f32>> = groups.iter().flatten().collect();
    let total = elementwise(&all);
    let of = |group: &Vec<Vec<f32>>| elementwise(&group.iter().collect::<Vec<_>>());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let within: Vec<Vec<f64>> = groups.iter().map(of).collect();
    let standardised = |within: &Vec<f64>| {
        let shares = within.iter().zip(&total).filter(|(_, total)| **total > LEAST_VARIANCE);
        mean(&shares.map(|(within, total)| within / total).collect::<Vec<_>>())
    };
    [within.iter().map(|within| mean(within)).collect(), within.iter().map(standardised).collect()]
}

/// Population variance of each element.
fn elementwise(answers: &[&Vec<f32>]) -> Vec<f64> {
    let count = answers.len() as f64;
    let len = answers.first().map_or(0, |answer| answer.len());
    let variance = |at: usize| {
        let mean = answers.iter().map(|answer| f64::from(answer[at])).sum::<f64>() / count;
        answers.iter().map(|answer| (f64::from(answer[at]) - mean).powi(2)).sum::<f64>() / count
    };
    (0..len).map(variance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variances_are_those_of_each_group_and_their_share_of_the_whole() {
        // The first element varies within groups alone, the second between them alone, the third never.
        let groups =
            vec![vec![vec![1.0, 5.0, 7.0], vec![3.0, 5.0, 7.0]], vec![vec![1.0, 9.0, 7.0], vec![3.0, 9.0, 7.0]]];
        let [plain, standardised] = variances(&groups);
        assert_eq!(plain, [1.0 / 3.0; 2]);
        assert_eq!(standardised, [0.5; 2]);
    }
}
