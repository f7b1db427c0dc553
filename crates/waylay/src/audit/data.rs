//! What the report says of the images, the files, and the limits of what was done.

use std::collections::{BTreeMap, BTreeSet};

use super::outcome::{AttackRow, DataFacts, SetFacts};
use super::rows;
use crate::attack::Epsilon;
use crate::attack::uaa_gan::Family;
use crate::dataset::{Item, Split};
use crate::hash::{Hash, sha256};
use crate::image::ImageBatch;
use crate::output::OutputDir;

/// Puts names and pixels of `images` behind what `hash` holds.
pub fn hash_images(hash: &mut Hash, items: &[Item], images: &ImageBatch) {
    for (i, item) in items.iter().enumerate() {
        hash.update((item.name.len() as u64).to_le_bytes());
        hash.update(&item.name);
        let levels: Vec<u8> = images.image(i).iter().map(|v| (v * 255.0).round() as u8).collect();
        hash.update(levels);
    }
}

/// Sizes, identities and hash of the images, of which the gallery's is `gallery`; `trained` says
/// whether the generator was trained on the train set now.
pub fn facts(split: &Split, queries: &ImageBatch, gallery: &str, trained: bool) -> DataFacts {
    let mut hash = Hash::default();
    hash_images(&mut hash, &split.query, queries);
    hash.update(gallery);
    DataFacts {
        name: split.name.clone(),
        train: set(&split.train),
        query: set(&split.query),
        gallery: set(&split.gallery),
        disjoint: disjoint(split, trained),
        sha256: hash.finish(),
    }
}

fn set(items: &[Item]) -> SetFacts {
    let names = identities(items);
    SetFacts { images: items.len(), identities: (!names.is_empty()).then_some(names.len()) }
}

fn identities(items: &[Item]) -> BTreeSet<&str> {
    items.iter().map(|item| item.identity.as_str()).filter(|name| !name.is_empty()).collect()
}

fn disjoint(split: &Split, trained: bool) -> String {
    let (train, query) = (identities(&split.train), identities(&split.query));
    let shared = train.intersection(&query).count();
    match (trained, train.is_empty(), shared) {
        (false, ..) => "No generator was trained in this run.".into(),
        (true, true, _) => {
            "The training images carry no identities, so whether some of them show a queried identity \
                            is not known; their labels are not used."
                .into()
        }
        (true, false, 0) => format!(
            "The generator was trained on images of {} identities, without their labels; none of the {} queried \
             identities is among them.",
            train.len(),
            query.len()
        ),
        (true, false, n) => {
            format!("{n} of the {} queried identities are also in the training images.", query.len())
        }
    }
}

/// SHA-256 of the files that training left beside the report; nothing where this run did not train.
pub fn hashes(out: &OutputDir, trained: &[Family]) -> BTreeMap<String, String> {
    trained
        .iter()
        .flat_map(|family| family.files())
        .filter_map(|name| {
            let bytes = std::fs::read(out.path().join(name)).ok()?;
            Some((name.to_owned(), sha256([bytes])))
        })
        .collect()
}

/// The limits of this audit, one sentence each.
pub fn not_tested(attacks: &[AttackRow], epsilon: Epsilon, quick: bool) -> Vec<String> {
    let mut limits = vec![
        format!(
            "Only changes of at most {}/255 per pixel (L∞) were tried; larger, localised or geometric changes, such as \
             patches, crops and rotations, were not.",
            epsilon.in_255()
        ),
        "Only the query was changed; an attacker who can put images into the gallery was not tried.".into(),
        "Attackers who see nothing but the answers of the system, its scores or its first results, were not tried.".into(),
        "Images were attacked at the target's own input size and saved without loss; recompression and resizing on \
         the way to the system were not tried."
            .into(),
        "One metric, one seed and one split were used; repeat with other seeds to see the spread.".into(),
    ];
    if !attacks.iter().any(|row| row.name == rows::UAA_GAN) {
        limits.push("UAA-GAN, trained to evade as in its paper, was not run.".into());
    }
    if quick {
        limits.push(
            "This was a quick run with few queries and training steps: the numbers are no verdict.".into(),
        );
    }
    limits
}
