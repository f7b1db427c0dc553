//! Where a query's matches stand in its ranking: all that the metrics need to know.

/// Most matches for each of which all distances are compared; with more, each distance is looked up
/// among the matches'.
const FEW: usize = 128;

/// Ranks of a query's matches: 1 for the nearest item, ascending, distinct, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchRanks(Vec<usize>);

impl MatchRanks {
    /// Ranks from a list; `None` where it is empty, holds 0, or does not ascend.
    pub fn new(ranks: Vec<usize>) -> Option<Self> {
        let ascends = ranks.windows(2).all(|pair| pair[0] < pair[1]);
        (ascends && ranks.first().is_some_and(|first| *first > 0)).then_some(Self(ranks))
    }

    /// The ranks.
    pub fn ranks(&self) -> &[usize] {
        &self.0
    }

    /// Number of matches; at least 1.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Rank of the nearest match.
    pub fn first(&self) -> usize {
        self.0.first().copied().unwrap_or(usize::MAX)
    }

    /// Rank of the farthest match.
    pub fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(usize::MAX)
    }

    /// Number of matches among the first `k`.
    pub fn within(&self, k: usize) -> usize {
        self.0.partition_point(|rank| *rank <= k)
    }
}

/// How many of `distances` are at most `limit`; counted in 32 bits, as wide as the values.
fn count_at_most(distances: &[f32], limit: f32) -> usize {
    distances.iter().map(|distance| u32::from(*distance <= limit)).sum::<u32>() as usize
}

/// A query's matches: their ranks, `None` without any, and their distances, ascending.
///
/// Where a match and a wrong item are at the same distance, the wrong one comes first: a network
/// that gives every image the same embedding finds nothing. The order among the wrong, or among the
/// matches, changes no rank.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matches {
    pub ranks: Option<MatchRanks>,
    pub distances: Vec<f32>,
}

impl Matches {
    /// From the `distances` of a query to the gallery, without the `excluded` items. Both lists
    /// name gallery items, each at most once and in one of the lists.
    pub fn among(distances: &[f32], matches: &[usize], excluded: &[usize]) -> Self {
        let of = |items: &[usize]| items.iter().map(|item| distances[*item]).collect::<Vec<f32>>();
        let mut nearest = of(matches);
        nearest.sort_unstable_by(f32::total_cmp);
        let farthest = nearest.last().copied().unwrap_or(f32::NEG_INFINITY);
        let within = if nearest.len() <= FEW {
            nearest.iter().map(|limit| count_at_most(distances, *limit)).collect()
        } else {
            let place = |distance: &f32| nearest.partition_point(|d| d < distance);
            counted(nearest.len(), distances.iter().filter(|d| **d <= farthest).map(place))
        };
        Self::counted(nearest, within, &of(excluded))
    }

    /// From the `distances` of the matches, ascending, how many items of the gallery are `within`
    /// each of those, and the distances of the `excluded` items.
    pub fn counted(distances: Vec<f32>, within: Vec<usize>, excluded: &[f32]) -> Self {
        let farthest = distances.last().copied().unwrap_or(f32::NEG_INFINITY);
        // What is not wrong is taken off again.
        let others = distances.iter().chain(excluded).filter(|d| **d <= farthest);
        let others =
            counted(distances.len(), others.map(|distance| distances.partition_point(|d| d < distance)));
        let wrong = within.into_iter().zip(others).map(|(within, others)| within - others);
        let ranks: Vec<usize> = wrong.enumerate().map(|(matches, wrong)| matches + wrong + 1).collect();
        Self { ranks: (!ranks.is_empty()).then_some(MatchRanks(ranks)), distances }
    }
}

/// How many of `places` are at or before each of `count` places.
fn counted(count: usize, places: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut counts = vec![0; count];
    places.for_each(|place| counts[place] += 1);
    let mut sum = 0;
    counts.iter_mut().for_each(|count| {
        sum += *count;
        *count = sum;
    });
    counts
}

#[cfg(test)]
mod tests {
    use super::{FEW, MatchRanks, Matches};

    #[test]
    fn many_matches_are_ranked_as_few_are() {
        let distances: Vec<f32> = (0..999).map(|i| (i * 7919 % 500) as f32 / 100.0).collect();
        for count in [1, FEW, FEW + 1, 400] {
            let matches: Vec<usize> = (0..count).map(|i| i * 2).collect();
            let excluded: Vec<usize> = (0..50).map(|i| i * 6 + 1).collect();
            let mut order: Vec<usize> = (0..distances.len()).filter(|i| !excluded.contains(i)).collect();
            order.sort_by(|a, b| {
                let wrong = |i: &usize| !matches.contains(i);
                distances[*a].total_cmp(&distances[*b]).then(wrong(b).cmp(&wrong(a)))
            });
            let found = |(place, item): (usize, &usize)| matches.contains(item).then_some(place + 1);
            let expected: Vec<usize> = order.iter().enumerate().filter_map(found).collect();
            let ranks = Matches::among(&distances, &matches, &excluded).ranks.unwrap();
            assert_eq!(ranks.ranks(), expected, "{count}");
        }
    }

    #[test]
    fn ranks_count_what_is_nearer() {
        let distances = [0.5, 0.1, 0.4, 0.2, 0.3];
        let ranks = Matches::among(&distances, &[0, 3], &[]).ranks.unwrap();
        assert_eq!(ranks.ranks(), [2, 5]);
        assert_eq!((ranks.first(), ranks.last(), ranks.within(2), ranks.count()), (2, 5, 1, 2));
    }

    #[test]
    fn junk_images_do_not_count_as_misses() {
        let ranks = Matches::among(&[0.1, 0.2, 0.3, 0.4, 0.3], &[2], &[0, 3, 4]).ranks.unwrap();
        assert_eq!(ranks.ranks(), [2]);
    }

    #[test]
    fn a_wrong_item_at_the_same_distance_comes_first() {
        assert_eq!(Matches::among(&[0.3; 6], &[0, 1], &[]).ranks.unwrap().ranks(), [5, 6]);
        assert_eq!(Matches::among(&[f32::INFINITY; 3], &[0], &[]).ranks.unwrap().ranks(), [3]);
    }

    #[test]
    fn ranks_without_a_match_or_out_of_order_are_none() {
        assert_eq!(Matches::among(&[0.1], &[], &[0]).ranks, None);
        assert!(
            [vec![], vec![0, 1], vec![2, 2], vec![3, 1]].into_iter().all(|r| MatchRanks::new(r).is_none())
        );
        assert!(MatchRanks::new(vec![1, 4]).is_some());
    }
}
