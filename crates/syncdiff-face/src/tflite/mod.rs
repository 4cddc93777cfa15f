//! A small interpreter of TFLite networks: just the operators that the face models use.
//!
//! A file is read with every offset checked ([`Model::parse`]), turned once into fused steps with
//! packed weights and shared buffers ([`Interpreter::new`]), and run on one thread, with the widest
//! vectors that the processor has. Images are height x width x channels in f32, batch 1; inside, the
//! channels of a pixel are padded to whole vectors. Weights may be f32, f16 or sparse.

mod cost;
mod depthwise;
mod flatbuffer;
mod fuse;
mod gemm;
#[cfg(test)]
mod hostile_tests;
mod model;
mod plan;
mod planner;
mod simple;
mod slots;
mod sparse;

pub use cost::NetworkCost;
pub use model::Model;

use crate::FaceError;
use depthwise::Depthwise;
use gemm::{Activation, Product, Residual};
use plan::{Act, Layout, Plan, Step};
use pulp::{Arch, Simd, WithSimd};
use simple::{Elementwise, MaxPool};
use std::sync::Arc;

/// Floats that begin at a cache line, so that no vector straddles two.
#[derive(Debug, Default)]
struct Buffer {
    data: Vec<f32>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        const LINE: usize = 64;
        let data = vec![0.0; len + LINE / size_of::<f32>()];
        // Never larger than the slack: f32 is aligned to 4 bytes.
        let start = data.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
        Buffer { data, start, len }
    }

    fn get(&self, len: usize) -> &[f32] {
        &self.data[self.start..self.start + self.len][..len]
    }

    fn get_mut(&mut self, len: usize) -> &mut [f32] {
        &mut self.data[self.start..self.start + self.len][..len]
    }
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}

/// A network with its buffers, ready to run.
#[derive(Debug)]
pub struct Interpreter {
    arch: Arch,
    plan: Arc<Plan>,
    slots: Vec<Buffer>,
    scratch: Buffer,
    input: usize,
    outputs: Vec<(usize, Vec<f32>)>,
}

impl Clone for Interpreter {
    /// The same network with buffers of its own; the packed weights are shared.
    fn clone(&self) -> Self {
        Interpreter {
            arch: self.arch,
            plan: self.plan.clone(),
            slots: self.plan.slot_len.iter().map(|&len| Buffer::new(len)).collect(),
            scratch: Buffer::new(self.plan.scratch_len),
            input: self.input,
            outputs: self.outputs.clone(),
        }
    }
}

impl Interpreter {
    /// Plans the network and packs its weights.
    ///
    /// # Errors
    /// [`FaceError::BadModel`] where shapes contradict each other or a combination is not run here.
    pub fn new(model: &Model) -> Result<Self, FaceError> {
        let arch = Arch::new();
        let bad = |detail| FaceError::BadModel { model: model.name.clone(), detail };
        let plan = Plan::new(model, arch.dispatch(Lanes)).map_err(bad)?;
        let outputs = model.outputs.iter().map(|&t| (t, vec![0.0; model.tensors[t].count()])).collect();
        Ok(Interpreter {
            arch,
            slots: plan.slot_len.iter().map(|&len| Buffer::new(len)).collect(),
            scratch: Buffer::new(plan.scratch_len),
            input: model.inputs[0],
            outputs,
            plan: Arc::new(plan),
        })
    }

    /// The picture to be filled before a run: height x width x channels, without padding.
    pub fn input_mut(&mut self) -> &mut [f32] {
        let len = self.plan.layouts[self.input].len();
        self.slots[self.plan.slot[self.input]].get_mut(len)
    }

    /// Output number `index` of the last run, without padding.
    ///
    /// # Panics
    /// If the model has no such output.
    pub fn output(&self, index: usize) -> &[f32] {
        &self.outputs[index].1
    }

    /// Runs the network on what lies in [`Interpreter::input_mut`].
    pub fn run(&mut self) {
        let plan = self.plan.clone();
        for (step, output) in &plan.steps {
            let slot = plan.slot[*output];
            let mut buffer = std::mem::take(&mut self.slots[slot]);
            self.step(&plan, step, *output, buffer.get_mut(plan.layouts[*output].len()));
            self.slots[slot] = buffer;
        }
        for (tensor, out) in &mut self.outputs {
            let layout = plan.layouts[*tensor];
            let from = self.slots[plan.slot[*tensor]].get(layout.len());
            copy_compact(layout, from, out);
        }
    }

