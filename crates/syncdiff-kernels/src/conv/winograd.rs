//! Winograd's minimal filtering F(2x2, 3x3): a 3x3 convolution that keeps the size, with 16 products for each square of
//! four output pixels and pair of channels where the direct form has 36.
//!
//! Input squares of 4x4 pixels, two apart, and the kernels are transformed by sums into 16 planes each; the planes are
//! multiplied as 16 matrices; each square of 16 results is summed into 2x2 outputs. Transforms are exact but for
//! rounding (factors 1 and 1/2). One task holds a few vectors of neighbouring squares in its cache and passes once over
//! all transformed kernels. No closures in the hot loops, as in [`super::tile`].
//!
//! # Source
//! Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1.

use super::padded::{Padded, Source};
#[cfg(target_arch = "aarch64")]
use super::tile::NEON_TILE;
use super::tile::{MAX_TILE, OutPtr, SCALAR_TILE, tile_size};
use crate::simd::{Lanes, Level, Scalar4, dispatch};
use rayon::prelude::*;

/// Planes of a transformed 4x4 square.
const PLANES: usize = 16;
/// Register tiles side by side in a task.
const TILES: usize = 2;
/// Input channels whose transformed squares are held at once: those of [`TILES`] fill a good half of a 512 KB cache.
const MAX_CHANNELS: usize = 160;
/// Transformed kernels made at once, in values: more would not stay in the cache until they are used.
const MAX_KERNELS: usize = 1 << 20;
/// Values between the planes of a task, so that equal places of all planes do not share a line of the cache.
const GAP: usize = 16;

/// Whether this form is possible, and faster than the direct one: transforms of pixels are shared by the output
/// channels, those of kernels by the pixels. `height` and `width` are those of one image, so that the choice, and with
/// it the rounding, does not depend on the batch.
pub(crate) fn pays(level: Level, in_channels: usize, out_channels: usize, height: usize, width: usize) -> bool {
    let whole = height.is_multiple_of(2) && width.is_multiple_of(2 * level.run_of(width / 2));
    whole && in_channels >= 8 && out_channels >= 8 && height * width >= 256
}

/// One convolution.
struct Call<'a> {
    level: Level,
    in_channels: usize,
    out_channels: usize,
    height: usize,
    width: usize,
    layout: Padded,
    bias: Option<&'a [f32]>,
}

/// Transformed kernels of neighbouring output channels.
#[derive(Clone, Copy)]
struct Kernels<'a> {
    /// [blocks][planes][in][output channels of a register tile]
    values: &'a [f32],
    first_block: usize,
}

/// Buffers of a task.
struct Scratch {
    /// Room for transformed squares, [planes][tiles][channels][vectors][lanes].
    squares: Vec<f32>,
    /// Products, [blocks][tiles][planes][output channels][vectors][lanes]; of one block only when all channels fit in
    /// one part.
    products: Vec<f32>,
}

