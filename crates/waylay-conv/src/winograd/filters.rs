//! The filter transform of Winograd's method.

use super::points::{StridedTaps, Taps, Within, transform};
use super::{Form, OUT, TAPS};
use crate::filters::Filters;
use crate::kernel::Kernel;
use crate::options::Geometry;
use crate::scratch;
use crate::simd::{self, vectorised};

/// Channels whose filters are transformed at once.
const CHANNELS: usize = 32;

/// U = G g Gᵀ of a block of filters: for each product, a row for each channel, a column for each
/// filter.
pub(super) fn transform_block(
    g: &Geometry,
    form: &Form,
    kernel: Kernel,
    weight: &Filters<'_>,
    block: usize,
    filters: &mut [f32],
) {
    let (ins, count) = (g.in_channels, kernel.filters());
    // A row per channel and tap, and, of some channels at a time, the same with all channels of a
    // tap together.
    let most = TAPS * CHANNELS.min(ins) * count;
    scratch::with(ins * TAPS * count + most, |space| {
        let (rows, taps) = space.split_at_mut(ins * TAPS * count);
        weight.interleave(g, 0, block * count, count, rows);
        for (step, rows) in rows.chunks(CHANNELS * TAPS * count).enumerate() {
            let len = rows.len() / TAPS;
            gather(rows, count, taps);
            let from = |[row, column]: [usize; 2]| &taps[(row * 3 + column) * len..][..len];
            let first = step * CHANNELS;
            let values = &mut *filters;
            let to = Within { values, start: |place: [usize; 2]| (form.row(place) * ins + first) * count };
            if form.step == OUT {
                transform::<Taps, 3, 6>(kernel.arch(), len, from, to);
            } else {
                transform::<StridedTaps, 3, 9>(kernel.arch(), len, from, to);
            }
        }
    });
}

vectorised! {
    /// From a row per channel and tap, of `count` values, to all channels' rows of a tap one after
    /// the other.
    fn gather(rows: &[f32], count: usize, taps: &mut [f32]) {
        let len = rows.len() / TAPS;
        for (channel, rows) in rows.chunks_exact(TAPS * count).enumerate() {
            for (tap, row) in rows.chunks_exact(count).enumerate() {
                simd::copy(&mut taps[tap * len + channel * count..][..count], row);
            }
        }
    }
}
