//! All metrics of one set of queries in one gallery.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ranking::Matches;
use super::search::matches;
use super::{
    MatchRanks, Relevance, RetrievalError, average_precision, found_within, inverse_negative_penalty,
    recall_at,
};
use crate::embedding::Embeddings;
use crate::embedding::Metric;

/// The k of [`Scores::recall_at`].
const RECALL_AT: [usize; 4] = [1, 5, 10, 100];

/// Means over the queries that have a match in the gallery; fractions in [0, 1], higher is better
/// retrieval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Queries, with or without a match.
    pub queries: usize,
    /// Queries that have no match in the gallery. They are in none of the means.
    pub without_match: usize,
    /// Fraction of the queries whose nearest item is a match.
    pub rank1: f64,
    /// Fraction with a match among the first 5.
    pub rank5: f64,
    /// Fraction with a match among the first 10.
    pub rank10: f64,
    /// Mean average precision.
    pub map: f64,
    /// Mean inverse negative penalty.
    pub minp: f64,
    /// Mean fraction of a query's matches among the first k, by k: `1`, `5`, `10`, `100`.
    pub recall_at: BTreeMap<String, f64>,
}

/// How one query fared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryResult {
    /// Ranks of its matches, 1 for the nearest item; `None` where the gallery holds no match.
    pub ranks: Option<MatchRanks>,
    /// Average precision, above 0 and at most 1.
    pub average_precision: Option<f64>,
    /// Distances to its matches, ascending.
    pub match_distances: Vec<f32>,
}

impl QueryResult {
    /// Rank of the nearest match; 1 is a hit at once.
    pub fn rank_of_first_match(&self) -> Option<usize> {
        self.ranks.as_ref().map(MatchRanks::first)
    }
}

/// The scores, and each query's part in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Means over the queries.
    pub scores: Scores,
    /// One result per query, in their order.
    pub per_query: Vec<QueryResult>,
}

/// How well `queries` find their matches in `gallery`. Excluded items are taken out of the
/// rankings; at equal distances wrong items come before matches, so that the order of the gallery
/// does not matter.
///
/// An error where dimensions or counts disagree, or where no query has a match.
///
/// ```
/// use waylay::prelude::*;
///
/// let query = Embeddings::new(2, vec![1.0, 0.1])?;
/// let gallery = Embeddings::new(2, vec![0.0, 1.0, 1.0, 0.0])?;
/// let relevance = Relevance::by_identity(&["ann"], &["bob", "ann"]);
/// let found = retrieval::evaluate(&query, &gallery, &relevance, Metric::Cosine)?;
/// assert_eq!((found.scores.rank1, found.scores.map), (1.0, 1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn evaluate(
    queries: &Embeddings,
    gallery: &Embeddings,
    relevance: &Relevance,
    metric: Metric,
) -> Result<Evaluation, RetrievalError> {
    for (side, judged, found) in
        [("query", relevance.queries(), queries.count()), ("gallery", relevance.gallery(), gallery.count())]
    {
        if judged != found {
            return Err(RetrievalError::Judged { side, judged, found });
        }
    }
    let matches = matches(queries, gallery, relevance, metric)?;
    let per_query: Vec<QueryResult> = matches
        .into_iter()
        .map(|Matches { ranks, distances }| QueryResult {
            average_precision: ranks.as_ref().map(average_precision),
            ranks,
            match_distances: distances,
        })
        .collect();
    let scores = average(&per_query)?;
    Ok(Evaluation { scores, per_query })
}

