//! The gradient with respect to the weights by Winograd's method.

use std::ops::Range;

use rayon::prelude::*;

use super::input::{PointRows, View};
use super::points::{Gradient, Input, Weight, Within, transform};
use super::tiling::{Run, Tiling};
use super::{IN, OUT, POINTS, TAPS, fits};
use crate::kernel::{Kernel, LeftOperand};
use crate::options::Geometry;
use crate::scratch;
use crate::transpose::multiply_rows;
use crate::window::Shared;

/// Fewest tiles in all for which transforming the weight's gradient back pays.
const LEAST_TILES: usize = 64;
/// Values that a block of the transformed input and output may hold together, per thread.
const BLOCK: usize = 1 << 20;
/// Tiles that are transformed at once.
const STRIP: usize = 64;

/// Whether this module is likely to be the fastest way to the weight's gradient.
pub(crate) fn fits_weight(g: &Geometry) -> bool {
    fits(g, false) && g.options.stride == [1; 2] && Tiling::new(g).count(g) >= LEAST_TILES
}

/// Gradient of `weight` from `x` and the gradient of the output, where [`fits_weight`]: Gᵀ [Σ (A dY
/// Aᵀ) ⊙ (Bᵀ d B)] G, the sum over all tiles.
pub(crate) fn weight_gradient(g: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (outs, ins, kernel) = (g.out_channels, g.in_channels, Kernel::new());
    let tiling = Tiling::new(g);
    let total = tiling.count(g);
    let most = (rayon::current_num_threads() * BLOCK / (POINTS * (ins + outs))).max(4 * STRIP);
    let per_block = total.div_ceil(total.div_ceil(most));
    scratch::with(POINTS * outs * ins, |products| {
        for first in (0..total).step_by(per_block) {
            let tiles = per_block.min(total - first);
            let strips: Vec<(Range<usize>, [View; 2])> = (0..tiles)
                .step_by(STRIP)
                .map(|start| start..tiles.min(start + STRIP))
                .map(|strip| {
                    let runs = tiling.runs(first + strip.start..first + strip.end);
                    (strip.clone(), views(g, &runs, strip.len()))
                })
                .collect();
            scratch::with(POINTS * (ins + outs) * tiles, |space| {
                let shared = Shared::new(space);
                (0..ins + outs).into_par_iter().for_each(|channel| {
                    for (strip, [input, output]) in &strips {
                        let start = |[row, column]: [usize; 2]| {
                            (channel * POINTS + row * IN + column) * tiles + strip.start
                        };
                        // SAFETY: every channel has rows of its own, and strips do not overlap.
                        let to = |_| unsafe { PointRows::new(&shared, start, strip.len()) };
                        if channel < ins {
                            input.transform::<Input, _, IN, IN>(kernel, x, channel..channel + 1, to);
                        } else {
                            let channels = channel - ins..channel - ins + 1;
                            output.transform::<Gradient, _, OUT, IN>(kernel, gradient, channels, to);
                        }
                    }
                });
                let (input, output) = space.split_at(POINTS * ins * tiles);
                let places: Vec<u32> = (0..tiles as u32).collect();
                products.par_chunks_mut(outs * ins).with_max_len(1).enumerate().for_each(
                    |(point, product)| {
                        let (input, output) = (&input[point * tiles..], &output[point * tiles..]);
                        let (pitch, filters) = (POINTS * tiles, kernel.filters());
                        let lanes = |block: usize| {
                            let first = block * filters;
                            LeftOperand::rows(&output[first * pitch..], pitch, outs - first, &places)
                        };
                        multiply_rows(product, ins, first > 0, lanes, input, pitch, [ins, tiles]);
                    },
                );
            });
        }
        let mut weight = vec![0.0; outs * ins * TAPS];
        weight.par_chunks_mut(ins * TAPS).enumerate().for_each(|(out, filter)| {
            scratch::with(TAPS * ins, |taps| {
                let from =
                    |[row, column]: [usize; 2]| &products[((row * IN + column) * outs + out) * ins..][..ins];
                let start = |[row, column]: [usize; 2]| (row * 3 + column) * ins;
                transform::<Weight, IN, 3>(kernel.arch(), ins, from, Within { values: &mut *taps, start });
                for (channel, kernel) in filter.as_chunks_mut::<TAPS>().0.iter_mut().enumerate() {
                    kernel.iter_mut().enumerate().for_each(|(tap, value)| *value = taps[tap * ins + channel]);
                }
            });
        });
        weight
    })
}

/// What tiles see of the input, and of the output's gradient.
fn views(g: &Geometry, runs: &[Run], width: usize) -> [View; 2] {
    let [top, left, ..] = g.options.padding;
    [
        View::new(runs, width, [OUT, IN], [top, left], (g.in_channels, g.input)),
        View::new(runs, width, [OUT; 2], [0; 2], (g.out_channels, g.output)),
    ]
}
