//! One step for each operator or fused chain, with everything about shapes checked beforehand.

use super::depthwise::Geometry;
use super::flatbuffer::Wrong;
use super::fuse::Chain;
use super::gemm::Packed;
use super::model::{Constant, Kind, Model, Padding, Window};
use super::plan::{Act, Layout, Step};

/// A model on its way to a plan.
pub(super) struct Planner<'m> {
    pub(super) model: &'m Model,
    pub(super) lanes: usize,
    pub(super) consumers: Vec<Vec<usize>>,
    pub(super) producer: Vec<Option<usize>>,
    pub(super) absorbed: Vec<bool>,
    pub(super) layouts: Vec<Layout>,
}

impl<'m> Planner<'m> {
    pub(super) fn new(model: &'m Model, lanes: usize) -> Result<Self, Wrong> {
        let num = model.tensors.len();
        let (mut consumers, mut producer) = (vec![Vec::new(); num], vec![None; num]);
        for (i, op) in model.operators.iter().enumerate() {
            for &t in &op.inputs {
                consumers[t].push(i);
            }
            if producer[op.output].replace(i).is_some() {
                return Err(format!("tensor {} is written twice", op.output));
            }
        }
        let layouts = model
            .tensors
            .iter()
            .enumerate()
            .map(|(t, tensor)| match tensor.shape[..] {
                // The picture itself is not padded, so that the caller fills it with plain RGB.
                [1, height, width, channels] if t == model.inputs[0] => {
                    Layout::Image { height, width, channels, stride: channels }
                }
                [1, height, width, channels] => {
                    let stride = channels.next_multiple_of(lanes);
                    Layout::Image { height, width, channels, stride }
                }
                _ => Layout::Dense(tensor.count()),
            })
            .collect();
        let absorbed = vec![false; model.operators.len()];
        Ok(Planner { model, lanes, consumers, producer, absorbed, layouts })
    }

    /// A constant of the given shape.
    pub(super) fn floats(&self, tensor: usize, shape: &[usize]) -> Result<Vec<f32>, Wrong> {
        let t = &self.model.tensors[tensor];
        match &t.constant {
            Constant::Float(v) if t.shape == shape && v.len() == t.count() => Ok(v.clone()),
            _ => Err(format!("tensor {tensor} is not a constant of shape {shape:?}")),
        }
    }

    pub(super) fn image(&self, tensor: usize) -> Result<(usize, usize, usize, usize), Wrong> {
        match self.layouts[tensor] {
            Layout::Image { height, width, channels, stride } => Ok((height, width, channels, stride)),
            Layout::Dense(_) => Err(format!("tensor {tensor} is no image of batch 1")),
        }
    }

    /// An image whose pixels are whole vectors.
    pub(super) fn padded(&self, tensor: usize) -> Result<(usize, usize, usize), Wrong> {
        let (height, width, channels, stride) = self.image(tensor)?;
        if !stride.is_multiple_of(self.lanes) {
            return Err("the picture goes into something that is no convolution".into());
        }
        Ok((height, width, channels))
    }

    pub(super) fn geometry(
        &self,
        input: usize,
        output: usize,
        kernel: [usize; 2],
        window: &Window,
        extra: [usize; 2],
    ) -> Result<Geometry, Wrong> {
        let (ih, iw, ..) = self.image(input)?;
        let (oh, ow, ..) = self.image(output)?;
        if kernel.iter().any(|k| !(1..=16).contains(k)) {
            return Err(format!("a window of {kernel:?}"));
        }
        let mut before = extra;
        if window.padding == Padding::Same {
            for (axis, (i, o)) in [(ih, oh), (iw, ow)].into_iter().enumerate() {
                if o != i.div_ceil(window.stride[axis]) {
                    return Err(format!("{o} outputs for {i} inputs"));
                }
                let needed = (o - 1) * window.stride[axis] + kernel[axis];
                before[axis] += needed.saturating_sub(i) / 2;
            }
        }
        Ok(Geometry { input: [ih, iw], output: [oh, ow], kernel, stride: window.stride, before })
    }

