//! Between 8-bit pictures and batches of pixels in [0, 1].

use super::{ImageBatch, ImageError, Picture, Resizing};

impl ImageBatch {
    /// `pictures` as one batch of images of `size` = `[C, H, W]`, C being 1 or 3: the channels are
    /// converted first, then the size, as [`Picture::to_channels`] and [`Picture::fitted`] do by
    /// default. Pixels are bytes / 255.
    pub fn from_pictures(pictures: &[Picture], size: [usize; 3]) -> Result<Self, ImageError> {
        let [channels, height, width] = size;
        let mut pixels = Vec::with_capacity(pictures.len() * channels * height * width);
        for picture in pictures {
            pixels.extend(picture.to_pixels(size, Resizing::default())?);
        }
        Self::new([pictures.len(), channels, height, width], pixels)
    }

    /// The batch on the 8-bit grid: every pixel rounded to the nearest k/255.
    pub fn quantised(&self) -> Self {
        let pixels = self.pixels().iter().map(|&pixel| f32::from(to_byte(pixel)) / 255.0).collect();
        // Cannot fail: the shape is the batch's own and k/255 is within [0, 1].
        Self::new(self.shape(), pixels).unwrap_or_else(|_| self.clone())
    }
}

impl Picture {
    /// Image `index` of `batch` in 8 bits, every pixel rounded to the nearest k/255.
    /// Panics where `index` is not below the batch's count.
    pub fn from_batch(batch: &ImageBatch, index: usize) -> Self {
        let [channels, height, width] = batch.size();
        let (planes, area) = (batch.image(index), height * width);
        let bytes =
            (0..area * channels).map(|i| to_byte(planes[i % channels * area + i / channels])).collect();
        Self { width, height, channels, bytes }
    }

    /// The picture as pixels of `size` = `[C, H, W]` in [0, 1], C being 1 or 3, converted and
    /// resized as needed.
    pub fn to_pixels(&self, size: [usize; 3], resizing: Resizing) -> Result<Vec<f32>, ImageError> {
        let [channels, height, width] = size;
        let fitted = self.to_channels(channels)?.fitted(width, height, resizing)?;
        let plane = |channel: usize| fitted.bytes.iter().skip(channel).step_by(channels);
        Ok((0..channels).flat_map(plane).map(|&byte| f32::from(byte) / 255.0).collect())
    }
}

fn to_byte(pixel: f32) -> u8 {
    (pixel * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_of_a_batch_are_planes() {
        let picture = Picture { width: 2, height: 1, channels: 3, bytes: vec![0, 51, 102, 153, 204, 255] };
        let batch = ImageBatch::from_pictures(std::slice::from_ref(&picture), [3, 1, 2]).unwrap();
        assert_eq!(batch.image(0), [0.0, 0.6, 0.2, 0.8, 0.4, 1.0]);
        assert_eq!(Picture::from_batch(&batch, 0), picture);
    }

    #[test]
    fn every_byte_survives_the_way_through_a_batch() {
        let picture = Picture { width: 16, height: 16, channels: 1, bytes: (0..=255).collect() };
        let batch = ImageBatch::from_pictures(std::slice::from_ref(&picture), [1, 16, 16]).unwrap();
        assert_eq!(Picture::from_batch(&batch, 0), picture);
        assert_eq!(batch.quantised(), batch);
    }

    #[test]
    fn quantised_pixels_are_on_the_grid_and_at_most_half_a_step_away() {
        let pixels: Vec<f32> = (0..1000).map(|i| i as f32 / 999.0).collect();
        let batch = ImageBatch::new([1, 1, 1, 1000], pixels).unwrap();
        let quantised = batch.quantised();
        for (before, after) in batch.pixels().iter().zip(quantised.pixels()) {
            assert!((before - after).abs() <= 0.5 / 255.0 + 1e-6);
            assert_eq!(*after, (after * 255.0).round() / 255.0);
        }
    }

    #[test]
    fn pictures_of_no_use_are_errors() {
        assert!(matches!(ImageBatch::from_pictures(&[], [1, 16, 16]), Err(ImageError::Empty { .. })));
        let picture = Picture { width: 2, height: 2, channels: 1, bytes: vec![0; 4] };
        assert!(matches!(
            picture.to_pixels([4, 2, 2], Resizing::default()),
            Err(ImageError::Channels { found: 4 })
        ));
        assert!(matches!(picture.to_pixels([1, 0, 2], Resizing::default()), Err(ImageError::Empty { .. })));
    }
}
