//! Winograd's transforms: in one dimension, of vectors of numbers, and in two. The points are 0,
//! ±A, ±B and ∞.

use std::ops::{Add, Mul, Sub};

use pulp::{Arch, Scalar, Simd, WithSimd};

/// The points other than 0 and ∞: ±A and ±B.
const A: f32 = 0.625;
const B: f32 = 1.5;
/// What the transforms make of them.
const SUM: f32 = A * A + B * B;
const PRODUCT: f32 = A * A * B * B;
const NEAR: f32 = 2.0 * A * A * (A * A - B * B);
const FAR: f32 = 2.0 * B * B * (B * B - A * A);

/// A vector of numbers.
#[derive(Clone, Copy)]
pub(super) struct Vector<S: Simd> {
    simd: S,
    values: S::f32s,
}

impl<S: Simd> Vector<S> {
    /// The first values of `from`.
    #[inline(always)]
    fn read(simd: S, from: &[f32]) -> Self {
        Self { simd, values: S::as_simd_f32s(&from[..S::F32_LANES]).0[0] }
    }

    /// Becomes the first values of `to`.
    #[inline(always)]
    fn write(self, to: &mut [f32]) {
        S::as_mut_simd_f32s(&mut to[..S::F32_LANES]).0[0] = self.values;
    }
}

impl<S: Simd> Add for Vector<S> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self { values: self.simd.add_f32s(self.values, other.values), ..self }
    }
}

impl<S: Simd> Sub for Vector<S> {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self { values: self.simd.sub_f32s(self.values, other.values), ..self }
    }
}

impl<S: Simd> Mul<f32> for Vector<S> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, by: f32) -> Self {
        Self { values: self.simd.mul_f32s(self.values, self.simd.splat_f32s(by)), ..self }
    }
}

/// A linear function of `I` numbers that are in a row.
pub(super) trait Transform<const I: usize, const O: usize> {
    fn of<S: Simd>(numbers: [Vector<S>; I]) -> [Vector<S>; O];
}

/// G g.
pub(super) struct Taps;

impl Transform<3, 6> for Taps {
    #[inline(always)]
    fn of<S: Simd>([a, b, c]: [Vector<S>; 3]) -> [Vector<S>; 6] {
        let near = [(a + c * (A * A)) * (1.0 / NEAR), b * (A / NEAR)];
        let far = [(a + c * (B * B)) * (1.0 / FAR), b * (B / FAR)];
        [a * (1.0 / PRODUCT), near[0] + near[1], near[0] - near[1], far[0] + far[1], far[0] - far[1], c]
    }
}

/// Bᵀ d.
pub(super) struct Input;

impl Transform<6, 6> for Input {
    #[inline(always)]
    fn of<S: Simd>([d0, d1, d2, d3, d4, d5]: [Vector<S>; 6]) -> [Vector<S>; 6] {
        let near = [d4 - d2 * (B * B), (d3 - d1 * (B * B)) * A];
        let far = [d4 - d2 * (A * A), (d3 - d1 * (A * A)) * B];
        [
            d0 * PRODUCT - d2 * SUM + d4,
            near[0] + near[1],
            near[0] - near[1],
            far[0] + far[1],
            far[0] - far[1],
            d1 * PRODUCT - d3 * SUM + d5,
        ]
    }
}

/// G g at stride 2, for each of the points but 0: of the taps at the ends, and of the one between,
/// which has no product at ∞.
pub(super) struct StridedTaps;

impl Transform<3, 9> for StridedTaps {
    #[inline(always)]
    fn of<S: Simd>([a, b, c]: [Vector<S>; 3]) -> [Vector<S>; 9] {
        let near = [a * (A / NEAR), c * (A * A / NEAR), b * (A / NEAR)];
        let far = [a * (B / FAR), c * (B * B / FAR), b * (B / FAR)];
        [
            near[1] + near[0],
            near[2],
            near[1] - near[0],
            near[2] * -1.0,
            far[1] + far[0],
            far[2],
            far[1] - far[0],
            far[2] * -1.0,
            c,
        ]
    }
}

/// Bᵀ d at stride 2, in the order of [`StridedTaps`].
pub(super) struct StridedInput;

impl Transform<9, 9> for StridedInput {
    #[inline(always)]
    fn of<S: Simd>([d0, d1, d2, d3, d4, d5, d6, d7, d8]: [Vector<S>; 9]) -> [Vector<S>; 9] {
        let ([a, b, c, d], [e, f, g, h]) = (finite([d0, d2, d4, d6]), finite([d1, d3, d5, d7]));
        [a, e, b, f, c, g, d, h, d0 * PRODUCT - d4 * SUM + d8]
    }
}

