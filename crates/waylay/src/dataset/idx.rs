//! IDX files, gzipped or not, as MNIST and its kin come: a file of images and a file of labels.
//! Source: "The IDX file format", yann.lecun.com/exdb/mnist.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use super::{Item, Source};
use crate::image::Picture;
use crate::image::io::MIN_SIDE;

/// The most pixels of one file, unpacked.
const MAX_BYTES: usize = 1 << 30;

/// Unsigned bytes in three dimensions: count, height, width.
const IMAGES: u32 = 0x0803;

/// Unsigned bytes in one dimension: count.
const LABELS: u32 = 0x0801;

/// An IDX file that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdxError {
    /// The file is missing, not readable, ends within its header, or its gzip stream is corrupt.
    #[error("IDX file `{name}`: cannot be read")]
    Read {
        /// The file.
        name: String,
        /// What the system or the unpacker says.
        source: io::Error,
    },
    /// Not the kind of IDX file that was expected.
    #[error("IDX file `{name}`: begins with {found:#010x}; need {expected:#010x}")]
    Magic {
        /// The file.
        name: String,
        /// Its first four bytes.
        found: u32,
        /// What they should be.
        expected: u32,
    },
    /// No images, or too small ones.
    #[error(
        "IDX file `{name}`: {count} images of {width} x {height} pixels; need at least 1 of {MIN_SIDE} x {MIN_SIDE}"
    )]
    Small {
        /// The file.
        name: String,
        /// Number of images.
        count: usize,
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
    },
    /// More pixels than a gigabyte.
    #[error(
        "IDX file `{name}`: announces {count} items of {each} bytes; need at most {MAX_BYTES} bytes in all"
    )]
    Large {
        /// The file.
        name: String,
        /// Number of images or labels.
        count: usize,
        /// Bytes of one.
        each: usize,
    },
    /// More or fewer bytes than the header announces.
    #[error("IDX file `{name}`: {} than the {expected} bytes its header announces", if *short { "shorter" } else { "longer" })]
    Length {
        /// The file.
        name: String,
        /// Bytes after the header.
        expected: usize,
        /// Whether there are fewer.
        short: bool,
    },
    /// The two files do not belong together.
    #[error("IDX file `{name}`: {labels} labels for {images} images; need one each")]
    Pairs {
        /// The file of labels.
        name: String,
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A label without a class.
    #[error("IDX file `{name}`: label {label} of image {index}; need 0 to {}", classes.saturating_sub(1))]
    Label {
        /// The file of labels.
        name: String,
        /// Which image.
        index: usize,
        /// Its label.
        label: u8,
        /// Number of classes.
        classes: usize,
    },
}

/// The images of a pair of IDX files, in their order; the identity is the label in decimal digits.
/// Names count the images of each label: `7/0000`, `2/0000`, `7/0001`.
pub fn read_idx(images: &Path, labels: &Path) -> Result<Vec<Item>, IdxError> {
    let classes: Vec<String> = (0..=255).map(|label: u8| label.to_string()).collect();
    let classes: Vec<&str> = classes.iter().map(String::as_str).collect();
    let open = |path: &Path| {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok((BufReader::new(file), name)),
            Err(source) => Err(IdxError::Read { name, source }),
        }
    };
    let ((images, images_name), (labels, labels_name)) = (open(images)?, open(labels)?);
    items(images, &images_name, labels, &labels_name, &classes)
}

/// The images of two streams; label `i` is called `classes[i]`.
pub(super) fn items(
    images: impl BufRead,
    images_name: &str,
    labels: impl BufRead,
    labels_name: &str,
    classes: &[&str],
) -> Result<Vec<Item>, IdxError> {
    let pictures = read_images(images, images_name)?;
    let labels = read_labels(labels, labels_name)?;
    let name = || labels_name.to_string();
    if pictures.len() != labels.len() {
        return Err(IdxError::Pairs { name: name(), images: pictures.len(), labels: labels.len() });
    }
    let mut seen = [0usize; 256];
    let mut items = Vec::with_capacity(labels.len());
    for (index, (picture, label)) in pictures.into_iter().zip(labels).enumerate() {
        let Some(class) = classes.get(usize::from(label)) else {
            return Err(IdxError::Label { name: name(), index, label, classes: classes.len() });
        };
        let nth = &mut seen[usize::from(label)];
        items.push(Item {
            name: format!("{class}/{nth:04}"),
            identity: class.to_string(),
            camera: None,
            source: Source::Memory(Arc::new(picture)),
        });
        *nth += 1;
    }
    Ok(items)
}

fn read_images(file: impl BufRead, name: &str) -> Result<Vec<Picture>, IdxError> {
    let mut file = unpacked(file, name)?;
    let [count, height, width] = header(&mut file, name, IMAGES)?;
    if count == 0 || width < MIN_SIDE || height < MIN_SIDE {
        return Err(IdxError::Small { name: name.to_string(), count, width, height });
    }
    let bytes = body(file, name, count, height.saturating_mul(width))?;
    let picture = |bytes: &[u8]| Picture { width, height, channels: 1, bytes: bytes.to_vec() };
    Ok(bytes.chunks_exact(height * width).map(picture).collect())
}

