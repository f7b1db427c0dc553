//! A folder per identity: `DIR/s21/3.pgm` shows `s21`.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;
use walkdir::{DirEntry, WalkDir};

use super::natural::natural_key;
use super::{DatasetError, Item, Source, Split};

/// Extensions, in lower case, of the files that are taken for images.
const EXTENSIONS: [&str; 13] =
    ["png", "jpg", "jpeg", "pgm", "ppm", "pbm", "pnm", "pam", "bmp", "webp", "tif", "tiff", "gif"];

/// Images of every identity that become queries in [`read_data`].
const QUERIES: usize = 2;

/// What is allowed of a folder of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderOptions {
    /// Images of different sizes, all resized to the target's input; an error otherwise. Default
    /// false.
    pub allow_mixed_sizes: bool,
}

/// The dataset in one folder. With folders `query` and `gallery` inside it is read as
/// [`read_split`] does, with `train` where there is one. Otherwise it holds one folder per
/// identity, and is divided the same way every time: the first half of the identities trains the
/// generator, the first two images of each other identity (one, where it has two) are queries, and
/// every image that is no query is in the gallery. Identities and images count in natural order.
/// Needs two identities and two images of each.
pub fn read_data(folder: &Path, options: &FolderOptions) -> Result<Split, DatasetError> {
    let [train, query, gallery] = ["train", "query", "gallery"].map(|role| folder.join(role));
    if query.is_dir() && gallery.is_dir() {
        let train = train.is_dir().then_some(train);
        let split = read_split(&query, &gallery, train.as_deref(), options)?;
        return Ok(Split { name: name_of(folder), ..split });
    }
    let split = divide(read_folder(folder)?, folder)?;
    check_sizes(&split, options)?;
    Ok(split)
}

/// The dataset in separate folders. Queries and gallery hold one folder per identity; the tree of
/// training images is read without labels, but where its first folders bear names of query
/// identities it is an error. Names of items begin with `query/`, `gallery/` and `train/`. A query
/// whose identity is not in the gallery has no match; that is no error.
pub fn read_split(
    query: &Path,
    gallery: &Path,
    train: Option<&Path>,
    options: &FolderOptions,
) -> Result<Split, DatasetError> {
    let split = Split {
        name: name_of(query.parent().filter(|parent| Some(*parent) == gallery.parent()).unwrap_or(gallery)),
        train: train
            .map(read_unlabelled)
            .transpose()?
            .map_or_else(Vec::new, |items| prefixed("train", items)),
        query: prefixed("query", read_folder(query)?),
        gallery: prefixed("gallery", read_folder(gallery)?),
    };
    if query.canonicalize().ok() == gallery.canonicalize().ok() {
        return Err(DatasetError::SameFolder { path: query.to_path_buf() });
    }
    check_overlap(&split)?;
    check_sizes(&split, options)?;
    Ok(split)
}

/// The images in a folder of identities: the first folder below `folder` is the identity, deeper
/// ones do not matter. In natural order; hidden files and files that are not images by their
/// extension are passed over.
pub fn read_folder(folder: &Path) -> Result<Vec<Item>, DatasetError> {
    let items = read_unlabelled(folder)?;
    match items.iter().find(|item| item.identity.is_empty()) {
        Some(stray) => Err(DatasetError::Stray { name: stray.name.clone(), path: folder.to_path_buf() }),
        None => Ok(items),
    }
}

/// The images anywhere below `folder`, in natural order. The identity is the first folder's name,
/// empty for images right in `folder`.
pub fn read_unlabelled(folder: &Path) -> Result<Vec<Item>, DatasetError> {
    let path = || folder.to_path_buf();
    if !folder.exists() {
        return Err(DatasetError::Missing { path: path() });
    }
    if !folder.is_dir() {
        return Err(DatasetError::NotAFolder { path: path() });
    }
    let mut items = Vec::new();
    for entry in WalkDir::new(folder).follow_links(true).into_iter().filter_entry(is_visible) {
        let entry = entry.map_err(|source| DatasetError::Unlisted { path: path(), source })?;
        if entry.file_type().is_file() && is_image(entry.path()) {
            items.push(item(folder, entry.path()));
        }
    }
    if items.is_empty() {
        return Err(DatasetError::Empty { path: path() });
    }
    items.sort_by_cached_key(|item| natural_key(&item.name));
    Ok(items)
}

fn is_visible(entry: &DirEntry) -> bool {
    entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    EXTENSIONS.contains(&extension.as_str())
}

