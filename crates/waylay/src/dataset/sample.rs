//! The embedded sample: a slice of Fashion-MNIST (Zalando, MIT licence), made by
//! `scripts/make_sample.py`.

use super::{DatasetError, Item, Split, idx};

/// What the labels of Fashion-MNIST mean.
const CLASSES: [&str; 10] =
    ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"];

/// The embedded sample: gray images of 28 x 28 pixels. 1,800 training images of six classes; 100
/// queries of the other four; 1,000 gallery images, 100 of each of the ten. Names are like
/// `query/trouser/0007`.
pub fn sample() -> Result<Split, DatasetError> {
    Ok(Split {
        name: "Fashion-MNIST sample".into(),
        train: items(
            "train",
            include_bytes!("../../assets/sample/train-images.idx.gz"),
            include_bytes!("../../assets/sample/train-labels.idx.gz"),
        )?,
        query: items(
            "query",
            include_bytes!("../../assets/sample/query-images.idx.gz"),
            include_bytes!("../../assets/sample/query-labels.idx.gz"),
        )?,
        gallery: items(
            "gallery",
            include_bytes!("../../assets/sample/gallery-images.idx.gz"),
            include_bytes!("../../assets/sample/gallery-labels.idx.gz"),
        )?,
    })
}

fn items(role: &str, images: &[u8], labels: &[u8]) -> Result<Vec<Item>, DatasetError> {
    let mut items = idx::items(images, "sample images", labels, "sample labels", &CLASSES)?;
    items.iter_mut().for_each(|item| item.name = format!("{role}/{}", item.name));
    Ok(items)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::dataset::load;

    fn counts(items: &[Item]) -> BTreeMap<&str, usize> {
        items.iter().fold(BTreeMap::new(), |mut counts, item| {
            *counts.entry(item.identity.as_str()).or_default() += 1;
            counts
        })
    }

    #[test]
    fn the_sample_has_the_classes_and_counts_that_it_announces() {
        let split = sample().unwrap();
        let (train, query, gallery) = (counts(&split.train), counts(&split.query), counts(&split.gallery));
        assert_eq!((train.len(), query.len(), gallery.len()), (6, 4, 10));
        assert!(train.values().all(|&n| n == 300));
        assert!(query.values().all(|&n| n == 25));
        assert!(gallery.values().all(|&n| n == 100));
        assert!(query.keys().all(|class| !train.contains_key(class)));
        assert!(split.query.iter().any(|item| item.name == "query/trouser/0007"));
        assert_eq!(
            load(&split.query, [1, 28, 28], crate::image::Resizing::default()).unwrap().shape(),
            [100, 1, 28, 28]
        );
    }

    #[test]
    fn no_image_of_the_sample_is_used_twice() {
        let split = sample().unwrap();
        let all = [split.train, split.query, split.gallery].concat();
        let distinct: HashSet<Vec<u8>> = all.iter().map(|item| item.read().unwrap().bytes).collect();
        assert_eq!(distinct.len(), all.len());
    }
}
