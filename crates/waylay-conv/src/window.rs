//! Shared mutable access to disjoint parts of one buffer, for several threads.

use std::marker::PhantomData;

use rayon::prelude::*;

/// A buffer that tasks write to at places that never overlap.
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: `Shared` hands out parts only through `window`, whose callers promise that parts in use
// at the same time do not overlap; `f32` may be written from any thread.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub fn new(buffer: &'a mut [f32]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// Rows of `columns` values, `stride` apart, from `start` on. Panics if they leave the buffer.
    ///
    /// # Safety
    /// While the window lives, no other window may hold any of its values.
    pub unsafe fn window(&self, start: usize, rows: usize, columns: usize, stride: usize) -> Window<'_> {
        assert_inside(self.len, start, rows, columns, stride);
        // SAFETY: `start` is at most `len`, as just checked.
        let start = unsafe { self.start.add(start) };
        Window { start, rows, columns, stride, buffer: PhantomData }
    }

    /// `len` values from `start` on. Panics if they leave the buffer.
    ///
    /// # Safety
    /// While the slice lives, nobody else may use any of its values.
    #[allow(clippy::mut_from_ref, reason = "whose values are used at the same time is what callers promise")]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [f32] {
        assert_inside(self.len, start, 1, len, len);
        // SAFETY: the values lie inside the buffer, and the caller promises that they are borrowed
        // exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// `len` values of unspecified content: clearing them takes a tenth of OSNet x0.25's forward pass.
#[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
fn unspecified(len: usize) -> Vec<f32> {
    let mut values = Vec::<f32>::with_capacity(len);
    // SAFETY: the assembly is empty. It gets the address of the values and may, as far as the
    // compiler can know, write all of them, so that it must take them for initialised: what it may
    // be thought to write are the bytes that lie there, every pattern of which is an `f32`. (An
    // allocator that purges pages lazily may let an unwritten value read differently twice: callers
    // write all that they read.) There is room for `len` values.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) values.as_mut_ptr(), options(nostack, preserves_flags));
        values.set_len(len);
    }
    values
}

/// `len` values of unspecified content.
#[cfg(not(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn unspecified(len: usize) -> Vec<f32> {
    vec![0.0; len]
}

/// `len` values, of unspecified content but where `fill` writes.
pub(crate) fn written(len: usize, fill: impl FnOnce(&Shared<'_>)) -> Vec<f32> {
    let mut values = unspecified(len);
    fill(&Shared::new(&mut values));
    values
}

/// `len` values, of unspecified content but where `fill` writes: it gets a part of `chunk` values
/// at a time, the parts divided among the threads.
pub(crate) fn written_in_parts(
    len: usize,
    chunk: usize,
    fill: impl Fn(usize, &mut [f32]) + Sync + Send,
) -> Vec<f32> {
    let mut values = unspecified(len);
    values.par_chunks_mut(chunk.max(1)).enumerate().for_each(|(index, part)| fill(index, part));
    values
}

/// A matrix inside a buffer, exclusively borrowed: its rows are contiguous and a fixed distance
/// apart.
pub(crate) struct Window<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

impl<'a> Window<'a> {
    /// All of `buffer` as rows of `columns` values.
    pub fn of(buffer: &'a mut [f32], columns: usize) -> Self {
        let rows = buffer.len().checked_div(columns).unwrap_or(0);
        Self { start: buffer.as_mut_ptr(), rows, columns, stride: columns, buffer: PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn stride(&self) -> usize {
        self.stride
    }

    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.start
    }

    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: rows lie inside the buffer (checked on creation) and are borrowed exclusively
        // through `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }
}

/// Panics unless `rows` rows of `columns` values, `stride` apart, fit between `start` and `len`
/// without overlapping.
pub(crate) fn assert_inside(len: usize, start: usize, rows: usize, columns: usize, stride: usize) {
    let end = if rows == 0 { start } else { start + (rows - 1) * stride + columns };
    assert!(end <= len && (rows <= 1 || columns <= stride), "window leaves its buffer");
}
