//! The input transform of Winograd's method: tiles of an image, deinterleaved by the stride, and
//! transformed.

use std::ops::Range;

use super::OUT;
use super::points::{Rows, Transform, transform};
use super::tiling::Run;
use crate::kernel::Kernel;
use crate::scratch;
use crate::simd::{self, vectorised};
use crate::window::Shared;

/// What some tiles see of an image's channel: the same places for each channel.
pub(super) struct View {
    /// Pixels from one tile to the next, and of a tile, down and across.
    step: usize,
    span: usize,
    /// Tiles, up to whole vectors.
    width: usize,
    /// Values of a channel.
    area: usize,
    segments: Vec<Segment>,
    beyond: Vec<Beyond>,
}

/// Pixels side by side: a line of a run of tiles, without what lies outside the image.
struct Segment {
    /// Place in the images, for their first channel.
    from: usize,
    /// Place among the lines.
    to: usize,
    len: usize,
}

/// A pixel of the last tile of a run that is none of the next tile's first ones; `None` outside the
/// image.
struct Beyond {
    from: Option<usize>,
    /// Place among what is dealt.
    to: usize,
}

impl View {
    /// Of tiles of `span` pixels, `step` apart, the first of which begins at `origin` before the
    /// image, down and across; images have so many channels, and channels such a size.
    pub fn new(
        runs: &[Run],
        width: usize,
        [step, span]: [usize; 2],
        origin: [usize; 2],
        (channels, [height, across]): (usize, [usize; 2]),
    ) -> Self {
        let (mut segments, mut beyond) = (Vec::new(), Vec::new());
        let area = height * across;
        for run in runs {
            let left = (run.across * step) as isize - origin[1] as isize;
            let inside = |x: isize| x.clamp(0, across as isize);
            let (begin, end) = (inside(left), inside(left + (run.len * step) as isize));
            for line in 0..span {
                let y = (run.down * step + line).checked_sub(origin[0]).filter(|y| *y < height);
                let from = y.map(|y| run.image * channels * area + y * across);
                if let Some(from) = from
                    && begin < end
                {
                    segments.push(Segment {
                        from: from + begin as usize,
                        to: (line * width + run.lane) * step + (begin - left) as usize,
                        len: (end - begin) as usize,
                    });
                }
                for place in step..span {
                    let x = left + ((run.len - 1) * step + place) as isize;
                    let from = from.filter(|_| inside(x) == x && x < across as isize);
                    let to = (place * span + line) * width + run.lane + run.len - 1;
                    beyond.push(Beyond { from: from.map(|from| from + x as usize), to });
                }
            }
        }
        Self { step, span, width, area, segments, beyond }
    }

    /// Transforms some channels of images `x`, each to the rows that `to` gives for it.
    pub fn transform<X: Transform<I, O>, R: Rows, const I: usize, const O: usize>(
        &self,
        kernel: Kernel,
        x: &[f32],
        channels: Range<usize>,
        to: impl Fn(usize) -> R,
    ) {
        let Self { step, span, width, area, .. } = *self;
        assert!(span == I);
        let lines = step * span * width;
        scratch::with(lines + span * span * width, |space| {
            let (line, dealt) = space.split_at_mut(lines);
            // Outside of the image.
            line.fill(0.0);
            for channel in channels {
                let first = channel * area;
                gather(&self.segments, x, [first, area], line);
                let (own, next) = dealt.split_at_mut(lines);
                if step == OUT {
                    deal_four(line, own);
                } else {
                    deal_eight(line, own);
                }
                // The first pixels of the next tile are the last ones of this one.
                let (overlap, row) = ((span - step) * span * width, span * width);
                for (next, own) in next.chunks_exact_mut(row).zip(own[..overlap].chunks_exact(row)) {
                    next[..row - 1].copy_from_slice(&own[1..]);
                }
                for Beyond { from, to } in &self.beyond {
                    dealt[*to] = from.map_or(0.0, |from| x[first + from]);
                }
                let from = |[line, place]: [usize; 2]| &dealt[(place * span + line) * width..][..width];
                transform::<X, I, O>(kernel.arch(), width, from, to(channel));
            }
        });
    }
}

/// Rows of one channel of some tiles, in a buffer that several threads write.
pub(super) struct PointRows<'a, F> {
    shared: &'a Shared<'a>,
    start: F,
    width: usize,
}

impl<'a, F: Fn([usize; 2]) -> usize> PointRows<'a, F> {
    /// Rows of `width` values that begin where `start` says for a place, down and across.
    ///
    /// # Safety
    /// While they live, no other thread may use these places.
    #[inline(always)]
    pub unsafe fn new(shared: &'a Shared<'a>, start: F, width: usize) -> Self {
        Self { shared, start, width }
    }
}

impl<F: Fn([usize; 2]) -> usize> Rows for PointRows<'_, F> {
    #[inline(always)]
    fn row(&mut self, place: [usize; 2]) -> &mut [f32] {
        // SAFETY: the caller of `new` promises that no other thread uses it; and it is borrowed as
        // these rows are.
        unsafe { self.shared.slice((self.start)(place), self.width) }
    }
}

vectorised! {
    /// Copies the segments of a channel to their places; the next channel, as many values further
    /// on as the second of `at`, is asked for.
    fn gather(segments: &[Segment], x: &[f32], at: [usize; 2], lines: &mut [f32]) {
        let [first, area] = at;
        for Segment { from, to, len } in segments {
            let source = &x[first + from..][..*len];
            x.get(first + area + from..).into_iter().for_each(|next| simd::prefetch(&next[..next.len().min(*len)]));
            simd::copy(&mut lines[*to..to + len], source);
        }
    }
}

vectorised! {
    /// Value `4 t + k` becomes value `t` of part `k` of four.
    fn deal_four(values: &[f32], parts: &mut [f32]) {
        let quads = values.as_chunks::<4>().0;
        let len = quads.len();
        let (a, rest) = parts.split_at_mut(len);
        let (b, rest) = rest.split_at_mut(len);
        let (c, d) = rest.split_at_mut(len);
        let d = &mut d[..len];
        for (t, [p, q, r, s]) in quads.iter().enumerate() {
            a[t] = *p;
            b[t] = *q;
            c[t] = *r;
            d[t] = *s;
        }
    }
}

vectorised! {
    /// Value `8 t + k` becomes value `t` of part `k` of eight.
    fn deal_eight(values: &[f32], parts: &mut [f32]) {
        let eights = values.as_chunks::<8>().0;
        for (k, part) in parts.chunks_exact_mut(eights.len()).enumerate() {
            part.iter_mut().zip(eights).for_each(|(value, eight)| *value = eight[k]);
        }
    }
}
