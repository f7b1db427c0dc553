//! From candidates to neighbours, by distances that are summed in a fixed order.

use waylay_conv::nearest::{ROWS_AT_ONCE, dot_products, prefetch, squared_distances};

use super::pool::Pool;
use super::{Gallery, Metric, Search};

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
    pub(super) fn refine(&self, query: &[f32], pool: Pool) -> Vec<u64> {
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
        let [_, farthest] = self.gallery.scan_place(self.metric, query).of(farthest);
        let threshold = farthest + f64::from(pool.query_width);
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
        self.gallery.distances(self.metric, query, rows)
    }

    /// Appends the keys of some rows.
    fn measure(&self, query: &[f32], indices: &[u32], keys: &mut Vec<u64>) {
        let rows: Vec<usize> = indices.iter().map(|&index| index as usize).collect();
        self.gallery
            .measure(self.metric, query, &rows, |place, distance| keys.push(key(distance, rows[place])));
    }
}

impl Gallery<'_> {
    /// The distances between a query and some rows, by index. None is NaN or negative.
    fn distances<const N: usize>(&self, metric: Metric, query: &[f32], rows: [usize; N]) -> [f32; N] {
        let rows = rows.map(|row| self.row(row));
        match metric {
            Metric::Euclidean => squared_distances(query, rows).map(f32::sqrt),
            Metric::Cosine => dot_products(query, rows).map(|product| (1.0 - product).clamp(0.0, 2.0)),
        }
    }

    /// Calls `see` with the place and the distance of each of some rows. Each group of rows is fetched while the one before is
    /// measured.
    pub(super) fn measure(
        &self,
        metric: Metric,
        query: &[f32],
        rows: &[usize],
        mut see: impl FnMut(usize, f32),
    ) {
        let (groups, rest) = rows.as_chunks::<ROWS_AT_ONCE>();
        for (index, group) in groups.iter().enumerate() {
            let next = groups.get(index + 1).map_or(rest, |next| next);
            next.iter().for_each(|&row| prefetch(self.row(row)));
            let found = self.distances(metric, query, *group);
            (index * ROWS_AT_ONCE..).zip(found).for_each(|(place, distance)| see(place, distance));
        }
        let mut see_all =
            |found: &[f32]| (rows.len() - rest.len()..).zip(found).for_each(|(place, d)| see(place, *d));
        match *rest {
            [a, b, c] => see_all(&self.distances(metric, query, [a, b, c])),
            [a, b] => see_all(&self.distances(metric, query, [a, b])),
            [a] => see_all(&self.distances(metric, query, [a])),
            _ => {}
        }
    }

    /// Where distances of a query lie in the terms of the scan.
    pub(super) fn scan_place(&self, metric: Metric, query: &[f32]) -> ScanPlace {
        let pairs = query.iter().zip(self.centre.as_deref().unwrap_or_default());
        let pairs = pairs.map(|(&q, &c)| (f64::from(q), f64::from(c)));
        match metric {
            Metric::Euclidean => {
                let own = pairs.map(|(q, c)| (q - c) * (q - c)).sum();
                ScanPlace { metric, own, magnitude: own }
            }
            Metric::Cosine => {
                let add = |(own, magnitude): (f64, f64), (q, c): (f64, f64)| {
                    (own + q * c, magnitude + (q * c).abs())
                };
                let (own, magnitude) = pairs.fold((0.0, 0.0), add);
                ScanPlace { metric, own, magnitude }
            }
        }
    }
}

/// What makes a distance of a query squared and less `|q - c|²`, respectively less 1 and plus `q · c`.
pub(super) struct ScanPlace {
    metric: Metric,
    own: f64,
    /// The sum of the magnitudes of what `own` is the sum of.
    magnitude: f64,
}

impl ScanPlace {
    /// Bounds of a distance in the terms of the scan: an f64 sum of up to 2^16 terms is off by at most 2^-36 of the sum of their
    /// magnitudes.
    pub(super) fn of(&self, distance: f32) -> [f64; 2] {
        let distance = f64::from(distance);
        let place = match self.metric {
            Metric::Euclidean => distance * distance - self.own,
            Metric::Cosine => distance - 1.0 + self.own,
        };
        let slack = 1e-9 * self.magnitude;
        [place - slack, place + slack]
    }
}
