//! Online mining: which other image x′ of the batch the triplet ⟨x, x̃, x′⟩ compares with. Source:
//! Zhao et al., arXiv:1907.05793, online hard negative mining. Ours: which of the three it is by
//! default.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::embedding::{Embeddings, Metric};

/// How x′ is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mining {
    /// The image farthest from x: the hardest triplet, x̃ must go beyond all others.
    #[default]
    Farthest,
    /// The nearest other image.
    Nearest,
    /// Any other image.
    Random,
}

/// The index of x′ for every row of `clean`, chosen by `mining` among the other rows but the one
/// that `blended` names, since part of that image is in x. A row that has no other, as in a batch
/// of one, gets its own index.
pub fn mine(
    mining: Mining,
    metric: Metric,
    clean: &Embeddings,
    blended: &[Option<usize>],
    random: &mut impl Rng,
) -> Vec<usize> {
    let rows = match metric {
        Metric::Cosine => clean.normalised(),
        Metric::Euclidean => clean.clone(),
    };
    let distance = |i: usize, j: usize| -> f32 {
        let pairs = rows.row(i).iter().zip(rows.row(j));
        match metric {
            Metric::Cosine => 1.0 - pairs.map(|(a, b)| a * b).sum::<f32>(),
            Metric::Euclidean => pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt(),
        }
    };
    (0..clean.count())
        .map(|i| {
            let partner = blended.get(i).copied().flatten();
            let others: Vec<usize> = (0..clean.count()).filter(|&j| j != i && Some(j) != partner).collect();
            let by_distance = |a: &&usize, b: &&usize| distance(i, **a).total_cmp(&distance(i, **b));
            let found = match mining {
                Mining::Farthest => others.iter().max_by(by_distance),
                Mining::Nearest => others.iter().min_by(by_distance),
                Mining::Random if others.is_empty() => None,
                Mining::Random => others.get(random.random_range(0..others.len())),
            };
            found.copied().unwrap_or(i)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn mined(mining: Mining, metric: Metric, blended: &[Option<usize>]) -> Vec<usize> {
        let clean = Embeddings::new(2, vec![1.0, 0.0, 0.0, 2.0, -3.0, 0.0]).unwrap();
        mine(mining, metric, &clean, blended, &mut Seed(0).stream("test"))
    }

    #[test]
    fn farthest_and_nearest_are_those_of_known_points() {
        assert_eq!(mined(Mining::Farthest, Metric::Cosine, &[]), [2, 2, 0]);
        assert_eq!(mined(Mining::Nearest, Metric::Cosine, &[]), [1, 0, 1]);
        assert_eq!(mined(Mining::Farthest, Metric::Euclidean, &[])[0], 2);
    }

    #[test]
    fn the_image_that_was_blended_in_is_never_taken() {
        let blended = [Some(2), None, Some(1)];
        assert_eq!(mined(Mining::Farthest, Metric::Cosine, &blended), [1, 2, 0]);
        assert_eq!(mined(Mining::Nearest, Metric::Cosine, &blended), [1, 0, 0]);
        assert_eq!(mined(Mining::Random, Metric::Cosine, &[Some(2), Some(0), Some(1)]), [1, 2, 0]);
    }

    #[test]
    fn random_mining_never_takes_the_image_itself() {
        for seed in 0..50 {
            let clean = Embeddings::new(1, vec![1.0, 2.0, 4.0]).unwrap();
            let mined = mine(Mining::Random, Metric::Euclidean, &clean, &[], &mut Seed(seed).stream("test"));
            assert!(mined.iter().enumerate().all(|(i, j)| i != *j));
        }
    }

    #[test]
    fn a_row_without_another_image_gets_its_own_index() {
        for mining in [Mining::Farthest, Mining::Nearest, Mining::Random] {
            let one = Embeddings::new(2, vec![1.0, 0.0]).unwrap();
            assert_eq!(mine(mining, Metric::Cosine, &one, &[], &mut Seed(0).stream("x")), [0]);
            let two = Embeddings::new(1, vec![1.0, 2.0]).unwrap();
            let found = mine(mining, Metric::Cosine, &two, &[Some(1), None], &mut Seed(0).stream("x"));
            assert_eq!(found, [0, 0]);
        }
    }
}
