//! Image files in and out: decoded to 8 bits within limits, written as lossless PNG.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageReader, Limits};
use thiserror::Error;

use super::{ImageBatch, ImageError, jpeg};
use crate::output::{WriteError, write_atomic};

/// The fewest pixels across and down of an image file.
pub const MIN_SIDE: usize = 16;

/// The most pixels of an image file, checked from its header before anything is decoded.
pub const MAX_PIXELS: usize = 100_000_000;

/// The most bytes of an image file, and about the most memory that decoding one may take.
const MAX_BYTES: u64 = 1 << 30;

/// An image file that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file is missing or not readable.
    #[error("image `{name}`: cannot be read")]
    File {
        /// The image.
        name: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is empty, or too long to be an image within limits.
    #[error("image `{name}`: {bytes} bytes; need an image file of 1 to {MAX_BYTES} bytes")]
    Length {
        /// The image.
        name: String,
        /// Length of the file.
        bytes: u64,
    },
    /// The first bytes belong to no known format.
    #[error("image `{name}`: unknown format; need PNG, JPEG, PNM, BMP, WebP, TIFF or GIF")]
    Format {
        /// The image.
        name: String,
    },
    /// Fewer pixels than [`MIN_SIDE`] across or down.
    #[error("image `{name}`: {width} x {height} pixels; need at least {MIN_SIDE} x {MIN_SIDE}")]
    Small {
        /// The image.
        name: String,
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
    },
    /// More pixels than [`MAX_PIXELS`].
    #[error("image `{name}`: {width} x {height} pixels; need at most {} megapixels", MAX_PIXELS / 1_000_000)]
    Large {
        /// The image.
        name: String,
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
    },
    /// The bytes do not follow the format, or end early.
    #[error("image `{name}`: corrupt or truncated")]
    Corrupt {
        /// The image.
        name: String,
        /// What the decoder says.
        source: image::ImageError,
    },
}

/// An image that cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageWriteError {
    /// The picture contradicts itself.
    #[error(transparent)]
    Picture(#[from] ImageError),
    /// The encoder failed.
    #[error("image of {width} x {height} pixels: cannot be encoded as PNG")]
    Encode {
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// What the encoder says.
        source: image::ImageError,
    },
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] WriteError),
}

/// A decoded 8-bit image, gray or RGB, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// 1 (gray) or 3 (RGB).
    pub channels: usize,
    /// `height * width * channels` bytes, interleaved.
    pub bytes: Vec<u8>,
}

impl Picture {
    /// The image in the file at `path`, read as [`Picture::decode`] does and named by the path in
    /// errors.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::read_as(path, &path.display().to_string())
    }

    /// The image in an encoded file held in memory; `name` stands for it in errors.
    ///
    /// Gray stays one channel, everything else becomes RGB. Alpha is dropped, not blended, and the
    /// EXIF orientation is not applied, as in Pillow's `open` and `convert("RGB")`. 16-bit and
    /// float samples are rounded to 8 bits; of an animation, the first frame counts. At least 16 x
    /// 16 and at most 100 megapixels.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self, ReadError> {
        decode(Cursor::new(bytes), name)
    }

    /// The image as an 8-bit PNG file, gray or RGB: what [`Picture::decode`] turns back into the
    /// same picture.
    pub fn encode_png(&self) -> Result<Vec<u8>, ImageWriteError> {
        self.check()?;
        let color = if self.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let mut file = Vec::new();
        PngEncoder::new_with_quality(&mut file, CompressionType::Default, FilterType::Adaptive)
            .write_image(&self.bytes, self.width as u32, self.height as u32, color)
            .map_err(|source| ImageWriteError::Encode { width: self.width, height: self.height, source })?;
        Ok(file)
    }

    /// The image in the file at `path`, called `name` in errors.
    pub(crate) fn read_as(path: &Path, name: &str) -> Result<Self, ReadError> {
        decode(open(path, name)?, name)
    }

    /// `(width, height)` of the file at `path` from its header, within the limits of
    /// [`Picture::decode`].
    pub(crate) fn read_size(path: &Path, name: &str) -> Result<(usize, usize), ReadError> {
        let mut file = open(path, name)?;
        check_length(&mut file, name)?;
        let decoder = decoder(file, name)?;
        let (width, height) = decoder.dimensions();
        Ok((width as usize, height as usize))
    }
}

/// Writes image `index` of `batch` to `path` as lossless 8-bit PNG, whole or not at all. Pixels are
/// rounded to k/255. Panics where `index` is not below the batch's count.
pub fn write_png(path: &Path, batch: &ImageBatch, index: usize) -> Result<(), ImageWriteError> {
    Ok(write_atomic(path, &Picture::from_batch(batch, index).encode_png()?)?)
}

/// The file at `path`, found to have a plausible length.
fn open(path: &Path, name: &str) -> Result<BufReader<File>, ReadError> {
    let fail = |source| ReadError::File { name: name.to_string(), source };
    let file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_dir() {
        return Err(fail(std::io::ErrorKind::IsADirectory.into()));
    }
    Ok(BufReader::new(file))
}

