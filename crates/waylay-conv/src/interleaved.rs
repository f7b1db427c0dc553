//! Interleaved epilogue: the epilogue of one block of sums, and its stores, between the steps of
//! the next block's micro-kernel.

use pulp::Simd;

use crate::epilogue::Epilogue;
use crate::kernel::Beside;
use crate::simd;
use crate::window::Shared;

/// A vector of each row of a block, or a part of one, and its place in the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Strip {
    /// Place in a row of the block.
    pub lane: usize,
    /// Place in the output, for the first output channel.
    pub start: usize,
    /// Values, at most those of a vector.
    pub len: usize,
}

/// Rows of a block, one per output channel, of which strips are stored, with all that [`Epilogue`]
/// says.
pub(crate) struct InterleavedEpilogue<'a> {
    epilogue: &'a Epilogue<'a>,
    bias: &'a [f32],
    output: &'a Shared<'a>,
    strips: &'a [Strip],
    /// Rows that begin with the next one.
    sums: &'a [f32],
    width: usize,
    rows: usize,
    /// Values from one output channel to the next, and before the next row's.
    area: usize,
    start: usize,
    /// Of the next vector.
    strip: usize,
    row: usize,
    /// How much further the block lies whose sums come next.
    ahead: isize,
}

impl<'a> InterleavedEpilogue<'a> {
    /// Of `sums`, whose rows are `width` apart, `strips` for each of `channels` of the output,
    /// which are `area` values each. What the next block will need is asked for meanwhile: it lies
    /// `ahead` of this one.
    ///
    /// # Safety
    /// While it lives, no other thread may write these places of the output.
    pub unsafe fn new(
        epilogue: &'a Epilogue<'a>,
        output: &'a Shared<'a>,
        strips: &'a [Strip],
        channels: std::ops::Range<usize>,
        [area, width]: [usize; 2],
        sums: &'a [f32],
        ahead: isize,
    ) -> Self {
        let bias = epilogue.bias.map_or(&[][..], |bias| &bias[channels.clone()]);
        let (rows, start) = (channels.len(), channels.start * area);
        Self { epilogue, bias, output, strips, sums, width, rows, area, start, strip: 0, row: 0, ahead }
    }

    /// Stores `strip` of the row at hand; `load` and `store` are for as many values as it has.
    #[inline(always)]
    fn put<S: Simd>(
        &self,
        simd: S,
        strip: Strip,
        load: impl Fn(&[f32]) -> S::f32s,
        store: impl Fn(&mut [f32], S::f32s),
    ) {
        let Strip { lane, start, len } = strip;
        let start = start + self.start;
        let mut sums = load(&self.sums[lane..][..len]);
        // SAFETY: the caller of `new` promises that the place belongs to this thread.
        let mut window = unsafe { self.output.window(start, 1, len, len) };
        let target = window.row(0);
        simd::prefetch_at(target.as_ptr().wrapping_offset(self.ahead));
        if let Some(bias) = self.bias.get(self.row) {
            sums = simd.add_f32s(sums, simd.splat_f32s(*bias));
        }
        if self.epilogue.onto {
            sums = simd.add_f32s(sums, load(target));
        }
        if let Some(add) = self.epilogue.add {
            let add = &add[start..][..len];
            simd::prefetch_at(add.as_ptr().wrapping_offset(self.ahead));
            sums = simd.add_f32s(sums, load(add));
        }
        if self.epilogue.relu {
            // The second one where either is no number.
            sums = simd.max_f32s(simd.splat_f32s(0.0), sums);
        }
        store(target, sums);
    }
}

