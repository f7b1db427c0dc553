//! Rank-k: is there a match among the first k results? Source: the cumulative match characteristic
//! of re-identification (Gray et al., "Evaluating Appearance Models for Recognition, Reacquisition,
//! and Tracking", 2007), with all matches of the gallery counting. Deep metric learning calls the
//! same number Recall@K (Song et al., "Deep Metric Learning via Lifted Structured Feature
//! Embedding", 2016).

use super::MatchRanks;

/// Whether a match is among the first `k` results; the mean over queries is rank-k.
pub fn found_within(ranks: &MatchRanks, k: usize) -> bool {
    ranks.first() <= k
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_match_within_k_is_enough() {
        let ranks = MatchRanks::new(vec![3, 50]).unwrap();
        assert_eq!([1, 2, 3, 100].map(|k| found_within(&ranks, k)), [false, false, true, true]);
    }
}
