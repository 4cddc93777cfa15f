//! The functions by which PyTorch spells tensors and storages in a pickle.
//!
//! # Source
//! `torch/_utils.py` (`_rebuild_*`), `torch/_tensor.py` and `torch/serialization.py` (persistent ids) of PyTorch 0.4
//! to 2.11.

use crate::error::{Outcome, Problem, within};
use crate::limits;
use crate::pickle::{Arena, Id, Node};
use crate::tensor::{Dtype, StorageRef, View};

/// The value of a call, where it is one of PyTorch's that stand for a tensor.
pub(crate) fn call(arena: &Arena, function: &str, args: &[Id]) -> Outcome<Option<Built>> {
    let (mut function, mut args) = (function, args);
    // `_rebuild_from_type_v2(function, type, args, state)` wraps another call; honest files wrap once.
    if function == "torch._tensor._rebuild_from_type_v2" {
        let inner = match args {
            [inner, _, inner_args, ..] => arena.global(*inner).zip(arena.sequence(*inner_args)),
            _ => None,
        };
        (function, args) = inner.ok_or_else(|| misused(function))?;
    }
    let Some(function) = function.strip_prefix("torch._utils.") else { return Ok(None) };
    match function {
        "_rebuild_tensor" | "_rebuild_tensor_v2" => tensor(arena, function, args, None).map(Some),
        "_rebuild_tensor_v3" => {
            let dtype = args.get(6).and_then(|dtype| arena.global(*dtype)).ok_or_else(|| misused(function))?;
            let known = dtype.strip_prefix("torch.").and_then(Dtype::from_torch);
            let known = known.ok_or_else(|| Problem::Unsupported(format!("tensors of {dtype:?}")))?;
            tensor(arena, function, args, Some(known)).map(Some)
        }
        "_rebuild_parameter" | "_rebuild_parameter_with_state" => match args.first() {
            Some(inner) if matches!(arena.node(*inner), Node::Tensor(_)) => Ok(Some(Built::Same(*inner))),
            // A parameter of a tensor that is opaque, for example a sparse one.
            Some(_) => Ok(None),
            None => Err(misused(function)),
        },
        _ => Ok(None),
    }
}

/// What a call stands for.
pub(crate) enum Built {
    /// A new value.
    Node(Node),
    /// A value that is there already.
    Same(Id),
}

fn misused(function: &str) -> Problem {
    Problem::damaged(format!("{function} with arguments that do not fit it"))
}

fn counts(arena: &Arena, id: Id, function: &str) -> Outcome<Vec<u64>> {
    let axes = arena.sequence(id).ok_or_else(|| misused(function))?;
    within("the number of axes of a tensor", axes.len() as u64, limits::TENSOR_AXES)?;
    axes.iter().map(|axis| count(arena, *axis).ok_or_else(|| misused(function))).collect()
}

fn count(arena: &Arena, id: Id) -> Option<u64> {
    arena.int(id).and_then(|value| u64::try_from(value).ok())
}

fn tensor(arena: &Arena, function: &str, args: &[Id], dtype: Option<Dtype>) -> Outcome<Built> {
    let [storage, offset, sizes, strides, ..] = args else { return Err(misused(function)) };
    let Node::Storage(storage) = arena.node(*storage) else { return Err(misused(function)) };
    let offset = count(arena, *offset).ok_or_else(|| misused(function))?;
    let sizes = counts(arena, *sizes, function)?;
    let strides = counts(arena, *strides, function)?;
    let dtype = dtype.unwrap_or(storage.dtype);
    View::new((**storage).clone(), dtype, offset, sizes, strides).map(|view| Built::Node(Node::Tensor(Box::new(view))))
}

/// A persistent id: `('storage', type, key, device, elements[, view])`, or `('module', class, ...)`, which stands
/// for the class.
pub(crate) fn persistent(arena: &Arena, id: Id) -> Outcome<Built> {
    let bad = || Problem::damaged("a persistent id of the pickle is none of PyTorch's");
    let parts = arena.sequence(id).ok_or_else(bad)?;
    match (parts.first().and_then(|kind| arena.text(*kind)), parts) {
        (Some("storage"), [_, class, key, _, elements, rest @ ..]) => {
            let class = arena.global(*class).ok_or_else(bad)?;
            let name = class.rsplit('.').next().unwrap_or(class);
            let dtype = Dtype::from_storage_class(name);
            let dtype = dtype.ok_or_else(|| Problem::Unsupported(format!("storages of class {class:?}")))?;
            let key = match arena.node(*key) {
                Node::Text(key) => key.clone(),
                Node::Int(key) => key.to_string().into(),
                _ => return Err(bad()),
            };
            let mut elements = count(arena, *elements).ok_or_else(bad)?;
            let mut first = 0;
            // Before PyTorch 0.4: a storage that is a part of another, (key of the part, offset, elements).
            if let Some([_, offset, part]) = rest.first().and_then(|view| arena.sequence(*view)) {
                let (offset, part) = (count(arena, *offset).ok_or_else(bad)?, count(arena, *part).ok_or_else(bad)?);
                if offset.checked_add(part).is_none_or(|end| end > elements) {
                    return Err(Problem::damaged(format!("a part of storage {key:?} reaches beyond its end")));
                }
                (first, elements) = (offset, part);
            }
            Ok(Built::Node(Node::Storage(Box::new(StorageRef { key, dtype, first, elements }))))
        }
        (Some("module"), [_, class, ..]) => Ok(Built::Same(*class)),
        _ => Err(bad()),
    }
}