/// `y[n, o, p] = bias[o] + sum w[o, i, k] * x[n, i, p + k - 1]`.
///
/// # Shapes
/// x: [batch, in, height, width], weight: [out, in, 9] -> [batch, out, height, width]
pub(super) fn convolve(
    level: Level,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    [in_channels, out_channels, height, width]: [usize; 4],
) -> Vec<f32> {
    assert!(height.is_multiple_of(2) && width.is_multiple_of(2 * level.run_of(width / 2)), "whole vectors of squares");
    assert_eq!(weight.len(), 9 * in_channels * out_channels, "weights");
    assert!(bias.is_none_or(|bias| bias.len() == out_channels), "bias");
    let layout = Padded::new(height, width, 1, 3);
    let source = Source { channels: 1, height, width, dilation: 1, begin: 1 };
    let mut padded = vec![0f32; x.len() / source.len() * layout.plane()];
    let planes = padded.par_chunks_exact_mut(layout.plane()).zip(x.par_chunks_exact(source.len()));
    planes.with_min_len(16).for_each(|(to, from)| layout.fill(from, to, source));

    let call = Call { level, in_channels, out_channels, height, width, layout, bias };
    let per_image = out_channels * height * width;
    let images = x.len() / (in_channels * source.len());
    let mut out = Vec::<f32>::with_capacity(images * per_image);
    let start = OutPtr(out.as_mut_ptr());
    let tasks = call.vectors().div_ceil(call.per_task());

    let block = tile_size(level).0;
    let of_block = PLANES * in_channels * block;
    let blocks = out_channels.div_ceil(block);
    let at_once = call.at_once();
    let mut buffer = vec![0f32; at_once * of_block];
    for first_block in (0..blocks).step_by(at_once) {
        let values = &mut buffer[..at_once.min(blocks - first_block) * of_block];
        let weights = weight[first_block * 9 * in_channels * block..].par_chunks(9 * in_channels * block);
        let transforms = values.par_chunks_exact_mut(of_block).zip(weights);
        transforms.for_each(|(to, weight)| transform_kernels(weight, in_channels, block, to));
        let kernels = Kernels { values, first_block };
        (0..images * tasks).into_par_iter().for_each_init(
            || call.scratch(),
            |scratch, index| {
                let (image, task) = (index / tasks, index % tasks);
                let padded = &padded[image * in_channels * layout.plane()..][..in_channels * layout.plane()];
                // SAFETY: the image lies inside the buffer, and the squares are this task's alone.
                unsafe { call.run(padded, kernels, task, scratch, start.add(image * per_image).0) };
            },
        );
    }
    // SAFETY: the tasks of all images cover every pixel of every output channel.
    unsafe { out.set_len(images * per_image) };
    out
}

/// Lanes of the transform of kernels: at least the output channels of any register tile.
const KERNEL_LANES: usize = 8;

dispatch! {
    /// G g G^T of the kernels of one block of output channels, which lie side by side in the lanes.
    ///
    /// # Shapes
    /// weight: [at most block, in, 9] -> [planes, in, block]; channels that are not there become zero
    fn transform_kernels(weight: &[f32], in_channels: usize, block: usize, to: &mut [f32]) {
        assert!(block <= KERNEL_LANES && weight.len() <= 9 * in_channels * block);
        assert_eq!(to.len(), PLANES * in_channels * block);
        let plane = in_channels * block;
        for i in 0..in_channels {
            let mut g = [[0f32; KERNEL_LANES]; 9];
            for (o, of_channel) in weight.chunks_exact(9 * in_channels).enumerate() {
                let from = &of_channel[9 * i..9 * i + 9];
                for k in 0..9 {
                    g[k][o] = from[k];
                }
            }
            let mut columns = [[[0f32; KERNEL_LANES]; 3]; 4];
            for col in 0..3 {
                for o in 0..KERNEL_LANES {
                    let (a, b, c) = (g[col][o], g[3 + col][o], g[6 + col][o]);
                    columns[0][col][o] = a;
                    columns[1][col][o] = 0.5 * (a + b + c);
                    columns[2][col][o] = 0.5 * (a - b + c);
                    columns[3][col][o] = c;
                }
            }
            for row in 0..4 {
                let [a, b, c] = columns[row];
                let mut sums = [[0f32; KERNEL_LANES]; 2];
                for o in 0..KERNEL_LANES {
                    sums[0][o] = 0.5 * (a[o] + b[o] + c[o]);
                    sums[1][o] = 0.5 * (a[o] - b[o] + c[o]);
                }
                for (col, values) in [a, sums[0], sums[1], c].iter().enumerate() {
                    to[(4 * row + col) * plane + i * block..][..block].copy_from_slice(&values[..block]);
                }
            }
        }
    }
}

