//! The header of a safetensors file.
//!
//! # Source
//! The safetensors format, version 0.3 and later: eight bytes little-endian header length, a JSON header, the data,
//! which the tensors cover without holes.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Outcome, Problem, within};
use crate::limits;
use crate::source::Source;
use crate::tensor::{Dtype, View};

/// Tensors, whose ranges count from the start of the file, and the texts beside them.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) tensors: Vec<(String, View)>,
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Whether the file begins as one of this format does.
pub(crate) fn looks_like(source: &Source) -> Outcome<bool> {
    if source.len() < 9 {
        return Ok(false);
    }
    let head = source.bytes_at(0, 9)?;
    Ok(header_len(&head) <= limits::SAFETENSORS_HEADER_BYTES * 64 && head[8] == b'{')
}

fn header_len(head: &[u8]) -> u64 {
    head.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Reads and checks the header.
pub(crate) fn read(source: &Source) -> Outcome<Header> {
    let header_len = header_len(&source.bytes_at(0, 8)?);
    within("the header of a safetensors file in bytes", header_len, limits::SAFETENSORS_HEADER_BYTES)?;
    let header = source.bytes_at(8, header_len)?;
    let json = |error: serde_json::Error| Problem::damaged(format!("the safetensors header: {error}"));
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).map_err(json)?;
    let metadata = match entries.remove("__metadata__") {
        Some(metadata) => serde_json::from_value(metadata).map_err(json)?,
        None => BTreeMap::new(),
    };
    let data_start = 8 + header_len;
    let data_len = source.len() - data_start;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let entry: Entry = serde_json::from_value(entry)
            .map_err(|error| Problem::damaged(format!("the safetensors header, tensor {name:?}: {error}")))?;
        let dtype = Dtype::from_name(&entry.dtype);
        let dtype = dtype.ok_or_else(|| Problem::Unsupported(format!("elements of type {:?}", entry.dtype)))?;
        within("the number of axes of a tensor", entry.shape.len() as u64, limits::TENSOR_AXES)?;
        let [start, end] = entry.data_offsets;
        if start > end || end > data_len {
            return Err(Problem::damaged(format!(
                "tensor {name:?} takes the bytes {start} to {end} of {data_len}: the file is cut short or changed"
            )));
        }
        tensors.push((name, View::whole(dtype, entry.shape, data_start + start, data_start + end)?));
    }
    let mut ranges: Vec<(u64, u64)> = tensors.iter().map(|(_, view)| view.range()).collect();
    ranges.sort_unstable();
    let mut position = data_start;
    for (start, end) in ranges {
        if start != position {
            return Err(Problem::damaged(format!("a hole or an overlap of tensors at byte {position}")));
        }
        position = end;
    }
    if position != source.len() {
        return Err(Problem::damaged(format!("{} bytes belong to no tensor", source.len() - position)));
    }
    Ok(Header { tensors, metadata })
}
