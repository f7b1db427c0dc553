//! The pairs of one query that the bounds leave open.

use super::scan::GROUP_ROWS;

/// The candidates of one query, in the order in which they were found: which row, and the bounds of its distance in the
/// terms of [`scan()`](super::scan()).
#[derive(Clone, Default)]
pub struct Candidates {
    // All three are longer than what is in use, by at least GROUP_ROWS where anything is to be added.
    pub(super) indices: Vec<u32>,
    pub(super) lowers: Vec<f32>,
    pub(super) uppers: Vec<f32>,
    pub(super) length: usize,
}

impl Candidates {
    /// Room for `capacity` candidates.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut candidates = Self::default();
        candidates.grow(capacity);
        candidates
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many more candidates fit.
    pub fn free(&self) -> usize {
        // Vectors are written whole, so one vector's worth stays unused.
        self.indices.len().saturating_sub(self.length + GROUP_ROWS)
    }

    /// Makes the room at least `capacity` candidates in all.
    pub fn grow(&mut self, capacity: usize) {
        let slots = (capacity + GROUP_ROWS).max(self.indices.len());
        // No more than that, as there may be thousands of lists.
        self.indices.reserve_exact(slots - self.indices.len());
        self.lowers.reserve_exact(slots - self.lowers.len());
        self.uppers.reserve_exact(slots - self.uppers.len());
        self.indices.resize(slots, 0);
        self.lowers.resize(slots, 0.0);
        self.uppers.resize(slots, 0.0);
    }

    /// Gives back the room that is not used.
    pub fn shrink(&mut self) {
        self.indices.truncate(self.length);
        self.lowers.truncate(self.length);
        self.uppers.truncate(self.length);
        self.indices.shrink_to_fit();
        self.lowers.shrink_to_fit();
        self.uppers.shrink_to_fit();
    }

    /// Adds the candidates of `other` after those of `self`.
    pub fn append(&mut self, other: &Self) {
        self.grow(self.length + other.length);
        let target = self.length..self.length + other.length;
        self.indices[target.clone()].copy_from_slice(other.indices());
        self.lowers[target.clone()].copy_from_slice(other.lowers());
        self.uppers[target].copy_from_slice(other.uppers());
        self.length += other.length;
    }

    /// Drops all candidates, but not the room for them.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Which rows they are.
    pub fn indices(&self) -> &[u32] {
        &self.indices[..self.length]
    }

    /// Their lower bounds.
    pub fn lowers(&self) -> &[f32] {
        &self.lowers[..self.length]
    }

    /// Their upper bounds.
    pub fn uppers(&self) -> &[f32] {
        &self.uppers[..self.length]
    }

    /// Keeps the candidates whose lower bound is at most `threshold`, in their order.
    pub fn retain(&mut self, threshold: f32) {
        // Every candidate is written, and the next one overwrites it if it was not to be kept.
        let mut kept = 0;
        for place in 0..self.length {
            self.indices[kept] = self.indices[place];
            self.lowers[kept] = self.lowers[place];
            self.uppers[kept] = self.uppers[place];
            kept += usize::from(self.lowers[place] <= threshold);
        }
        self.length = kept;
    }

    pub(super) fn push(&mut self, index: u32, lower: f32, upper: f32) {
        self.indices[self.length] = index;
        self.lowers[self.length] = lower;
        self.uppers[self.length] = upper;
        self.length += 1;
    }
}