/// Bᵀ d at the points but 0 and ∞.
#[inline(always)]
fn finite<S: Simd>([d0, d1, d2, d3]: [Vector<S>; 4]) -> [Vector<S>; 4] {
    let near = [d3 - d1 * (B * B), (d2 - d0 * (B * B)) * A];
    let far = [d3 - d1 * (A * A), (d2 - d0 * (A * A)) * B];
    [near[0] + near[1], near[0] - near[1], far[0] + far[1], far[0] - far[1]]
}

/// A y.
pub(super) struct Gradient;

impl Transform<4, 6> for Gradient {
    #[inline(always)]
    fn of<S: Simd>([y0, y1, y2, y3]: [Vector<S>; 4]) -> [Vector<S>; 6] {
        let near = [y0 + y2 * (A * A), (y1 + y3 * (A * A)) * A];
        let far = [y0 + y2 * (B * B), (y1 + y3 * (B * B)) * B];
        [y0, near[0] + near[1], near[0] - near[1], far[0] + far[1], far[0] - far[1], y3]
    }
}

/// Aᵀ m.
pub(super) struct Output;

impl Transform<6, 4> for Output {
    #[inline(always)]
    fn of<S: Simd>(m: [Vector<S>; 6]) -> [Vector<S>; 4] {
        let near = [m[1] + m[2], (m[1] - m[2]) * A];
        let far = [m[3] + m[4], (m[3] - m[4]) * B];
        [
            m[0] + near[0] + far[0],
            near[1] + far[1],
            near[0] * (A * A) + far[0] * (B * B),
            near[1] * (A * A) + far[1] * (B * B) + m[5],
        ]
    }
}

/// Gᵀ m.
pub(super) struct Weight;

impl Transform<6, 3> for Weight {
    #[inline(always)]
    fn of<S: Simd>(m: [Vector<S>; 6]) -> [Vector<S>; 3] {
        let near = [(m[1] + m[2]) * (1.0 / NEAR), (m[1] - m[2]) * (1.0 / NEAR)];
        let far = [(m[3] + m[4]) * (1.0 / FAR), (m[3] - m[4]) * (1.0 / FAR)];
        [
            m[0] * (1.0 / PRODUCT) + near[0] + far[0],
            near[1] * A + far[1] * B,
            near[0] * (A * A) + far[0] * (B * B) + m[5],
        ]
    }
}

/// Where the results of a transform go.
pub(super) trait Rows {
    /// The row of the results at a place, down and across, as long as those that are transformed.
    fn row(&mut self, place: [usize; 2]) -> &mut [f32];
}

/// Rows of one buffer that begin where a function of their place says.
pub(super) struct Within<'a, F> {
    pub values: &'a mut [f32],
    pub start: F,
}

impl<F: Fn([usize; 2]) -> usize> Rows for Within<'_, F> {
    #[inline(always)]
    fn row(&mut self, place: [usize; 2]) -> &mut [f32] {
        &mut self.values[(self.start)(place)..]
    }
}

/// Transforms squares of numbers down and across: `len` of them, of which `from` gives those at a
/// place, down and across.
pub(super) fn transform<'a, X: Transform<I, O>, const I: usize, const O: usize>(
    arch: Arch,
    len: usize,
    from: impl Fn([usize; 2]) -> &'a [f32],
    to: impl Rows,
) {
    arch.dispatch(Squares { len, from, to, of: std::marker::PhantomData::<X> });
}

struct Squares<F, R, X, const I: usize, const O: usize> {
    len: usize,
    from: F,
    to: R,
    of: std::marker::PhantomData<X>,
}

impl<'a, F, R, X, const I: usize, const O: usize> WithSimd for Squares<F, R, X, I, O>
where
    F: Fn([usize; 2]) -> &'a [f32],
    R: Rows,
    X: Transform<I, O>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let lanes = S::F32_LANES;
        if self.len < lanes {
            let mut halfway = halfway(Scalar::new());
            (0..self.len).for_each(|place| self.square(Scalar::new(), place, &mut halfway));
            return;
        }
        let mut halfway = halfway(simd);
        for place in (0..self.len).step_by(lanes) {
            // The last ones together with some before them.
            self.square(simd, place.min(self.len - lanes), &mut halfway);
        }
    }
}

impl<'a, F, R, X, const I: usize, const O: usize> Squares<F, R, X, I, O>
where
    F: Fn([usize; 2]) -> &'a [f32],
    R: Rows,
    X: Transform<I, O>,
{
    /// A vector of squares, from `place` on; what the transform down gives is held in `halfway`.
    #[inline(always)]
    fn square<S: Simd>(&mut self, simd: S, place: usize, halfway: &mut [[Vector<S>; I]; O]) {
        for column in 0..I {
            let mut numbers = [zero(simd); I];
            for (row, number) in numbers.iter_mut().enumerate() {
                *number = Vector::read(simd, &(self.from)([row, column])[place..]);
            }
            for (results, result) in halfway.iter_mut().zip(X::of(numbers)) {
                results[column] = result;
            }
        }
        for (row, numbers) in halfway.iter().enumerate() {
            for (column, result) in X::of(*numbers).into_iter().enumerate() {
                result.write(&mut self.to.row([row, column])[place..]);
            }
        }
    }
}