impl Call<'_> {
    fn lanes(&self) -> usize {
        self.level.lanes()
    }

    /// Neighbouring squares of a vector.
    fn run_length(&self) -> usize {
        self.level.run_of(self.width / 2)
    }

    /// Vectors of squares of an image.
    fn vectors(&self) -> usize {
        (self.height * self.width / 4).div_ceil(self.lanes())
    }

    fn per_task(&self) -> usize {
        TILES * tile_size(self.level).1
    }

    /// Parts of about equal size into which the input channels are cut.
    fn part(&self) -> usize {
        self.in_channels.div_ceil(self.in_channels.div_ceil(MAX_CHANNELS))
    }

    /// Values between the planes of the transformed squares.
    fn plane(&self) -> usize {
        self.part() * self.per_task() * self.lanes() + GAP
    }

    /// Blocks of output channels whose kernels are transformed at once.
    fn at_once(&self) -> usize {
        let block = tile_size(self.level).0;
        (MAX_KERNELS / (PLANES * self.in_channels * block)).clamp(1, self.out_channels.div_ceil(block))
    }

    fn scratch(&self) -> Scratch {
        let block = tile_size(self.level).0;
        let blocks = if self.part() < self.in_channels { self.at_once() } else { 1 };
        let products = PLANES * block * self.per_task() * self.lanes();
        Scratch { squares: Vec::with_capacity(PLANES * self.plane()), products: vec![0.0; blocks * products] }
    }

    /// All output channels of the squares of one task.
    ///
    /// # Safety
    /// `padded` is a whole image; `out`, [out, height, width], is writable, and no other thread writes the pixels of these
    /// squares.
    unsafe fn run(&self, padded: &[f32], kernels: Kernels<'_>, task: usize, scratch: &mut Scratch, out: *mut f32) {
        // SAFETY: forwarded; a level is only chosen where its instruction set was detected.
        unsafe {
            match self.level {
                Level::Scalar => self.squares::<Scalar4, { SCALAR_TILE.0 }, { SCALAR_TILE.1 }, false>(
                    padded, kernels, task, scratch, out,
                ),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => x86::avx2(self, padded, kernels, task, scratch, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 if self.run_length() == 16 => x86::avx512(self, padded, kernels, task, scratch, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => x86::avx512_two(self, padded, kernels, task, scratch, out),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => {
                    use crate::simd::neon::F32x4;
                    self.squares::<F32x4, { NEON_TILE.0 }, { NEON_TILE.1 }, false>(padded, kernels, task, scratch, out)
                }
            }
        }
    }

    /// # Safety
    /// As [`Call::run`]; `L`, `O` and `V` are those of this call, and the instruction set is available.
    #[inline(always)]
    unsafe fn squares<L: Lanes, const O: usize, const V: usize, const TWO: bool>(
        &self,
        padded: &[f32],
        kernels: Kernels<'_>,
        task: usize,
        scratch: &mut Scratch,
        out: *mut f32,
    ) {
        let from = task * TILES * V;
        let count = (TILES * V).min(self.vectors() - from);
        let tiles = count.div_ceil(V);
        let (part, plane) = (self.part(), self.plane());
        let of_tile = part * V * L::N;
        let products_of_tile = PLANES * O * V * L::N;
        let squares = scratch.squares.as_mut_ptr();
        let mut places = [[(0, 0); 2]; TILES * MAX_TILE];
        for (vector, places) in places.iter_mut().enumerate().take(count) {
            *places = self.places::<L, TWO>(from + vector);
        }
        for first in (0..self.in_channels).step_by(part) {
            let channels = part.min(self.in_channels - first);
            for i in 0..channels {
                let channel = &padded[(first + i) * self.layout.plane()..][..self.layout.plane()];
                for vector in 0..count {
                    let [first, second] = places[vector];
                    let at =
                        |(row, col): (usize, usize)| channel[2 * row * self.layout.row_stride() + 2 * col..].as_ptr();
                    let to = vector / V * of_tile + (i * V + vector % V) * L::N;
                    // SAFETY: a square reads four rows and columns from twice its own; the last one ends at the last
                    // padded row and column. Each tile has `V` vectors for each channel in each plane of the scratch.
                    unsafe {
                        let to = squares.add(to);
                        transform_squares::<L>([at(first), at(second)], self.layout.row_stride(), to, plane);
                    }
                }
            }
            for (index, values) in kernels.values.chunks_exact(PLANES * self.in_channels * O).enumerate() {
                let slot = if part < self.in_channels { index } else { 0 };
                let products = &mut scratch.products[slot * TILES * products_of_tile..][..TILES * products_of_tile];
                for p in 0..PLANES {
                    let values = &values[(p * self.in_channels + first) * O..][..channels * O];
                    for tile in 0..tiles {
                        let at = tile * products_of_tile + p * O * V * L::N;
                        let products = &mut products[at..][..O * V * L::N];
                        let add = first > 0;
                        // SAFETY: the scratch has room for this tile's squares of this plane, and each vector of the
                        // tile's was written for each channel of the part.
                        unsafe {
                            let squares = squares.add(p * plane + tile * of_tile);
                            match count - tile * V {
                                1 => multiply::<L, O, V, 1>(values, squares, products, add),
                                2 => multiply::<L, O, V, 2>(values, squares, products, add),
                                _ => multiply::<L, O, V, V>(values, squares, products, add),
                            }
                        }
                    }
                }
                if first + channels < self.in_channels {
                    continue;
                }
                let first_channel = (kernels.first_block + index) * O;
                for o in 0..O.min(self.out_channels - first_channel) {
                    let channel = first_channel + o;
                    let bias = L::splat(self.bias.map_or(0.0, |bias| bias[channel]));
                    for vector in 0..count {
                        let to = places[vector].map(|(row, col)| {
                            let at = (channel * self.height + 2 * row) * self.width + 2 * col;
                            // SAFETY: a square of the image, whose pixels the caller lets us write.
                            unsafe { out.add(at) }
                        });
                        let products = &products[vector / V * products_of_tile + (o * V + vector % V) * L::N..];
                        // SAFETY: the squares of this vector are inside the image, whose pixels the caller lets us
                        // write; the products hold a vector at this place of each plane.
                        unsafe {
                            store_squares::<L>(products.as_ptr(), O * V * L::N, bias, to, self.width);
                        }
                    }
                }
            }
        }
    }

    /// Rows and columns, in squares, of the first square of each half of a vector.
    #[inline(always)]
    fn places<L: Lanes, const TWO: bool>(&self, vector: usize) -> [(usize, usize); 2] {
        let half = L::N / 2;
        let per_row = self.width / 2 / half;
        let last = self.height / 2 * per_row - 1;
        // The last vector of two runs may lack the second, and then has the first one twice.
        let index = |of_half: usize| (2 * vector + of_half).min(if TWO { last } else { usize::MAX });
        [0, 1].map(|of_half| (index(of_half) / per_row, index(of_half) % per_row * half))
    }
}

/// B^T d B of `N` squares: half of them side by side, two columns apart, from each of two places.
///
/// # Safety
/// Four rows of `N + 2` values can be read at both places, vectors can be written at 16 places `plane` apart, and the
/// instruction set of `L` is available.
#[inline(always)]
unsafe fn transform_squares<L: Lanes>(from: [*const f32; 2], row_stride: usize, to: *mut f32, plane: usize) {
    let mut rows = [[L::splat(0.0); 4]; 4];
    for row in 0..4 {
        // SAFETY: promised by the caller.
        let ((a, b), (c, d)) = unsafe {
            let [left, right] = from.map(|from| from.add(row * row_stride));
            (L::load_pairs([left, right]), L::load_pairs([left.add(2), right.add(2)]))
        };
        rows[row] = [a.sub(c), b.add(c), c.sub(b), b.sub(d)];
    }
    for col in 0..4 {
        let (a, b, c, d) = (rows[0][col], rows[1][col], rows[2][col], rows[3][col]);
        // SAFETY: promised by the caller.
        unsafe {
            a.sub(c).store(to.add(col * plane));
            b.add(c).store(to.add((4 + col) * plane));
            c.sub(b).store(to.add((8 + col) * plane));
            b.sub(d).store(to.add((12 + col) * plane));
        }
    }
}

/// One plane of a block and a tile: `products[o, v] (+)= sum over i of kernels[i, o] * squares[i, v]`, for the first
/// `F` of `V` vectors.
///
/// # Safety
/// So many vectors of squares were written and can be read for each `O` kernels, each `V` vectors behind the one
/// before, and the instruction set of `L` is available.
#[inline(always)]
unsafe fn multiply<L: Lanes, const O: usize, const V: usize, const F: usize>(
    kernels: &[f32],
    mut squares: *const f32,
    products: &mut [f32],
    add: bool,
) {
    assert!(products.len() == O * V * L::N && F <= V);
    let mut acc = [[L::splat(0.0); F]; O];
    let to = products.as_mut_ptr();
    if add {
        for o in 0..O {
            for v in 0..F {
                // SAFETY: there are `O * V` vectors of products.
                acc[o][v] = unsafe { L::load(to.add((o * V + v) * L::N)) };
            }
        }
    }
    for kernels in kernels.as_chunks::<O>().0 {
        let mut x = [L::splat(0.0); F];
        for v in 0..F {
            // SAFETY: promised by the caller.
            x[v] = unsafe { L::load(squares.add(v * L::N)) };
        }
        for o in 0..O {
            let c = L::splat(kernels[o]);
            for v in 0..F {
                acc[o][v] = c.mul_add(x[v], acc[o][v]);
            }
        }
        // Behind the last kernels it points beyond the squares, and is not read.
        squares = squares.wrapping_add(V * L::N);
    }
    for o in 0..O {
        for v in 0..F {
            // SAFETY: as above.
            unsafe { acc[o][v].store(to.add((o * V + v) * L::N)) };
        }
    }
}

/// A^T m A of `N` squares, half of them side by side at each of two places: two rows of `N` pixels there.
///
/// # Safety
/// A vector can be read at 16 places `plane` apart, two rows of `N` values can be written at both of `out`, and the
/// instruction set of `L` is available.
#[inline(always)]
unsafe fn store_squares<L: Lanes>(products: *const f32, plane: usize, bias: L, out: [*mut f32; 2], width: usize) {
    let mut columns = [[L::splat(0.0); 2]; 4];
    for col in 0..4 {
        // SAFETY: promised by the caller.
        let (a, b, c, d) = unsafe {
            (
                L::load(products.add(col * plane)),
                L::load(products.add((4 + col) * plane)),
                L::load(products.add((8 + col) * plane)),
                L::load(products.add((12 + col) * plane)),
            )
        };
        columns[col] = [a.add(b).add(c), b.sub(c).sub(d)];
    }
    for row in 0..2 {
        let (a, b, c, d) = (columns[0][row], columns[1][row], columns[2][row], columns[3][row]);
        let (even, odd) = (a.add(b).add(c), b.sub(c).sub(d));
        // SAFETY: promised by the caller.
        unsafe { L::store_pairs(even.add(bias), odd.add(bias), out.map(|out| out.add(row * width))) };
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Call, Kernels, Scratch};
    use crate::conv::tile::{AVX2_TILE, AVX512_TILE};
    use crate::simd::x86::{F32x8, F32x16};

    macro_rules! instance {
        ($name:ident, $features:literal, $lanes:ty, $tile:ident, $two:literal) => {
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(
                call: &Call<'_>,
                padded: &[f32],
                kernels: Kernels<'_>,
                task: usize,
                scratch: &mut Scratch,
                out: *mut f32,
            ) {
                // SAFETY: forwarded; the instruction set is enabled here.
                unsafe { call.squares::<$lanes, { $tile.0 }, { $tile.1 }, $two>(padded, kernels, task, scratch, out) }
            }
        };
    }
    instance!(avx2, "avx2,fma", F32x8, AVX2_TILE, false);
    instance!(avx512, "avx512f", F32x16, AVX512_TILE, false);
    instance!(avx512_two, "avx512f", F32x16, AVX512_TILE, true);
}
