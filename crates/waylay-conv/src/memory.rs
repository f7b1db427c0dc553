//! Keeping freed memory in the process, where the next tensor finds it without asking the system.

/// Tells the C library's allocator to keep memory that is freed instead of returning it to the system; gives whether
/// it agreed. For the whole process; call it once, at the start of a program that trains.
///
/// A tensor of some megabytes is otherwise mapped anew each time it is made, and the system clears each of its pages
/// at first touch, which takes longer than most operations on it. The price is that memory use stays at its peak.
/// Does nothing and gives `false` anywhere but on Linux with glibc.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        /// `M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's `malloc.h`.
        const THRESHOLDS: [c_int; 2] = [-1, -3];
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // SAFETY: glibc declares `int mallopt(int, int)`, which takes its own lock and accepts any value.
        THRESHOLDS.iter().all(|&parameter| unsafe { mallopt(parameter, c_int::MAX) } == 1)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glibc_agrees_to_keep_memory() {
        assert_eq!(keep_freed_memory(), cfg!(all(target_os = "linux", target_env = "gnu")));
    }
}
