//! Among how many threads a layer is divided.

use std::cell::Cell;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work`, which is one of many tasks: there is enough to do for the other threads. Layers in it are divided no further than
/// one thread likes best; what they give are the same bits.
pub fn undivided<R>(work: impl FnOnce() -> R) -> R {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _before = Before(ALONE.replace(true));
    work()
}

/// Threads that the layer at hand is for.
pub(crate) fn count() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undivided_work_ends_with_its_task() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| {
            undivided(|| {
                undivided(|| assert_eq!(count(), 1));
                assert_eq!(count(), 1);
            });
            let failed = std::panic::catch_unwind(|| undivided(|| panic!("as planned")));
            assert!(failed.is_err() && count() == 3);
        });
    }
}
