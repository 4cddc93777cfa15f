//! What a checkpoint holds beside tensors, as a small tree: hyperparameters, vocabularies, step counts.

use crate::error::{Outcome, within};
use crate::limits;
use crate::pickle::{Arena, Id, Node};
use crate::tensor::Dtype;

/// A value of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A longer integer: two's complement, least significant byte first.
    Long(Vec<u8>),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes; only how many.
    Bytes(usize),
    /// A list, tuple or set.
    List(Vec<Value>),
    /// A dict or an instance of a subclass of it, in the order of the file.
    Map(Vec<(Value, Value)>),
    /// A tensor; its values are read by its name.
    Tensor(Dtype, Vec<usize>),
    /// A class or function, by name.
    Class(String),
    /// What a class would have been made of. Nothing was made, nothing was called.
    Object {
        /// Name of the class or function.
        class: String,
        /// Its arguments.
        args: Vec<Value>,
        /// Its attributes, or whatever its `__setstate__` would get.
        state: Box<Value>,
    },
    /// A container that holds itself, or containers deeper inside each other than are shown.
    Cut,
}

impl Value {
    /// The value under a key of a map, or an attribute of an object.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Map(pairs) => {
                let is_key = |name: &Value| matches!(name, Value::Text(text) if text == key);
                pairs.iter().rev().find(|(name, _)| is_key(name)).map(|(_, value)| value)
            }
            Self::Object { state, .. } => state.get(key),
            _ => None,
        }
    }

    /// Text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one of up to 64 bits.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// As JSON, for display: objects become `{"class", "args", "state"}`, a map whose keys are not all text a list of
    /// pairs, and what JSON has no form for a text in angle brackets.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Value as Json, json};
        match self {
            Self::None => Json::Null,
            Self::Bool(value) => json!(value),
            Self::Int(value) => json!(value),
            Self::Long(bytes) => json!(format!("<integer of {} bytes>", bytes.len())),
            Self::Float(value) if value.is_finite() => json!(value),
            Self::Float(value) => json!(format!("<{value}>")),
            Self::Text(text) => json!(text),
            Self::Bytes(len) => json!(format!("<{len} bytes>")),
            Self::List(values) => values.iter().map(Self::to_json).collect(),
            Self::Map(pairs) if pairs.iter().all(|(key, _)| matches!(key, Self::Text(_))) => {
                let named = pairs.iter().filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value.to_json())));
                Json::Object(named.collect())
            }
            Self::Map(pairs) => pairs.iter().map(|(key, value)| json!([key.to_json(), value.to_json()])).collect(),
            Self::Tensor(dtype, shape) => json!(format!("<tensor {} {shape:?}>", dtype.name())),
            Self::Class(name) => json!(format!("<{name}>")),
            Self::Object { class, args, state } => {
                let args: Vec<Json> = args.iter().map(Self::to_json).collect();
                json!({"class": class, "args": args, "state": state.to_json()})
            }
            Self::Cut => json!("<cut>"),
        }
    }
}

/// Copies a value out of its arena.
pub(crate) fn export(arena: &Arena, id: Id) -> Outcome<Value> {
    let mut export = Export { arena, values: 0, text_bytes: 0, above: Vec::new() };
    export.value(id)
}

struct Export<'a> {
    arena: &'a Arena,
    values: u64,
    text_bytes: u64,
    above: Vec<Id>,
}

impl Export<'_> {
    fn text(&mut self, text: &str) -> Outcome<String> {
        self.text_bytes += text.len() as u64;
        within("the text of a tree of values in bytes", self.text_bytes, limits::TREE_TEXT_BYTES)?;
        Ok(text.to_owned())
    }

    fn value(&mut self, id: Id) -> Outcome<Value> {
        self.values += 1;
        within("the number of values of a tree", self.values, limits::TREE_VALUES)?;
        Ok(match self.arena.node(id) {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::Long(bytes) => Value::Long(bytes.to_vec()),
            Node::Float(value) => Value::Float(*value),
            Node::Text(text) => Value::Text(self.text(text)?),
            Node::Bytes(bytes) => Value::Bytes(bytes.len()),
            Node::Global(name) => Value::Class(self.text(name)?),
            Node::Tensor(view) => Value::Tensor(view.dtype, view.sizes.iter().map(|size| *size as usize).collect()),
            Node::Storage(storage) => Value::Bytes(storage.elements as usize * storage.dtype.size()),
            Node::Tuple(_) | Node::List(_) | Node::Set(_) | Node::Dict(_) | Node::Object(_) => self.container(id)?,
        })
    }

    fn container(&mut self, id: Id) -> Outcome<Value> {
        if self.above.contains(&id) || self.above.len() as u64 >= limits::NESTING {
            return Ok(Value::Cut);
        }
        self.above.push(id);
        let value = match self.arena.node(id) {
            Node::Tuple(elements) => self.list(elements)?,
            Node::List(elements) | Node::Set(elements) => self.list(elements)?,
            Node::Object(object) if self.arena.mapping(id).is_none() => {
                let class = match self.arena.global(object.class) {
                    Some(name) => self.text(name)?,
                    None => "<a value>".to_owned(),
                };
                let mut args = Vec::with_capacity(object.args.len());
                for arg in &object.args {
                    args.push(self.value(*arg)?);
                }
                let state = match object.state {
                    Some(state) => self.value(state)?,
                    None if object.elements.is_empty() => Value::None,
                    None => self.list(&object.elements)?,
                };
                Value::Object { class, args, state: Box::new(state) }
            }
            _ => {
                let mut pairs = Vec::new();
                for (key, value) in self.arena.mapping(id).unwrap_or_default() {
                    pairs.push((self.value(*key)?, self.value(*value)?));
                }
                Value::Map(pairs)
            }
        };
        self.above.pop();
        Ok(value)
    }

    fn list(&mut self, elements: &[Id]) -> Outcome<Value> {
        let mut values = Vec::new();
        for element in elements {
            values.push(self.value(*element)?);
        }
        Ok(Value::List(values))
    }
}
