//! Per-thread workspace, kept between calls so that a layer does not ask the system for the same
//! pages at every step.

use std::cell::RefCell;

use crate::aligned::Aligned;

thread_local! {
    static FREE: RefCell<Vec<Aligned<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `len` values of unspecified content, which begin with a cache line.
pub(crate) fn with<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let free = FREE.with_borrow_mut(Vec::pop).filter(|buffer| buffer.len() >= len);
    let mut buffer = free.unwrap_or_else(|| Aligned::new(len));
    let result = work(&mut buffer[..len]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}
