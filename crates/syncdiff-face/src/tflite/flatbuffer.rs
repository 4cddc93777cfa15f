//! A reader of flatbuffers that checks every offset: a damaged file gives an error, never a panic.
//!
//! Source: the FlatBuffers internals page (tables, vtables, vectors; all numbers little-endian).

/// What was wrong, for the message of the caller.
pub(super) type Wrong = String;

/// A table: a place in the file with a vtable that says where each field lies.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    file: &'a [u8],
    at: usize,
    vtable: usize,
    vtable_len: usize,
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N], Wrong> {
    at.checked_add(N)
        .and_then(|end| file.get(at..end))
        .and_then(|slice| slice.try_into().ok())
        .ok_or_else(|| format!("offset {at} lies outside the file of {} bytes", file.len()))
}

fn u32_at(file: &[u8], at: usize) -> Result<usize, Wrong> {
    Ok(u32::from_le_bytes(bytes(file, at)?) as usize)
}

fn follow(file: &[u8], at: usize) -> Result<usize, Wrong> {
    let target = at.checked_add(u32_at(file, at)?).filter(|&t| t < file.len());
    target.ok_or_else(|| format!("the offset at {at} points outside the file"))
}

impl<'a> Table<'a> {
    /// The root table of a file with the identifier `identifier` in its bytes 4..8.
    pub(super) fn root(file: &'a [u8], identifier: &[u8; 4]) -> Result<Self, Wrong> {
        if &bytes::<4>(file, 4)? != identifier {
            return Err("not a model file: the identifier is missing".into());
        }
        Table::at(file, follow(file, 0)?)
    }

    fn at(file: &'a [u8], at: usize) -> Result<Self, Wrong> {
        let back = i64::from(i32::from_le_bytes(bytes(file, at)?));
        let vtable = usize::try_from(at as i64 - back)
            .map_err(|_| format!("the table at {at} has its vtable before the file"))?;
        let vtable_len = usize::from(u16::from_le_bytes(bytes(file, vtable)?));
        if vtable_len < 4 || vtable.saturating_add(vtable_len) > file.len() {
            return Err(format!("the vtable at {vtable} is damaged"));
        }
        Ok(Table { file, at, vtable, vtable_len })
    }

    /// Where field number `slot` lies, `None` if it has its default.
    fn field(&self, slot: usize) -> Result<Option<usize>, Wrong> {
        let entry = 4 + 2 * slot;
        if entry + 2 > self.vtable_len {
            return Ok(None);
        }
        let offset = usize::from(u16::from_le_bytes(bytes(self.file, self.vtable + entry)?));
        Ok((offset != 0).then_some(self.at + offset))
    }

    pub(super) fn i8(&self, slot: usize, default: i8) -> Result<i8, Wrong> {
        self.field(slot)?.map_or(Ok(default), |at| Ok(i8::from_le_bytes(bytes(self.file, at)?)))
    }

    pub(super) fn i32(&self, slot: usize, default: i32) -> Result<i32, Wrong> {
        self.field(slot)?.map_or(Ok(default), |at| Ok(i32::from_le_bytes(bytes(self.file, at)?)))
    }

    pub(super) fn table(&self, slot: usize) -> Result<Option<Table<'a>>, Wrong> {
        self.field(slot)?.map(|at| Table::at(self.file, follow(self.file, at)?)).transpose()
    }

    /// The bytes of a vector of `width`-byte elements, empty if absent.
    fn vector(&self, slot: usize, width: usize) -> Result<&'a [u8], Wrong> {
        let Some(field) = self.field(slot)? else { return Ok(&[]) };
        let at = follow(self.file, field)?;
        let len = u32_at(self.file, at)?;
        len.checked_mul(width)
            .and_then(|size| (at + 4).checked_add(size))
            .and_then(|end| self.file.get(at + 4..end))
            .ok_or_else(|| format!("the vector at {at} with {len} elements leaves the file"))
    }

    pub(super) fn u8s(&self, slot: usize) -> Result<&'a [u8], Wrong> {
        self.vector(slot, 1)
    }

    pub(super) fn u16s(&self, slot: usize) -> Result<Vec<u16>, Wrong> {
        let data = self.vector(slot, 2)?;
        Ok(data.as_chunks().0.iter().map(|c| u16::from_le_bytes(*c)).collect())
    }

    pub(super) fn i32s(&self, slot: usize) -> Result<Vec<i32>, Wrong> {
        let data = self.vector(slot, 4)?;
        Ok(data.as_chunks().0.iter().map(|c| i32::from_le_bytes(*c)).collect())
    }

    /// A vector of tables.
    pub(super) fn tables(&self, slot: usize) -> Result<Vec<Table<'a>>, Wrong> {
        let Some(field) = self.field(slot)? else { return Ok(Vec::new()) };
        let start = follow(self.file, field)? + 4;
        let data = self.vector(slot, 4)?;
        (0..data.len() / 4).map(|i| Table::at(self.file, follow(self.file, start + 4 * i)?)).collect()
    }

    pub(super) fn string(&self, slot: usize) -> Result<String, Wrong> {
        Ok(String::from_utf8_lossy(self.vector(slot, 1)?).into_owned())
    }
}