fn decode(mut file: impl BufRead + Seek, name: &str) -> Result<Picture, ReadError> {
    check_length(&mut file, name)?;
    let whole = is_whole(&mut file).map_err(|source| ReadError::File { name: name.to_string(), source })?;
    let decoder = decoder(file, name)?;
    if !whole {
        let end = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no end-of-image marker");
        return Err(ReadError::Corrupt { name: name.to_string(), source: end.into() });
    }
    let image = DynamicImage::from_decoder(decoder)
        .map_err(|source| ReadError::Corrupt { name: name.to_string(), source })?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    if image.color().has_color() {
        Ok(Picture { width, height, channels: 3, bytes: image.into_rgb8().into_raw() })
    } else {
        Ok(Picture { width, height, channels: 1, bytes: image.into_luma8().into_raw() })
    }
}

fn check_length(file: &mut impl Seek, name: &str) -> Result<(), ReadError> {
    let length = file.seek(SeekFrom::End(0)).and_then(|bytes| file.rewind().map(|()| bytes));
    match length {
        Ok(1..=MAX_BYTES) => Ok(()),
        Ok(bytes) => Err(ReadError::Length { name: name.to_string(), bytes }),
        Err(source) => Err(ReadError::File { name: name.to_string(), source }),
    }
}

/// Whether the file, if a JPEG, reaches its end: the decoder paints what is missing gray and says
/// nothing.
fn is_whole(file: &mut (impl BufRead + Seek)) -> std::io::Result<bool> {
    if !file.fill_buf()?.starts_with(&[0xff, 0xd8, 0xff]) {
        return Ok(true);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    file.rewind()?;
    Ok(jpeg::has_end(&bytes))
}

/// A decoder that has read the header and found the size within limits.
fn decoder<'a>(mut file: impl BufRead + Seek + 'a, name: &str) -> Result<impl ImageDecoder + 'a, ReadError> {
    let name = || name.to_string();
    let io = |source| ReadError::File { name: name(), source };
    if let Some((width, height)) = png_size(&mut file).map_err(io)?
        && (width == 0 || height == 0)
    {
        return Err(ReadError::Small { name: name(), width, height });
    }
    let mut reader = ImageReader::new(file).with_guessed_format().map_err(io)?;
    if reader.format().is_none() {
        return Err(ReadError::Format { name: name() });
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|source| ReadError::Corrupt { name: name(), source })?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    if width < MIN_SIDE || height < MIN_SIDE {
        return Err(ReadError::Small { name: name(), width, height });
    }
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(ReadError::Large { name: name(), width, height });
    }
    Ok(decoder)
}

