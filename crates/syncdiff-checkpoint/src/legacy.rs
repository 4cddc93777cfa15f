//! Files of `torch.save` before PyTorch 1.6 (and later with `_use_new_zipfile_serialization=False`): five pickles in
//! a row (magic number, protocol, system, object, keys), then the storages.
//!
//! # Source
//! `_legacy_save` and `_legacy_load` of `torch/serialization.py`.

use std::collections::HashMap;

use crate::error::{Outcome, Problem};
use crate::pickle::input::Input;
use crate::pickle::machine::{self, Pickle};
use crate::pickle::{Arena, Id, Node};
use crate::source::Source;

/// 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// What such a file holds.
#[derive(Debug)]
pub(crate) struct Legacy {
    pub(crate) pickle: Pickle,
    /// First byte and length of each storage.
    pub(crate) storages: HashMap<Box<str>, (u64, u64)>,
    pub(crate) big_endian: bool,
}

/// Reads everything but the storages. `None`: the file does not start with the magic number.
pub(crate) fn read(source: &Source) -> Outcome<Option<Legacy>> {
    let mut input = Input::new(source, 0, source.len());
    let magic = match machine::run(&mut input) {
        Ok(magic) => magic,
        Err(Problem::Io(error)) => return Err(Problem::Io(error)),
        Err(_) => return Ok(None),
    };
    match magic.arena.node(magic.top) {
        Node::Long(bytes) if **bytes == MAGIC => {}
        _ => return Ok(None),
    }
    let protocol = machine::run(&mut input)?;
    match protocol.arena.int(protocol.top) {
        Some(PROTOCOL) => {}
        Some(other) => return Err(Problem::Unsupported(format!("version {other} of the form before PyTorch 1.6"))),
        None => return Err(Problem::damaged("the version of the form before PyTorch 1.6 is no number")),
    }
    let system = machine::run(&mut input)?;
    let facts = system.arena.mapping(system.top).unwrap_or_default();
    let little = system.arena.get(facts, "little_endian").map(|id| system.arena.node(id));
    let big_endian = matches!(little, Some(Node::Bool(false)));
    let pickle = machine::run(&mut input)?;
    let keys = machine::run(&mut input)?;
    let storages = storages(source, input.position(), &pickle.arena, &keys, big_endian)?;
    Ok(Some(Legacy { pickle, storages, big_endian }))
}

fn key_text(arena: &Arena, id: Id) -> Option<Box<str>> {
    match arena.node(id) {
        Node::Text(key) => Some(key.clone()),
        Node::Int(key) => Some(key.to_string().into()),
        _ => None,
    }
}

/// Each storage is its number of elements, eight bytes, then the elements.
fn storages(
    source: &Source,
    mut position: u64,
    arena: &Arena,
    keys: &Pickle,
    big_endian: bool,
) -> Outcome<HashMap<Box<str>, (u64, u64)>> {
    let sizes: HashMap<&str, u64> =
        arena.storages().map(|storage| (&*storage.key, storage.dtype.size() as u64)).collect();
    let listed = keys.arena.sequence(keys.top);
    let listed = listed.ok_or_else(|| Problem::damaged("the keys of the storages are no list"))?;
    let mut places = HashMap::new();
    for id in listed {
        let key = key_text(&keys.arena, *id).ok_or_else(|| Problem::damaged("a key of a storage is no text"))?;
        let size = sizes.get(&*key).copied();
        let size = size.ok_or_else(|| Problem::damaged(format!("nothing uses storage {key:?}")))?;
        let mut count = [0; 8];
        source.read_at(&mut count, position)?;
        let count = if big_endian { u64::from_be_bytes(count) } else { u64::from_le_bytes(count) };
        let start = position + 8;
        let end = count.checked_mul(size).and_then(|len| start.checked_add(len));
        let Some(end) = end.filter(|end| *end <= source.len()) else {
            return Err(Problem::damaged(format!(
                "storage {key:?} has {count} elements of {size} bytes, the file has {} bytes left",
                source.len() - start
            )));
        };
        places.insert(key, (start, end - start));
        position = end;
    }
    Ok(places)
}
