//! Where the weights are: a walk through everything that a checkpoint holds.
//!
//! Training programs put the state dict at the top, under `state_dict`, `model`, `generator` or some other key, and
//! others beside it. Every mapping that holds tensors is a root; a pickled module is one root for itself and all the
//! modules inside it.

use std::collections::HashMap;

use crate::error::{Outcome, Problem, within};
use crate::limits;
use crate::pickle::machine::Pickle;
use crate::pickle::{Arena, Id, Node};
use crate::tensor::View;

/// One tensor of a root.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its name in the file.
    pub(crate) name: String,
    pub(crate) view: View,
}

/// A mapping that holds tensors.
#[derive(Debug)]
pub(crate) struct Root {
    /// Keys from the top, with dots between them; empty for the top itself.
    pub(crate) path: String,
    pub(crate) entries: Vec<Entry>,
    /// Place of each name.
    pub(crate) places: HashMap<String, usize>,
}

impl Root {
    /// From tensors in the order of the file; of two with one name the later counts, as in Python.
    pub(crate) fn new(path: String, named: Vec<(String, View)>) -> Self {
        let mut root = Self { path, entries: Vec::with_capacity(named.len()), places: HashMap::new() };
        for (name, view) in named {
            match root.places.get(&name) {
                Some(place) => root.entries[*place].view = view,
                None => {
                    root.places.insert(name.clone(), root.entries.len());
                    root.entries.push(Entry { name, view });
                }
            }
        }
        root
    }
}

/// Finds all roots, in the order of the file.
pub(crate) fn find_roots(pickle: &Pickle) -> Outcome<Vec<Root>> {
    let mut walk = Walk { arena: &pickle.arena, roots: Vec::new(), visited: 0, name_bytes: 0, above: Vec::new() };
    if let Node::Tensor(view) = pickle.arena.node(pickle.top) {
        // A bare tensor.
        walk.roots.push(Root::new(String::new(), vec![("tensor".to_owned(), (**view).clone())]));
        return Ok(walk.roots);
    }
    walk.visit(pickle.top, "")?;
    Ok(walk.roots)
}

struct Walk<'a> {
    arena: &'a Arena,
    roots: Vec<Root>,
    visited: u64,
    name_bytes: u64,
    /// Containers that the walk is inside of.
    above: Vec<Id>,
}

/// The children of a container, with their keys if it is a mapping.
fn children(arena: &Arena, id: Id) -> Option<Vec<(Option<Id>, Id)>> {
    if let Some(pairs) = arena.mapping(id) {
        return Some(pairs.iter().map(|(key, value)| (Some(*key), *value)).collect());
    }
    arena.sequence(id).map(|elements| elements.iter().map(|element| (None, *element)).collect())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Walk<'_> {
    /// The parameters, buffers and modules of a pickled `torch.nn.Module`.
    fn module_parts(&mut self, id: Id) -> Outcome<Option<[Option<Id>; 3]>> {
        let Node::Object(object) = self.arena.node(id) else { return Ok(None) };
        let Some(state) = object.state.and_then(|state| self.arena.mapping(state)) else { return Ok(None) };
        // Searched from end to end: many objects could share one long state.
        self.count(state.len() as u64)?;
        let parts = ["_parameters", "_buffers", "_modules"].map(|name| self.arena.get(state, name));
        Ok((parts[0].is_some() && parts[2].is_some()).then_some(parts))
    }

    fn enter(&mut self, id: Id) -> Outcome<()> {
        if self.above.contains(&id) {
            return Err(Problem::damaged("a mapping or list holds itself"));
        }
        self.above.push(id);
        within("the depth of containers inside each other", self.above.len() as u64, limits::NESTING)
    }

    fn count(&mut self, values: u64) -> Outcome<()> {
        self.visited += values;
        within("the number of values reached while looking for tensors", self.visited, limits::VISITED_VALUES)
    }

    fn named(&mut self, path: &str, name: &str) -> Outcome<String> {
        self.name_bytes += (path.len() + name.len() + 1) as u64;
        within("the length of all names in bytes", self.name_bytes, limits::NAME_BYTES)?;
        Ok(join(path, name))
    }

    fn key(&self, key: Option<Id>, index: usize) -> Option<String> {
        match key.map(|key| self.arena.node(key)) {
            None => Some(index.to_string()),
            Some(Node::Text(text)) => Some(text.to_string()),
            Some(Node::Int(value)) => Some(value.to_string()),
            Some(_) => None,
        }
    }

    fn visit(&mut self, id: Id, path: &str) -> Outcome<()> {
        self.count(1)?;
        if let Some(parts) = self.module_parts(id)? {
            let mut tensors = Vec::new();
            self.module(id, parts, "", &mut tensors)?;
            if !tensors.is_empty() {
                self.roots.push(Root::new(path.to_owned(), tensors));
            }
            return Ok(());
        }
        let Some(children) = children(self.arena, id) else { return Ok(()) };
        self.enter(id)?;
        let mut tensors = Vec::new();
        let mut containers = Vec::new();
        for (index, (key, value)) in children.into_iter().enumerate() {
            match self.arena.node(value) {
                Node::Tensor(view) => {
                    self.count(1)?;
                    let Some(key) = self.key(key, index) else { continue };
                    let name = self.named("", &key)?;
                    tensors.push((name, (**view).clone()));
                }
                Node::Tuple(_) | Node::List(_) | Node::Dict(_) | Node::Object(_) => {
                    containers.push((index, key, value))
                }
                _ => self.count(1)?,
            }
        }
        if !tensors.is_empty() {
            self.roots.push(Root::new(path.to_owned(), tensors));
        }
        for (index, key, value) in containers {
            let Some(key) = self.key(key, index) else { continue };
            let path = self.named(path, &key)?;
            self.visit(value, &path)?;
        }
        self.above.pop();
        Ok(())
    }

    fn module(&mut self, id: Id, parts: [Option<Id>; 3], path: &str, tensors: &mut Vec<(String, View)>) -> Outcome<()> {
        self.enter(id)?;
        let [parameters, buffers, modules] = parts;
        let arena = self.arena;
        for (key, value) in [parameters, buffers].into_iter().flatten().filter_map(|id| arena.mapping(id)).flatten() {
            self.count(1)?;
            if let (Some(key), Node::Tensor(view)) = (arena.text(*key), arena.node(*value)) {
                let name = self.named(path, key)?;
                tensors.push((name, (**view).clone()));
            }
        }
        for (key, value) in modules.and_then(|id| arena.mapping(id)).unwrap_or_default() {
            self.count(1)?;
            if let (Some(key), Some(parts)) = (arena.text(*key), self.module_parts(*value)?) {
                let path = self.named(path, key)?;
                self.module(*value, parts, &path, tensors)?;
            }
        }
        self.above.pop();
        Ok(())
    }
}
