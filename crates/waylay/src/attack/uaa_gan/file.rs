//! `generator.safetensors`: weights, and in its metadata what they were trained for.

use std::collections::HashMap;
use std::path::Path;

use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::config::{ConfigError, UaaGanConfig};
use super::generator::Generator;
use crate::attack::{Epsilon, Evade, Objective};
use crate::embedder::Embedder;
use crate::embedding::Metric;
use crate::seed::Seed;

/// Name of the metadata entry.
const KEY: &str = "waylay.generator/2";
/// The entry of files that earlier versions wrote, whose layers and settings were others.
const EARLIER: &str = "waylay.generator/1";

/// What a generator was trained for; stored beside its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorFile {
    /// Fingerprint of the target.
    pub target: String,
    /// Name of the target, for people.
    pub target_name: String,
    /// Channels, height, width it takes.
    pub input: [usize; 3],
    /// The budget it was trained at.
    pub epsilon_255: Epsilon,
    /// The metric it was trained against.
    pub metric: Metric,
    /// The seed it was trained from.
    pub seed: u64,
    /// What it was trained towards; files that do not state it were trained to evade.
    #[serde(default = "evade")]
    pub objective: String,
    /// How it was built and trained.
    pub config: UaaGanConfig,
}

fn evade() -> String {
    Evade.name().to_owned()
}

/// Why a generator could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GeneratorFileError {
    /// Not a generator of this program.
    #[error("generator `{path}`: {reason}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Trained for another target.
    #[error(
        "generator `{path}` was trained for target `{expected}` ({}), not for `{found}`; need one that was trained for \
         this target",
        short(.fingerprint)
    )]
    OtherTarget {
        /// The file.
        path: String,
        /// The target it was trained for.
        expected: String,
        /// Its fingerprint.
        fingerprint: String,
        /// The target at hand.
        found: String,
    },
    /// Trained for another image size.
    #[error(
        "generator `{path}` takes images of {expected:?} (channels, height, width); target `{target}` takes {found:?}"
    )]
    Size {
        /// The file.
        path: String,
        /// What the generator takes.
        expected: [usize; 3],
        /// The target at hand.
        target: String,
        /// What that takes.
        found: [usize; 3],
    },
    /// Trained for another budget or metric.
    #[error("generator was trained for {what} {own}, not {asked}; need the same")]
    OtherScene {
        /// `epsilon` or `metric`.
        what: &'static str,
        /// What it was trained for.
        own: String,
        /// What is asked for.
        asked: String,
    },
    /// The configuration inside is not usable.
    #[error("generator `{path}`")]
    Config {
        /// The file.
        path: String,
        /// Why.
        source: ConfigError,
    },
}

impl GeneratorFile {
    /// The bytes of a safetensors file with `generator`'s weights and these facts.
    pub fn encode(&self, generator: &Generator) -> Result<Vec<u8>, GeneratorFileError> {
        let wrong =
            |reason: String| GeneratorFileError::Format { path: "generator.safetensors".into(), reason };
        let facts = serde_json::to_string(self).map_err(|e| wrong(e.to_string()))?;
        // One entry only: burn's own would stand before or behind it by chance, and the bytes would
        // not repeat.
        let mut store = SafetensorsStore::from_bytes(None).clear_metadata().metadata(KEY, facts);
        generator.save_into(&mut store).map_err(|e| wrong(e.to_string()))?;
        store.get_bytes().map_err(|e| wrong(e.to_string()))
    }

    /// Whether it was trained for this budget and metric.
    pub fn fits(&self, epsilon: Epsilon, metric: Metric) -> Result<(), GeneratorFileError> {
        let other = |what, own: String, asked: String| {
            if own == asked { Ok(()) } else { Err(GeneratorFileError::OtherScene { what, own, asked }) }
        };
        other("metric", self.metric.to_string(), metric.to_string())?;
        other("epsilon", self.epsilon_255.in_255().to_string(), epsilon.in_255().to_string())
    }

    /// Reads the facts of a generator file without its weights.
    pub fn read(path: &Path, bytes: &[u8]) -> Result<Self, GeneratorFileError> {
        let wrong = |reason: String| GeneratorFileError::Format { path: path.display().to_string(), reason };
        let (_, header) = safetensors::SafeTensors::read_metadata(bytes)
            .map_err(|e| wrong(format!("not a safetensors file: {e}")))?;
        let none = HashMap::new();
        let entries = header.metadata().as_ref().unwrap_or(&none);
        if entries.contains_key(EARLIER) {
            return Err(wrong("written by an earlier version; train it again with `waylay train`".into()));
        }
        let facts = entries.get(KEY);
        let facts =
            facts.ok_or_else(|| wrong(format!("no `{KEY}` entry; need a file that `waylay train` wrote")))?;
        let facts: Self = serde_json::from_str(facts).map_err(|e| wrong(format!("entry `{KEY}`: {e}")))?;
        // It becomes part of the name of a row, and that of a folder.
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if facts.objective.is_empty() || facts.objective.len() > 32 || !facts.objective.chars().all(plain) {
            let objective = &facts.objective;
            return Err(wrong(format!("objective {objective:?}; need 1 to 32 of a-z, 0-9 and -")));
        }
        Ok(facts)
    }

    /// Reads a generator for `target`. One trained for another target is an error unless
    /// `transfer`; one for another image size always is, and so is a transferred conditioned one
    /// whose feature maps do not fit.
    pub fn decode(
        path: &Path,
        bytes: Vec<u8>,
        target: &dyn Embedder,
        transfer: bool,
        device: &Device,
    ) -> Result<(Self, Generator), GeneratorFileError> {
        let name = || path.display().to_string();
        let wrong = |reason: String| GeneratorFileError::Format { path: name(), reason };
        let facts = Self::read(path, &bytes)?;
        if facts.target != target.fingerprint() && !transfer {
            return Err(GeneratorFileError::OtherTarget {
                path: name(),
                expected: facts.target_name,
                fingerprint: facts.target,
                found: target.name().into(),
            });
        }
        if facts.input != target.input() {
            let (expected, found) = (facts.input, target.input());
            return Err(GeneratorFileError::Size {
                path: name(),
                expected,
                target: target.name().into(),
                found,
            });
        }
        let config = facts
            .config
            .clone()
            .check()
            .map_err(|source| GeneratorFileError::Config { path: name(), source })?;
        let mut blank = Seed(0).stream("uaa-gan/blank");
        let mut generator =
            Generator::new(&config.generator, target, &mut blank, device).ok_or_else(|| {
                wrong(format!("needs feature maps, which target `{}` does not offer", target.name()))
            })?;
        let mut store = SafetensorsStore::from_bytes(Some(bytes)).validate(true);
        let result = generator.load_from(&mut store).map_err(|e| wrong(e.to_string()))?;
        if !result.missing.is_empty() || !result.errors.is_empty() {
            return Err(wrong(format!("its weights do not fit target `{}`", target.name())));
        }
        Ok((facts, generator))
    }
}

/// The first twelve digits of a fingerprint.
fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}
