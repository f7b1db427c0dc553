//! Where a model's bytes lie, and how they are read without counting twice.

use std::path::Path;

use prost::bytes::Bytes;
use waylay_conv::MappedFile;

use crate::OnnxError;

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// Bytes hashed between two times that the file's pages are let go.
const PART: usize = 4 << 20;

/// A model's bytes, and the folder where weights beside it may lie.
#[derive(Debug, Default)]
pub(crate) struct Source<'a> {
    pub bytes: Bytes,
    /// None where weights in other files are refused.
    pub folder: Option<&'a Path>,
    map: Option<MappedFile>,
}

impl<'a> Source<'a> {
    /// The file as it lies in the system's cache: weights are copied once, into the tensors that
    /// they become.
    pub fn open(path: &'a Path) -> Result<Self, OnnxError> {
        let fail = |source| OnnxError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        if size > MAX_FILE_BYTES {
            let reason = format!("{size} bytes; at most {MAX_FILE_BYTES} are read");
            return Err(OnnxError::Graph { name: file_name(path), reason });
        }
        let map = MappedFile::whole(&file).map_err(fail)?;
        Ok(Self { bytes: Bytes::from_owner(map.clone()), folder: path.parent(), map: Some(map) })
    }

    /// Bytes in memory; weights in other files are refused.
    pub fn memory(bytes: &[u8]) -> Self {
        Self { bytes: Bytes::copy_from_slice(bytes), ..Self::default() }
    }

    /// Says that what was read so far has been copied: its pages no longer count as this process's
    /// memory.
    pub fn let_go(&self) {
        if let Some(map) = &self.map {
            map.let_go();
        }
    }

    /// Calls `f` with all bytes, part by part.
    pub fn for_each_part(&self, mut f: impl FnMut(&[u8])) {
        for part in self.bytes.chunks(PART) {
            f(part);
            self.let_go();
        }
    }
}

/// The last part of `path`.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
