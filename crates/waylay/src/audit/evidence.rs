//! What is shown beside the numbers: distance histograms, and queries with their results before and
//! after.

use super::outcome::{AttackRow, Example, Histogram, Hit};
use super::{Audit, AuditError, Evidence, System, rows};
use crate::embedding::Embeddings;
use crate::image::{ImageBatch, Picture};
use crate::retrieval;

/// Bins of a distance histogram.
const BINS: usize = 40;
/// Queries shown: evenly spaced over all, not chosen by result.
const EXAMPLES: usize = 8;
/// Results shown per query.
const TOP: usize = 5;

/// Puts every attack's distances to true matches into bins that all attacks share.
pub(super) fn fill_histograms(rows: &mut [AttackRow], evidence: &[Evidence]) {
    let all = || evidence.iter().flat_map(|e| e.match_distances.iter().copied());
    let (from, to) =
        all().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), d| (low.min(d), high.max(d)));
    if !(from.is_finite() && to.is_finite()) {
        return;
    }
    let (from, to) = (f64::from(from.min(0.0)), f64::from(to.max(from + 1e-6)));
    for (row, of_row) in rows.iter_mut().zip(evidence) {
        let mut counts = vec![0; BINS];
        for d in &of_row.match_distances {
            let bin = (f64::from(*d) - from) / (to - from) * BINS as f64;
            counts[(bin as usize).min(BINS - 1)] += 1;
        }
        row.distances = Histogram { from, to, counts };
    }
}

/// Evenly spaced queries with their nearest gallery items before and after UAA-GAN, or else the
/// strongest attack.
pub(super) fn examples(
    plan: &Audit<'_>,
    queries: &ImageBatch,
    system: &System<'_>,
    clean: &Embeddings,
    rows: &[AttackRow],
    evidence: &[Evidence],
) -> Result<Vec<Example>, AuditError> {
    let name = rows::shown(rows).map_or(rows::CLEAN, |row| row.name.as_str());
    let Some((_, shown)) = rows.iter().zip(evidence).find(|(row, _)| row.name == name) else {
        return Ok(Vec::new());
    };
    let gallery = &system.gallery_embeddings;
    let top = TOP.min(gallery.count());
    let before = retrieval::top_k(clean, gallery, top, plan.metric)?;
    let after = retrieval::top_k(&shown.embeddings, gallery, top, plan.metric)?;
    let amplification = (127.0 / plan.epsilon.in_255()).floor().max(1.0);
    let count = EXAMPLES.min(queries.count());
    let mut examples = Vec::with_capacity(count);
    for i in (0..count).map(|k| k * queries.count() / count) {
        let item = &plan.split.query[i];
        let hits = |found: &[retrieval::Hit]| -> Result<Vec<Hit>, AuditError> {
            let hit = |hit: &retrieval::Hit| {
                let found = &plan.split.gallery[hit.index];
                Ok(Hit {
                    name: found.name.clone(),
                    identity: found.identity.clone(),
                    correct: found.identity == item.identity,
                    distance: f64::from(hit.distance),
                    png: Picture::from_batch(&system.gallery_image(hit.index)?, 0).encode_png()?,
                })
            };
            found.iter().map(hit).collect()
        };
        examples.push(Example {
            query: item.name.clone(),
            identity: item.identity.clone(),
            attack: name.into(),
            query_png: Picture::from_batch(queries, i).encode_png()?,
            adversarial_png: Picture::from_batch(&shown.images, i).encode_png()?,
            perturbation_png: perturbation(queries, &shown.images, i, amplification as f32).encode_png()?,
            amplification,
            before: hits(&before[i])?,
            after: hits(&after[i])?,
        });
    }
    Ok(examples)
}

/// The change of image `i` around mid-gray, times `amplification`.
fn perturbation(clean: &ImageBatch, images: &ImageBatch, i: usize, amplification: f32) -> Picture {
    let [channels, height, width] = clean.size();
    let plane = height * width;
    let (clean, images) = (clean.image(i), images.image(i));
    let bytes = (0..plane * channels)
        .map(|k| {
            let at = (k % channels) * plane + k / channels;
            (127.5 + 255.0 * amplification * (images[at] - clean[at])).round().clamp(0.0, 255.0) as u8
        })
        .collect();
    Picture { width, height, channels, bytes }
}