fn read_labels(file: impl BufRead, name: &str) -> Result<Vec<u8>, IdxError> {
    let mut file = unpacked(file, name)?;
    let [count] = header(&mut file, name, LABELS)?;
    body(file, name, count, 1)
}

/// The stream itself, or what it holds if it is gzipped.
fn unpacked<'a>(mut file: impl BufRead + 'a, name: &str) -> Result<Box<dyn Read + 'a>, IdxError> {
    let start = file.fill_buf().map_err(|source| IdxError::Read { name: name.to_string(), source })?;
    let gzipped = start.starts_with(&[0x1f, 0x8b]);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// The dimensions, once the magic number is found right.
fn header<const N: usize>(file: &mut dyn Read, name: &str, expected: u32) -> Result<[usize; N], IdxError> {
    let mut number = || {
        let mut bytes = [0; 4];
        match file.read_exact(&mut bytes) {
            Ok(()) => Ok(u32::from_be_bytes(bytes)),
            Err(source) => Err(IdxError::Read { name: name.to_string(), source }),
        }
    };
    let found = number()?;
    if found != expected {
        return Err(IdxError::Magic { name: name.to_string(), found, expected });
    }
    let mut sizes = [0; N];
    for size in &mut sizes {
        *size = number()? as usize;
    }
    Ok(sizes)
}

/// Exactly `count` x `each` bytes, never reading more than one beyond.
fn body(file: impl Read, name: &str, count: usize, each: usize) -> Result<Vec<u8>, IdxError> {
    let name = || name.to_string();
    let expected = count.saturating_mul(each);
    if expected > MAX_BYTES {
        return Err(IdxError::Large { name: name(), count, each });
    }
    let mut bytes = Vec::new();
    match file.take(expected as u64 + 1).read_to_end(&mut bytes) {
        Ok(found) if found == expected => Ok(bytes),
        Ok(found) => Err(IdxError::Length { name: name(), expected, short: found < expected }),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(IdxError::Length { name: name(), expected, short: true })
        }
        Err(source) => Err(IdxError::Read { name: name(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn file(numbers: &[u32], body: &[u8]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).chain(body.iter().copied()).collect()
    }

    fn images(count: u32, body: usize) -> Vec<u8> {
        let pixels: Vec<u8> = (0..body).map(|i| i as u8).collect();
        file(&[IMAGES, count, 16, 17], &pixels)
    }

    fn read(images: &[u8], labels: &[u8]) -> Result<Vec<Item>, IdxError> {
        items(images, "i", labels, "l", &["zero", "one"])
    }

    fn said(images: &[u8], labels: &[u8]) -> String {
        read(images, labels).unwrap_err().to_string()
    }

    #[test]
    fn images_are_paired_with_labels_gzipped_or_not() {
        let plain = images(3, 3 * 16 * 17);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&plain).unwrap();
        let labels = file(&[LABELS, 3], &[1, 0, 1]);
        for images in [plain, gzip.finish().unwrap()] {
            let items = read(&images, &labels).unwrap();
            let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
            assert_eq!(names, ["one/0000", "zero/0000", "one/0001"]);
            let picture = items[1].read().unwrap();
            assert_eq!((picture.width, picture.height, picture.bytes[0]), (17, 16, (16 * 17 % 256) as u8));
        }
    }

    #[test]
    fn files_that_do_not_hold_what_they_announce_are_errors() {
        let (good, labels) = (images(2, 2 * 16 * 17), file(&[LABELS, 2], &[0, 1]));
        assert_eq!(said(b"", &labels), "IDX file `i`: cannot be read");
        assert_eq!(said(&labels, &labels), "IDX file `i`: begins with 0x00000801; need 0x00000803");
        let short = "IDX file `i`: shorter than the 544 bytes its header announces";
        assert_eq!(said(&images(2, 543), &labels), short);
        assert!(said(&images(2, 545), &labels).contains("longer than the 544 bytes"));
        assert!(said(&images(0, 0), &labels).contains("0 images of 17 x 16 pixels; need at least 1"));
        assert!(said(&file(&[IMAGES, u32::MAX, u32::MAX, u32::MAX], &[]), &labels).contains("need at most"));
        assert!(said(&good, &file(&[LABELS, 1], &[0])).contains("1 labels for 2 images"));
        assert!(said(&good, &file(&[LABELS, 2], &[0, 2])).contains("label 2 of image 1; need 0 to 1"));
        let error = read_idx(Path::new("/no/images"), Path::new("/no/labels")).unwrap_err();
        assert_eq!(error.to_string(), "IDX file `/no/images`: cannot be read");
    }

    #[test]
    fn a_truncated_gzip_is_an_error() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
        gzip.write_all(&images(2, 544)).unwrap();
        let gzip = gzip.finish().unwrap();
        assert!(said(&gzip[..300], &file(&[LABELS, 2], &[0, 1])).contains("shorter than"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), dims in any::<[u32; 3]>()) {
            let _ = read(&bytes, &bytes);
            let _ = read(&file(&[IMAGES, dims[0], dims[1], dims[2]], &bytes), &file(&[LABELS, dims[0]], &bytes));
        }
    }
}