fn average(results: &[QueryResult]) -> Result<Scores, RetrievalError> {
    let ranks: Vec<&MatchRanks> = results.iter().filter_map(|result| result.ranks.as_ref()).collect();
    if ranks.is_empty() {
        return Err(RetrievalError::NoMatch { queries: results.len() });
    }
    let mean =
        |of: &dyn Fn(&MatchRanks) -> f64| ranks.iter().map(|r| of(r)).sum::<f64>() / ranks.len() as f64;
    let rank_k = |k: usize| mean(&|ranks| f64::from(u8::from(found_within(ranks, k))));
    Ok(Scores {
        queries: results.len(),
        without_match: results.len() - ranks.len(),
        rank1: rank_k(1),
        rank5: rank_k(5),
        rank10: rank_k(10),
        map: mean(&average_precision),
        minp: mean(&inverse_negative_penalty),
        recall_at: RECALL_AT.iter().map(|k| (k.to_string(), mean(&|ranks| recall_at(ranks, *k)))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{distances, top_k};
    use super::*;
    use proptest::prelude::*;

    /// Made by `scripts/golden/retrieval.py`.
    const GOLDEN: &str = include_str!("../../tests/golden/retrieval/random.json");

    #[derive(Deserialize)]
    struct Golden {
        dim: usize,
        queries: Vec<f32>,
        gallery: Vec<f32>,
        query_identities: Vec<String>,
        gallery_identities: Vec<String>,
        query_cameras: Vec<Option<u32>>,
        gallery_cameras: Vec<Option<u32>>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        metric: Metric,
        cameras: bool,
        scores: Scores,
        average_precision: Vec<Option<f64>>,
        first_match: Vec<Option<usize>>,
        nearest: Vec<Vec<usize>>,
        distances_of_first_query: Vec<f64>,
    }

    fn embeddings(dim: usize, values: &[f32]) -> Embeddings {
        Embeddings::new(dim, values.to_vec()).unwrap()
    }

    #[test]
    fn scores_and_rankings_agree_with_scikit_learn_and_faiss() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        let (queries, gallery) =
            (embeddings(golden.dim, &golden.queries), embeddings(golden.dim, &golden.gallery));
        let close = |a: f64, b: f64, what: &str| assert!((a - b).abs() < 1e-6, "{what}: {a} instead of {b}");
        for case in &golden.cases {
            let (q, g) = (&golden.query_identities, &golden.gallery_identities);
            let relevance = if case.cameras {
                Relevance::with_cameras(q, &golden.query_cameras, g, &golden.gallery_cameras).unwrap()
            } else {
                Relevance::by_identity(q, g)
            };
            let Evaluation { scores, per_query } =
                evaluate(&queries, &gallery, &relevance, case.metric).unwrap();
            let expected = &case.scores;
            assert_eq!((scores.queries, scores.without_match), (expected.queries, expected.without_match));
            close(scores.rank1, expected.rank1, "rank-1");
            close(scores.rank5, expected.rank5, "rank-5");
            close(scores.rank10, expected.rank10, "rank-10");
            close(scores.map, expected.map, "mAP");
            close(scores.minp, expected.minp, "mINP");
            assert!(scores.recall_at.keys().eq(expected.recall_at.keys()));
            for (k, value) in &expected.recall_at {
                close(scores.recall_at[k], *value, "recall");
            }
            for (i, result) in per_query.iter().enumerate() {
                assert_eq!(result.rank_of_first_match(), case.first_match[i]);
                assert_eq!(result.average_precision.is_some(), case.average_precision[i].is_some());
                close(
                    result.average_precision.unwrap_or(0.0),
                    case.average_precision[i].unwrap_or(0.0),
                    "AP",
                );
            }
            let hits = top_k(&queries, &gallery, 10, case.metric).unwrap();
            let found: Vec<Vec<usize>> =
                hits.iter().map(|hits| hits.iter().map(|h| h.index).collect()).collect();
            assert_eq!(found, case.nearest);
            let all = distances(&queries, &gallery, case.metric).unwrap();
            for (distance, expected) in all.row(0).iter().zip(&case.distances_of_first_query) {
                assert!((f64::from(*distance) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_network_that_maps_everything_to_one_point_finds_nothing() {
        let identities: Vec<String> = (0..40).map(|i| (i % 20).to_string()).collect();
        let relevance = Relevance::by_identity(&identities[..7], &identities);
        let point = [0.3, -0.7, 0.1];
        for metric in [Metric::Cosine, Metric::Euclidean] {
            let (queries, gallery) = (embeddings(3, &point.repeat(7)), embeddings(3, &point.repeat(40)));
            let scores = evaluate(&queries, &gallery, &relevance, metric).unwrap().scores;
            assert_eq!((scores.rank1, scores.rank10), (0.0, 0.0));
            assert!((scores.map - (1.0 / 39.0 + 2.0 / 40.0) / 2.0).abs() < 1e-12);
        }
    }

    #[test]
    fn queries_without_a_match_are_counted_but_not_averaged() {
        let gallery = embeddings(1, &[1.0, 2.0]);
        let queries = embeddings(1, &[1.0, 1.0]);
        let relevance = Relevance::by_identity(&["a", "z"], &["a", "b"]);
        let Evaluation { scores, per_query } =
            evaluate(&queries, &gallery, &relevance, Metric::Euclidean).unwrap();
        assert_eq!((scores.queries, scores.without_match, scores.rank1, scores.map), (2, 1, 1.0, 1.0));
        assert_eq!(per_query[1], QueryResult::default());
        let relevance = Relevance::by_identity(&["y", "z"], &["a", "b"]);
        let error = evaluate(&queries, &gallery, &relevance, Metric::Euclidean).unwrap_err();
        assert_eq!(error.to_string(), "none of the 2 queries has a match in the gallery; need at least one");
        let error = evaluate(&gallery, &embeddings(1, &[1.0]), &relevance, Metric::Euclidean).unwrap_err();
        assert_eq!(error.to_string(), "relevance of 2 gallery items for 1 embeddings; need one for each");
    }

    #[test]
    fn an_excluded_query_image_does_not_find_itself() {
        let images = embeddings(1, &[0.0, 0.1, 5.0]);
        let identities = ["a", "b", "a"];
        let relevance =
            Relevance::by_identity(&identities, &identities).excluding((0..3).map(|i| (i, i))).unwrap();
        let scores = evaluate(&images, &images, &relevance, Metric::Euclidean).unwrap().scores;
        assert_eq!((scores.without_match, scores.rank1, scores.map), (1, 0.0, 0.5));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_order_of_the_gallery_changes_no_score(
            values in prop::collection::vec(-2_i8..=2, 2..400),
            labels in prop::collection::vec(0_u8..4, 200),
            order in Just((0..200_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let values: Vec<f32> = values.iter().map(|v| f32::from(*v)).chain([0.5]).collect();
            let (gallery, count) = (&values[..values.len() / 2 * 2], values.len() / 2);
            let identities: Vec<String> = labels[..count].iter().map(u8::to_string).collect();
            let order: Vec<usize> = order.into_iter().filter(|i| *i < count).collect();
            let shuffled: Vec<f32> = order.iter().flat_map(|i| &gallery[2 * i..2 * i + 2]).copied().collect();
            let renamed: Vec<String> = order.iter().map(|i| identities[*i].clone()).collect();
            let queries = embeddings(2, &[1.0, 0.5, -1.0, 2.0, 0.0, 0.0]);
            let asked = ["0", "1", "2"].map(str::to_owned);
            for metric in [Metric::Cosine, Metric::Euclidean] {
                let score = |gallery: &[f32], identities: &[String]| {
                    let relevance = Relevance::by_identity(&asked, identities);
                    evaluate(&queries, &embeddings(2, gallery), &relevance, metric).map(|e| e.scores)
                };
                prop_assert_eq!(score(gallery, &identities), score(&shuffled, &renamed));
            }
        }
    }
}
