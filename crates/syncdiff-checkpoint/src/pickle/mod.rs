//! Pickles as data: a machine that builds a tree of values and calls nothing.
//!
//! [`input`] gives bytes, [`machine`] runs the opcodes into an [`Arena`], [`torch`] recognises the few functions of
//! PyTorch that stand for a tensor. Every other class or function stays a name, with its arguments beside it.

pub(crate) mod input;
pub(crate) mod machine;
pub(crate) mod text;
pub(crate) mod torch;

use crate::tensor::{StorageRef, View};

/// A value's place in its [`Arena`]. Values are shared by their places, so a value that is used a million times is
/// there once, and a container can hold itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id(u32);

/// One value.
#[derive(Debug)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits: two's complement, least significant byte first.
    Long(Box<[u8]>),
    Float(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by its dotted name.
    Global(Box<str>),
    /// What a class or function was called with, and what was put into the result. Nothing was called.
    Object(Box<Object>),
    Storage(Box<StorageRef>),
    Tensor(Box<View>),
}

/// An instance of a class that this reader does not know.
#[derive(Debug)]
pub(crate) struct Object {
    /// What was called: a [`Node::Global`] in any usual file.
    pub(crate) class: Id,
    /// Its arguments.
    pub(crate) args: Vec<Id>,
    /// What `__setstate__` or the attributes would get.
    pub(crate) state: Option<Id>,
    /// Pairs set on it, if it is a mapping.
    pub(crate) pairs: Vec<(Id, Id)>,
    /// Values appended to it, if it is a list or set.
    pub(crate) elements: Vec<Id>,
}

/// The values of one pickle.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    nodes: Vec<Node>,
}

impl Arena {
    /// Adds a value; the caller has counted it, so that there are far fewer than 2^32.
    fn push(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        Id(self.nodes.len() as u32 - 1)
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    pub(crate) fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        match self.node(id) {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The dotted name of a class or function.
    pub(crate) fn global(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    /// The elements of a tuple or list.
    pub(crate) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Tuple(elements) => Some(elements),
            Node::List(elements) => Some(elements),
            _ => None,
        }
    }

    /// The pairs of a dict or of an instance of a subclass of it.
    pub(crate) fn mapping(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(pairs) => Some(pairs),
            Node::Object(object) => {
                let class = self.global(object.class).unwrap_or("");
                let known =
                    matches!(class, "collections.OrderedDict" | "collections.defaultdict" | "collections.Counter");
                (known || !object.pairs.is_empty()).then_some(&object.pairs)
            }
            _ => None,
        }
    }

    /// The value of a key that is text.
    pub(crate) fn get(&self, pairs: &[(Id, Id)], key: &str) -> Option<Id> {
        pairs.iter().rev().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    /// All storages that the pickle mentions.
    pub(crate) fn storages(&self) -> impl Iterator<Item = &StorageRef> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// Names of all classes and functions that the pickle mentions, each once, in the order of the file.
    pub(crate) fn globals(&self) -> Vec<&str> {
        let mut seen = std::collections::HashSet::new();
        let names = self.nodes.iter().filter_map(|node| match node {
            Node::Global(name) => Some(&**name),
            _ => None,
        });
        names.filter(|name| seen.insert(*name)).collect()
    }
}
