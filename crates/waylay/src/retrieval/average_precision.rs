//! Average precision: how high all matches of a query stand. Source: the standard non-interpolated
//! form, as in scikit-learn's `average_precision_score` and torchreid. The Oxford and Paris
//! benchmarks instead take the trapezoidal area under the precision-recall curve (Philbin et al.,
//! 2007), which is a little lower or higher; numbers of the two are not comparable.

use super::MatchRanks;

/// Mean, over the matches, of the precision at the rank of each: above 0, at most 1. The mean over
/// queries is mAP.
pub fn average_precision(ranks: &MatchRanks) -> f64 {
    let precisions =
        ranks.ranks().iter().enumerate().map(|(before, rank)| (before + 1) as f64 / *rank as f64);
    precisions.sum::<f64>() / ranks.count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_averages_the_precision_at_each_match() {
        let ap = |ranks: &[usize]| average_precision(&MatchRanks::new(ranks.to_vec()).unwrap());
        assert_eq!(ap(&[1, 2, 3]), 1.0);
        assert_eq!(ap(&[4]), 0.25);
        assert!((ap(&[1, 4, 6]) - (1.0 + 0.5 + 0.5) / 3.0).abs() < 1e-15);
    }
}
