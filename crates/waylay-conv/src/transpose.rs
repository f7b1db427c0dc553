//! Transposes into the packed layout that [`Kernel::multiply`] takes.

use crate::kernel::{Kernel, LeftOperand};
use crate::scratch;
use crate::simd::{self, vectorised};

/// Rows that are transposed at once.
pub(crate) const EIGHT: usize = 8;

/// The first values of `count` rows of `source`, `pitch` apart, to columns of `target`, whose rows
/// are `width` long, at least `count`; zeros beyond.
pub(crate) fn transpose(source: &[f32], pitch: usize, count: usize, target: &mut [f32], width: usize) {
    let len = target.len() / width;
    for first in (0..width).step_by(EIGHT) {
        let (rows, target) = (EIGHT.min(count.saturating_sub(first)), &mut target[first..]);
        if rows == EIGHT {
            transpose_eight(&source[first * pitch..], pitch, len, target, width);
            continue;
        }
        for place in 0..EIGHT.min(width - first) {
            let column = target[place..].iter_mut().step_by(width);
            if place < rows {
                column.zip(&source[(first + place) * pitch..]).take(len).for_each(|(t, v)| *t = *v);
            } else {
                column.for_each(|t| *t = 0.0);
            }
        }
    }
}

/// Sets `product`, `m` rows of `n` values, `stride` apart, to the products of rows of `len` values,
/// or adds them where `accumulate`: the `m` rows are `lanes`, in blocks of as many as the kernel
/// takes, and the `n` rows are those of `b`, `pitch` apart.
pub(crate) fn multiply_rows<'a>(
    product: &mut [f32],
    stride: usize,
    accumulate: bool,
    lanes: impl Fn(usize) -> LeftOperand<'a>,
    b: &[f32],
    pitch: usize,
    [n, len]: [usize; 2],
) {
    let kernel = Kernel::new();
    let (filters, most) = (kernel.filters(), kernel.columns());
    let blocks = product.len().div_ceil(filters * stride);
    scratch::with((len + filters) * most, |space| {
        let (transposed, block) = space.split_at_mut(len * most);
        for from in (0..n).step_by(most) {
            let count = most.min(n - from);
            let width = kernel.width(count);
            let transposed = &mut transposed[..len * width];
            transpose(&b[from * pitch..], pitch, count, transposed, width);
            let next = (from + most).min(n)..(from + 2 * most).min(n);
            for (index, product) in product.chunks_mut(filters * stride).enumerate() {
                // The rows that are transposed next are brought near meanwhile.
                for row in
                    next.start + index * next.len() / blocks..next.start + (index + 1) * next.len() / blocks
                {
                    simd::prefetch(&b[row * pitch..][..len]);
                }
                let block = &mut block[..filters * width];
                kernel.multiply(&lanes(index), transposed, width, width, block);
                for (product, sums) in product.chunks_mut(stride).zip(block.chunks_exact(width)) {
                    let product = &mut product[from..from + count];
                    if accumulate {
                        simd::add(product, &sums[..count]);
                    } else {
                        simd::copy(product, &sums[..count]);
                    }
                }
            }
        }
    });
}

vectorised! {
    /// `len` values of eight rows, `pitch` apart, to eight columns of rows that are `width` apart.
    fn transpose_eight(rows: &[f32], pitch: usize, len: usize, out: &mut [f32], width: usize) {
        eight_to_columns(rows, pitch, len, out, width);
    }
}

/// `len` values of [`EIGHT`] rows, `pitch` apart, to as many columns of rows that are `width`
/// apart: for loops that are compiled for several instruction sets.
#[inline(always)]
pub(crate) fn eight_to_columns<T: Copy>(rows: &[T], pitch: usize, len: usize, out: &mut [T], width: usize) {
    let f = |row: usize| &rows[row * pitch..][..len];
    let (a, b, c, d) = (f(0), f(1), f(2), f(3));
    let (e, f, g, h) = (f(4), f(5), f(6), f(7));
    for (t, row) in out.chunks_mut(width).enumerate().take(len) {
        row[..EIGHT].copy_from_slice(&[a[t], b[t], c[t], d[t], e[t], f[t], g[t], h[t]]);
    }
}