#[inline(always)]
fn zero<S: Simd>(simd: S) -> Vector<S> {
    Vector { simd, values: simd.splat_f32s(0.0) }
}

#[inline(always)]
fn halfway<S: Simd, const I: usize, const O: usize>(simd: S) -> [[Vector<S>; I]; O] {
    [[zero(simd); I]; O]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{archs, values};
    use crate::winograd::{EACH, EVERY_OTHER, Form, IN, OUT};

    /// `len` squares of `I` x `I` numbers, number by number, transformed.
    fn transformed<X: Transform<I, O>, const I: usize, const O: usize>(
        arch: Arch,
        len: usize,
        values: &[f32],
    ) -> Vec<f32> {
        let mut results = vec![f32::NAN; O * O * len];
        let from = |[row, column]: [usize; 2]| &values[(row * I + column) * len..][..len];
        let start = |[row, column]: [usize; 2]| (row * O + column) * len;
        transform::<X, I, O>(arch, len, from, Within { values: &mut results, start });
        results
    }

    /// Tiles of `SPAN` x `SPAN` pixels, convolved with 3 x 3 taps at `step`, by products at the
    /// points and in double precision.
    fn check<T: Transform<3, SPAN>, X: Transform<SPAN, SPAN>, const SPAN: usize>(form: &Form, step: usize) {
        for arch in archs() {
            for len in [1, 3, 16, 19, 48] {
                let (pixels, taps) = (values(SPAN * SPAN * len, 1), values(9 * len, 2));
                let inputs = transformed::<X, SPAN, SPAN>(arch, len, &pixels);
                let filters = transformed::<T, 3, SPAN>(arch, len, &taps);
                let mut products = vec![0.0; IN * IN * len];
                for (index, (input, filter)) in inputs.chunks(len).zip(filters.chunks(len)).enumerate() {
                    // At stride 2, the parts of a point are added up; there is none at 0.
                    let [down, across] =
                        [index / SPAN, index % SPAN].map(|at| if form.total == IN { at } else { 1 + at / 2 });
                    let products = &mut products[(down * IN + across) * len..][..len];
                    products.iter_mut().zip(input.iter().zip(filter)).for_each(|(p, (a, b))| *p += a * b);
                }
                let found = transformed::<Output, IN, OUT>(arch, len, &products);
                for (index, found) in found.iter().enumerate() {
                    let (pixel, tile) = (index / len, index % len);
                    let (y, x) = (pixel / OUT * step, pixel % OUT * step);
                    let term = |tap: usize| {
                        let place = (y + tap / 3) * SPAN + x + tap % 3;
                        f64::from(pixels[place * len + tile]) * f64::from(taps[tap * len + tile])
                    };
                    let exact = (0..9).map(term).sum::<f64>();
                    let error = (f64::from(*found) - exact).abs();
                    assert!(error < 2e-5, "{arch:?}, {len} tiles, stride {step}: {found} instead of {exact}");
                }
            }
        }
    }

    #[test]
    fn products_at_the_points_are_convolutions_with_any_instructions() {
        check::<Taps, Input, 6>(&EACH, 1);
        check::<StridedTaps, StridedInput, 9>(&EVERY_OTHER, 2);
    }

    /// Gᵀ [(A y Aᵀ) ⊙ (Bᵀ d B)] G is the gradient of the taps.
    #[test]
    fn products_with_a_gradient_are_the_gradient_of_the_taps_with_any_instructions() {
        for arch in archs() {
            for len in [1, 19, 48] {
                let (pixels, gradient) = (values(IN * IN * len, 3), values(OUT * OUT * len, 4));
                let mut products = transformed::<Input, IN, IN>(arch, len, &pixels);
                let gradients = transformed::<Gradient, OUT, IN>(arch, len, &gradient);
                products.iter_mut().zip(&gradients).for_each(|(product, gradient)| *product *= gradient);
                let found = transformed::<Weight, IN, 3>(arch, len, &products);
                for (index, found) in found.iter().enumerate() {
                    let (tap, tile) = (index / len, index % len);
                    let term = |pixel: usize| {
                        let place = (pixel / OUT + tap / 3) * IN + pixel % OUT + tap % 3;
                        f64::from(pixels[place * len + tile]) * f64::from(gradient[pixel * len + tile])
                    };
                    let exact = (0..OUT * OUT).map(term).sum::<f64>();
                    let error = (f64::from(*found) - exact).abs();
                    assert!(error < 2e-5, "{arch:?}, {len} tiles: {found} instead of {exact}");
                }
            }
        }
    }
}
