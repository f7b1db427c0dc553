//! The micro-kernel: a few filters times a packed panel of columns, sums kept in registers.
//!
//! `a` holds [`Kernel::filters`] values per step of the depth, `b` a panel's: products of the two,
//! summed over the depth, are a block of the output. Written with pulp for AVX-512, AVX2 with FMA
//! and NEON, and in plain Rust for the rest.

use pulp::{Arch, Simd, WithSimd};

use crate::simd::vectorised;

/// Most vectors that a panel is wide.
const VECTORS: usize = 3;
/// Vectors' widths in the plain kernel.
const PLAIN_LANES: usize = 4;
/// Steps of the depth that are summed up on their own: long sums of short ones round less than one
/// long sum.
const STEPS: usize = 256;
/// Most columns that are better computed one by one.
const FEW_COLUMNS: usize = 4;
/// Filters of a block with 32 vector registers, and with fewer.
pub(crate) const MANY: usize = 8;
const FEW: usize = 4;

/// Filters of a block, a weight of each per step of the depth.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LeftOperand<'a> {
    /// One row of [`Kernel::filters`] weights per step.
    Packed(&'a [f32]),
    /// Step `k` of lane `l` is value `places[k] + lanes[l]`; of as many lanes as the kernel has
    /// filters, the first ones count.
    Gathered { values: &'a [f32], places: &'a [u32], lanes: [usize; MANY] },
}

impl<'a> LeftOperand<'a> {
    /// Up to [`MANY`] rows of `values`, `pitch` apart, of which there are `count`, at least one:
    /// the last one stands in for those that are missing. The values of a row, one per step, are at
    /// `places`.
    pub fn rows(values: &'a [f32], pitch: usize, count: usize, places: &'a [u32]) -> Self {
        Self::Gathered { values, places, lanes: std::array::from_fn(|lane| lane.min(count - 1) * pitch) }
    }

    fn depth(&self, filters: usize) -> usize {
        match self {
            // By a constant: this is asked for each block.
            Self::Packed(values) if filters == MANY => values.len() / MANY,
            Self::Packed(values) => values.len() / filters,
            Self::Gathered { places, .. } => places.len(),
        }
    }
}

/// The instructions that blocks are computed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    arch: Arch,
    filters: usize,
    lanes: usize,
}

impl Kernel {
    /// The best that this processor can run.
    pub fn new() -> Self {
        Self::with(Arch::new())
    }

    /// The kernel for `arch`.
    fn with(arch: Arch) -> Self {
        struct Registers;
        impl WithSimd for Registers {
            type Output = (usize, usize);
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
                (if S::REGISTER_COUNT >= 32 { MANY } else { FEW }, S::F32_LANES)
            }
        }
        let (filters, lanes) =
            if matches!(arch, Arch::Scalar) { (FEW, PLAIN_LANES) } else { arch.dispatch(Registers) };
        Self { arch, filters, lanes }
    }

    /// The instructions themselves.
    pub fn arch(self) -> Arch {
        self.arch
    }

    /// Filters of a block.
    pub fn filters(self) -> usize {
        self.filters
    }

    /// Most columns of a panel.
    pub fn columns(self) -> usize {
        VECTORS * self.lanes
    }

    /// Columns of a panel for `count` of them: up to the next whole vector.
    pub fn width(self, count: usize) -> usize {
        count.next_multiple_of(self.lanes)
    }

    /// [`Self::multiply`] with packed `a` and rows of `b` of `width` values, where only the first
    /// `count` columns matter; the others' sums may be anything.
    pub fn multiply_some(self, a: &[f32], b: &[f32], width: usize, count: usize, block: &mut [f32]) {
        if count > FEW_COLUMNS || self.filters != MANY {
            self.multiply(&LeftOperand::Packed(a), b, width, width, block);
            return;
        }
        if a.is_empty() {
            block.fill(0.0);
            return;
        }
        for column in 0..count {
            let sums = one_column(a, &b[column..], width);
            block[column..].iter_mut().step_by(width).zip(sums).for_each(|(place, sum)| *place = sum);
        }
    }

    /// Sets `block`, [`Self::filters`] rows of `width` values, to the products of `a` and `b`,
    /// summed; the rows of `b`, of `width` values too, are `pitch` apart.
    pub fn multiply(self, a: &LeftOperand<'_>, b: &[f32], pitch: usize, width: usize, block: &mut [f32]) {
        let depth = a.depth(self.filters);
        assert!(depth == 0 || b.len() >= (depth - 1) * pitch + width);
        assert!(pitch >= width && block.len() == self.filters * width);
        let work = Block { a, b, pitch, block };
        match self.arch {
            Arch::Scalar => plain(a, b, pitch, width, block),
            arch if width == self.lanes => arch.dispatch(Wide::<1>(work)),
            arch if width == 2 * self.lanes => arch.dispatch(Wide::<2>(work)),
            arch => arch.dispatch(Wide::<VECTORS>(work)),
        }
    }
}

