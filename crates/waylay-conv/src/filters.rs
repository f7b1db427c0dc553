//! Filters as they lie in memory, and packed into blocks for the micro-kernel: a row per input
//! channel and tap, a column per filter.

use crate::kernel::{LeftOperand, MANY};
use crate::options::Geometry;
use crate::prepared::PreparedFilters;
use crate::simd::{self, vectorised};

/// Channels ahead of which their weights are asked for: they lie far apart.
const AHEAD: usize = 8;

/// The filters of a convolution.
#[derive(Clone, Debug)]
pub(crate) struct Filters<'a> {
    values: &'a [f32],
    transposed: Option<Transposed>,
    prepared: Option<&'a PreparedFilters>,
}

/// Filters that stem from another convolution, whose input's gradient this one computes: input and
/// output channels are exchanged.
#[derive(Clone, Debug)]
struct Transposed {
    /// Weights per channel and filter there.
    area: usize,
    /// Which of those each of ours is.
    taps: Vec<usize>,
}

impl<'a> Filters<'a> {
    /// `[Co, Ci / groups, Kh, Kw]`.
    pub fn new(values: &'a [f32]) -> Self {
        Self { values, transposed: None, prepared: None }
    }

    /// Those of `prepared`.
    pub fn prepared(prepared: &'a PreparedFilters) -> Self {
        let values = prepared.values().as_slice().unwrap_or_default();
        Self { values, transposed: None, prepared: Some(prepared) }
    }

    /// Those of a convolution with `area` weights per channel and filter, with input and output
    /// channels exchanged, and of their weights those at `taps`.
    pub fn transposed(values: &'a [f32], area: usize, taps: Vec<usize>) -> Self {
        Self { values, transposed: Some(Transposed { area, taps }), prepared: None }
    }

    /// The values, where they lie as this convolution has them.
    pub fn plain(&self) -> Option<&'a [f32]> {
        self.transposed.is_none().then_some(self.values)
    }

    /// The value that keeps transforms of these filters, if there is one.
    pub fn keeper(&self) -> Option<&'a PreparedFilters> {
        self.prepared
    }

    /// Where the weights of one filter lie, one per input channel and tap, from its first on;
    /// `None` where that takes more than 32 bits.
    pub fn places(&self, g: &Geometry) -> Option<Vec<u32>> {
        let outs = g.group_out();
        u32::try_from(self.values.len()).ok()?;
        Some(match &self.transposed {
            None => (0..g.depth() as u32).collect(),
            Some(Transposed { area, taps }) => (0..g.group_in())
                .flat_map(|channel| taps.iter().map(move |tap| (channel * outs * area + tap) as u32))
                .collect(),
        })
    }

    /// Up to [`MANY`] filters of `group`, from its filter `first` on, whose weights lie at
    /// `places`; the last one stands in for those that are missing.
    pub fn spread<'p>(
        &'p self,
        g: &Geometry,
        group: usize,
        first: usize,
        places: &'p [u32],
    ) -> LeftOperand<'p> {
        let (outs, depth) = (g.group_out(), g.depth());
        let (start, step) = match &self.transposed {
            None => ((group * outs + first) * depth, depth),
            Some(Transposed { area, .. }) => (group * g.group_in() * outs * area + first * area, *area),
        };
        LeftOperand::rows(&self.values[start.min(self.values.len())..], step, outs - first, places)
    }

    /// Writes up to `count` filters of `group`, from its filter `first` on, as a block; zeros for
    /// those that are missing.
    pub fn interleave(&self, g: &Geometry, group: usize, first: usize, count: usize, block: &mut [f32]) {
        let (outs, depth) = (g.group_out(), g.depth());
        let rows = count.min(outs - first);
        let Some(Transposed { area, taps }) = &self.transposed else {
            let filters = &self.values[(group * outs + first) * depth..][..rows * depth];
            interleave(filters, depth, count, block);
            return;
        };
        let values = &self.values[group * g.group_in() * outs * area + first * area..];
        let part = |channel: usize| values.get(channel * outs * area..)?.get(..rows * area);
        for (channel, block) in block.chunks_exact_mut(taps.len() * count).enumerate() {
            let Some(source) = part(channel) else { continue };
            part(channel + AHEAD).into_iter().for_each(simd::prefetch);
            if (rows, count) == (MANY, MANY) {
                transpose_many(source, *area, taps, block);
                continue;
            }
            for (row, tap) in block.chunks_exact_mut(count).zip(taps) {
                let values = source.iter().skip(*tap).step_by(*area);
                row.iter_mut().zip(values).for_each(|(place, value)| *place = *value);
                row[rows..].fill(0.0);
            }
        }
    }
}

/// Turns up to `count` filters of `len` weights, one after the other, into one row per weight, one
/// column per filter; zeros for filters that are missing.
pub(crate) fn interleave(filters: &[f32], len: usize, count: usize, block: &mut [f32]) {
    if filters.len() == count * len && count == MANY {
        interleave_many(filters, len, block);
        return;
    }
    for lane in 0..count {
        let values = block[lane..].iter_mut().step_by(count);
        match filters.get(lane * len..(lane + 1) * len) {
            Some(filter) => values.zip(filter).for_each(|(place, value)| *place = *value),
            None => values.for_each(|place| *place = 0.0),
        }
    }
}

vectorised! {
    /// [`interleave`] for [`MANY`] filters.
    fn interleave_many(filters: &[f32], len: usize, block: &mut [f32]) {
        let f = |lane: usize| &filters[lane * len..][..len];
        let (a, b, c, d) = (f(0), f(1), f(2), f(3));
        let (e, f, g, h) = (f(4), f(5), f(6), f(7));
        for (t, row) in block.as_chunks_mut::<MANY>().0.iter_mut().enumerate().take(len) {
            *row = [a[t], b[t], c[t], d[t], e[t], f[t], g[t], h[t]];
        }
    }
}

vectorised! {
    /// One channel's rows of a transposed block of [`MANY`] filters of `area` weights.
    fn transpose_many(source: &[f32], area: usize, taps: &[usize], block: &mut [f32]) {
        let f = |lane: usize| &source[lane * area..][..area];
        let filters = [f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)];
        for (row, tap) in block.as_chunks_mut::<MANY>().0.iter_mut().zip(taps) {
            *row = filters.map(|filter| filter[*tap]);
        }
    }
}
