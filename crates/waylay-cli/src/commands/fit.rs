//! `waylay fit`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::json;
use waylay::audit::System;
use waylay::dataset::{self, Split};
use waylay::device::Device;
use waylay::embedder::Embedder;
use waylay::embedder::preprocess::Preset;
use waylay::embedder::{OnnxEmbedder, OpenOptions};
use waylay::embedding::Metric;
use waylay::fit::{FitConfig, fit};
use waylay::hash::sha256;
use waylay::image::Resizing;
use waylay::output::write_atomic;
use waylay::progress::Silent;
use waylay::retrieval;
use waylay::seed::Seed;

use super::print;
use crate::bar::Bar;
use crate::cli::FitArgs;
use crate::error::Usage;
use crate::plan;

/// Preprocessing that goes beside the model.
const SIDECAR: &str = "# Pixels of 0 to 1 go in as they are.\npreset = \"none\"\n";

pub fn run(args: FitArgs, json: bool) -> Result<()> {
    let config: FitConfig = match &args.config {
        None => FitConfig::default(),
        Some(path) => toml::from_str(&plan::read(path)?)
            .map_err(|e| Usage(format!("config `{}`: {}", path.display(), e.to_string().trim_end())))?,
    };
    plan::output_file(&args.out, "onnx")?;
    let checked = config.clone().check().context("config")?;
    let (items, sample): (_, Option<Split>) = match &args.train {
        Some(folder) => (dataset::read_folder(folder)?, None),
        None => {
            let sample = dataset::sample()?;
            (sample.train.clone(), Some(sample))
        }
    };
    let channels = items.first().map_or(Ok(1), |item| item.read().map(|p| p.channels))?;
    let images = dataset::load(&items, [channels, config.size, config.size], Resizing::default())?;
    let mut numbers = BTreeMap::new();
    let labels: Vec<usize> = items
        .iter()
        .map(|item| {
            let next = numbers.len();
            *numbers.entry(item.identity.as_str()).or_insert(next)
        })
        .collect();
    let fitted = fit(&checked, &images, &labels, Seed(args.seed), &Device::flex(), &Bar::default())?;

    write_atomic(&args.out, &fitted.onnx)?;
    write_atomic(&args.out.with_extension("toml"), SIDECAR.as_bytes())?;
    let scores = sample.map(|sample| held_out(&fitted.onnx, &sample)).transpose()?;
    let record = json!({
        "command": super::audit::command_line(),
        "seed": args.seed,
        "config": config,
        "images": items.len(),
        "identities": numbers.len(),
        "first_loss": fitted.losses.first(),
        "last_loss": fitted.losses.last(),
        "held_out": scores,
        "sha256": sha256([&fitted.onnx]),
        "version": env!("CARGO_PKG_VERSION"),
    });
    write_atomic(
        &args.out.with_extension("json"),
        (serde_json::to_string_pretty(&record)? + "\n").as_bytes(),
    )?;
    print(json, &record, || {
        let scores = scores.as_ref().map_or_else(String::new, |s| {
            format!(
                "; queries of identities it never saw: rank-1 {:.1} %, mAP {:.1} %",
                100.0 * s.rank1,
                100.0 * s.map
            )
        });
        format!(
            "{} images of {} identities{scores}\nmodel: {}",
            items.len(),
            numbers.len(),
            args.out.display()
        )
    })
}

/// Retrieval on the sample's queries, none of whose identities the network was trained on.
fn held_out(onnx: &[u8], sample: &Split) -> Result<retrieval::Scores> {
    let options = OpenOptions::new(Preset::None);
    let target = OnnxEmbedder::from_bytes("fitted", onnx, options)?;
    let system =
        System::new(&target, Metric::Cosine, &sample.query, &sample.gallery, &Device::flex(), &Silent)?;
    Ok(system.search(&dataset::load(&sample.query, target.input(), target.resizing())?)?.0.scores)
}
