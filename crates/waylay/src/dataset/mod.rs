//! Which images there are, who is on them, and what each is used for. One layout per file.

mod error;
mod folder;
mod idx;
mod load;
mod natural;
mod sample;

use std::path::PathBuf;
use std::sync::Arc;

use crate::image::Picture;

pub use error::DatasetError;
pub use folder::{FolderOptions, read_data, read_folder, read_split, read_unlabelled};
pub use idx::{IdxError, read_idx};
pub use load::{load, png_names};
pub use sample::sample;

/// Where the pixels of an [`Item`] come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file to decode when needed.
    File(PathBuf),
    /// Already decoded: embedded data, IDX files.
    Memory(Arc<Picture>),
}

/// One image of a dataset.
#[derive(Clone, Debug)]
pub struct Item {
    /// Path relative to the dataset's folder with `/` between parts, such as `s21/3.pgm`.
    pub name: String,
    /// Who or what is shown; images of one identity match each other. Empty where nobody said.
    pub identity: String,
    /// Camera that took it, where the layout knows.
    pub camera: Option<u32>,
    /// Where the pixels are.
    pub source: Source,
}

/// A dataset divided by use: images to train the generator on (labels unused), queries, gallery.
#[derive(Clone, Debug, Default)]
pub struct Split {
    /// Name for people, such as `ORL faces` or a folder's name.
    pub name: String,
    /// Images the generator learns from.
    pub train: Vec<Item>,
    /// Images that are searched with, and attacked.
    pub query: Vec<Item>,
    /// Images that are searched.
    pub gallery: Vec<Item>,
}
