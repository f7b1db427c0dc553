//! From candidates to neighbours, by distances that are summed in a fixed order.

use waylay_conv::nearest::{ROWS_AT_ONCE, dot_products, prefetch, squared_distances};

use super::pool::Pool;
use super::{Metric, Search};

/// Distance and index in one number that sorts by distance, then by index.
pub(super) fn key(distance: f32, index: usize) -> u64 {
    let bits = distance.to_bits();
    let sortable = if distance.is_sign_negative() { !bits } else { bits | 1 << 31 };
    u64::from(sortable) << 32 | index as u64
}

/// What [`key`] was made of.
pub(super) fn distance_and_index(key: u64) -> (f32, u32) {
    let sortable = (key >> 32) as u32;
    let bits = if sortable >> 31 == 1 { sortable ^ 1 << 31 } else { !sortable };
    (f32::from_bits(bits), key as u32)
}

/// Leaves the `k` smallest keys, in any order.
pub(super) fn keep_smallest(keys: &mut Vec<u64>, k: usize) {
    if keys.len() > k {
        keys.select_nth_unstable(k - 1);
        keys.truncate(k);
    }
}

impl Search<'_> {
    /// The sorted keys of the nearest candidates. The k that look nearest are measured first; their largest distance rules
    /// out most of the others.
    pub(super) fn refine(&self, query: &[f32], pool: Pool, centre: &[f32]) -> Vec<u64> {
        let candidates = &pool.candidates;
        let bounds = candidates.lowers().iter().zip(candidates.uppers()).enumerate();
        let mut places: Vec<u64> = bounds.map(|(place, (lower, upper))| key(lower + upper, place)).collect();
        if places.len() > self.k {
            places.select_nth_unstable(self.k - 1);
        }
        let place = |key: &u64| distance_and_index(*key).1 as usize;
        let (nearest, others) = places.split_at(self.k.min(places.len()));
        let nearest: Vec<u32> = nearest.iter().map(|key| candidates.indices()[place(key)]).collect();
        let mut keys = Vec::with_capacity(places.len() + ROWS_AT_ONCE);
        self.measure(query, &nearest, &mut keys);
        let farthest = keys.iter().max().map_or(f32::INFINITY, |&key| distance_and_index(key).0);
        let threshold = self.scan_distance(query, farthest, centre) + f64::from(pool.query_width);
        let others: Vec<u32> = others
            .iter()
            .map(place)
            .filter(|&place| f64::from(candidates.lowers()[place]) <= threshold)
            .map(|place| candidates.indices()[place])
            .collect();
        self.measure(query, &others, &mut keys);
        keep_smallest(&mut keys, self.k);
        keys.sort_unstable();
        keys
    }

    /// The distances between a query and some rows, by index. None is NaN or negative.
    pub(super) fn distances(&self, query: &[f32], rows: [usize; ROWS_AT_ONCE]) -> [f32; ROWS_AT_ONCE] {
        let rows = rows.map(|row| self.gallery.row(row));
        match self.metric {
            Metric::Euclidean => squared_distances(query, rows).map(f32::sqrt),
            Metric::Cosine => dot_products(query, rows).map(|product| (1.0 - product).clamp(0.0, 2.0)),
        }
    }

    /// Appends the keys of some rows. Each group of rows is fetched from memory while the one before is measured.
    fn measure(&self, query: &[f32], indices: &[u32], keys: &mut Vec<u64>) {
        let mut groups = indices.chunks(ROWS_AT_ONCE).peekable();
        while let Some(group) = groups.next() {
            for &index in groups.peek().copied().unwrap_or_default() {
                prefetch(self.gallery.row(index as usize));
            }
            // The last group may be short: its first row stands in for the missing ones.
            let rows = std::array::from_fn(|place| *group.get(place).unwrap_or(&group[0]) as usize);
            let found = self.distances(query, rows).into_iter().zip(rows).take(group.len());
            keys.extend(found.map(|(distance, row)| key(distance, row)));
        }
    }

    /// A distance in the terms of the scan: squared and less `|q - c|²`, respectively less 1 and plus `q · c`. Never less than
    /// exact: an f64 sum of up to 2^16 terms is off by at most 2^-36 of the sum of their magnitudes.
    fn scan_distance(&self, query: &[f32], distance: f32, centre: &[f32]) -> f64 {
        let pairs = query.iter().zip(centre).map(|(&q, &c)| (f64::from(q), f64::from(c)));
        let distance = f64::from(distance);
        match self.metric {
            Metric::Euclidean => {
                distance * distance - pairs.map(|(q, c)| (q - c) * (q - c)).sum::<f64>() * (1.0 - 1e-9)
            }
            Metric::Cosine => distance - 1.0 + pairs.map(|(q, c)| q * c + (q * c).abs() * 1e-9).sum::<f64>(),
        }
    }
}
