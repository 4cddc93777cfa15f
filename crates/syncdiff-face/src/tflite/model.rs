//! A `.tflite` file as a list of operators over tensors, constants already in f32.
//!
//! # Source
//! The field numbers follow TensorFlow's `lite/schema/schema.fbs` (version 3).

use super::flatbuffer::{Table, Wrong};
use super::sparse::Sparsity;
use crate::FaceError;

/// Largest tensor that is accepted, in elements.
pub(super) const MAX_ELEMENTS: usize = 1 << 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    Same,
    Valid,
}

/// Bounds that a result is clamped to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clamp {
    pub(super) low: f32,
    pub(super) high: f32,
}

/// Window of a convolution or a pooling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) padding: Padding,
    pub(super) stride: [usize; 2],
    pub(super) clamp: Option<Clamp>,
}

/// The operators that the face models use.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Add(Option<Clamp>),
    Concatenation { axis: i32 },
    Conv(Window),
    Depthwise(Window),
    DepthToSpace { block: usize },
    MaxPool { window: Window, size: [usize; 2] },
    Relu,
    Reshape,
    ResizeBilinear { align_corners: bool, half_pixel: bool },
    Pad,
    Prelu,
}

#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) kind: Kind,
    pub(super) inputs: Vec<usize>,
    pub(super) output: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Constant {
    #[default]
    None,
    Float(Vec<f32>),
    Int(Vec<i32>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tensor {
    pub(super) shape: Vec<usize>,
    pub(super) constant: Constant,
}

impl Tensor {
    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A parsed network.
#[derive(Debug)]
pub struct Model {
    pub(super) name: String,
    pub(super) tensors: Vec<Tensor>,
    pub(super) operators: Vec<Operator>,
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
}

impl Model {
    /// Reads a model; `name` is used in messages.
    ///
    /// # Errors
    /// [`FaceError::BadModel`] for damaged bytes and for operators or types that are not run here.
    pub fn parse(name: &str, file: &[u8]) -> Result<Self, FaceError> {
        parse(name, file).map_err(|detail| FaceError::BadModel { model: name.to_owned(), detail })
    }

    /// Shapes of the outputs, in the order of the file.
    pub fn output_shapes(&self) -> Vec<&[usize]> {
        self.outputs.iter().map(|&t| self.tensors[t].shape.as_slice()).collect()
    }

    /// Shape of the input, batch x height x width x channels.
    pub fn input_shape(&self) -> &[usize] {
        &self.tensors[self.inputs[0]].shape
    }
}

struct RawTensor {
    kind: i8,
    sparsity: Option<Sparsity>,
}

fn usize_of(value: i32, what: &str) -> Result<usize, Wrong> {
    usize::try_from(value).map_err(|_| format!("{what} is {value}"))
}

fn indices(values: Vec<i32>, len: usize, what: &str) -> Result<Vec<usize>, Wrong> {
    values
        .into_iter()
        .map(|v| {
            usize::try_from(v).ok().filter(|&i| i < len).ok_or_else(|| format!("{what} names tensor {v} of {len}"))
        })
        .collect()
}

fn floats(kind: i8, data: &[u8]) -> Result<Constant, Wrong> {
    Ok(match kind {
        0 => Constant::Float(data.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect()),
        1 => Constant::Float(data.as_chunks().0.iter().map(|c| half::f16::from_le_bytes(*c).to_f32()).collect()),
        2 => Constant::Int(data.as_chunks().0.iter().map(|c| i32::from_le_bytes(*c)).collect()),
        other => return Err(format!("a constant of type {other}")),
    })
}

fn parse(name: &str, file: &[u8]) -> Result<Model, Wrong> {
    let root = Table::root(file, b"TFL3")?;
    let buffers = root.tables(4)?;
    let graphs = root.tables(2)?;
    let graph = graphs.first().ok_or("the file holds no graph")?;
    let mut codes = Vec::new();
    for code in root.tables(1)? {
        // Old files hold the code in a byte; newer ones may use the wide field as well.
        codes.push(i32::from(code.i8(0, 0)?).max(code.i32(3, 0)?));
    }
    let (mut tensors, mut raw) = (Vec::new(), Vec::new());
    for table in graph.tables(0)? {
        let (tensor, r) = parse_tensor(&table, &buffers).map_err(|e| format!("tensor {}: {e}", tensors.len()))?;
        tensors.push(tensor);
        raw.push(r);
    }
    let inputs = indices(graph.i32s(1)?, tensors.len(), "the input list")?;
    let outputs = indices(graph.i32s(2)?, tensors.len(), "the output list")?;
    if inputs.len() != 1 || outputs.is_empty() {
        return Err(format!("{} inputs and {} outputs", inputs.len(), outputs.len()));
    }
    let mut operators = Vec::new();
    for (number, table) in graph.tables(3)?.iter().enumerate() {
        let operator =
            parse_operator(table, &codes, &mut tensors, &raw).map_err(|e| format!("operator {number}: {e}"))?;
        operators.extend(operator);
    }
    Ok(Model { name: name.to_owned(), tensors, operators, inputs, outputs })
}

fn parse_tensor(table: &Table, buffers: &[Table]) -> Result<(Tensor, RawTensor), Wrong> {
    let shape = table.i32s(0)?.into_iter().map(|d| usize_of(d, "a dimension")).collect::<Result<Vec<_>, _>>()?;
    let count = shape.iter().try_fold(1usize, |a, &d| a.checked_mul(d));
    let count = count.filter(|&c| c > 0 && c <= MAX_ELEMENTS && shape.len() <= 4);
    let Some(count) = count else { return Err(format!("shape {shape:?} is out of range")) };
    let kind = table.i8(1, 0)?;
    let buffer = usize_of(table.i32(2, 0)?, "a buffer number")?;
    let data = buffers.get(buffer).ok_or("the buffer is missing")?.u8s(0)?;
    let sparsity = table.table(6)?.map(|s| Sparsity::parse(&s, &shape)).transpose()?;
    let constant = if data.is_empty() { Constant::None } else { floats(kind, data)? };
    let len = match &constant {
        Constant::None => count,
        Constant::Float(v) => v.len(),
        Constant::Int(v) => v.len(),
    };
    if sparsity.is_none() && len != count {
        return Err(format!("{len} values for shape {shape:?} ({})", table.string(3)?));
    }
    Ok((Tensor { shape, constant }, RawTensor { kind, sparsity }))
}

fn window(options: &Table, clamp_slot: usize) -> Result<Window, Wrong> {
    let padding = match options.i8(0, 0)? {
        0 => Padding::Same,
        1 => Padding::Valid,
        other => return Err(format!("padding {other}")),
    };
    let stride = [usize_of(options.i32(2, 1)?, "stride")?, usize_of(options.i32(1, 1)?, "stride")?];
    if stride.iter().any(|s| !(1..=8).contains(s)) {
        return Err(format!("stride {stride:?}"));
    }
    Ok(Window { padding, stride, clamp: clamp(options.i8(clamp_slot, 0)?)? })
}

fn clamp(code: i8) -> Result<Option<Clamp>, Wrong> {
    match code {
        0 => Ok(None),
        1 => Ok(Some(Clamp { low: 0.0, high: f32::INFINITY })),
        2 => Ok(Some(Clamp { low: -1.0, high: 1.0 })),
        3 => Ok(Some(Clamp { low: 0.0, high: 6.0 })),
        other => Err(format!("activation {other} is not run here")),
    }
}

fn no_dilation(options: &Table, slot: usize) -> Result<(), Wrong> {
    if options.i32(slot, 1)? != 1 || options.i32(slot + 1, 1)? != 1 {
        return Err("dilated convolutions are not run here".into());
    }
    Ok(())
}

/// One operator; `None` where it only turned a constant into another.
fn parse_operator(
    table: &Table,
    codes: &[i32],
    tensors: &mut [Tensor],
    raw: &[RawTensor],
) -> Result<Option<Operator>, Wrong> {
    let code = usize_of(table.i32(0, 0)?, "operator code")?;
    let code = *codes.get(code).ok_or("the operator code is missing")?;
    let inputs = indices(table.i32s(1)?, tensors.len(), "an input")?;
    let outputs = indices(table.i32s(2)?, tensors.len(), "an output")?;
    let [output] = outputs[..] else { return Err(format!("{} outputs", outputs.len())) };
    let options = table.table(4)?;
    let options = || options.ok_or("the options are missing");
    let kind = match code {
        0 => Kind::Add(clamp(options().map_or(Ok(0), |o| o.i8(0, 0))?)?),
        2 => Kind::Concatenation { axis: options()?.i32(0, 0)? },
        3 => {
            no_dilation(&options()?, 4)?;
            Kind::Conv(window(&options()?, 3)?)
        }
        4 => {
            no_dilation(&options()?, 5)?;
            if options()?.i32(3, 1)? != 1 {
                return Err("a depth multiplier other than 1".into());
            }
            Kind::Depthwise(window(&options()?, 4)?)
        }
        5 => Kind::DepthToSpace { block: usize_of(options()?.i32(0, 0)?, "block size")? },
        6 | 124 => {
            let &[input, ..] = &inputs[..] else { return Err("no input".into()) };
            return fold(code, input, output, tensors, raw).map(|()| None);
        }
        17 => Kind::MaxPool {
            window: window(&options()?, 5)?,
            size: [usize_of(options()?.i32(4, 0)?, "pool height")?, usize_of(options()?.i32(3, 0)?, "pool width")?],
        },
        19 => Kind::Relu,
        22 => Kind::Reshape,
        23 => Kind::ResizeBilinear { align_corners: options()?.i8(2, 0)? != 0, half_pixel: options()?.i8(3, 0)? != 0 },
        34 => Kind::Pad,
        54 => Kind::Prelu,
        other => return Err(format!("operator {other} is not run here")),
    };
    Ok(Some(Operator { kind, inputs, output }))
}

/// DEQUANTIZE (6) and DENSIFY (124) of constants, done once while reading.
fn fold(code: i32, input: usize, output: usize, tensors: &mut [Tensor], raw: &[RawTensor]) -> Result<(), Wrong> {
    let Constant::Float(values) = &tensors[input].constant else {
        return Err("only constants are dequantised or densified here".into());
    };
    if tensors[input].shape != tensors[output].shape || !matches!(raw[input].kind, 0 | 1) {
        return Err("shapes or types of a constant do not fit".into());
    }
    let dense = match (&raw[input].sparsity, code) {
        (Some(sparsity), 124) => sparsity.densify(values)?,
        (None, 6) => values.clone(),
        _ => return Err("a dense tensor is densified, or a sparse one dequantised".into()),
    };
    tensors[output].constant = Constant::Float(dense);
    Ok(())
}