vectorised! {
    /// Sums of the products of a block of [`MANY`] filters and one column, whose values are `pitch`
    /// apart: in vectors of filters, as a vector of columns would be computed for the sake of one.
    fn one_column(a: &[f32], b: &[f32], pitch: usize) -> [f32; MANY] {
        let mut sums = [[0.0_f32; MANY]; 4];
        let (fours, rest) = a.as_chunks::<MANY>().0.as_chunks::<4>();
        for (a, b) in fours.iter().zip(b.chunks(4 * pitch)) {
            for (step, (sums, a)) in sums.iter_mut().zip(a).enumerate() {
                let b = b[step * pitch];
                sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += a * b);
            }
        }
        for (step, a) in rest.iter().enumerate() {
            let b = b[(4 * fours.len() + step) * pitch];
            sums[0].iter_mut().zip(a).for_each(|(sum, a)| *sum += a * b);
        }
        std::array::from_fn(|lane| (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]))
    }
}

/// Operands of one block.
struct Block<'a> {
    // Not a copy, which would be made in larger pieces than it was written in, and wait for all
    // that was stored before.
    a: &'a LeftOperand<'a>,
    b: &'a [f32],
    pitch: usize,
    block: &'a mut [f32],
}

/// A block of `N` vectors' width.
struct Wide<'a, const N: usize>(Block<'a>);

impl<const N: usize> WithSimd for Wide<'_, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 { self.sum::<S, MANY>(simd) } else { self.sum::<S, FEW>(simd) }
    }
}

impl<const N: usize> Wide<'_, N> {
    #[inline(always)]
    fn sum<S: Simd, const M: usize>(self, simd: S) {
        let Block { a, b, pitch, block } = self.0;
        if a.depth(M) == 0 {
            block.fill(0.0);
        }
        let b = b.chunks(STEPS * pitch).enumerate();
        match *a {
            LeftOperand::Packed(a) => {
                for (a, (part, b)) in a.chunks(STEPS * M).zip(b) {
                    let a = a.as_chunks::<M>().0.iter().copied();
                    let sums = products::<S, N, M>(simd, a, b, pitch);
                    store(simd, sums, part == 0, block);
                }
            }
            LeftOperand::Gathered { values, places, lanes } => {
                for (places, (part, b)) in places.chunks(STEPS).zip(b) {
                    let a = places
                        .iter()
                        .map(|&place| std::array::from_fn(|l| values[place as usize + lanes[l]]));
                    let sums = products::<S, N, M>(simd, a, b, pitch);
                    store(simd, sums, part == 0, block);
                }
            }
        }
    }
}

/// Sums over some steps of the depth.
#[inline(always)]
fn products<S: Simd, const N: usize, const M: usize>(
    simd: S,
    a: impl Iterator<Item = [f32; M]>,
    b: &[f32],
    pitch: usize,
) -> [[S::f32s; N]; M] {
    let width = N * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); N]; M];
    for (b, a) in b.chunks(pitch).zip(a) {
        let b = S::as_simd_f32s(&b[..width]).0;
        for (sums, a) in sums.iter_mut().zip(a) {
            let a = simd.splat_f32s(a);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_f32s(a, *b, *sum);
            }
        }
    }
    sums
}

