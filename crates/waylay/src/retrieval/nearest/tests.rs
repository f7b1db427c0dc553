//! Both methods must give, bit for bit, what sorting all distances gives.

use waylay_conv::nearest::ROWS_AT_ONCE;

use super::super::ranking::Matches;
use super::super::search::comparable;
use super::super::{Relevance, distances, evaluate, top_k};
use super::*;
use crate::target::Embeddings;

const METRICS: [Metric; 2] = [Metric::Cosine, Metric::Euclidean];
const METHODS: [Method; 2] = [Method::Filter, Method::Exhaustive];

/// Reproducible numbers: roughly normal, or whole.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed >> 40) as f32 / (1 << 24) as f32
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (0..4).map(|_| self.next() - 0.5).sum()).collect()
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() * end as f32) as usize
    }

    fn power_of_ten(&mut self, span: i32) -> f32 {
        10_f32.powi(self.below(2 * span as usize + 1) as i32 - span)
    }
}

fn sorted(search: &Search<'_>, queries: &[f32]) -> Vec<Vec<Hit>> {
    let nearest = |query| {
        let distance = |index| search.distances(query, [index; ROWS_AT_ONCE])[0];
        let mut hits: Vec<Hit> =
            (0..search.gallery.row_count()).map(|index| Hit { index, distance: distance(index) }).collect();
        hits.sort();
        hits.truncate(search.k);
        hits
    };
    queries.par_chunks(search.gallery.dimension).map(nearest).collect()
}

/// Compares both methods on `queries` and `rows`, for cosine after normalising them.
fn check(what: &str, queries: &[f32], rows: &[f32], dimension: usize, k: usize) {
    for metric in METRICS {
        let embeddings = |values: &[f32]| Embeddings::new(dimension, values.to_vec()).unwrap();
        let (queries, rows) = (embeddings(queries), embeddings(rows));
        let (queries, rows) = (comparable(&queries, metric), comparable(&rows, metric));
        let mut expected = None;
        for method in METHODS {
            let gallery = Gallery::new(&rows, dimension, method);
            let k = k.min(gallery.row_count());
            let search = Search { gallery: &gallery, metric, k, allowed: usize::MAX };
            let expected = expected.get_or_insert_with(|| sorted(&search, &queries));
            let found: Vec<_> = search.run(&queries).0.into_iter().flatten().collect();
            assert!(found == *expected, "{what}: {metric} {method:?}, {dimension} dimensions, k = {k}");
        }
        check_matches(what, &queries, &rows, dimension, metric);
    }
}

/// Compares the ranks and distances of some items as matches with those among all distances.
fn check_matches(what: &str, queries: &[f32], rows: &[f32], dimension: usize, metric: Metric) {
    let (query_count, row_count) = (queries.len() / dimension, rows.len() / dimension);
    let mut random = Random(row_count as u64);
    let known: Vec<[Vec<usize>; 2]> = (0..query_count)
        .map(|query| {
            let mut items: Vec<usize> = (0..query % 9).map(|_| random.below(row_count)).collect();
            items.sort_unstable();
            items.dedup();
            let excluded = items.split_off(items.len() * 2 / 3);
            [items, excluded]
        })
        .collect();
    let known = |query: usize| known[query].each_ref().map(Vec::as_slice);
    let search = matches::Search { gallery: Gallery::centred(rows, dimension), metric, known };
    let all: Vec<usize> = (0..row_count).collect();
    let found = search.batch(0, queries);
    assert_eq!(found.len(), query_count);
    for (index, (query, found)) in queries.chunks(dimension).zip(found).enumerate() {
        let [items, excluded] = known(index);
        let mut distances = Vec::with_capacity(row_count);
        search.gallery.measure(metric, query, &all, |_, distance| distances.push(distance));
        let expected = Matches::among(&distances, items, excluded);
        // Given up is only what leaves much open.
        let found = found.unwrap_or_else(|| {
            assert!(row_count > 4096, "{what}: query {index} was given up");
            expected.clone()
        });
        assert!(found == expected, "{what}: {metric}, {dimension} dimensions: {found:?} {expected:?}");
    }
}

