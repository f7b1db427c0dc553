//! Placeholder: decode, resize, write.

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