/// `(width, height)` in the header of a PNG, `None` for other files. The decoder calls an empty
/// image merely corrupt.
fn png_size(file: &mut (impl BufRead + Seek)) -> std::io::Result<Option<(usize, usize)>> {
    let mut start = Vec::with_capacity(24);
    file.by_ref().take(24).read_to_end(&mut start)?;
    file.rewind()?;
    let Some((signature, size)) = start.split_at_checked(16) else { return Ok(None) };
    if size.len() != 8 || !signature.starts_with(b"\x89PNG\r\n\x1a\n") || !signature.ends_with(b"IHDR") {
        return Ok(None);
    }
    let big_endian = |bytes: &[u8]| bytes.iter().fold(0, |value, &byte| value << 8 | usize::from(byte));
    Ok(Some((big_endian(&size[..4]), big_endian(&size[4..]))))
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use proptest::prelude::*;

    use super::*;

    /// A picture of smooth, uneven content.
    fn picture(width: usize, height: usize, channels: usize) -> Picture {
        let bytes = (0..width * height * channels).map(|i| (i * i / 7 + i * 3) as u8).collect();
        Picture { width, height, channels, bytes }
    }

    /// One sentence of the error and of its causes.
    fn said(result: Result<Picture, ReadError>) -> String {
        let error = result.map(|picture| picture.bytes.len()).unwrap_err();
        match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn a_gray_pgm_decodes_to_one_channel() {
        let mut file = b"P5\n16 17\n255\n".to_vec();
        file.extend((0..16 * 17).map(|i| i as u8));
        let decoded = Picture::decode(&file, "a.pgm").unwrap();
        assert_eq!((decoded.width, decoded.height, decoded.channels), (16, 17, 1));
        assert_eq!(decoded.bytes, file[file.len() - 16 * 17..]);
    }

    #[test]
    fn sixteen_bits_become_eight() {
        let mut file = b"P5\n16 16\n65535\n".to_vec();
        file.extend((0..256u16).flat_map(|i| (i * 257).to_be_bytes()));
        let decoded = Picture::decode(&file, "a.pgm").unwrap();
        assert_eq!(decoded.bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn alpha_is_dropped_not_blended() {
        let mut file = Vec::new();
        let rgba: Vec<u8> = [200, 100, 50, 0].repeat(16 * 16);
        PngEncoder::new(&mut file).write_image(&rgba, 16, 16, ExtendedColorType::Rgba8).unwrap();
        let decoded = Picture::decode(&file, "a.png").unwrap();
        assert_eq!(decoded.bytes, [200, 100, 50].repeat(16 * 16));
        let mut file = Vec::new();
        PngEncoder::new(&mut file).write_image(&[9, 0].repeat(256), 16, 16, ExtendedColorType::La8).unwrap();
        let decoded = Picture::decode(&file, "a.png").unwrap();
        assert_eq!((decoded.channels, decoded.bytes), (1, vec![9; 256]));
    }

    #[test]
    fn an_image_without_pixels_is_called_so() {
        let expected = "image `s21/3.pgm`: 0 x 0 pixels; need at least 16 x 16";
        assert_eq!(said(Picture::decode(b"P5\n0 0\n255\n", "s21/3.pgm")), expected);
        let mut png = picture(16, 16, 1).encode_png().unwrap();
        png[16..24].fill(0);
        assert_eq!(said(Picture::decode(&png, "s21/3.pgm")), expected);
    }

    #[test]
    fn a_small_image_is_refused() {
        let png = picture(40, 15, 3).encode_png().unwrap();
        assert_eq!(said(Picture::decode(&png, "a")), "image `a`: 40 x 15 pixels; need at least 16 x 16");
    }

    #[test]
    fn a_gigantic_image_is_refused_from_its_header() {
        let file = b"P6\n100000 100000\n255\n\0\0\0";
        let expected = "image `a`: 100000 x 100000 pixels; need at most 100 megapixels";
        assert_eq!(said(Picture::decode(file, "a")), expected);
        let mut png = picture(16, 16, 1).encode_png().unwrap();
        png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        assert!(Picture::decode(&png, "a").is_err());
    }

    #[test]
    fn bytes_that_are_no_image_are_refused() {
        assert!(said(Picture::decode(b"", "a")).starts_with("image `a`: 0 bytes; need"));
        assert!(
            said(Picture::decode(b"hello, world", "a")).starts_with("image `a`: unknown format; need PNG")
        );
        let missing = said(Picture::read(Path::new("/no/such.png")));
        assert!(missing.starts_with("image `/no/such.png`: cannot be read: "), "{missing}");
        assert!(Picture::read(&std::env::temp_dir()).is_err());
    }

    #[test]
    fn a_truncated_file_is_refused() {
        let whole = picture(64, 64, 3);
        let mut jpeg = Vec::new();
        JpegEncoder::new(&mut jpeg).encode(&whole.bytes, 64, 64, ExtendedColorType::Rgb8).unwrap();
        let mut pnm = b"P6\n64 64\n255\n".to_vec();
        pnm.extend(&whole.bytes);
        for (format, file) in [("png", whole.encode_png().unwrap()), ("jpeg", jpeg), ("pnm", pnm)] {
            assert!(Picture::decode(&file, format).is_ok(), "{format}");
            let half = said(Picture::decode(&file[..file.len() / 2], format));
            assert!(half.starts_with(&format!("image `{format}`: corrupt or truncated: ")), "{half}");
        }
    }

    #[test]
    fn a_picture_that_contradicts_itself_is_not_encoded() {
        let wrong = Picture { bytes: vec![0; 5], ..picture(16, 16, 1) };
        assert!(matches!(wrong.encode_png(), Err(ImageWriteError::Picture(ImageError::Count { .. }))));
        let wrong = Picture { channels: 2, ..picture(16, 16, 1) };
        assert!(matches!(
            wrong.encode_png(),
            Err(ImageWriteError::Picture(ImageError::Channels { found: 2 }))
        ));
    }

    #[test]
    fn a_written_png_reads_back_as_the_same_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let batch =
            ImageBatch::from_pictures(&[picture(20, 17, 3), picture(20, 17, 3)], [3, 17, 20]).unwrap();
        write_png(&path, &batch, 1).unwrap();
        let read = ImageBatch::from_pictures(&[Picture::read(&path).unwrap()], [3, 17, 20]).unwrap();
        assert_eq!(read.image(0), batch.image(1));
        assert_eq!(Picture::read_size(&path, "a").unwrap(), (20, 17));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn decoding_undoes_encoding(
            (width, height, channels, bytes) in (16usize..40, 16usize..40, prop_oneof![Just(1usize), Just(3)])
                .prop_flat_map(|(w, h, c)| (Just(w), Just(h), Just(c), prop::collection::vec(any::<u8>(), w * h * c)))
        ) {
            let picture = Picture { width, height, channels, bytes };
            prop_assert_eq!(Picture::decode(&picture.encode_png().unwrap(), "x").unwrap(), picture);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(magic in 0usize..8, mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let start: [&[u8]; 8] = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"P5\n", b"BM", b"RIFF", b"II*\0", b"GIF89a"];
            bytes.splice(0..0, start[magic].iter().copied());
            let _ = Picture::decode(&bytes, "x");
        }
    }
}
