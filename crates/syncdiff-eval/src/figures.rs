//! Figures by their keys, and why a wanted one is not there.

use std::collections::BTreeMap;

use crate::faces::FaceSeries;
use crate::inputs::{ClipInputs, Instruments, Wanted};
use crate::judge::Judge;
use crate::metrics::{Group, METRICS};
use crate::perceptual::SMALLEST_LPIPS_SIDE;

/// Figures and the reasons of those that are not there.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) absent: BTreeMap<String, String>,
}

impl Figures {
    /// Takes a figure that is a number.
    pub(crate) fn put(&mut self, key: &str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.values.insert(key.to_owned(), value);
        }
    }
}

/// Says why each wanted figure that is not there is not there.
pub(crate) fn explain_absent(
    figures: &mut Figures,
    wanted: &Wanted,
    instruments: &Instruments,
    truth: &FaceSeries,
    inputs: &ClipInputs<'_>,
) {
    let no_face = || match &instruments.faces {
        Err(reason) => reason.clone(),
        Ok(_) if !truth.has_face() => "no frame of the reference shows a face".into(),
        Ok(_) => "too few frames show the face in both clips, or nothing moves".into(),
    };
    for metric in METRICS.iter().filter(|metric| wanted.has(metric.group)) {
        if figures.values.contains_key(metric.key) || figures.absent.contains_key(metric.key) {
            continue;
        }
        // A judge has no figures of protocols that it does not follow.
        let follows = |judge: &dyn Judge| judge.protocols().iter().any(|known| metric.key.starts_with(known.key()));
        if metric.group == Group::Lse && instruments.judge.as_ref().is_ok_and(|judge| !follows(judge.as_ref())) {
            continue;
        }
        let network = match metric.group {
            Group::Lpips => instruments.alex.as_ref().err(),
            Group::LpipsVgg | Group::LpipsVggFull => instruments.vgg.as_ref().err(),
            Group::Lse => instruments.judge.as_ref().err(),
            Group::Wer if inputs.transcript.is_none() => None,
            Group::Wer if inputs.read.is_none() => instruments.reader.as_ref().err(),
            _ => None,
        };
        let reason = match (network, metric.group) {
            (Some(reason), _) => reason.clone(),
            (None, Group::Wer) if inputs.transcript.is_none() => "no transcript of this clip".into(),
            (None, Group::Lse) if truth.has_face() || metric.key.starts_with("sync.lrs") => {
                "neither clip has sound".into()
            }
            (None, Group::Lpips | Group::LpipsVgg | Group::LpipsVggFull)
                if truth.has_face() || metric.key.starts_with("full") =>
            {
                format!("the region is smaller than {SMALLEST_LPIPS_SIDE} pixels")
            }
            (None, _) if metric.key == "time.chatter_ratio" => "the reference's speech has no silence".into(),
            _ => no_face(),
        };
        figures.absent.insert(metric.key.to_owned(), reason);
    }
}
