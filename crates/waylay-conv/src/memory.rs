//! Memory through the operating system: freed memory that stays in the process, and memory-mapped
//! files.

use std::fs::File;
use std::io;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

/// Tells the C library's allocator to keep memory that is freed instead of returning it to the
/// system; gives whether it agreed. For the whole process; call it once, at the start of a program
/// that trains.
///
/// A tensor of some megabytes is otherwise mapped anew each time it is made, and the system clears
/// each of its pages at first touch, which takes longer than most operations on it. The price is
/// that memory use stays at its peak. Does nothing and gives `false` anywhere but on Linux with
/// glibc.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        /// `M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's `malloc.h`, out of reach; and
        /// `M_ARENA_MAX`: the arenas that threads otherwise get give whole heaps back, and have no
        /// room for large tensors.
        const SETTINGS: [(c_int, c_int); 3] = [(-1, c_int::MAX), (-3, c_int::MAX), (-8, 1)];
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // SAFETY: glibc declares `int mallopt(int, int)`, which takes its own lock and accepts
        // these values.
        SETTINGS.iter().all(|&(parameter, value)| unsafe { mallopt(parameter, value) } == 1)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Bytes of a file where the system's cache holds them, not copied. Read-only.
///
/// Whoever changes the file meanwhile changes the bytes, and whoever truncates it ends the process
/// at the next access, as with any mapped file: map files that are replaced as a whole, as models
/// are. A clone is the same mapping.
#[derive(Clone, Debug)]
pub struct MappedFile(Arc<Mmap>);

impl MappedFile {
    /// All of `file`; nothing where it is empty.
    ///
    /// # Errors
    /// Where the system does not map it.
    pub fn whole(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private to this type and only read. What another process writes
        // into the file meanwhile is documented above; the bytes are taken for numbers, of which
        // every pattern is one.
        unsafe { Mmap::map(file) }.map(|map| Self(Arc::new(map)))
    }

    /// `length` bytes of `file` from `offset` on; both must lie within it.
    ///
    /// # Errors
    /// Where they do not, or the system does not map them.
    pub fn part(file: &File, offset: u64, length: usize) -> io::Result<Self> {
        let size = file.metadata()?.len();
        if offset.checked_add(length as u64).is_none_or(|end| end > size) {
            let reason = format!("{length} bytes at {offset} of a file of {size} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        // SAFETY: as above.
        unsafe { MmapOptions::new().offset(offset).len(length).map(file) }.map(|map| Self(Arc::new(map)))
    }

    /// Stops counting what was read so far as this process's memory; it is read from the file again
    /// where it is needed again. A hint: does nothing where the system has no such call.
    pub fn let_go(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the mapping is of a file and never written to, so that no page of it holds
            // anything that the file does not: the next access finds the same bytes.
            let advised = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            debug_assert!(advised.is_ok() || self.0.is_empty(), "{advised:?}");
        }
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_mapped_file_reads_as_what_was_written() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(MappedFile::whole(&file).unwrap().as_ref(), b"");
        file.write_all(&[7; 5000]).unwrap();
        file.write_all(b"tail").unwrap();
        assert_eq!(MappedFile::whole(&file).unwrap().as_ref().len(), 5004);
        let whole = MappedFile::whole(&file).unwrap();
        assert_eq!(whole.as_ref()[5001], b'a');
        whole.let_go();
        assert_eq!(whole.clone().as_ref()[4998..], *b"\x07\x07tail");
        assert_eq!(MappedFile::part(&file, 4999, 3).unwrap().as_ref(), b"\x07ta");
        assert!(MappedFile::part(&file, 5000, 5).is_err() && MappedFile::part(&file, u64::MAX, 1).is_err());
    }

    #[test]
    fn glibc_agrees_to_keep_memory() {
        assert_eq!(keep_freed_memory(), cfg!(all(target_os = "linux", target_env = "gnu")));
    }
}
