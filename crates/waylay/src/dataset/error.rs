//! What can be wrong with a dataset.

use std::path::PathBuf;

use thiserror::Error;

use super::IdxError;
use crate::image::{ImageError, ReadError};

/// A dataset that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The folder does not exist.
    #[error("folder `{}`: does not exist", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The path is a file.
    #[error("`{}`: is a file; need a folder of images", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder or something inside cannot be listed.
    #[error("folder `{}`: cannot be listed", path.display())]
    Unlisted {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: walkdir::Error,
    },
    /// No image anywhere in the folder.
    #[error("folder `{}`: holds no image (PNG, JPEG, PNM, BMP, WebP, TIFF or GIF)", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// An image beside the folders of identities.
    #[error("image `{name}` in `{}`: lies in no identity's folder", path.display())]
    Stray {
        /// The image.
        name: String,
        /// The dataset's folder.
        path: PathBuf,
    },
    /// Too few identities to divide.
    #[error("folder `{}`: {found} identity; need at least 2 to train on one and query another", path.display())]
    FewIdentities {
        /// The dataset's folder.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// An identity whose only image could match nothing.
    #[error("identity `{identity}` in `{}`: 1 image; need at least 2", path.display())]
    Lone {
        /// The identity.
        identity: String,
        /// The dataset's folder.
        path: PathBuf,
    },
    /// Images of different sizes.
    #[error(
        "image `{name}`: {} x {} pixels, but `{first}` has {} x {}; need one size",
        found.0, found.1, expected.0, expected.1
    )]
    MixedSizes {
        /// The first image of the dataset.
        first: String,
        /// Its width and height.
        expected: (usize, usize),
        /// The image that differs.
        name: String,
        /// Its width and height.
        found: (usize, usize),
    },
    /// Queries that would find themselves.
    #[error("folder `{}`: is both query and gallery; a query must not find itself", path.display())]
    SameFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Identities that are trained on and queried.
    #[error(
        "identities trained on and queried: {count} ({examples}); need queries of identities that the generator \
         never saw"
    )]
    Overlap {
        /// How many.
        count: usize,
        /// The first of them.
        examples: String,
    },
    /// Two images that would be written to one file.
    #[error(
        "images `{first}` and `{second}`: differ in their extension only; need names that differ before it"
    )]
    Clash {
        /// One image.
        first: String,
        /// The other.
        second: String,
    },
    /// An image cannot be read.
    #[error(transparent)]
    Image(#[from] ReadError),
    /// An image cannot be brought to the size asked for.
    #[error("image `{name}`: cannot be converted")]
    Convert {
        /// The image.
        name: String,
        /// Why.
        source: ImageError,
    },
    /// Images were asked for where there are none.
    #[error("0 images to load; need at least 1")]
    Nothing,
    /// An IDX file cannot be used.
    #[error(transparent)]
    Idx(#[from] IdxError),
}