fn item(folder: &Path, path: &Path) -> Item {
    let inside = path.strip_prefix(folder).unwrap_or(path);
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    let identity = if let [first, _, ..] = parts.as_slice() { first.to_string() } else { String::new() };
    Item { name: parts.join("/"), identity, camera: None, source: Source::File(path.to_path_buf()) }
}

/// The name of a folder for people, also of `.`.
fn name_of(folder: &Path) -> String {
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    full.file_name().map_or_else(|| full.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn prefixed(role: &str, mut items: Vec<Item>) -> Vec<Item> {
    items.iter_mut().for_each(|item| item.name = format!("{role}/{}", item.name));
    items
}

/// The fixed division of [`read_data`].
fn divide(items: Vec<Item>, folder: &Path) -> Result<Split, DatasetError> {
    let path = || folder.to_path_buf();
    let identities: Vec<&[Item]> = items.chunk_by(|a, b| a.identity == b.identity).collect();
    if identities.len() < 2 {
        return Err(DatasetError::FewIdentities { path: path(), found: identities.len() });
    }
    if let Some([lone]) = identities.iter().find(|images| images.len() < 2) {
        return Err(DatasetError::Lone { identity: lone.identity.clone(), path: path() });
    }
    let mut split = Split { name: name_of(folder), ..Split::default() };
    let (train, queried) = identities.split_at(identities.len() / 2);
    split.train = train.concat();
    split.gallery = train.concat();
    for images in queried {
        let (query, rest) = images.split_at(QUERIES.min(images.len() - 1));
        split.query.extend_from_slice(query);
        split.gallery.extend_from_slice(rest);
    }
    Ok(split)
}

fn check_overlap(split: &Split) -> Result<(), DatasetError> {
    let trained: BTreeSet<&str> = split.train.iter().map(|item| item.identity.as_str()).collect();
    let queried: BTreeSet<&str> = split.query.iter().map(|item| item.identity.as_str()).collect();
    let both: Vec<&str> = trained.intersection(&queried).copied().collect();
    if both.is_empty() {
        return Ok(());
    }
    let more = if both.len() > 3 { ", …" } else { "" };
    let examples: Vec<String> = both.iter().take(3).map(|identity| format!("`{identity}`")).collect();
    Err(DatasetError::Overlap { count: both.len(), examples: examples.join(", ") + more })
}

/// Reads every header, so that a file that is no image is found before the work begins, and
/// compares the sizes.
fn check_sizes(split: &Split, options: &FolderOptions) -> Result<(), DatasetError> {
    let items: Vec<&Item> = [&split.gallery, &split.query, &split.train].into_iter().flatten().collect();
    let sizes: Vec<Result<(usize, usize), DatasetError>> =
        items.par_iter().map(|item| item.read_size()).collect();
    let mut first: Option<(&Item, (usize, usize))> = None;
    for (item, size) in items.into_iter().zip(sizes) {
        let found = size?;
        let (before, expected) = *first.get_or_insert((item, found));
        if found != expected && !options.allow_mixed_sizes {
            let (first, name) = (before.name.clone(), item.name.clone());
            return Err(DatasetError::MixedSizes { first, expected, name, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::image::Picture;

    /// A folder with an image of `width` x 20 pixels at each of `names`.
    fn folder(names: &[&str], width: usize) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| add(folder.path(), name, width));
        folder
    }

    fn add(folder: &Path, name: &str, width: usize) {
        let picture = Picture { width, height: 20, channels: 1, bytes: vec![7; width * 20] };
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), picture.encode_png().unwrap()).unwrap();
    }

    fn names(items: &[Item]) -> Vec<&str> {
        items.iter().map(|item| item.name.as_str()).collect()
    }

    fn strict(folder: &Path) -> Result<Split, DatasetError> {
        read_data(folder, &FolderOptions::default())
    }

    #[test]
    fn identities_and_images_come_in_natural_order() {
        let folder = folder(&["s10/1.png", "s2/10.png", "s2/9.PNG", "s2/.x.png", ".git/1.png"], 20);
        fs::write(folder.path().join("s2/notes.txt"), "x").unwrap();
        let items = read_folder(folder.path()).unwrap();
        assert_eq!(names(&items), ["s2/9.PNG", "s2/10.png", "s10/1.png"]);
        assert_eq!(items[2].identity, "s10");
        assert_eq!(items[0].read().unwrap().width, 20);
    }

    #[test]
    fn forty_people_of_ten_images_split_as_the_reference_does() {
        let all: Vec<String> =
            (1..=40).flat_map(|s| (1..=10).map(move |m| format!("s{s}/{m}.png"))).collect();
        let folder = folder(&all.iter().map(String::as_str).collect::<Vec<_>>(), 20);
        let split = strict(folder.path()).unwrap();
        assert_eq!((split.train.len(), split.query.len(), split.gallery.len()), (200, 40, 360));
        assert_eq!((names(&split.train)[0], names(&split.train)[199]), ("s1/1.png", "s20/10.png"));
        assert_eq!(names(&split.query)[..3], ["s21/1.png", "s21/2.png", "s22/1.png"]);
        let queried: BTreeSet<&str> = names(&split.query).into_iter().collect();
        assert!(names(&split.gallery).iter().all(|name| !queried.contains(name)));
    }

    #[test]
    fn an_identity_of_two_images_keeps_one_to_be_found() {
        let folder = folder(&["a/1.png", "a/2.png", "b/1.png", "b/2.png"], 20);
        let split = strict(folder.path()).unwrap();
        assert_eq!(names(&split.query), ["b/1.png"]);
        assert_eq!(names(&split.gallery), ["a/1.png", "a/2.png", "b/2.png"]);
    }

    #[test]
    fn folders_for_query_gallery_and_train_are_taken_as_they_are() {
        let data = folder(&["query/b/1.png", "gallery/b/2.png", "gallery/a/1.png", "train/5.png"], 20);
        let split = strict(data.path()).unwrap();
        assert_eq!(names(&split.query), ["query/b/1.png"]);
        assert_eq!(names(&split.gallery), ["gallery/a/1.png", "gallery/b/2.png"]);
        assert_eq!(names(&split.train), ["train/5.png"]);
        assert_eq!((split.query[0].identity.as_str(), split.train[0].identity.as_str()), ("b", ""));
        assert_eq!(split.name, data.path().file_name().unwrap().to_string_lossy());
    }

    #[test]
    fn identities_that_are_trained_on_are_never_queried() {
        let data = folder(&["query/b/1.png", "gallery/b/2.png", "train/b/3.png", "train/c/1.png"], 20);
        let error = strict(data.path()).unwrap_err().to_string();
        assert!(error.starts_with("identities trained on and queried: 1 (`b`); need"), "{error}");
    }

    #[test]
    fn a_query_must_not_find_itself() {
        let data = folder(&["a/1.png"], 20);
        let error = read_split(data.path(), data.path(), None, &FolderOptions::default()).unwrap_err();
        assert!(matches!(error, DatasetError::SameFolder { .. }));
    }

    #[test]
    fn images_of_different_sizes_are_an_error_unless_allowed() {
        let data = folder(&["a/1.png", "a/2.png", "b/1.png", "b/2.png"], 20);
        add(data.path(), "b/3.png", 30);
        let error = strict(data.path()).unwrap_err().to_string();
        let expected = "image `b/3.png`: 30 x 20 pixels, but `a/1.png` has 20 x 20; need one size";
        assert!(error.starts_with(expected), "{error}");
        assert!(read_data(data.path(), &FolderOptions { allow_mixed_sizes: true }).is_ok());
    }

    #[test]
    fn folders_of_no_use_are_errors_of_one_sentence() {
        let said = |result: Result<Split, DatasetError>| result.unwrap_err().to_string();
        let empty = tempfile::tempdir().unwrap();
        assert!(said(strict(&empty.path().join("no"))).ends_with("no`: does not exist"));
        assert!(said(strict(empty.path())).contains("holds no image"));
        fs::write(empty.path().join("file"), "x").unwrap();
        assert!(said(strict(&empty.path().join("file"))).contains("is a file; need a folder"));
        assert!(said(strict(folder(&["1.png"], 20).path())).starts_with("image `1.png` in"));
        assert!(
            said(strict(folder(&["a/1.png", "a/2.png"], 20).path())).contains("1 identity; need at least 2")
        );
        let lone = folder(&["a/1.png", "a/2.png", "b/1.png"], 20);
        let expected = format!("identity `b` in `{}`: 1 image; need at least 2", lone.path().display());
        assert_eq!(said(strict(lone.path())), expected);
    }

    #[test]
    fn a_broken_image_is_found_before_the_work_begins() {
        let data = folder(&["a/1.png", "a/2.png", "b/1.png", "b/2.png"], 20);
        fs::write(data.path().join("b/3.pgm"), b"P5\n0 0\n255\n").unwrap();
        let error = strict(data.path()).unwrap_err();
        assert_eq!(error.to_string(), "image `b/3.pgm`: 0 x 0 pixels; need at least 16 x 16");
    }
}
