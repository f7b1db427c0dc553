//! Nearest-neighbour upsampling by a whole factor, and pixel shuffle and unshuffle. Source of the
//! latter: Shi et al., arXiv:1609.05158, eq. 4.

use rayon::prelude::*;

use crate::simd::vectorised;

/// Repeats each pixel of planes `[H, W]` in a square of `factor` x `factor`.
pub(crate) fn repeat(x: &[f32], [h, w]: [usize; 2], factor: usize) -> Vec<f32> {
    let mut output = vec![0.0; x.len() * factor * factor];
    let pairs = output.par_chunks_mut(h * w * factor * factor).zip(x.par_chunks(h * w));
    pairs.for_each(|(target, source)| {
        for (target, source) in target.chunks_exact_mut(w * factor * factor).zip(source.chunks_exact(w)) {
            let (first, others) = target.split_at_mut(w * factor);
            spread(first, source, factor);
            others.chunks_exact_mut(w * factor).for_each(|row| row.copy_from_slice(first));
        }
    });
    output
}

/// Sums each square of `factor` x `factor` pixels into one of planes `[H, W]`: the adjoint of
/// [`repeat`].
pub(crate) fn sum_squares(x: &[f32], [h, w]: [usize; 2], factor: usize) -> Vec<f32> {
    let mut output = vec![0.0; x.len() / (factor * factor)];
    let pairs = output.par_chunks_mut(h * w).zip(x.par_chunks(h * w * factor * factor));
    pairs.for_each(|(target, source)| {
        for (target, rows) in target.chunks_exact_mut(w).zip(source.chunks_exact(w * factor * factor)) {
            rows.chunks_exact(w * factor).for_each(|row| collect(target, row, factor));
        }
    });
    output
}

/// Channels `[C factor², H, W]` woven into `[C, H factor, W factor]`, for planes `[H, W]` of any
/// number of images.
pub(crate) fn weave(x: &[f32], [h, w]: [usize; 2], factor: usize) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    let size = h * w * factor * factor;
    output.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(target, source)| {
        for (y, row) in target.chunks_exact_mut(w * factor).enumerate() {
            for across in 0..factor {
                let plane = y % factor * factor + across;
                let source = &source[plane * h * w + y / factor * w..][..w];
                row[across..]
                    .iter_mut()
                    .step_by(factor)
                    .zip(source)
                    .for_each(|(target, source)| *target = *source);
            }
        }
    });
    output
}

/// The reverse of [`weave`]; `[H, W]` is the smaller size.
pub(crate) fn unweave(x: &[f32], [h, w]: [usize; 2], factor: usize) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    let size = h * w * factor * factor;
    output.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(target, source)| {
        for (y, row) in source.chunks_exact(w * factor).enumerate() {
            for across in 0..factor {
                let plane = y % factor * factor + across;
                let target = &mut target[plane * h * w + y / factor * w..][..w];
                crate::im2col::gather(target, &row[across..], factor);
            }
        }
    });
    output
}

vectorised! {
    /// Writes each value of `source` to `factor` places of `target`.
    fn spread(target: &mut [f32], source: &[f32], factor: usize) {
        if factor == 2 {
            for (pair, value) in target.as_chunks_mut::<2>().0.iter_mut().zip(source) {
                *pair = [*value; 2];
            }
        } else {
            for (group, value) in target.chunks_exact_mut(factor).zip(source) {
                group.fill(*value);
            }
        }
    }
}

vectorised! {
    /// Adds the sum of `factor` values of `source` to each of `target`.
    fn collect(target: &mut [f32], source: &[f32], factor: usize) {
        if factor == 2 {
            for (target, pair) in target.iter_mut().zip(source.as_chunks::<2>().0) {
                *target += pair[0] + pair[1];
            }
        } else {
            for (target, group) in target.iter_mut().zip(source.chunks_exact(factor)) {
                *target += group.iter().sum::<f32>();
            }
        }
    }
}