    fn step(&mut self, plan: &Plan, step: &Step, output: usize, out: &mut [f32]) {
        let arch = self.arch;
        let slots = &self.slots;
        let data = |tensor: usize| slots[plan.slot[tensor]].get(plan.layouts[tensor].len());
        let image = |tensor: usize| match plan.layouts[tensor] {
            Layout::Image { height, width, channels, stride } => (height, width, channels, stride),
            Layout::Dense(len) => (1, 1, len, len),
        };
        let (oh, ow, oc, out_stride) = image(output);
        match step {
            Step::Conv { input, geometry: g, weights, residual, act } => {
                let (_, _, channels, stride) = image(*input);
                let residual = residual.map(|t| (data(t), image(t).3));
                let plain = g.kernel == [1, 1] && g.stride == [1, 1] && g.before == [0, 0] && g.input == g.output;
                if plain {
                    arch.dispatch(Product {
                        pixels: data(*input),
                        pixel_stride: stride,
                        weights,
                        residual: residual.map(|(data, channels)| Residual { data, channels }),
                        activation: borrow(act),
                        out,
                    });
                    return;
                }
                let depth = g.kernel[0] * g.kernel[1] * channels;
                let row_len = g.output[1] * weights.channels;
                let unfolded = self.scratch.get_mut(g.output[1] * depth);
                for (y, out) in out.chunks_exact_mut(row_len).enumerate() {
                    simple::unfold_row(data(*input), (channels, stride), g, y, unfolded);
                    arch.dispatch(Product {
                        pixels: unfolded,
                        pixel_stride: depth,
                        weights,
                        residual: residual
                            .map(|(data, channels)| Residual { data: &data[y * g.output[1] * channels..], channels }),
                        activation: borrow(act),
                        out,
                    });
                }
            }
            Step::Depthwise { input, geometry, weights, bias, act } => arch.dispatch(Depthwise {
                input: data(*input),
                geometry: *geometry,
                weights,
                bias,
                activation: borrow(act),
                out,
            }),
            Step::Add { inputs: [a, b], act } => arch.dispatch(Elementwise {
                a: data(*a),
                b: Some(data(*b)),
                channels: out_stride,
                activation: borrow(act),
                out,
            }),
            Step::Activate { input, act } => arch.dispatch(Elementwise {
                a: data(*input),
                b: None,
                channels: out_stride,
                activation: borrow(act),
                out,
            }),
            Step::MaxPool { input, geometry } => {
                arch.dispatch(MaxPool { input: data(*input), geometry: *geometry, channels: out_stride, out })
            }
            Step::Pad { input, before } => {
                let (h, w, _, stride) = image(*input);
                simple::pad(data(*input), (h, w, stride), out, (oh, ow, out_stride), *before);
            }
            Step::Resize { input, align_corners, half_pixel } => {
                let (h, w, _, stride) = image(*input);
                let from = (h, w, stride);
                simple::resize(data(*input), from, out, (oh, ow), *align_corners, *half_pixel);
            }
            Step::DepthToSpace { input, block } => {
                let (h, w, _, stride) = image(*input);
                let to = (ow, oc, out_stride);
                simple::depth_to_space(data(*input), (h, w, stride), out, to, *block);
            }
            Step::Gather { inputs } => {
                let mut rest = out;
                for &t in inputs {
                    let (h, w, channels, _) = image(t);
                    let (to, after) = rest.split_at_mut(h * w * channels);
                    copy_compact(plan.layouts[t], data(t), to);
                    rest = after;
                }
            }
        }
    }
}

fn copy_compact(layout: Layout, from: &[f32], to: &mut [f32]) {
    match layout {
        Layout::Image { channels, stride, .. } => simple::compact(from, channels, stride, to),
        Layout::Dense(_) => to.copy_from_slice(from),
    }
}

fn borrow(act: &Act) -> Activation<'_> {
    match act {
        Act::None => Activation::None,
        Act::Clamp(c) => Activation::Clamp(*c),
        Act::Prelu(slopes) => Activation::Prelu(slopes),
    }
}
