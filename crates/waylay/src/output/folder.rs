//! The folder that a run writes to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::atomic::{WriteError, temporary_beside, write_atomic};

/// The file whose presence says that a folder holds a finished run.
const REPORT: &str = "report.json";

/// A folder that a run cannot write to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OutputError {
    /// It holds a finished run.
    #[error("output folder `{}`: already holds a report; need an empty folder", path.display())]
    HoldsReport {
        /// The folder.
        path: PathBuf,
    },
    /// The path is a file.
    #[error("output folder `{}`: is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be made or written to.
    #[error("output folder `{}`: not writable", path.display())]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A folder that was found writable. Dropped before anything is written to it, it takes the folders
/// it made away.
///
/// ```
/// use waylay::prelude::*;
///
/// let folder = tempfile::tempdir()?;
/// let out = OutputDir::create(&folder.path().join("report"), false)?;
/// out.write("notes/first.txt", b"whole, or not at all")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OutputDir {
    path: PathBuf,
    /// Folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
}

impl OutputDir {
    /// Makes `path` where it is missing and checks that files can be written there. A folder that
    /// already holds `report.json` is refused unless `force`; files of the earlier run stay until
    /// files of their name replace them.
    pub fn create(path: &Path, force: bool) -> Result<Self, OutputError> {
        let owned = || path.to_path_buf();
        if path.exists() && !path.is_dir() {
            return Err(OutputError::NotAFolder { path: owned() });
        }
        if !force && path.join(REPORT).exists() {
            return Err(OutputError::HoldsReport { path: owned() });
        }
        let made = path
            .ancestors()
            .filter(|p| !p.as_os_str().is_empty())
            .take_while(|p| !p.exists())
            .map(Path::to_path_buf)
            .collect();
        let output = Self { path: owned(), made };
        fs::create_dir_all(path)
            .and_then(|()| temporary_beside(&path.join(REPORT)))
            .map_err(|source| OutputError::NotWritable { path: owned(), source })?;
        Ok(output)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file `name` goes, `/` between parts; its folder is made.
    pub fn file(&self, name: &str) -> Result<PathBuf, WriteError> {
        let path = self.path.join(name);
        let folder = path.parent().unwrap_or(&self.path);
        match fs::create_dir_all(folder) {
            Ok(()) => Ok(path),
            Err(source) => Err(WriteError { path, source }),
        }
    }

    /// Writes `bytes` to the file `name`, whole or not at all; returns where it is.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, WriteError> {
        let path = self.file(name)?;
        write_atomic(&path, bytes)?;
        Ok(path)
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                break; // not empty: the run wrote to it
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_report_is_refused_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        OutputDir::create(&path, false).unwrap().write("report.json", b"{}").unwrap();
        let error = OutputDir::create(&path, false).unwrap_err();
        assert!(error.to_string().contains("already holds a report"), "{error}");
        OutputDir::create(&path, true).unwrap();
        assert_eq!(fs::read(path.join("report.json")).unwrap(), b"{}");
    }

    #[test]
    fn a_run_that_writes_nothing_leaves_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        drop(OutputDir::create(&folder.path().join("a/b"), false).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_go_to_subfolders() {
        let folder = tempfile::tempdir().unwrap();
        let output = OutputDir::create(folder.path(), false).unwrap();
        let path = output.write("adversarial/pgd/s1/1.png", b"x").unwrap();
        assert_eq!(path, folder.path().join("adversarial/pgd/s1/1.png"));
        assert_eq!(fs::read(path).unwrap(), b"x");
    }

    #[test]
    fn a_file_is_no_output_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"x").unwrap();
        assert!(matches!(OutputDir::create(&path, true), Err(OutputError::NotAFolder { .. })));
        assert!(matches!(OutputDir::create(&path.join("sub"), true), Err(OutputError::NotWritable { .. })));
    }
}
