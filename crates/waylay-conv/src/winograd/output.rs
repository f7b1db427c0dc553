//! The output transform of Winograd's method: products back to pixels, and their stores.

use super::points::{Output, Within, transform};
use super::tiling::Run;
use super::{IN, OUT};
use crate::epilogue::Epilogue;
use crate::kernel::Kernel;
use crate::options::Geometry;
use crate::scratch;
use crate::simd::vectorised;
use crate::window::Shared;

/// Writes Y = Aᵀ M A of one output channel of some tiles, of which there are `width`, up to whole
/// vectors; the 36 rows of `products` are `pitch` apart.
///
/// # Safety
/// No other thread may write these outputs at the same time.
pub(super) unsafe fn store(
    g: &Geometry,
    kernel: Kernel,
    (epilogue, output): (&Epilogue<'_>, &Shared<'_>),
    channel: usize,
    (products, pitch): (&[f32], usize),
    runs: &[Run],
    width: usize,
) {
    let [height, across] = g.output;
    scratch::with(2 * OUT * OUT * width, |space| {
        let (whole, pixels) = space.split_at_mut(OUT * OUT * width);
        let from = |[row, column]: [usize; 2]| &products[(row * IN + column) * pitch..][..width];
        let to =
            Within { values: &mut *whole, start: |[line, place]: [usize; 2]| (line * OUT + place) * width };
        transform::<Output, IN, OUT>(kernel.arch(), width, from, to);
        weave(whole, width, pixels);
        for run in runs {
            let (y, x) = (run.down * OUT, run.across * OUT);
            let size = [OUT.min(height - y), (OUT * run.len).min(across - x)];
            let start = ((run.image * g.out_channels + channel) * height + y) * across + x;
            let pixels = &pixels[run.lane * OUT..];
            // SAFETY: the caller's promise.
            unsafe { epilogue.store_lines(output, channel, [start, across], size, pixels, OUT * width) };
        }
    });
}

vectorised! {
    /// Of each line, of four parts of `width` values: value `t` of part `k` becomes value `4 t +
    /// k`.
    fn weave(lines: &[f32], width: usize, values: &mut [f32]) {
        for (parts, values) in lines.chunks_exact(4 * width).zip(values.chunks_exact_mut(4 * width)) {
            let (a, rest) = parts.split_at(width);
            let (b, rest) = rest.split_at(width);
            let (c, d) = rest.split_at(width);
            let (quads, d) = (&mut values.as_chunks_mut::<4>().0[..width], &d[..width]);
            for (t, quad) in quads.iter_mut().enumerate() {
                *quad = [a[t], b[t], c[t], d[t]];
            }
        }
    }
}
