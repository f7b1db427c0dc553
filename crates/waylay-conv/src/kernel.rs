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

/// Steps of the depth for each vector of what is done beside a product.
const SPACING: usize = 2;

/// What a kernel does beside a product, a vector at a time: multiplications keep two pipes busy,
/// and leave most of what a processor can begin in a cycle, and its way to memory.
pub(crate) trait Beside {
    /// Vectors in all.
    fn vectors(&self) -> usize;
    /// Does the next one.
    fn next<S: Simd>(&mut self, simd: S);
}

/// Nothing to do beside a product.
struct Nothing;

impl Beside for Nothing {
    #[inline(always)]
    fn vectors(&self) -> usize {
        0
    }

    #[inline(always)]
    fn next<S: Simd>(&mut self, _: S) {}
}

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

    /// Values of a vector.
    pub fn lanes(self) -> usize {
        self.lanes
    }

    /// Most vectors that are done beside a product of this depth.
    pub fn spare(self, depth: usize) -> usize {
        if matches!(self.arch, Arch::Scalar) { 0 } else { depth.min(STEPS) / SPACING }
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
        self.multiply_beside(a, b, [pitch, width], block, Nothing);
    }

    /// [`Self::multiply`], and all of `beside`, of no more vectors than there are to
    /// [`Self::spare`]; `size` is pitch and width.
    pub fn multiply_beside(
        self,
        a: &LeftOperand<'_>,
        b: &[f32],
        size: [usize; 2],
        block: &mut [f32],
        mut beside: impl Beside,
    ) {
        let [pitch, width] = size;
        let depth = a.depth(self.filters);
        assert!(depth == 0 || b.len() >= (depth - 1) * pitch + width);
        assert!(pitch >= width && block.len() == self.filters * width);
        assert!(beside.vectors() <= self.spare(depth));
        let work = Block { a, b, pitch, block, beside: &mut beside };
        match self.arch {
            Arch::Scalar => plain(a, b, pitch, width, block),
            arch if width == self.lanes => arch.dispatch(Wide::<_, 1>(work)),
            arch if width == 2 * self.lanes => arch.dispatch(Wide::<_, 2>(work)),
            arch => arch.dispatch(Wide::<_, VECTORS>(work)),
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
struct Block<'a, B> {
    // Not a copy, which would be made in larger pieces than it was written in, and wait for all
    // that was stored before.
    a: &'a LeftOperand<'a>,
    b: &'a [f32],
    pitch: usize,
    block: &'a mut [f32],
    beside: &'a mut B,
}

/// A block of `N` vectors' width.
struct Wide<'a, B, const N: usize>(Block<'a, B>);

impl<B: Beside, const N: usize> WithSimd for Wide<'_, B, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 { self.sum::<S, MANY>(simd) } else { self.sum::<S, FEW>(simd) }
    }
}

impl<B: Beside, const N: usize> Wide<'_, B, N> {
    #[inline(always)]
    fn sum<S: Simd, const M: usize>(self, simd: S) {
        let Block { a, b, pitch, block, beside } = self.0;
        if a.depth(M) == 0 {
            block.fill(0.0);
        }
        let b = b.chunks(STEPS * pitch).enumerate();
        match *a {
            LeftOperand::Packed(a) => {
                for (a, (part, b)) in a.chunks(STEPS * M).zip(b) {
                    let a = a.as_chunks::<M>().0.iter().copied();
                    let sums = products::<S, N, M>(simd, a, b, pitch, (part == 0).then_some(&mut *beside));
                    store(simd, sums, part == 0, block);
                }
            }
            LeftOperand::Gathered { values, places, lanes } => {
                for (places, (part, b)) in places.chunks(STEPS).zip(b) {
                    let a = places
                        .iter()
                        .map(|&place| std::array::from_fn(|l| values[place as usize + lanes[l]]));
                    let sums = products::<S, N, M>(simd, a, b, pitch, (part == 0).then_some(&mut *beside));
                    store(simd, sums, part == 0, block);
                }
            }
        }
    }
}

/// Sums over some steps of the depth, `beside` which other things are done.
#[inline(always)]
fn products<S: Simd, const N: usize, const M: usize>(
    simd: S,
    mut a: impl Iterator<Item = [f32; M]>,
    b: &[f32],
    pitch: usize,
    beside: Option<&mut impl Beside>,
) -> [[S::f32s; N]; M] {
    let width = N * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); N]; M];
    let mut step = |b: &[f32], a: [f32; M]| {
        let b = S::as_simd_f32s(b).0;
        for (sums, a) in sums.iter_mut().zip(a) {
            let a = simd.splat_f32s(a);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_f32s(a, *b, *sum);
            }
        }
    };
    let mut done = 0;
    if let Some(beside) = beside {
        done = beside.vectors() * SPACING;
        for b in b.chunks(SPACING * pitch).take(beside.vectors()) {
            for (a, b) in a.by_ref().take(SPACING).zip(b.chunks(pitch)) {
                step(&b[..width], a);
            }
            beside.next(simd);
        }
    }
    let b = b.get(done * pitch..).unwrap_or_default();
    b.chunks(pitch).map(|b| &b[..width]).zip(a).for_each(|(b, a)| step(b, a));
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

    struct Counted<'a> {
        vectors: usize,
        done: &'a mut usize,
    }

    impl Beside for Counted<'_> {
        fn vectors(&self) -> usize {
            self.vectors
        }

        fn next<S: Simd>(&mut self, _: S) {
            *self.done += 1;
        }
    }

    #[test]
    fn every_kernel_gives_the_sums_of_products_and_does_what_is_beside_them() {
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
                    for vectors in [kernel.spare(depth) / 3, kernel.spare(depth)] {
                        block.fill(f32::NAN);
                        let mut done = 0;
                        let beside = Counted { vectors, done: &mut done };
                        kernel.multiply_beside(&a_of, &b, [pitch, width], &mut block, beside);
                        check(&block, width);
                        assert_eq!(done, vectors, "{kernel:?}, {depth} x {count}");
                    }
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
