//! One command per file; each is thin: check what was typed, call the library, say what came out.

pub mod ablate;
pub mod attack;
pub mod audit;
pub mod config;
pub mod embed;
pub mod evaluate;
pub mod fetch;
pub mod fit;
pub mod inspect;
pub mod shell;
pub mod train;

use std::io::Write as _;

use anyhow::Result;
use serde::Serialize;
use waylay::attack::Epsilon;
use waylay::embedder::Embedder;
use waylay::embedder::OnnxEmbedder;

/// Prints `value` as JSON, or what `text` says.
fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    let text = if json { serde_json::to_string_pretty(value)? } else { text().trim_end().to_owned() };
    match writeln!(std::io::stdout(), "{text}") {
        // A reader that has seen enough is no failure.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Says what is run, before it runs.
fn announce(target: &OnnxEmbedder, epsilon: Option<Epsilon>) {
    let [channels, height, width] = target.input();
    eprintln!(
        "target: {} ({channels} x {height} x {width} pixels -> {} dimensions)",
        target.name(),
        target.dim()
    );
    eprintln!("preprocessing: {}", target.preprocess());
    if let Some(other) = target.model().candidates().iter().find(|c| c.proposed) {
        eprintln!(
            "note: the output looks like a classifier's; its features are `{}` {:?} (--output, see `waylay inspect`)",
            other.name, other.shape
        );
    }
    if let Some(batch) = target.model().fixed_batch() {
        eprintln!("the model takes batches of {batch} only: larger ones are looped over");
    }
    if let Some(epsilon) = epsilon {
        eprintln!("budget: {}/255 = {:.5} of the pixel range", epsilon.in_255(), epsilon.in_pixels());
    }
}
