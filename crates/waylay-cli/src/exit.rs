//! Exit codes, as documented in `waylay --help` and docs/command-line.md.

use std::process::ExitCode;

use waylay::attack::EpsilonError;
use waylay::attack::uaa_gan::{ConfigError, GeneratorFileError};
use waylay::dataset::DatasetError;
use waylay::embedder::preprocess::PreprocessError;
use waylay::embedder::{EmbedderError, OpenError};
use waylay::fit::FitError;
use waylay::image::{ImageWriteError, ReadError};
use waylay::onnx::OnnxError;
use waylay::output::{OutputError, WriteError};
use waylay::quality::QualityError;
use waylay::retrieval::RetrievalError;

use crate::error::{FetchError, Mismatch, Unfit, Unwritable, Usage};

/// Everything went well.
pub const SUCCESS: ExitCode = ExitCode::SUCCESS;

/// What a command line asks for does not make sense; clap itself uses the same code.
const USAGE: u8 = 2;
/// Images or folders cannot be used.
const DATA: u8 = 3;
/// A model, its preprocessing or a generator cannot be used.
const MODEL: u8 = 4;
/// Output cannot be written.
const OUTPUT: u8 = 5;
/// `inspect --verify` found a difference above the tolerance.
const MISMATCH: u8 = 6;
/// Something could not be fetched.
const FETCH: u8 = 7;
/// Anything else.
const OTHER: u8 = 1;

/// The list for `--help`.
pub const HELP: &str = "Exit codes:
  0  success
  1  anything not listed here
  2  the command line or a configuration does not make sense
  3  images or folders cannot be used
  4  the model, its preprocessing or a generator cannot be used
  5  output cannot be written
  6  `inspect --verify`, or `audit` on a model with a reference beside it, found a difference above the tolerance
  7  something could not be fetched";

/// The error and its causes in one sentence, each said once, with the flag that helps where there
/// is one.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = one_line(&cause.to_string());
        if !parts.last().is_some_and(|last| last.ends_with(&text)) {
            parts.push(text);
        }
    }
    let hint = error.chain().find_map(hint).map_or(String::new(), |hint| format!(" ({hint})"));
    parts.join(": ") + &hint
}

/// The flag that helps: the library, which knows no flags, says what is needed.
fn hint(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(OutputError::HoldsReport { .. }) = cause.downcast_ref() {
        Some("--force overwrites it")
    } else if let Some(OpenError::NormalisesTwice { .. }) = cause.downcast_ref() {
        Some("--preprocess none or raw-255; --normalise-twice allows both")
    } else if let Some(DatasetError::MixedSizes { .. }) = cause.downcast_ref() {
        Some("--resize resizes all to the network's input")
    } else if let Some(GeneratorFileError::OtherTarget { .. }) = cause.downcast_ref() {
        Some("--transfer uses it on another target")
    } else {
        None
    }
}

/// What may be several lines as one. Drawings of where in a TOML file something is wrong (`3 |
/// steps = x`) are left out.
fn one_line(text: &str) -> String {
    let drawn =
        |line: &str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    let lines = text.lines().filter(|line| !drawn(line)).map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(": ")
}

/// The code for the deepest cause that has one.
pub fn code(error: &anyhow::Error) -> ExitCode {
    let of = |cause: &(dyn std::error::Error + 'static)| {
        if cause.is::<Usage>()
            || cause.is::<EpsilonError>()
            || cause.is::<ConfigError>()
            || cause.is::<FitError>()
        {
            Some(USAGE)
        } else if cause.is::<DatasetError>()
            || cause.is::<ReadError>()
            || cause.is::<RetrievalError>()
            || cause.is::<QualityError>()
        {
            Some(DATA)
        } else if cause.is::<EmbedderError>()
            || cause.is::<OnnxError>()
            || cause.is::<OpenError>()
            || cause.is::<PreprocessError>()
            || cause.is::<GeneratorFileError>()
            || cause.is::<Unfit>()
        {
            Some(MODEL)
        } else if cause.is::<OutputError>()
            || cause.is::<WriteError>()
            || cause.is::<ImageWriteError>()
            || cause.is::<Unwritable>()
        {
            Some(OUTPUT)
        } else if cause.is::<Mismatch>() {
            Some(MISMATCH)
        } else if cause.is::<FetchError>() {
            Some(FETCH)
        } else {
            None
        }
    };
    ExitCode::from(error.chain().filter_map(of).next_back().unwrap_or(OTHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_its_causes_say() {
        let toml = toml::from_str::<toml::Table>("a = 1\nb = = 2\n").unwrap_err();
        let text = sentence(&anyhow::Error::new(toml).context("config `x.toml`"));
        assert!(text.starts_with("config `x.toml`: TOML parse error at line 2, column "), "{text}");
        assert!(!text.contains(['\n', '|']), "{text}");
    }
}
