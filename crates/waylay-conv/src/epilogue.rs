//! The epilogue of a convolution: bias, addition and ReLU on the sums, before they are stored.

use std::ops::Range;

use crate::activation::relu as rectified;
use crate::simd::{self, vectorised};
use crate::window::{Shared, Window};

/// Most lines that [`Epilogue::store_lines`] takes.
const LINES: usize = 4;

/// What is added to the sums, and whether ReLU follows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Epilogue<'a> {
    /// A value per output channel.
    pub bias: Option<&'a [f32]>,
    /// A value per element of the output.
    pub add: Option<&'a [f32]>,
    /// Whether the output holds something already, that is added too.
    pub onto: bool,
    /// Whether a rectifier follows.
    pub relu: bool,
}

impl Epilogue<'_> {
    /// Writes the first `len` values of up to [`LINES`] lines of output channel `channel`, `pitch`
    /// apart in `sums`, to `output`: from `start` on, and as far apart as `across`, the second of
    /// `at`.
    ///
    /// # Safety
    /// No other thread may write there at the same time.
    pub unsafe fn store_lines(
        &self,
        output: &Shared<'_>,
        channel: usize,
        at: [usize; 2],
        [lines, len]: [usize; 2],
        sums: &[f32],
        pitch: usize,
    ) {
        let [start, across] = at;
        // SAFETY: the caller promises that the place belongs to this thread.
        let mut window = unsafe { output.window(start, lines, len, across) };
        let bias = self.bias.map(|bias| [bias[channel]; LINES]);
        let bias = bias.as_ref().map(|bias| &bias[..lines]);
        epilogue(&mut window, sums, pitch, bias, self.added(start), self.relu);
    }

    /// Writes the first `len` of each row of `sums`, `width` apart, for each of `channels`, to
    /// `output`: from `start` on, and as far apart as `area`, the second of `at`.
    ///
    /// # Safety
    /// No other thread may write there at the same time.
    pub unsafe fn store_rows(
        &self,
        output: &Shared<'_>,
        channels: Range<usize>,
        at: [usize; 2],
        sums: &[f32],
        width: usize,
        len: usize,
    ) {
        let [start, area] = at;
        // SAFETY: the caller promises that the place belongs to this thread.
        let mut window = unsafe { output.window(start, channels.len(), len, area) };
        let bias = self.bias.map(|bias| &bias[channels]);
        epilogue(&mut window, sums, width, bias, self.added(start), self.relu);
    }

    /// What is added from `start` of the output on.
    fn added(&self, start: usize) -> Added<'_> {
        match self.add {
            Some(add) => Added::Beside(&add[start..]),
            None if self.onto => Added::Onto,
            None => Added::Nothing,
        }
    }

    /// Prefetches what will be added to `len` values of the output from `start` on, while their
    /// sums are computed.
    ///
    /// # Safety
    /// No other thread may use these values at the same time.
    pub unsafe fn prefetch(&self, output: &Shared<'_>, start: usize, len: usize) {
        if let Some(add) = self.add {
            simd::prefetch(&add[start..][..len]);
        } else if self.onto {
            // SAFETY: the caller promises that the place belongs to this thread.
            simd::prefetch(unsafe { output.window(start, 1, len, len) }.row(0));
        }
    }

    /// All but the bias, in place, for what begins at `start` of the output.
    pub fn rest(&self, start: usize, values: &mut [f32]) {
        if let Some(add) = self.add {
            simd::add(values, &add[start..][..values.len()]);
        }
        if self.relu {
            values.iter_mut().for_each(|value| *value = rectified(*value));
        }
    }
}

/// What is added to sums.
#[derive(Clone, Copy)]
enum Added<'a> {
    Nothing,
    /// Rows as far apart as those of the output.
    Beside(&'a [f32]),
    /// What the output holds.
    Onto,
}

vectorised! {
    /// Writes rows of `sums`, `width` apart, plus what is added to them.
    fn epilogue(
        target: &mut Window<'_>,
        sums: &[f32],
        width: usize,
        bias: Option<&[f32]>,
        add: Added<'_>,
        relu: bool,
    ) {
        let (len, stride) = (target.columns(), target.stride());
        for row in 0..target.rows() {
            let (target, sums) = (target.row(row), &sums[row * width..][..len]);
            let shift = bias.map_or(0.0, |bias| bias[row]);
            let part = row * stride..row * stride + len;
            match (add, relu) {
                (Added::Nothing, false) => each(target, sums, |_, sum| sum + shift),
                (Added::Nothing, true) => each(target, sums, |_, sum| rectified(sum + shift)),
                (Added::Onto, false) => each(target, sums, |before, sum| sum + shift + before),
                (Added::Onto, true) => each(target, sums, |before, sum| rectified(sum + shift + before)),
                (Added::Beside(add), false) => both(target, sums, &add[part], |sum, add| sum + shift + add),
                (Added::Beside(add), true) => {
                    both(target, sums, &add[part], |sum, add| rectified(sum + shift + add));
                }
            }
        }
    }
}

#[inline(always)]
fn each(target: &mut [f32], sums: &[f32], term: impl Fn(f32, f32) -> f32) {
    target.iter_mut().zip(sums).for_each(|(target, sum)| *target = term(*target, *sum));
}

#[inline(always)]
fn both(target: &mut [f32], sums: &[f32], add: &[f32], term: impl Fn(f32, f32) -> f32) {
    let pairs = sums.iter().zip(add);
    target.iter_mut().zip(pairs).for_each(|(target, (sum, add))| *target = term(*sum, *add));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch;
    use crate::filters::Filters;
    use crate::options::{ConvOptions, Geometry};
    use crate::tests::values;

    /// Panels of one image and of several, of whole vectors and others.
    #[test]
    fn the_epilogue_is_the_same_bits_as_if_it_were_applied_afterwards() {
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
    fn nan_stays_nan_behind_relu() {
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