#[test]
fn an_evaluation_by_bounds_gives_the_ranks_of_all_distances() {
    let (dimension, people) = (512, 300);
    let mut random = Random(9);
    let centres = random.values(people * dimension);
    let mut images = |count: usize| {
        let noise = random.values(count * dimension);
        let pairs = noise.iter().enumerate();
        Embeddings::new(dimension, pairs.map(|(i, noise)| centres[i % centres.len()] + noise).collect())
            .unwrap()
    };
    let (queries, gallery) = (images(130), images(9000));
    let named = |count: usize| (0..count).map(|i| (i % people).to_string()).collect::<Vec<_>>();
    let cameras = |count: usize| (0..count).map(|i| Some((i / people % 5) as u32)).collect::<Vec<_>>();
    let relevance =
        Relevance::with_cameras(&named(130), &cameras(130), &named(9000), &cameras(9000)).unwrap();
    let known = |query: usize| [relevance.matches(query), relevance.excluded(query)];
    for metric in METRICS {
        let values = |embeddings| comparable(embeddings, metric);
        let found = matches(&values(&queries), &values(&gallery), dimension, metric, known);
        assert!(
            found.iter().all(|found| found.is_some() == is_accelerated()),
            "{metric}: a query was given up"
        );
        let (evaluation, distances) = (
            evaluate(&queries, &gallery, &relevance, metric).unwrap(),
            distances(&queries, &gallery, metric).unwrap(),
        );
        for (query, found) in evaluation.per_query.iter().enumerate() {
            let [items, excluded] = known(query);
            let expected = Matches::among(distances.row(query), items, excluded);
            assert_eq!(found.ranks, expected.ranks, "{metric}, query {query}");
        }
    }
}

#[test]
fn both_methods_find_what_sorting_all_distances_finds() {
    let mut random = Random(1);
    for dimension in [1, 2, 5, 31, 32, 33, 129, 512] {
        for (queries, rows, k) in [(1, 1, 1), (1, 7, 10), (7, 65, 1), (70, 1000, 10), (20, 3001, 100)] {
            let (queries, rows) = (random.values(queries * dimension), random.values(rows * dimension));
            check("random", &queries, &rows, dimension, k);
        }
    }
}

#[test]
fn galleries_larger_than_a_pool_are_searched_completely() {
    let mut random = Random(2);
    let (queries, rows) = (random.values(20 * 24), random.values(40_000 * 24));
    check("many rows", &queries, &rows, 24, 3);
    check("many rows", &queries, &rows, 24, 700);
}

#[test]
fn the_longest_rows_are_searched_completely() {
    let mut random = Random(3);
    for dimension in [4099, LARGEST_DIMENSION] {
        let (queries, rows) = (random.values(5 * dimension), random.values(70 * dimension));
        check("long rows", &queries, &rows, dimension, 4);
    }
}

#[test]
fn equal_distances_go_to_the_lower_index() {
    let mut random = Random(4);
    let few = random.values(30 * 17);
    let repeated: Vec<f32> = (0..5000).flat_map(|_| few[random.below(30) * 17..][..17].to_vec()).collect();
    check("repeated rows", &few, &repeated, 17, 50);
    check("one row", &few, &few[..17].repeat(6000), 17, 7);
    let whole: Vec<f32> = (0..4000 * 3).map(|_| random.below(5) as f32 - 2.0).collect();
    check("whole numbers", &whole[..90], &whole, 3, 20);
}

