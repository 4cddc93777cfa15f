//! Buffers that begin at a line of the cache: rows of tiles that cross one are loaded six times as slowly.

/// Bytes of a line of the cache, and of a row of a tile.
const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Zeros at first, read and written as values of 16 or of 32 bits.
pub(super) struct Lines {
    lines: Vec<Line>,
    bytes: usize,
}

impl Lines {
    /// Room for `len` values of type `T`.
    pub(super) fn new<T: Bits>(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        Self { lines: vec![Line([0; LINE]); bytes.div_ceil(LINE)], bytes }
    }

    pub(super) fn values<T: Bits>(&self) -> &[T] {
        // SAFETY: so many bytes are there, all initialised, and any bits are a value of `T`, which is aligned by less.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.bytes / size_of::<T>()) }
    }

    pub(super) fn values_mut<T: Bits>(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.bytes / size_of::<T>()) }
    }
}

/// Types of at most 64 bits.
///
/// # Safety
/// Any bits are a value of the type.
pub(super) unsafe trait Bits {}
// SAFETY: an unsigned number.
unsafe impl Bits for u16 {}
// SAFETY: as above.
unsafe impl Bits for u32 {}

/// Values before the first line that begins in a buffer of 16-bit values: fewer than [`MAX_TO_LINE`].
pub(crate) fn to_line(at: *const u16) -> usize {
    at.align_offset(LINE)
}

/// Values of a line.
pub(crate) const MAX_TO_LINE: usize = LINE / 2;
