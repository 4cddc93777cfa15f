//! From a parsed model to the steps that are run: operators fused, weights packed, buffers shared.
//!
//! A convolution takes in the spatial PAD before it and the ADD, RELU or PRELU behind it, also
//! where the other side of the ADD is a PAD of channels. What is fused runs at the place of the
//! last operator of the chain, so that everything it reads is ready.

use super::depthwise::Geometry;
use super::flatbuffer::Wrong;
use super::gemm::Packed;
use super::model::{Clamp, Constant, Kind, MAX_ELEMENTS, Model, Padding, Window};

const RELU: Clamp = Clamp { low: 0.0, high: f32::INFINITY };

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
    fn reads(&self) -> Vec<usize> {
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

/// What a fused convolution takes in besides itself.
struct Chain {
    start: usize,
    residual: Option<usize>,
    act: Act,
    output: usize,
}

struct Planner<'m> {
    model: &'m Model,
    lanes: usize,
    consumers: Vec<Vec<usize>>,
    producer: Vec<Option<usize>>,
    absorbed: Vec<bool>,
    layouts: Vec<Layout>,
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

impl<'m> Planner<'m> {
    fn new(model: &'m Model, lanes: usize) -> Result<Self, Wrong> {
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

    /// The one operator that reads `tensor`, unless the caller reads it as well.
    fn only_consumer(&self, tensor: usize) -> Option<usize> {
        match self.consumers[tensor][..] {
            [one] if !self.model.outputs.contains(&tensor) && !self.absorbed[one] => Some(one),
            _ => None,
        }
    }

    fn chain(&mut self, start: usize) -> Result<(usize, Chain), Wrong> {
        let model = self.model;
        let op = &model.operators[start];
        let (Kind::Conv(window) | Kind::Depthwise(window)) = &op.kind else {
            return Err("not a convolution".into());
        };
        let is_conv = matches!(op.kind, Kind::Conv(_));
        self.absorbed[start] = true;
        let mut act = window.clamp.map_or(Act::None, Act::Clamp);
        let (mut output, mut end, mut residual) = (op.output, start, None);
        if is_conv
            && matches!(act, Act::None)
            && let Some(next) = self.only_consumer(output)
            && let Kind::Add(clamp) = model.operators[next].kind
            && let &[a, b] = &model.operators[next].inputs[..]
            && a != b
        {
            let other = if a == output { b } else { a };
            if self.producer[other] != Some(start) && self.same_image(other, output) {
                residual = Some(self.unpadded_channels(other, next));
                act = clamp.map_or(Act::None, Act::Clamp);
                (output, end) = (model.operators[next].output, next);
                self.absorbed[next] = true;
            }
        }
        if matches!(act, Act::None)
            && let Some(next) = self.only_consumer(output)
            && let Some(found) = self.activation(next)?
        {
            act = found;
            (output, end) = (model.operators[next].output, next);
            self.absorbed[next] = true;
        }
        Ok((end, Chain { start, residual, act, output }))
    }

    fn same_image(&self, a: usize, b: usize) -> bool {
        self.layouts[a] == self.layouts[b]
            && matches!(self.layouts[a], Layout::Image { .. })
            && matches!(self.model.tensors[a].constant, Constant::None)
    }

    /// The tensor before a PAD of channels that only `reader` reads, else the tensor itself.
    fn unpadded_channels(&mut self, tensor: usize, reader: usize) -> usize {
        if let Some(pad) = self.producer[tensor]
            && self.consumers[tensor] == [reader]
            && !self.model.outputs.contains(&tensor)
            && let Some((input, [_, _, (0, _)])) = self.pad(pad)
            && let (Layout::Image { height, width, stride, .. }, Layout::Image { height: h, width: w, .. }) =
                (self.layouts[input], self.layouts[tensor])
            && (height, width) == (h, w)
            && stride % self.lanes == 0
        {
            self.absorbed[pad] = true;
            return input;
        }
        tensor
    }

    /// Input and (before, after) of height, width and channels, if the operator is a sound PAD.
    fn pad(&self, op: usize) -> Option<(usize, [(usize, usize); 3])> {
        let op = &self.model.operators[op];
        let (Kind::Pad, &[input, amounts]) = (&op.kind, &op.inputs[..]) else { return None };
        let Constant::Int(v) = &self.model.tensors[amounts].constant else { return None };
        let from = &self.model.tensors[input].shape;
        let to = &self.model.tensors[op.output].shape;
        if v.len() != 8 || from.len() != 4 || to.len() != 4 || v[..2] != [0, 0] {
            return None;
        }
        let mut amounts = [(0, 0); 3];
        for (axis, amount) in amounts.iter_mut().enumerate() {
            let before = usize::try_from(v[2 * axis + 2]).ok()?;
            let after = usize::try_from(v[2 * axis + 3]).ok()?;
            let whole = from[axis + 1].checked_add(before)?.checked_add(after)?;
            if whole != to[axis + 1] {
                return None;
            }
            *amount = (before, after);
        }
        Some((input, amounts))
    }

    /// Input and amounts above and to the left, if `tensor` is a PAD of an image that a
    /// convolution can take in.
    fn spatial_pad(&self, tensor: usize) -> Option<(usize, [usize; 2])> {
        let (input, [(top, _), (left, _), (0, 0)]) = self.pad(self.producer[tensor]?)? else {
            return None;
        };
        matches!(self.layouts[input], Layout::Image { .. }).then_some((input, [top, left]))
    }

    /// PADs whose every reader is a convolution that takes them in.
    fn absorb_pads(&mut self) {
        for i in 0..self.model.operators.len() {
            let output = self.model.operators[i].output;
            let taken = |&c: &usize| {
                let op = &self.model.operators[c];
                op.inputs[0] == output
                    && matches!(&op.kind, Kind::Conv(w) | Kind::Depthwise(w)
                        if w.padding == Padding::Valid)
            };
            if matches!(self.model.operators[i].kind, Kind::Pad)
                && self.spatial_pad(output).is_some()
                && !self.model.outputs.contains(&output)
                && self.consumers[output].iter().all(taken)
            {
                self.absorbed[i] = true;
            }
        }
    }

    /// The activation that operator `op` is, if it is one of its own.
    fn activation(&self, op: usize) -> Result<Option<Act>, Wrong> {
        let op = &self.model.operators[op];
        match op.kind {
            Kind::Relu => Ok(Some(Act::Clamp(RELU))),
            Kind::Prelu => {
                let &[input, slopes] = &op.inputs[..] else { return Err("PRELU".into()) };
                let Layout::Image { channels, stride, .. } = self.layouts[input] else {
                    return Err("PRELU of something that is no image".into());
                };
                let mut slopes = self.floats(slopes, &[1, 1, channels])?;
                slopes.resize(stride, 0.0);
                Ok(Some(Act::Prelu(slopes)))
            }
            _ => Ok(None),
        }
    }

    /// A constant of the given shape.
    fn floats(&self, tensor: usize, shape: &[usize]) -> Result<Vec<f32>, Wrong> {
        let t = &self.model.tensors[tensor];
        match &t.constant {
            Constant::Float(v) if t.shape == shape && v.len() == t.count() => Ok(v.clone()),
            _ => Err(format!("tensor {tensor} is not a constant of shape {shape:?}")),
        }
    }

    fn image(&self, tensor: usize) -> Result<(usize, usize, usize, usize), Wrong> {
        match self.layouts[tensor] {
            Layout::Image { height, width, channels, stride } => Ok((height, width, channels, stride)),
            Layout::Dense(_) => Err(format!("tensor {tensor} is no image of batch 1")),
        }
    }

    /// An image whose pixels are whole vectors.
    fn padded(&self, tensor: usize) -> Result<(usize, usize, usize), Wrong> {
        let (height, width, channels, stride) = self.image(tensor)?;
        if !stride.is_multiple_of(self.lanes) {
            return Err("the picture goes into something that is no convolution".into());
        }
        Ok((height, width, channels))
    }

    fn geometry(
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

    fn convolution(&self, chain: Chain) -> Result<(Step, usize), Wrong> {
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
    fn plain(&self, i: usize) -> Result<(Step, usize), Wrong> {
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

    fn gather(&self, inputs: Vec<usize>, output: usize) -> Result<Step, Wrong> {
        let count: usize = inputs.iter().map(|&t| self.model.tensors[t].count()).sum();
        if self.layouts[output] != Layout::Dense(count) {
            return Err("a result of other size, or an image again".into());
        }
        Ok(Step::Gather { inputs })
    }

    fn scratch(&self, step: &Step) -> usize {
        let Step::Conv { input, geometry: g, .. } = step else { return 0 };
        let Layout::Image { channels, .. } = self.layouts[*input] else { return 0 };
        g.output[1] * g.kernel[0] * g.kernel[1] * channels
    }
}

/// Gives every tensor a buffer; two tensors share one if their lives do not meet.
fn assign_slots(model: &Model, steps: &[(Step, usize)], layouts: &[Layout]) -> Result<(Vec<usize>, Vec<usize>), Wrong> {
    let mut last_read = vec![0; layouts.len()];
    for (i, (step, _)) in steps.iter().enumerate() {
        for t in step.reads() {
            last_read[t] = i;
        }
    }
    for &t in &model.outputs {
        last_read[t] = usize::MAX;
    }
    let mut slot = vec![usize::MAX; layouts.len()];
    let (mut slot_len, mut free): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    // The picture keeps its own buffer: the caller fills it before every run.
    slot[model.inputs[0]] = 0;
    slot_len.push(layouts[model.inputs[0]].len());
    for (i, (step, output)) in steps.iter().enumerate() {
        let reads = step.reads();
        if reads.iter().any(|&t| slot[t] == usize::MAX) || slot[*output] != usize::MAX {
            return Err(format!("step {i} reads what is not computed yet"));
        }
        let len = layouts[*output].len();
        // The free buffer nearest in size, so that small tensors stay in small buffers.
        let best = (0..free.len()).min_by_key(|&f| slot_len[free[f]].abs_diff(len));
        let chosen = best.map_or_else(
            || {
                slot_len.push(0);
                slot_len.len() - 1
            },
            |f| free.swap_remove(f),
        );
        slot_len[chosen] = slot_len[chosen].max(len);
        slot[*output] = chosen;
        let mut done: Vec<usize> = reads.into_iter().filter(|&t| last_read[t] == i && slot[t] != 0).collect();
        done.sort_unstable();
        done.dedup();
        free.extend(done.into_iter().map(|t| slot[t]));
    }
    if slot_len.iter().sum::<usize>() > 4 * MAX_ELEMENTS {
        return Err("it needs too much memory".into());
    }
    if model.outputs.iter().any(|&t| slot[t] == usize::MAX) {
        return Err("an output is never computed".into());
    }
    Ok((slot, slot_len))
}