#[test]
fn near_duplicates_are_told_apart() {
    let mut random = Random(5);
    let centres = random.values(3 * 40);
    for noise in [1e-1, 1e-3, 1e-6, 1e-7] {
        let mut near = |count: usize| -> Vec<f32> {
            (0..count * 40).map(|i| centres[i % centres.len()] + noise * (random.next() - 0.5)).collect()
        };
        let (queries, rows) = (near(120), near(6000));
        check("near duplicates", &queries, &rows, 40, 11);
        check("the gallery itself", &rows[..20 * 40], &rows, 40, 1);
    }
}

#[test]
fn rows_far_from_the_origin_or_from_each_other_are_found() {
    let mut random = Random(13);
    for (dimension, offset) in [(40, 3.0), (40, 100.0), (7, 1e5), (200, -1e7)] {
        let mut values = |count: usize| -> Vec<f32> {
            random.values(count * dimension).iter().map(|x| x + offset).collect()
        };
        let (queries, rows) = (values(13), values(4000));
        check("far from the origin", &queries, &rows, dimension, 11);
        let near: Vec<f32> = queries.iter().map(|x| x - offset).collect();
        check("gallery far from the queries", &near, &rows, dimension, 11);
        check("queries far from the gallery", &rows[..13 * dimension], &near, dimension, 11);
    }
}

#[test]
fn rows_of_zeros_are_found() {
    let mut random = Random(6);
    let (mut queries, mut rows) = (random.values(8 * 9), random.values(2000 * 9));
    queries[..2 * 9].fill(0.0);
    queries[2 * 9..3 * 9].fill(-0.0);
    rows.chunks_mut(9).step_by(3).for_each(|row| row.fill(0.0));
    check("zero rows", &queries, &rows, 9, 900);
    check("all zero", &queries, &vec![0.0; 3000 * 9], 9, 5);
}

#[test]
fn rows_of_any_harmless_magnitude_are_found() {
    let mut random = Random(7);
    for dimension in [3, 35, 130] {
        let (queries, rows) = (random.values(9 * dimension), random.values(1500 * dimension));
        let scaled = |rows: &[f32], scale: f32| -> Vec<f32> { rows.iter().map(|x| x * scale).collect() };
        for (left, right) in [
            (1e-44, 1e-44),
            (1e-38, 1e-38),
            (1e-30, 1e-30),
            (1e-22, 1e-22),
            (1e-19, 1e-19),
            (1e-16, 1e-16),
            (1e-10, 1e-10),
            (4e8, 4e8),
            (1e-20, 1e8),
            (1e8, 1e-20),
            (1e-3, 1e3),
            (1e3, 1e-3),
            (1e-40, 1.0),
            (1.0, 1e-40),
        ] {
            let what = format!("magnitudes {left:e} and {right:e}");
            check(&what, &scaled(&queries, left), &scaled(&rows, right), dimension, 12);
        }
    }
}

#[test]
fn rows_of_mixed_magnitudes_are_found() {
    let mut random = Random(8);
    for (dimension, span) in [(20, 3), (20, 8), (77, 8), (300, 2)] {
        let mut by_rows = |count: usize| -> Vec<f32> {
            let mut rows = random.values(count * dimension);
            for row in rows.chunks_mut(dimension) {
                let scale = random.power_of_ten(span);
                row.iter_mut().for_each(|x| *x *= scale);
            }
            rows
        };
        check("scales by row", &by_rows(14), &by_rows(2500), dimension, 30);
        let mut by_values = |count: usize| -> Vec<f32> {
            let values = random.values(count * dimension);
            values.into_iter().map(|x| x * random.power_of_ten(span)).collect()
        };
        check("scales by value", &by_values(14), &by_values(2500), dimension, 30);
    }
}

#[test]
fn the_number_of_threads_changes_no_result() {
    let mut random = Random(9);
    let (queries, rows) = (random.values(150 * 33), random.values(20_000 * 33));
    let run = |threads: usize, queries: &[f32], method: Method| {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        threads.install(|| {
            let gallery = Gallery::new(&rows, 33, method);
            Search { gallery: &gallery, metric: Metric::Euclidean, k: 20, allowed: usize::MAX }.run(queries).0
        })
    };
    for count in [1, 40, 150] {
        let queries = &queries[..count * 33];
        let expected = run(1, queries, Method::Exhaustive);
        for threads in [1, 2, 3, 8] {
            for method in METHODS {
                assert!(run(threads, queries, method) == expected, "{count} {threads} {method:?}");
            }
        }
    }
}

