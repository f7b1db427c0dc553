//! Channels and size of a picture, as Pillow changes them.
//! Source: Pillow's `Convert.c` (mode L) and `Resample.c` (bilinear, antialiased when it makes images smaller).

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::{ImageError, Picture};

impl Picture {
    /// The picture with 1 (gray) or 3 (RGB) channels. Gray is repeated; RGB becomes gray by ITU-R 601-2 in Pillow's
    /// integers.
    pub fn to_channels(&self, channels: usize) -> Result<Self, ImageError> {
        self.check()?;
        let bytes = match (self.channels, channels) {
            (from, to) if from == to => self.bytes.clone(),
            (1, 3) => self.bytes.iter().flat_map(|&gray| [gray; 3]).collect(),
            (3, 1) => self.bytes.chunks_exact(3).map(luma).collect(),
            _ => return Err(ImageError::Channels { found: channels }),
        };
        Ok(Self { channels, bytes, ..*self })
    }

    /// The picture resized to `width` x `height` pixels, each at least 1, by a triangle filter that widens when the
    /// picture shrinks. Within one 8-bit level of Pillow's `resize((width, height), Image.BILINEAR)`.
    pub fn resize_bilinear(&self, width: usize, height: usize) -> Result<Self, ImageError> {
        self.check()?;
        if width == 0 || height == 0 {
            return Err(ImageError::Empty { shape: [1, self.channels, height, width] });
        }
        if (width, height) == (self.width, self.height) {
            return Ok(self.clone());
        }
        let kind = if self.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
        let bilinear = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let mut resized = Image::new(width as u32, height as u32, kind);
        let done = ImageRef::new(self.width as u32, self.height as u32, &self.bytes, kind)
            .map(|picture| Resizer::new().resize(&picture, &mut resized, &bilinear));
        match done {
            Ok(Ok(())) => Ok(Self { width, height, channels: self.channels, bytes: resized.into_vec() }),
            _ => Err(self.miscount()),
        }
    }

    /// An error where the channels are neither 1 nor 3, a side is zero, or the bytes do not fit.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        if self.channels != 1 && self.channels != 3 {
            return Err(ImageError::Channels { found: self.channels });
        }
        if self.width == 0 || self.height == 0 {
            return Err(ImageError::Empty { shape: [1, self.channels, self.height, self.width] });
        }
        let side = u32::MAX as usize;
        if self.width > side || self.height > side || self.expected() != Some(self.bytes.len()) {
            return Err(self.miscount());
        }
        Ok(())
    }

    fn expected(&self) -> Option<usize> {
        self.width.checked_mul(self.height)?.checked_mul(self.channels)
    }

    fn miscount(&self) -> ImageError {
        ImageError::Count {
            shape: [1, self.channels, self.height, self.width],
            expected: self.expected().unwrap_or(usize::MAX),
            found: self.bytes.len(),
        }
    }
}

fn luma(rgb: &[u8]) -> u8 {
    let weighted = rgb.iter().zip([19595u32, 38470, 7471]).map(|(&value, weight)| u32::from(value) * weight);
    ((weighted.sum::<u32>() + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Made by `scripts/golden/resize.py`.
    const GOLDEN: &str = include_str!("../../tests/golden/resize.json");

    #[derive(Deserialize)]
    struct Golden {
        luma: Vec<u8>,
        resized: Vec<Resized>,
    }

    #[derive(Deserialize)]
    struct Resized {
        from: [usize; 3],
        to: [usize; 2],
        bytes: Vec<u8>,
    }

    /// The picture that the script makes too.
    fn picture(width: usize, height: usize, channels: usize) -> Picture {
        let byte = |i: usize| ((i * i * 31 + i * 97) / 13 % 256) as u8;
        let bytes = (0..width * height * channels).map(byte).collect();
        Picture { width, height, channels, bytes }
    }

    #[test]
    fn resizing_agrees_with_pillow_within_one_level() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        assert!(golden.resized.len() >= 20);
        for Resized { from: [width, height, channels], to, bytes } in golden.resized {
            let resized = picture(width, height, channels).resize_bilinear(to[0], to[1]).unwrap();
            assert_eq!(resized.bytes.len(), bytes.len());
            let worst = resized.bytes.iter().zip(&bytes).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= 1, "{width} x {height} x {channels} to {to:?}: {worst} levels away");
        }
    }

    #[test]
    fn gray_of_rgb_agrees_with_pillow() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(picture(37, 21, 3).to_channels(1).unwrap().bytes, golden.luma);
    }

    #[test]
    fn gray_survives_the_way_through_rgb() {
        let gray = picture(16, 16, 1);
        let rgb = gray.to_channels(3).unwrap();
        assert_eq!(rgb.bytes[3..6], [gray.bytes[1]; 3]);
        assert_eq!(rgb.to_channels(1).unwrap(), gray);
    }

    #[test]
    fn no_size_is_an_error() {
        assert!(matches!(picture(16, 16, 1).resize_bilinear(0, 8), Err(ImageError::Empty { .. })));
        let wrong = Picture { width: usize::MAX, ..picture(16, 16, 3) };
        assert!(matches!(wrong.resize_bilinear(8, 8), Err(ImageError::Count { .. })));
    }
}
