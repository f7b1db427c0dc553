//! The point that a gallery is measured from.

use std::borrow::Cow;

use super::Metric;

/// How many rows, spread over the gallery, the centre is taken from.
const SAMPLED_ROWS: usize = 256;
/// The mean is used if it makes the rows shorter by this factor, on average of the sample.
const WORTHWHILE: f64 = 0.97;

/// The mean of a sample of `rows` `[G, dimension]` if the rows lie around it, else the origin. Any point gives right
/// results; a good one makes the rounding errors small.
pub(super) fn centre(rows: &[f32], dimension: usize) -> Vec<f32> {
    let row_count = rows.len() / dimension;
    let sample: Vec<&[f32]> = rows.chunks(dimension).step_by((row_count / SAMPLED_ROWS).max(1)).collect();
    let mut sums = vec![0.0_f64; dimension];
    for row in &sample {
        for (sum, &value) in sums.iter_mut().zip(*row) {
            *sum += f64::from(value);
        }
    }
    let mean: Vec<f32> = sums.iter().map(|sum| (sum / sample.len().max(1) as f64) as f32).collect();
    let origin = vec![0.0; dimension];
    let length = |from: &[f32]| sample.iter().map(|row| distance(row, from)).sum::<f64>();
    if length(&mean) < WORTHWHILE * length(&origin) { mean } else { origin }
}

/// The point that queries are measured from, for a gallery that is from `centre`: for cosine the gallery alone is moved.
pub(super) fn query_centre(centre: &[f32], metric: Metric) -> Cow<'_, [f32]> {
    match metric {
        Metric::Euclidean => Cow::Borrowed(centre),
        Metric::Cosine => Cow::Owned(vec![0.0; centre.len()]),
    }
}

fn distance(row: &[f32], from: &[f32]) -> f64 {
    let differences = row.iter().zip(from).map(|(&a, &b)| f64::from(a) - f64::from(b));
    differences.map(|x| x * x).sum::<f64>().sqrt()
}