/// Queries and a gallery that are worth a filter.
fn embeddings(seed: u64) -> (Embeddings, Embeddings) {
    let mut random = Random(seed);
    let mut embeddings = |count: usize| Embeddings::new(256, random.values(count * 256)).unwrap();
    (embeddings(500), embeddings(4500))
}

fn is_filtered(queries: &[f32], rows: &[f32]) -> bool {
    super::top_k(queries, rows, 256, 10, Metric::Euclidean).iter().all(Option::is_some)
}

#[test]
fn hits_are_at_the_distances_of_the_matrix_products_to_within_rounding() {
    let (queries, gallery) = embeddings(10);
    let few = Embeddings::new(256, queries.values()[..7 * 256].to_vec()).unwrap();
    assert_eq!(is_filtered(queries.values(), gallery.values()), is_accelerated());
    assert!(is_filtered(few.values(), gallery.values()));
    for (queries, metric) in [&queries, &few].into_iter().flat_map(|q| METRICS.map(|metric| (q, metric))) {
        let all = distances(queries, &gallery, metric).unwrap();
        for (query, hits) in top_k(queries, &gallery, 10, metric).unwrap().iter().enumerate() {
            let mut sorted = all.row(query).to_vec();
            sorted.sort_by(f32::total_cmp);
            assert_eq!(hits.len(), 10);
            for (hit, sorted) in hits.iter().zip(sorted) {
                assert!((hit.distance - all.row(query)[hit.index]).abs() < 5e-6, "{metric} {query}");
                assert!((hit.distance - sorted).abs() < 5e-6, "{metric} {query}");
            }
        }
    }
}

#[test]
fn queries_that_a_filter_leaves_too_much_for_are_left_to_the_matrix_products() {
    let mut random = Random(11);
    let queries = Embeddings::new(64, random.values(500 * 64)).unwrap();
    let mut values = random.values(20_000 * 64);
    // Every other item lies where the first query is.
    for row in values.chunks_exact_mut(64).step_by(2) {
        row.copy_from_slice(queries.row(0));
    }
    // With more threads, each would meet fewer of them.
    let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let found = threads.install(|| super::top_k(queries.values(), &values, 64, 10, Metric::Euclidean));
    assert!(found[0].is_none());
    assert_eq!(found[1].is_some(), is_accelerated());

    let gallery = Embeddings::new(64, values).unwrap();
    let found = threads.install(|| top_k(&queries, &gallery, 10, Metric::Euclidean)).unwrap();
    let indices = |hits: &[Hit]| hits.iter().map(|hit| hit.index).collect::<Vec<usize>>();
    assert_eq!(indices(&found[0]), (0..20).step_by(2).collect::<Vec<usize>>());
    let all = distances(&queries, &gallery, Metric::Euclidean).unwrap();
    for (query, hits) in found.iter().enumerate() {
        let nearer = all.row(query).iter().filter(|&&distance| distance < hits[9].distance - 1e-5).count();
        assert!(nearer < 10, "{query}");
    }
}

#[test]
fn numbers_near_the_ends_of_f32_are_left_to_the_matrix_products() {
    let (queries, gallery) = embeddings(12);
    for scale in [1e-30, 1e30] {
        let scaled =
            |embeddings: &Embeddings| -> Vec<f32> { embeddings.values().iter().map(|x| x * scale).collect() };
        assert!(!is_filtered(&scaled(&queries), &scaled(&gallery)));
        assert!(!is_filtered(&scaled(&queries)[..256], &scaled(&gallery)));
    }
}
