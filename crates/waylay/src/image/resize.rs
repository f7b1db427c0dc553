//! Channels and size of a picture, as Pillow changes them. Source: Pillow's `Convert.c` (mode L)
//! and `Resample.c` (bilinear and bicubic, antialiased when they make images smaller);
//! torchvision's `Resize` and `CenterCrop`.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::io::MAX_PIXELS;
use super::{ImageError, Picture};

/// How pixels between pixels are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// A triangle filter: Pillow's `BILINEAR`.
    #[default]
    Bilinear,
    /// Keys' filter with a = −0.5: Pillow's `BICUBIC`.
    Bicubic,
}

/// What happens where a picture has other proportions than the network's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Both sides are resized, each by itself.
    #[default]
    Stretch,
    /// The proportions stay, and the middle is cut out: torchvision's `Resize(n)` and `CenterCrop`.
    Crop,
}

/// How a picture of any size becomes one of the network's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resizing {
    /// How pixels are made.
    pub interpolation: Interpolation,
    /// What happens to the proportions.
    pub fit: Fit,
    /// With [`Fit::Crop`]: pixels of the shorter side before the middle is cut out, as 256 for an
    /// input of 224. Where left out, as few as cover the input.
    pub shorter_side: Option<usize>,
}

impl Picture {
    /// The picture at `width` x `height` pixels, each at least 1, as `resizing` says. Within one
    /// 8-bit level of Pillow and torchvision on Pillow's images. An error where a crop would reach
    /// beyond the picture.
    pub fn fitted(&self, width: usize, height: usize, resizing: Resizing) -> Result<Self, ImageError> {
        self.check()?;
        if resizing.fit == Fit::Stretch {
            return self.resize(width, height, resizing.interpolation);
        }
        let (across, down) = (self.width, self.height);
        let (new_width, new_height) = match resizing.shorter_side {
            Some(side) if across <= down => (side, side * down / across),
            Some(side) => (side * across / down, side),
            // The side that needs the larger factor decides.
            None if width * down >= height * across => (width, (width * down / across).max(height)),
            None => ((height * across / down).max(width), height),
        };
        let too_large = new_width.checked_mul(new_height).is_none_or(|n| n > MAX_PIXELS);
        if new_width < width || new_height < height || too_large {
            return Err(ImageError::Crop { resized: [new_width, new_height], crop: [width, height] });
        }
        let resized = self.resize(new_width, new_height, resizing.interpolation)?;
        // Python rounds halves to even.
        let start = |whole: usize, part: usize| ((whole - part) as f64 / 2.0).round_ties_even() as usize;
        Ok(resized.cut(start(new_width, width), start(new_height, height), width, height))
    }

    /// The part of `width` x `height` pixels from (`left`, `top`) on, which must be inside.
    fn cut(&self, left: usize, top: usize, width: usize, height: usize) -> Self {
        let row = |y: usize| {
            let start = ((top + y) * self.width + left) * self.channels;
            &self.bytes[start..start + width * self.channels]
        };
        let bytes = (0..height).flat_map(row).copied().collect();
        Self { width, height, channels: self.channels, bytes }
    }

    /// The picture with 1 (gray) or 3 (RGB) channels. Gray is repeated; RGB becomes gray by ITU-R
    /// 601-2 in Pillow's integers.
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

    /// The picture resized to `width` x `height` pixels, each at least 1, by a filter that widens
    /// when the picture shrinks. Within one 8-bit level of Pillow's `resize((width, height), …)`.
    pub fn resize(&self, width: usize, height: usize, by: Interpolation) -> Result<Self, ImageError> {
        self.check()?;
        if width == 0 || height == 0 {
            return Err(ImageError::Empty { shape: [1, self.channels, height, width] });
        }
        // Across, then down, with whole levels in between: Pillow's order, which shows where
        // bicubic overshoots.
        let across = if width == self.width { self.clone() } else { self.resample(width, self.height, by)? };
        if height == self.height { Ok(across) } else { across.resample(width, height, by) }
    }

