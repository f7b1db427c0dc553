//! A batch of images whose pixels are known to be valid.

use burn::tensor::{Device, Tensor, TensorData};
use thiserror::Error;

/// What is wrong with pixels that were offered as an [`ImageBatch`].
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ImageError {
    /// The pixel count does not fit the shape.
    #[error("{found} pixels for a batch of shape {shape:?}; need {expected}")]
    Count {
        /// Batch, channels, height, width.
        shape: [usize; 4],
        /// The product of the shape.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A pixel is outside [0, 1] or not a number.
    #[error("pixel {index} is {value}; pixels are numbers from 0 to 1")]
    Range {
        /// Offset in the flattened batch.
        index: usize,
        /// The value there.
        value: f32,
    },
    /// Batches of different sizes were joined.
    #[error("images of {found:?} (channels, height, width) beside images of {expected:?}; need one size")]
    Mixed {
        /// Size of the first batch.
        expected: [usize; 3],
        /// Size that differs.
        found: [usize; 3],
    },
    /// The middle cannot be cut out of a picture.
    #[error(
        "an image of {} x {} pixels after resizing, of which {} x {} are to be cut out; need no fewer, and at most 100 \
         megapixels", resized[0], resized[1], crop[0], crop[1]
    )]
    Crop {
        /// Width and height after resizing.
        resized: [usize; 2],
        /// Width and height of the part.
        crop: [usize; 2],
    },
    /// A picture is neither gray nor RGB.
    #[error("an image of {found} channels; need 1 (gray) or 3 (RGB)")]
    Channels {
        /// Number of channels.
        found: usize,
    },
    /// A dimension is zero.
    #[error("a batch of shape {shape:?}; every dimension must be at least 1")]
    Empty {
        /// Batch, channels, height, width.
        shape: [usize; 4],
    },
}

/// Images as `f32` in [0, 1], stored `[N, C, H, W]` in row-major order and checked when made.
///
/// ```
/// use waylay::prelude::*;
///
/// let gray = ImageBatch::new([1, 1, 2, 2], vec![0.0, 0.25, 0.5, 1.0])?;
/// assert_eq!(gray.to_tensor(&Device::flex()).dims(), [1, 1, 2, 2]);
/// assert!(ImageBatch::new([1, 1, 1, 1], vec![1.5]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ImageBatch {
    pixels: Vec<f32>,
    shape: [usize; 4],
}

impl ImageBatch {
    /// A batch of `shape` = `[N, C, H, W]`; an error where the count or a value does not fit.
    pub fn new(shape: [usize; 4], pixels: Vec<f32>) -> Result<Self, ImageError> {
        if shape.contains(&0) {
            return Err(ImageError::Empty { shape });
        }
        let expected = shape.iter().product();
        if pixels.len() != expected {
            return Err(ImageError::Count { shape, expected, found: pixels.len() });
        }
        if let Some(index) = pixels.iter().position(|v| !(0.0..=1.0).contains(v)) {
            return Err(ImageError::Range { index, value: pixels[index] });
        }
        Ok(Self { pixels, shape })
    }

    /// `[N, C, H, W]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Number of images; at least 1.
    pub fn count(&self) -> usize {
        self.shape[0]
    }

    /// `[C, H, W]` of every image.
    pub fn size(&self) -> [usize; 3] {
        [self.shape[1], self.shape[2], self.shape[3]]
    }

    /// All pixels, `[N, C, H, W]` row-major.
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// Pixels of image `index`, `[C, H, W]` row-major.
    pub fn image(&self, index: usize) -> &[f32] {
        let len = self.size().iter().product::<usize>();
        &self.pixels[index * len..(index + 1) * len]
    }

    /// The images at `indices`, in that order, repeats allowed.
    pub fn select(&self, indices: &[usize]) -> Self {
        let pixels = indices.iter().flat_map(|&i| self.image(i)).copied().collect();
        Self { pixels, shape: [indices.len(), self.shape[1], self.shape[2], self.shape[3]] }
    }

    /// Consecutive batches of at most `size` images.
    pub fn chunks(&self, size: usize) -> impl Iterator<Item = Self> + '_ {
        (0..self.count()).step_by(size.max(1)).map(move |start| {
            let indices: Vec<usize> = (start..(start + size.max(1)).min(self.count())).collect();
            self.select(&indices)
        })
    }

    /// All images of `batches` in one; an error where their sizes differ or there is none.
    pub fn join(batches: &[Self]) -> Result<Self, ImageError> {
        let Some(first) = batches.first() else {
            return Err(ImageError::Empty { shape: [0; 4] });
        };
        if let Some(other) = batches.iter().find(|b| b.size() != first.size()) {
            return Err(ImageError::Mixed { expected: first.size(), found: other.size() });
        }
        let count = batches.iter().map(Self::count).sum();
        let pixels = batches.iter().flat_map(|b| b.pixels.iter().copied()).collect();
        Ok(Self { pixels, shape: [count, first.shape[1], first.shape[2], first.shape[3]] })
    }

    /// The batch as a tensor on `device`.
    pub fn to_tensor(&self, device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(self.pixels.clone(), self.shape), device)
    }

    /// A batch from a tensor `[N, C, H, W]`; an error where a value is outside [0, 1].
    pub fn from_tensor(tensor: Tensor<4>) -> Result<Self, ImageError> {
        let shape = tensor.dims();
        let pixels = tensor.into_data().iter::<f32>().collect();
        Self::new(shape, pixels)
    }
}
