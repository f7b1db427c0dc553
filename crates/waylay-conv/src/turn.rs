//! Rows made columns, so that sums over what was a row run over the rows that [`Kernel::multiply`] takes.
//!
//! [`Kernel::multiply`]: crate::kernel::Kernel::multiply

use crate::simd::vectorised;

/// Rows that are turned at once.
const EIGHT: usize = 8;

/// The first values of `count` rows of `source`, `pitch` apart, to columns of `target`, whose rows are `width` long, at least
/// `count`; zeros beyond.
pub(crate) fn turn(source: &[f32], pitch: usize, count: usize, target: &mut [f32], width: usize) {
    let len = target.len() / width;
    for first in (0..width).step_by(EIGHT) {
        let (rows, target) = (EIGHT.min(count.saturating_sub(first)), &mut target[first..]);
        if rows == EIGHT {
            turn_eight(&source[first * pitch..], pitch, len, target, width);
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

vectorised! {
    /// `len` values of eight rows, `pitch` apart, to eight columns of rows that are `width` apart.
    fn turn_eight(rows: &[f32], pitch: usize, len: usize, out: &mut [f32], width: usize) {
        let f = |row: usize| &rows[row * pitch..][..len];
        let (a, b, c, d) = (f(0), f(1), f(2), f(3));
        let (e, f, g, h) = (f(4), f(5), f(6), f(7));
        for (t, row) in out.chunks_mut(width).enumerate().take(len) {
            row[..EIGHT].copy_from_slice(&[a[t], b[t], c[t], d[t], e[t], f[t], g[t], h[t]]);
        }
    }
}