    fn resample(&self, width: usize, height: usize, by: Interpolation) -> Result<Self, ImageError> {
        let kind = if self.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
        let filter = match by {
            Interpolation::Bilinear => FilterType::Bilinear,
            Interpolation::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        let mut resized = Image::new(width as u32, height as u32, kind);
        let done = ImageRef::new(self.width as u32, self.height as u32, &self.bytes, kind)
            .map(|picture| Resizer::new().resize(&picture, &mut resized, &options));
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
        cropped: Vec<Cropped>,
    }

    #[derive(Deserialize)]
    struct Resized {
        from: [usize; 3],
        to: [usize; 2],
        interpolation: Interpolation,
        bytes: Vec<u8>,
    }

    #[derive(Deserialize)]
    struct Cropped {
        from: [usize; 3],
        shorter_side: usize,
        crop: [usize; 2],
        interpolation: Interpolation,
        bytes: Vec<u8>,
    }

    fn check(found: &Picture, wanted: &[u8], what: &str) {
        assert_eq!(found.bytes.len(), wanted.len(), "{what}");
        let gaps = || found.bytes.iter().zip(wanted).map(|(a, b)| a.abs_diff(*b));
        let (worst, off) = (gaps().max().unwrap(), gaps().filter(|g| *g > 0).count());
        assert!(worst <= 1, "{what}: {worst} levels away");
        assert!(off * 20 <= wanted.len(), "{what}: {off} of {} values differ", wanted.len());
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
        assert!(golden.resized.len() >= 40);
        for Resized { from: [width, height, channels], to, interpolation, bytes } in golden.resized {
            let resized = picture(width, height, channels).resize(to[0], to[1], interpolation).unwrap();
            check(&resized, &bytes, &format!("{width} x {height} x {channels} to {to:?}, {interpolation:?}"));
        }
    }

    #[test]
    fn cropping_agrees_with_torchvision_within_one_level() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        assert!(golden.cropped.len() >= 20);
        for Cropped { from: [width, height, channels], shorter_side, crop, interpolation, bytes } in
            golden.cropped
        {
            let resizing = Resizing { interpolation, fit: Fit::Crop, shorter_side: Some(shorter_side) };
            let found = picture(width, height, channels).fitted(crop[0], crop[1], resizing).unwrap();
            check(&found, &bytes, &format!("{width} x {height} by {shorter_side} to {crop:?}"));
            if shorter_side == crop[0].max(crop[1]) && crop[0] == crop[1] {
                let least = Resizing { shorter_side: None, ..resizing };
                assert_eq!(picture(width, height, channels).fitted(crop[0], crop[1], least).unwrap(), found);
            }
        }
    }

    #[test]
    fn a_crop_covers_inputs_of_any_proportions() {
        let crop = Resizing { fit: Fit::Crop, ..Resizing::default() };
        for (width, height) in [(33, 97), (97, 33), (64, 64), (50, 100), (101, 50)] {
            for (across, down) in [(16, 32), (32, 16), (24, 24), (1, 60)] {
                let found = picture(width, height, 3).fitted(across, down, crop).unwrap();
                assert_eq!((found.width, found.height), (across, down));
            }
        }
        let small = Resizing { shorter_side: Some(20), ..crop };
        let error = picture(40, 40, 1).fitted(24, 24, small).unwrap_err().to_string();
        assert!(error.contains("20 x 20"), "{error}");
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
        assert!(matches!(
            picture(16, 16, 1).resize(0, 8, Interpolation::Bilinear),
            Err(ImageError::Empty { .. })
        ));
        let wrong = Picture { width: usize::MAX, ..picture(16, 16, 3) };
        assert!(matches!(wrong.resize(8, 8, Interpolation::Bilinear), Err(ImageError::Count { .. })));
    }
}
