//! Between images and column matrices: one row per channel and tap, one column per output pixel.

use std::ops::Range;

use crate::options::Geometry;
use crate::simd;

/// Output positions along an axis whose tap falls inside the input, and the input position of the first of them.
#[derive(Clone, Copy)]
struct Reach {
    begin: usize,
    end: usize,
    first: usize,
}

impl Reach {
    fn new(geometry: &Geometry, axis: usize, tap: usize) -> Self {
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

/// Calls `visit` with the channel and tap's row, and that row's reach down and across, for every row.
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

/// Writes the columns of output rows `rows` of `image` (some channels, `[C, H, W]`) into `columns`, whose rows are
/// `pitch` apart.
pub(crate) fn im2col(
    geometry: &Geometry,
    image: &[f32],
    rows: Range<usize>,
    columns: &mut [f32],
    pitch: usize,
) {
    let (area, width, out_width) = (geometry.input_area(), geometry.input[1], geometry.output[1]);
    let [stride_y, stride_x] = geometry.options.stride;
    for_each_row(geometry, image.len() / area, |channel, row, down, across| {
        let plane = &image[channel * area..][..area];
        let target = &mut columns[row * pitch..][..rows.len() * out_width];
        if geometry.options.stride == [1; 2] && out_width == width {
            return shift(plane, width, rows.clone(), target, down, across);
        }
        for (oy, target) in rows.clone().zip(target.chunks_exact_mut(out_width)) {
            if oy < down.begin || oy >= down.end || across.begin == across.end {
                target.fill(0.0);
                continue;
            }
            let iy = down.first + (oy - down.begin) * stride_y;
            let source = &plane[iy * width..][..width][across.first..];
            target[..across.begin].fill(0.0);
            target[across.end..].fill(0.0);
            gather(&mut target[across.begin..across.end], source, stride_x);
        }
    });
}

/// Writes a row of the column matrix of a convolution that keeps the width: the plane, shifted, with zeros where the
/// shift would bring in another row's values.
fn shift(plane: &[f32], width: usize, rows: Range<usize>, target: &mut [f32], down: Reach, across: Reach) {
    let (first, last) = (rows.start.max(down.begin), rows.end.min(down.end));
    if first >= last || across.begin == across.end {
        return target.fill(0.0);
    }
    target[..(first - rows.start) * width].fill(0.0);
    target[(last - rows.start) * width..].fill(0.0);
    let inner = &mut target[(first - rows.start) * width..(last - rows.start) * width];
    let start = (down.first + first - down.begin) * width + across.first;
    let len = (last - first - 1) * width + across.end - across.begin;
    inner[across.begin..][..len].copy_from_slice(&plane[start..][..len]);
    for row in inner.chunks_exact_mut(width) {
        row[..across.begin].fill(0.0);
        row[across.end..].fill(0.0);
    }
}

/// Adds the columns of output rows `rows` to `image` (some channels, `[C, H, W]`): the adjoint of [`im2col`].
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
