//! How long-running work says how far it is. The library prints nothing: the caller decides.

/// Receives progress.
pub trait Progress: Sync {
    /// A stage of `steps` steps begins.
    fn begin(&self, stage: &str, steps: usize);
    /// One more step of the current stage is done; `note` is a short state such as a loss, or
    /// empty.
    fn advance(&self, note: &str);
    /// Something is wrong with the current stage that does not end it; nothing where the caller
    /// does not care.
    fn warn(&self, _sentence: &str) {}
    /// The current stage is over.
    fn end(&self);
}

/// Ignores progress.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _stage: &str, _steps: usize) {}
    fn advance(&self, _note: &str) {}
    fn end(&self) {}
}
