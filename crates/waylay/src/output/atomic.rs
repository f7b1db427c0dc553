//! Files that appear whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};
use thiserror::Error;

/// A file that could not be written; what was at its place before is untouched.
#[derive(Debug, Error)]
#[error("file `{}`: cannot be written", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// Writes `bytes` to `path`, replacing a file that is there. The bytes go to a temporary file in
/// the same folder, which then takes the name, so that a reader sees the old file or the new one.
/// The folder must exist.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|source| WriteError { path: path.to_path_buf(), source })?;
    file.commit()
}

/// A file that is written bit by bit, and appears under its name when it is
/// [committed](Self::commit). Dropped before, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Begins the file at `path`, whose folder must exist.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let fail = |source| WriteError { path: path.to_path_buf(), source };
        Ok(Self { path: path.to_path_buf(), file: BufWriter::new(temporary_beside(path).map_err(fail)?) })
    }

    /// Gives the file its name, replacing one that is there.
    pub fn commit(self) -> Result<(), WriteError> {
        let Self { path, file } = self;
        let finished = file.into_inner().map_err(|error| error.into_error()).and_then(|file| {
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        });
        finished.map(drop).map_err(|source| WriteError { path, source })
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A temporary file in the folder of `path`, with the permissions of an ordinary new file.
pub(super) fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = Builder::new();
    builder.prefix(".waylay-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_written_file_replaces_the_old_one_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("embeddings.npy");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"begun").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"done").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"done");
    }

    #[test]
    fn a_file_in_a_missing_folder_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomic(&folder.path().join("no/report.json"), b"x").unwrap_err();
        assert!(error.to_string().contains("no/report.json`: cannot be written"), "{error}");
    }

    #[test]
    fn a_name_that_is_taken_by_a_folder_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
