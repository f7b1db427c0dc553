//! GEMM on sub-matrices of slices: products of matrices by the crate `gemm`.

use crate::window::{Window, assert_inside};

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `columns` contiguous values, `stride` apart, from the beginning of `data`.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert_inside(data.len(), 0, rows, columns, stride);
        Self { data, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The same values with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Sets `target` to `a b`, or adds it where `accumulate`; on the calling thread alone.
pub(crate) fn multiply(target: &mut Window<'_>, accumulate: bool, a: Matrix<'_>, b: Matrix<'_>) {
    assert!(target.rows() == a.rows && target.columns() == b.columns && a.columns == b.rows);
    // SAFETY: `Window` and `Matrix` guarantee that every element addressed lies inside its buffer,
    // `target` is borrowed exclusively, and the shapes were just checked to agree.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            target.as_mut_ptr(),
            1,
            target.stride() as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