impl Beside for InterleavedEpilogue<'_> {
    #[inline(always)]
    fn vectors(&self) -> usize {
        self.rows * self.strips.len()
    }

    #[inline(always)]
    fn next<S: Simd>(&mut self, simd: S) {
        let strip = self.strips[self.strip];
        if strip.len == S::F32_LANES {
            let load = |values: &[f32]| S::as_simd_f32s(values).0[0];
            self.put(simd, strip, load, |target, sums| S::as_mut_simd_f32s(target).0[0] = sums);
        } else {
            let load = |values: &[f32]| simd.partial_load_f32s(values);
            self.put(simd, strip, load, |target, sums| simd.partial_store_f32s(target, sums));
        }
        self.strip += 1;
        if self.strip == self.strips.len() {
            (self.strip, self.row) = (0, self.row + 1);
            self.sums = &self.sums[self.width..];
            self.start += self.area;
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;
    use crate::dispatch;
    use crate::filters::Filters;
    use crate::options::{ConvOptions, Geometry};
    use crate::tests::{archs, values};

    /// The values of a vector.
    struct Lanes;

    impl WithSimd for Lanes {
        type Output = usize;

        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }

    /// All that there is to store.
    struct All<'a>(InterleavedEpilogue<'a>);

    impl WithSimd for All<'_> {
        type Output = ();

        fn with_simd<S: Simd>(mut self, simd: S) {
            (0..self.0.vectors()).for_each(|_| self.0.next(simd));
        }
    }

    #[test]
    fn every_instruction_set_stores_vectors_and_parts_of_them_and_nothing_else() {
        const AREA: usize = 50;
        for arch in archs() {
            let lanes = arch.dispatch(Lanes);
            for (len, onto) in (1..=lanes).flat_map(|len| [(len, false), (len, true)]) {
                let strips = [
                    Strip { lane: 0, start: 3, len: lanes },
                    Strip { lane: lanes, start: AREA - 5 - len, len },
                ];
                let (channels, width) = (1..4, 2 * lanes);
                let (sums, bias, add) = (values(3 * width, 1), values(4, 2), values(4 * AREA, 3));
                let epilogue = Epilogue { bias: Some(&bias), add: Some(&add), onto, relu: true };
                let before = values(4 * AREA, 4);
                let (mut found, mut expected) = (before.clone(), before.clone());
                let output = Shared::new(&mut found);
                // SAFETY: there is no other thread.
                arch.dispatch(All(unsafe {
                    InterleavedEpilogue::new(
                        &epilogue,
                        &output,
                        &strips,
                        channels.clone(),
                        [AREA, width],
                        &sums,
                        0,
                    )
                }));
                for (row, channel) in channels.enumerate() {
                    for (strip, i) in strips.iter().flat_map(|strip| (0..strip.len).map(move |i| (strip, i)))
                    {
                        let place = channel * AREA + strip.start + i;
                        let mut sum = sums[row * width + strip.lane + i] + bias[channel];
                        if onto {
                            sum += before[place];
                        }
                        expected[place] = (sum + add[place]).max(0.0);
                    }
                }
                assert_eq!(found, expected, "{arch:?}, {len} of {lanes}, onto {onto}");
            }
        }
    }

    /// Panels of one image and of several, of whole vectors and others, deep enough and too shallow
    /// for what is done beside.
    #[test]
    fn what_follows_sums_is_the_same_bits_as_if_it_were_done_afterwards() {
        for (images, [ins, outs], [h, w], kernel) in [
            (1, [64, 40], [12, 24], 1),
            (3, [64, 20], [14, 14], 1),
            (9, [300, 17], [7, 7], 1),
            (2, [16, 9], [9, 11], 3),
            (2, [20, 33], [9, 30], 1),
            (60, [130, 24], [3, 3], 1),
        ] {
            let padding = [kernel / 2; 4];
            let options = ConvOptions { padding, ..ConvOptions::default() };
            let g = Geometry::new([images, ins, h, w], [outs, ins, kernel, kernel], options).unwrap();
            let x = values(images * ins * h * w, 1);
            let (weight, bias) = (values(outs * ins * kernel * kernel, 2), values(outs, 3));
            let add = values(images * outs * h * w, 4);
            let filters = Filters::new(&weight);
            let sums = dispatch::forward(&g, &x, &filters, &Epilogue::default());
            for (has_bias, added, relu) in [
                (true, None, false),
                (false, None, true),
                (true, Some(false), true),
                (false, Some(false), false),
                (true, Some(true), true),
                (false, Some(true), false),
            ] {
                let epilogue = Epilogue {
                    bias: has_bias.then_some(&bias[..]),
                    add: (added == Some(false)).then_some(&add[..]),
                    onto: added == Some(true),
                    relu,
                };
                let mut found = add.clone();
                if epilogue.onto {
                    dispatch::forward_onto(&g, &x, &filters, &epilogue, &mut found);
                } else {
                    found = dispatch::forward(&g, &x, &filters, &epilogue);
                }
                for (i, (found, sum)) in found.iter().zip(&sums).enumerate() {
                    let mut expected = *sum;
                    if has_bias {
                        expected += bias[i / (h * w) % outs];
                    }
                    if added.is_some() {
                        expected += add[i];
                    }
                    if relu && expected < 0.0 {
                        expected = 0.0;
                    }
                    assert_eq!(*found, expected, "{images} x {ins} x {h} x {w}, {epilogue:?}: value {i}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_so_behind_a_rectifier() {
        let g = Geometry::new([1, 64, 4, 16], [24, 64, 1, 1], ConvOptions::default()).unwrap();
        let mut x = values(64 * 64, 1);
        x[5] = f32::NAN;
        let found = dispatch::forward(
            &g,
            &x,
            &Filters::new(&values(24 * 64, 2)),
            &Epilogue { relu: true, ..Epilogue::default() },
        );
        for (i, value) in found.iter().enumerate() {
            assert_eq!(value.is_nan(), i % 64 == 5, "value {i}: {value}");
        }
    }
}
