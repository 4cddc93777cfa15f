//! What a convolution takes in of its surroundings: the spatial PAD before it and the ADD, RELU or
//! PRELU behind it, also where the other side of the ADD is a PAD of channels.

use super::flatbuffer::Wrong;
use super::model::{Clamp, Constant, Kind, Padding};
use super::plan::{Act, Layout};
use super::planner::Planner;

const RELU: Clamp = Clamp { low: 0.0, high: f32::INFINITY };

/// What a fused convolution takes in besides itself.
pub(super) struct Chain {
    pub(super) start: usize,
    pub(super) residual: Option<usize>,
    pub(super) act: Act,
    pub(super) output: usize,
}

impl Planner<'_> {
    /// The one operator that reads `tensor`, unless the caller reads it as well.
    pub(super) fn only_consumer(&self, tensor: usize) -> Option<usize> {
        match self.consumers[tensor][..] {
            [one] if !self.model.outputs.contains(&tensor) && !self.absorbed[one] => Some(one),
            _ => None,
        }
    }

    pub(super) fn chain(&mut self, start: usize) -> Result<(usize, Chain), Wrong> {
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

    pub(super) fn same_image(&self, a: usize, b: usize) -> bool {
        self.layouts[a] == self.layouts[b]
            && matches!(self.layouts[a], Layout::Image { .. })
            && matches!(self.model.tensors[a].constant, Constant::None)
    }

    /// The tensor before a PAD of channels that only `reader` reads, else the tensor itself.
    pub(super) fn unpadded_channels(&mut self, tensor: usize, reader: usize) -> usize {
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
    pub(super) fn pad(&self, op: usize) -> Option<(usize, [(usize, usize); 3])> {
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
    pub(super) fn spatial_pad(&self, tensor: usize) -> Option<(usize, [usize; 2])> {
        let (input, [(top, _), (left, _), (0, 0)]) = self.pad(self.producer[tensor]?)? else {
            return None;
        };
        matches!(self.layouts[input], Layout::Image { .. }).then_some((input, [top, left]))
    }

    /// PADs whose every reader is a convolution that takes them in.
    pub(super) fn absorb_pads(&mut self) {
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
    pub(super) fn activation(&self, op: usize) -> Result<Option<Act>, Wrong> {
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
}
