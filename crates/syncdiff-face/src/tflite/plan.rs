//! From a parsed model to the steps that are run: operators fused, weights packed, buffers shared.
//!
//! What is fused (see `fuse`) runs at the place of the last operator of its chain, so that
//! everything it reads is ready.

use super::depthwise::Geometry;
use super::flatbuffer::Wrong;
use super::fuse::Chain;
use super::gemm::Packed;
use super::model::{Clamp, Kind, Model};
use super::planner::Planner;
use super::slots::assign_slots;

/// An activation that owns its slopes (padded to whole vectors).
#[derive(Debug)]
pub(super) enum Act {
    None,
    Clamp(Clamp),
    Prelu(Vec<f32>),
}

/// How a tensor lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Row-major pixels of `stride` floats, of which the first `channels` count; the rest is 0.
    Image { height: usize, width: usize, channels: usize, stride: usize },
    /// Without padding.
    Dense(usize),
}

impl Layout {
    pub(super) fn len(self) -> usize {
        match self {
            Layout::Image { height, width, stride, .. } => height * width * stride,
            Layout::Dense(len) => len,
        }
    }
}

/// One thing to do; numbers are tensors.
#[derive(Debug)]
pub(super) enum Step {
    Conv {
        input: usize,
        geometry: Geometry,
        weights: Packed,
        residual: Option<usize>,
        act: Act,
    },
    Depthwise {
        input: usize,
        geometry: Geometry,
        weights: Vec<f32>,
        bias: Vec<f32>,
        act: Act,
    },
    Add {
        inputs: [usize; 2],
        act: Act,
    },
    Activate {
        input: usize,
        act: Act,
    },
    Pad {
        input: usize,
        before: [usize; 2],
    },
    MaxPool {
        input: usize,
        geometry: Geometry,
    },
    Resize {
        input: usize,
        align_corners: bool,
        half_pixel: bool,
    },
    DepthToSpace {
        input: usize,
        block: usize,
    },
    /// Copies the inputs, without padding, one behind the other.
    Gather {
        inputs: Vec<usize>,
    },
}

impl Step {
    pub(super) fn reads(&self) -> Vec<usize> {
        match self {
            Step::Conv { input, residual, .. } => std::iter::once(*input).chain(*residual).collect(),
            Step::Add { inputs, .. } => inputs.to_vec(),
            Step::Gather { inputs } => inputs.clone(),
            Step::Depthwise { input, .. }
            | Step::Activate { input, .. }
            | Step::Pad { input, .. }
            | Step::MaxPool { input, .. }
            | Step::Resize { input, .. }
            | Step::DepthToSpace { input, .. } => vec![*input],
        }
    }
}

/// The steps with the tensor that each writes, and where every tensor lives.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Vec<(Step, usize)>,
    pub(super) layouts: Vec<Layout>,
    /// Buffer of each tensor.
    pub(super) slot: Vec<usize>,
    pub(super) slot_len: Vec<usize>,
    /// Floats needed to unfold one row of a convolution.
    pub(super) scratch_len: usize,
}

impl Plan {
    /// Plans for vectors of `lanes` floats.
    pub(super) fn new(model: &Model, lanes: usize) -> Result<Plan, Wrong> {
        let mut planner = Planner::new(model, lanes)?;
        let mut pending: Vec<Option<Chain>> = model.operators.iter().map(|_| None).collect();
        for i in 0..model.operators.len() {
            if matches!(model.operators[i].kind, Kind::Conv(_) | Kind::Depthwise(_)) {
                let (end, chain) = planner.chain(i)?;
                pending[end] = Some(chain);
            }
        }
        planner.absorb_pads();
        let mut steps = Vec::new();
        for (i, chain) in pending.into_iter().enumerate() {
            let step = match chain {
                Some(chain) => planner.convolution(chain),
                None if planner.absorbed[i] => continue,
                None => planner.plain(i),
            };
            steps.push(step.map_err(|e| format!("operator {i}: {e}"))?);
        }
        let scratch_len = steps.iter().map(|(s, _)| planner.scratch(s)).max().unwrap_or(0);
        let layouts = planner.layouts;
        let (slot, slot_len) = assign_slots(model, &steps, &layouts)?;
        Ok(Plan { steps, layouts, slot, slot_len, scratch_len })
    }
}