    pub(super) fn convolution(&self, chain: Chain) -> Result<(Step, usize), Wrong> {
        let op = &self.model.operators[chain.start];
        let &[input, weights, bias] = &op.inputs[..] else {
            return Err(format!("{} inputs", op.inputs.len()));
        };
        let (Kind::Conv(window) | Kind::Depthwise(window)) = &op.kind else {
            return Err("not a convolution".into());
        };
        let (input, extra) = match self.spatial_pad(input) {
            Some(found) if window.padding == Padding::Valid => found,
            _ => (input, [0, 0]),
        };
        let shape = &self.model.tensors[weights].shape;
        let &[first, kh, kw, last] = &shape[..] else {
            return Err(format!("weights of shape {shape:?}"));
        };
        let geometry = self.geometry(input, chain.output, [kh, kw], window, extra)?;
        let (_, _, in_channels, _) = self.image(input)?;
        let (_, _, out_channels) = self.padded(chain.output)?;
        let values = self.floats(weights, shape)?;
        let bias = self.floats(bias, &[out_channels])?;
        let Chain { residual, act, output, .. } = chain;
        if matches!(op.kind, Kind::Conv(_)) {
            if (first, last) != (out_channels, in_channels) {
                return Err(format!("weights of shape {shape:?}"));
            }
            let weights = Packed::new(&values, &bias, kh * kw * last, self.lanes);
            return Ok((Step::Conv { input, geometry, weights, residual, act }, output));
        }
        self.padded(input)?;
        if (first, last) != (1, in_channels) || in_channels != out_channels {
            return Err(format!("weights of shape {shape:?}"));
        }
        let stride = last.next_multiple_of(self.lanes);
        let pad = |v: &[f32]| v.iter().copied().chain(std::iter::repeat_n(0.0, stride - last)).collect::<Vec<_>>();
        let weights = values.chunks_exact(last).flat_map(pad).collect();
        let bias = pad(&bias);
        Ok((Step::Depthwise { input, geometry, weights, bias, act }, output))
    }

    /// An operator that was not fused.
    pub(super) fn plain(&self, i: usize) -> Result<(Step, usize), Wrong> {
        let op = &self.model.operators[i];
        let output = op.output;
        let input = *op.inputs.first().ok_or("no input")?;
        let step = match &op.kind {
            Kind::Add(clamp) => {
                let &[a, b] = &op.inputs[..] else { return Err("ADD".into()) };
                self.padded(a)?;
                if !self.same_image(a, b) || !self.same_image(a, output) {
                    return Err("ADD of different shapes".into());
                }
                Step::Add { inputs: [a, b], act: clamp.map_or(Act::None, Act::Clamp) }
            }
            Kind::Relu | Kind::Prelu => {
                self.padded(input)?;
                if !self.same_image(input, output) {
                    return Err("an activation that changes the shape".into());
                }
                let act = self.activation(i)?.ok_or("no activation")?;
                Step::Activate { input, act }
            }
            Kind::Pad => {
                let Some((_, [(top, _), (left, _), (0, _)])) = self.pad(i) else {
                    return Err("a PAD that is not run here".into());
                };
                self.padded(input)?;
                Step::Pad { input, before: [top, left] }
            }
            Kind::MaxPool { window, size } => {
                let (.., channels) = self.padded(input)?;
                if self.padded(output)?.2 != channels || window.clamp.is_some() {
                    return Err("a MAX_POOL_2D that is not run here".into());
                }
                let geometry = self.geometry(input, output, *size, window, [0, 0])?;
                Step::MaxPool { input, geometry }
            }
            Kind::ResizeBilinear { align_corners, half_pixel } => {
                if self.padded(input)?.2 != self.padded(output)?.2 {
                    return Err("RESIZE_BILINEAR changes the channels".into());
                }
                Step::Resize { input, align_corners: *align_corners, half_pixel: *half_pixel }
            }
            Kind::DepthToSpace { block } => {
                let (ih, iw, ic) = self.padded(input)?;
                let (oh, ow, oc) = self.padded(output)?;
                let fits = |a: usize, b: usize| a.checked_mul(*block) == Some(b);
                if !(fits(ih, oh) && fits(iw, ow) && fits(oc, ic / block.max(&1))) || oc * block * block != ic {
                    return Err("DEPTH_TO_SPACE between shapes that do not fit".into());
                }
                Step::DepthToSpace { input, block: *block }
            }
            Kind::Reshape => self.gather(vec![input], output)?,
            Kind::Concatenation { axis } => {
                // Only along the first dimension larger than 1: then the parts lie one by one.
                let outer = |t: &usize| {
                    let shape = &self.model.tensors[*t].shape;
                    let axis = usize::try_from(*axis).unwrap_or(usize::MAX);
                    axis < shape.len() && shape[..axis].iter().all(|&d| d == 1)
                };
                if !op.inputs.iter().all(outer) {
                    return Err("a CONCATENATION that is not run here".into());
                }
                self.gather(op.inputs.clone(), output)?
            }
            Kind::Conv(_) | Kind::Depthwise(_) => return Err("a convolution left over".into()),
        };
        Ok((step, output))
    }

    pub(super) fn gather(&self, inputs: Vec<usize>, output: usize) -> Result<Step, Wrong> {
        let count: usize = inputs.iter().map(|&t| self.model.tensors[t].count()).sum();
        if self.layouts[output] != Layout::Dense(count) {
            return Err("a result of other size, or an image again".into());
        }
        Ok(Step::Gather { inputs })
    }

    pub(super) fn scratch(&self, step: &Step) -> usize {
        let Step::Conv { input, geometry: g, .. } = step else { return 0 };
        let Layout::Image { channels, .. } = self.layouts[*input] else { return 0 };
        g.output[1] * g.kernel[0] * g.kernel[1] * channels
    }
}
