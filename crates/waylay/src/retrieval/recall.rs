//! Recall at k: how many of a query's matches are among the first k results. Differs from the
//! Recall@K of deep metric learning, which asks only whether there is any: that is rank-k here
//! ([`super::found_within`]).

use super::MatchRanks;

/// Fraction of the matches that are among the first `k` results, 0 to 1. With more matches than `k`
/// it stays below 1.
pub fn recall_at(ranks: &MatchRanks, k: usize) -> f64 {
    ranks.within(k) as f64 / ranks.count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_every_match() {
        let ranks = MatchRanks::new(vec![1, 5, 6, 90]).unwrap();
        assert_eq!([0, 1, 5, 89, 90].map(|k| recall_at(&ranks, k)), [0.0, 0.25, 0.5, 0.75, 1.0]);
    }
}
