//! From items to pixels.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{DatasetError, Item, Source};
use crate::image::{ImageBatch, Picture, Resizing};

impl Item {
    /// The picture, decoded where it lies in a file; errors call it by the item's name.
    pub fn read(&self) -> Result<Picture, DatasetError> {
        match &self.source {
            Source::File(path) => Ok(Picture::read_as(path, &self.name)?),
            Source::Memory(picture) => Ok(Picture::clone(picture)),
        }
    }

    /// Width and height, read from the header where the picture lies in a file.
    pub(super) fn read_size(&self) -> Result<(usize, usize), DatasetError> {
        match &self.source {
            Source::File(path) => Ok(Picture::read_size(path, &self.name)?),
            Source::Memory(picture) => Ok((picture.width, picture.height)),
        }
    }
}

/// The images of `items`, in their order, as one batch of `size` = `[C, H, W]`, C being 1 or 3;
/// channels and size are converted, sizes as `resizing` says. Decodes on all threads. The first
/// item that fails is the error.
pub fn load(items: &[Item], size: [usize; 3], resizing: Resizing) -> Result<ImageBatch, DatasetError> {
    let one = |item: &Item| {
        let named = |source| DatasetError::Convert { name: item.name.clone(), source };
        item.read()?.to_pixels(size, resizing).map_err(named)
    };
    let images: Vec<Result<Vec<f32>, DatasetError>> = items.par_iter().map(one).collect();
    let Some(last) = items.last() else {
        return Err(DatasetError::Nothing);
    };
    let mut pixels = Vec::with_capacity(items.len() * size.iter().product::<usize>());
    for image in images {
        pixels.extend(image?);
    }
    ImageBatch::new([items.len(), size[0], size[1], size[2]], pixels)
        .map_err(|source| DatasetError::Convert { name: last.name.clone(), source })
}

/// The names of `items` with `.png` for their extension, as adversarial images are saved; an error
/// where two would be one file.
pub fn png_names(items: &[Item]) -> Result<Vec<String>, DatasetError> {
    let mut taken = HashMap::new();
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let name = png_name(&item.name);
        if let Some(first) = taken.insert(name.clone(), &item.name) {
            return Err(DatasetError::Clash { first: first.clone(), second: item.name.clone() });
        }
        names.push(name);
    }
    Ok(names)
}

fn png_name(name: &str) -> String {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].rfind('.') {
        Some(dot) if dot > 0 => format!("{}.png", &name[..file + dot]),
        _ => format!("{name}.png"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn item(name: &str, source: Source) -> Item {
        Item { name: name.into(), identity: "a".into(), camera: None, source }
    }

    fn gray(level: u8) -> Source {
        Source::Memory(Arc::new(Picture { width: 16, height: 16, channels: 1, bytes: vec![level; 256] }))
    }

    #[test]
    fn images_come_in_the_order_of_the_items() {
        let items: Vec<Item> = (0..40).map(|i| item(&format!("{i}"), gray(i))).collect();
        let batch = load(&items, [3, 16, 16], Resizing::default()).unwrap();
        assert_eq!(batch.shape(), [40, 3, 16, 16]);
        assert!((0..40).all(|i| batch.image(i).iter().all(|&v| v == i as f32 / 255.0)));
    }

    #[test]
    fn an_image_that_fails_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.png");
        std::fs::write(&path, b"\x89PNG\r\n\x1a\nnonsense").unwrap();
        let error = load(
            &[item("a", gray(0)), item("s1/bad.png", Source::File(path))],
            [1, 16, 16],
            Resizing::default(),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "image `s1/bad.png`: corrupt or truncated");
        let error = load(&[item("a", gray(0))], [2, 16, 16], Resizing::default()).unwrap_err();
        assert_eq!(error.to_string(), "image `a`: cannot be converted");
        assert_eq!(
            load(&[], [1, 16, 16], Resizing::default()).unwrap_err().to_string(),
            "0 images to load; need at least 1"
        );
    }

    #[test]
    fn saved_names_end_in_png_and_never_clash() {
        let names = ["s1/1.pgm", "s1.x/2", "s1/.hidden", "s1/a.b.jpg"].map(|name| item(name, gray(0)));
        assert_eq!(png_names(&names).unwrap(), ["s1/1.png", "s1.x/2.png", "s1/.hidden.png", "s1/a.b.png"]);
        let error = png_names(&["s1/1.pgm", "s1/1.jpg"].map(|name| item(name, gray(0)))).unwrap_err();
        assert!(error.to_string().starts_with("images `s1/1.pgm` and `s1/1.jpg`: differ in"), "{error}");
    }
}