/// Sets or adds sums to the block.
#[inline(always)]
fn store<S: Simd, const N: usize, const M: usize>(
    simd: S,
    sums: [[S::f32s; N]; M],
    set: bool,
    block: &mut [f32],
) {
    for (row, sums) in block.chunks_exact_mut(N * S::F32_LANES).zip(sums) {
        for (place, sum) in S::as_mut_simd_f32s(row).0.iter_mut().zip(sums) {
            *place = if set { sum } else { simd.add_f32s(*place, sum) };
        }
    }
}

/// A block without special instructions.
fn plain(a: &LeftOperand<'_>, b: &[f32], pitch: usize, width: usize, block: &mut [f32]) {
    block.fill(0.0);
    let depth = a.depth(FEW);
    let lanes = |step: usize| -> [f32; FEW] {
        match *a {
            LeftOperand::Packed(a) => std::array::from_fn(|lane| a[step * FEW + lane]),
            LeftOperand::Gathered { values, places, lanes } => {
                std::array::from_fn(|lane| values[places[step] as usize + lanes[lane]])
            }
        }
    };
    for first in (0..depth).step_by(STEPS) {
        let steps = first..depth.min(first + STEPS);
        for start in (0..width).step_by(PLAIN_LANES) {
            let mut sums = [[0.0_f32; PLAIN_LANES]; FEW];
            for step in steps.clone() {
                for (sums, a) in sums.iter_mut().zip(lanes(step)) {
                    let b = &b[step * pitch + start..step * pitch + width];
                    sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
                }
            }
            for (row, sums) in block.chunks_exact_mut(width).zip(sums) {
                row[start..].iter_mut().zip(sums).for_each(|(place, sum)| *place += sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::archs;

    #[test]
    fn every_kernel_gives_the_sums_of_products() {
        for kernel in archs().into_iter().map(Kernel::with) {
            for (depth, count, pad) in
                [(0, 1, 0), (1, 1, 0), (37, 3, 0), (7, 5, 3), (33, 17, 0), (600, 48, 0), (300, 48, 1)]
            {
                let count = count.min(kernel.columns());
                let (width, pitch) = (kernel.width(count), kernel.width(count) + pad);
                let a: Vec<f32> = (0..depth * kernel.filters()).map(|i| (i % 13) as f32 - 6.0).collect();
                let b: Vec<f32> = (0..depth * pitch).map(|i| (i % 7) as f32 - 3.0).collect();
                let mut block = vec![f32::NAN; kernel.filters() * width];
                // The same weights once more, as one row per filter.
                let transposed: Vec<f32> = (0..depth * kernel.filters())
                    .map(|i| a[i % depth * kernel.filters() + i / depth])
                    .collect();
                let places: Vec<u32> = (0..depth as u32).collect();
                let lanes = std::array::from_fn(|lane| lane.min(kernel.filters() - 1) * depth);
                for a_of in [
                    LeftOperand::Packed(&a),
                    LeftOperand::Gathered { values: &transposed, places: &places, lanes },
                ] {
                    block.fill(f32::NAN);
                    kernel.multiply(&a_of, &b, pitch, width, &mut block);
                    let check = |block: &[f32], columns: usize| {
                        for (i, found) in block.iter().enumerate().filter(|(i, _)| i % width < columns) {
                            let (row, column) = (i / width, i % width);
                            let product = |k| a[k * kernel.filters() + row] * b[k * pitch + column];
                            let exact = (0..depth).map(product).sum::<f32>();
                            assert_eq!(*found, exact, "{kernel:?}, {depth} x {count}");
                        }
                    };
                    check(&block, width);
                    if pitch == width {
                        block.fill(f32::NAN);
                        kernel.multiply_some(&a, &b, width, count, &mut block);
                        check(&block, count);
                    }
                }
            }
        }
    }
}
