//! col2im: from column matrices, with one row per channel and tap and one column per output pixel,
//! to images.

use std::ops::Range;

use crate::options::Geometry;
use crate::simd;

/// Output positions along an axis whose tap falls inside the input, and the input position of the
/// first of them.
#[derive(Clone, Copy)]
pub(crate) struct Reach {
    pub begin: usize,
    pub end: usize,
    pub first: usize,
}

impl Reach {
    pub fn new(geometry: &Geometry, axis: usize, tap: usize) -> Self {
        let stride = geometry.options.stride[axis];
        let offset = tap * geometry.options.dilation[axis];
        let before = geometry.options.padding[axis];
        let begin = before.saturating_sub(offset).div_ceil(stride).min(geometry.output[axis]);
        let end = (geometry.input[axis] + before).saturating_sub(offset).div_ceil(stride);
        let end = end.clamp(begin, geometry.output[axis]);
        let first = (begin * stride + offset).saturating_sub(before);
        Self { begin, end, first }
    }
}

/// Calls `visit` with the channel and tap's row, and that row's reach down and across, for every
/// row.
fn for_each_row(geometry: &Geometry, channels: usize, mut visit: impl FnMut(usize, usize, Reach, Reach)) {
    let [kh, kw] = geometry.kernel;
    for channel in 0..channels {
        for ky in 0..kh {
            let down = Reach::new(geometry, 0, ky);
            for kx in 0..kw {
                let across = Reach::new(geometry, 1, kx);
                visit(channel, (channel * kh + ky) * kw + kx, down, across);
            }
        }
    }
}

/// Adds the columns of output rows `rows` to `image` (some channels, `[C, H, W]`).
pub(crate) fn col2im(
    geometry: &Geometry,
    columns: &[f32],
    pitch: usize,
    rows: Range<usize>,
    image: &mut [f32],
) {
    let (area, width, out_width) = (geometry.input_area(), geometry.input[1], geometry.output[1]);
    let [stride_y, stride_x] = geometry.options.stride;
    for_each_row(geometry, image.len() / area, |channel, row, down, across| {
        let plane = &mut image[channel * area..][..area];
        for oy in down.begin.max(rows.start)..down.end.min(rows.end) {
            let iy = down.first + (oy - down.begin) * stride_y;
            let source = &columns[row * pitch + (oy - rows.start) * out_width..][across.begin..across.end];
            if !source.is_empty() {
                scatter(&mut plane[iy * width..][..width][across.first..], source, stride_x);
            }
        }
    });
}

/// Fills `target` with every `stride`-th value of `source`.
pub(crate) fn gather(target: &mut [f32], source: &[f32], stride: usize) {
    match stride {
        1 => target.copy_from_slice(&source[..target.len()]),
        2 => simd::every_second(target, source),
        _ => target
            .iter_mut()
            .zip(source.iter().step_by(stride))
            .for_each(|(target, source)| *target = *source),
    }
}

/// Adds `source` to every `stride`-th value of `target`.
fn scatter(target: &mut [f32], source: &[f32], stride: usize) {
    match stride {
        1 => simd::add(target, source),
        _ => target.iter_mut().step_by(stride).zip(source).for_each(|(target, source)| *target += *source),
    }
}
