//! Inverse negative penalty: what it costs to find the hardest match. Source: Ye et al., "Deep
//! Learning for Person Re-identification: A Survey and Outlook", arXiv:2001.04193, mINP.

use super::MatchRanks;

/// Number of matches over the rank of the last one: above 0, and 1 where no wrong item stands
/// before any match. The mean over queries is mINP.
pub fn inverse_negative_penalty(ranks: &MatchRanks) -> f64 {
    ranks.count() as f64 / ranks.last() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hardest_match_and_their_number_count() {
        let inp = |ranks: &[usize]| inverse_negative_penalty(&MatchRanks::new(ranks.to_vec()).unwrap());
        assert_eq!([inp(&[1, 2]), inp(&[1, 8]), inp(&[7, 8])], [1.0, 0.25, 0.25]);
    }
}
