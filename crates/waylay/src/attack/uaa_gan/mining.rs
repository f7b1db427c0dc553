//! Online mining: which other image x′ of the batch the triplet ⟨x, x̃, x′⟩ compares with.
//! Source: Zhao et al., arXiv:1907.05793, online hard negative mining. Ours: which of the three it is by default.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::target::{Embeddings, Metric};

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

/// d(f_x, f_x′) for every row of `clean`, with x′ chosen by `mining` among the other rows; 0 in a batch of one.
pub fn mine(mining: Mining, metric: Metric, clean: &Embeddings, random: &mut impl Rng) -> Vec<f32> {
    let count = clean.count();
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
    (0..count)
        .map(|i| {
            let others = || (0..count).filter(move |&j| j != i);
            match mining {
                _ if count < 2 => 0.0,
                Mining::Farthest => others().map(|j| distance(i, j)).fold(0.0, f32::max),
                Mining::Nearest => others().map(|j| distance(i, j)).fold(f32::INFINITY, f32::min),
                Mining::Random => {
                    let j = random.random_range(0..count - 1);
                    distance(i, if j < i { j } else { j + 1 })
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Seed;

    fn mined(mining: Mining, metric: Metric) -> Vec<f32> {
        let clean = Embeddings::new(2, vec![1.0, 0.0, 0.0, 2.0, -3.0, 0.0]).unwrap();
        mine(mining, metric, &clean, &mut Seed(0).stream("test"))
    }

    #[test]
    fn farthest_and_nearest_are_those_of_known_points() {
        assert_eq!(mined(Mining::Farthest, Metric::Cosine), [2.0, 1.0, 2.0]);
        assert_eq!(mined(Mining::Nearest, Metric::Cosine), [1.0, 1.0, 1.0]);
        assert_eq!(mined(Mining::Farthest, Metric::Euclidean)[0], 4.0);
    }

    #[test]
    fn random_mining_never_takes_the_image_itself() {
        for seed in 0..50 {
            let clean = Embeddings::new(1, vec![1.0, 2.0, 4.0]).unwrap();
            let mined = mine(Mining::Random, Metric::Euclidean, &clean, &mut Seed(seed).stream("test"));
            assert!(mined.iter().all(|d| *d >= 1.0));
        }
    }

    #[test]
    fn a_batch_of_one_has_no_other_image() {
        let clean = Embeddings::new(2, vec![1.0, 0.0]).unwrap();
        assert_eq!(mine(Mining::Farthest, Metric::Cosine, &clean, &mut Seed(0).stream("x")), [0.0]);
    }
}
