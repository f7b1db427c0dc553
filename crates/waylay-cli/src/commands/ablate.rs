//! `waylay ablate`: the table of docs/ablation.md.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use waylay::attack::uaa_gan::{self, CheckedConfig, GeneratorAttack};
use waylay::attack::{Evade, Scene, craft};
use waylay::audit::System;
use waylay::dataset;
use waylay::embedder::Embedder;
use waylay::image::ImageBatch;
use waylay::output::write_atomic;
use waylay::progress::Silent;
use waylay::quality::{self, Quality};
use waylay::retrieval::Scores;
use waylay::seed::Seed;

use super::{announce, print};
use crate::bar::Bar;
use crate::cli::{AblateArgs, UaaGanArgs};
use crate::error::Usage;
use crate::plan;

/// One thing changed of the configuration that the table starts from.
struct Variant {
    name: &'static str,
    /// As for `--set`.
    changes: &'static [&'static str],
    /// Part of the training images that is used.
    images: f64,
    /// Factor on the generator's channels.
    width: f64,
}

/// What training and attacking from one seed gave: parameters, scores, change of the images,
/// seconds.
type Run = (usize, Scores, Quality, f64);

/// The rows of the table.
const VARIANTS: &[Variant] = &[
    Variant { name: "default", changes: &[], images: 1.0, width: 1.0 },
    Variant { name: "mining-nearest", changes: &["loss.mining=nearest"], images: 1.0, width: 1.0 },
    Variant { name: "mining-random", changes: &["loss.mining=random"], images: 1.0, width: 1.0 },
    Variant { name: "margin-2", changes: &["loss.margin=2.0"], images: 1.0, width: 1.0 },
    Variant { name: "sharpness-5", changes: &["loss.sharpness=5.0"], images: 1.0, width: 1.0 },
    Variant {
        name: "margin-2-sharpness-5",
        changes: &["loss.margin=2.0", "loss.sharpness=5.0"],
        images: 1.0,
        width: 1.0,
    },
    Variant { name: "discriminator-none", changes: &["discriminator.kind=none"], images: 1.0, width: 1.0 },
    Variant {
        name: "discriminator-global",
        changes: &["discriminator.kind=global"],
        images: 1.0,
        width: 1.0,
    },
    Variant { name: "gan-weight-1", changes: &["loss.lambda_gan=1.0"], images: 1.0, width: 1.0 },
    Variant { name: "gan-weight-5", changes: &["loss.lambda_gan=5.0"], images: 1.0, width: 1.0 },
    Variant { name: "no-features", changes: &["loss.lambda_f=0.0"], images: 1.0, width: 1.0 },
    Variant { name: "features-only", changes: &["loss.lambda_m=0.0"], images: 1.0, width: 1.0 },
    Variant { name: "lambda-m-10", changes: &["loss.lambda_m=10.0"], images: 1.0, width: 1.0 },
    Variant { name: "lambda-r-0", changes: &["loss.lambda_r=0.0"], images: 1.0, width: 1.0 },
    Variant {
        name: "hinge-none",
        changes: &["loss.hinge=0.0", "loss.lambda_r=3.0"],
        images: 1.0,
        width: 1.0,
    },
    Variant { name: "hinge-0.5", changes: &["loss.hinge=0.5"], images: 1.0, width: 1.0 },
    Variant { name: "ramp-none", changes: &["loss.ramp_r=0.0"], images: 1.0, width: 1.0 },
    Variant { name: "patch-4", changes: &["generator.patch=4"], images: 1.0, width: 1.0 },
    Variant { name: "images-half", changes: &[], images: 0.5, width: 1.0 },
    Variant { name: "images-quarter", changes: &[], images: 0.25, width: 1.0 },
    Variant { name: "images-tenth", changes: &[], images: 0.1, width: 1.0 },
    Variant {
        name: "guided-feature-maps",
        changes: &["generator.guidance=feature-maps"],
        images: 1.0,
        width: 1.0,
    },
    Variant {
        name: "guided-1-gradient",
        changes: &["generator.guidance=gradients", "generator.refinement_steps=1"],
        images: 1.0,
        width: 1.0,
    },
    Variant {
        name: "guided-2-gradients",
        changes: &["generator.guidance=gradients", "generator.refinement_steps=2"],
        images: 1.0,
        width: 1.0,
    },
    Variant {
        name: "guided-3-gradients",
        changes: &["generator.guidance=gradients", "generator.refinement_steps=3"],
        images: 1.0,
        width: 1.0,
    },
    Variant { name: "adam", changes: &["training.optimiser=adam"], images: 1.0, width: 1.0 },
    Variant { name: "constant-rate", changes: &["training.schedule=constant"], images: 1.0, width: 1.0 },
    Variant {
        name: "no-augmentation",
        changes: &[
            "augment.flip=false",
            "augment.shift=0",
            "augment.zoom=0.0",
            "augment.rotate=0.0",
            "augment.bend=0.0",
            "augment.brightness=0.0",
            "augment.mix=0.0",
        ],
        images: 1.0,
        width: 1.0,
    },
    Variant { name: "no-mix", changes: &["augment.mix=0.0"], images: 1.0, width: 1.0 },
    Variant {
        name: "augmented",
        changes: &[
            "augment.flip=true",
            "augment.shift=4",
            "augment.zoom=0.1",
            "augment.rotate=8.0",
            "augment.brightness=0.1",
        ],
        images: 1.0,
        width: 1.0,
    },
    Variant { name: "mix-0.6", changes: &["augment.mix=0.6"], images: 1.0, width: 1.0 },
    Variant { name: "bend-3", changes: &["augment.bend=3.0"], images: 1.0, width: 1.0 },
    Variant { name: "gain-1", changes: &["generator.gain=1.0"], images: 1.0, width: 1.0 },
    Variant { name: "gain-4", changes: &["generator.gain=4.0"], images: 1.0, width: 1.0 },
    Variant { name: "half-width", changes: &[], images: 1.0, width: 0.5 },
];

/// One row of the table: medians over the seeds.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    changes: String,
    images: usize,
    parameters: usize,
    rank1: f64,
    map: f64,
    /// Lowest and highest over the seeds.
    map_range: [f64; 2],
    psnr_db: Option<f64>,
    ssim: f64,
    seconds: f64,
}

pub fn run(args: AblateArgs, json: bool) -> Result<()> {
    let (epsilon, metric) = plan::scene(&args.scene)?;
    for name in &args.only {
        if !VARIANTS.iter().any(|v| v.name == name) {
            let known: Vec<&str> = VARIANTS.iter().map(|v| v.name).collect();
            return Err(Usage(format!("variant `{name}`; need {}", known.join(", "))).into());
        }
    }
    let paper = plan::is_paper(&args.uaa_gan);
    let chosen = VARIANTS.iter().filter(|v| match args.only.is_empty() {
        // The paper's generator has no guidance.
        true => !(paper && v.name.starts_with("guided-")),
        false => args.only.iter().any(|only| only == v.name),
    });
    let plans = chosen.map(|v| Ok((v, configure(v, &args)?))).collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.out {
        plan::output_file(path, "md")?;
    }
    let target = plan::target(&args.target)?;
    let split = plan::split(&args.data, &args.target)?;
    announce(&target, Some(epsilon));
    let device = target.device();
    let train = dataset::load(&split.train, target.input(), target.resizing())?;
    let queries = dataset::load(&split.query, target.input(), target.resizing())?;
    let system = System::new(&target, metric, &split.query, &split.gallery, &device, &Silent)?;
    let seeds = args.scene.seed..args.scene.seed.saturating_add(args.seeds);
    let clean = system.search(&queries)?.0.scores;

    let mut rows = Vec::new();
    for (variant, config) in plans {
        let Variant { name, changes, images, .. } = *variant;
        let images = part_of(&train, images);
        let mut runs = Vec::new();
        for seed in seeds.clone() {
            eprintln!("variant {name}, seed {seed}");
            let scene = Scene { target: &target, metric, epsilon, seed: Seed(seed), device: device.clone() };
            let bar = Bar::default();
            let trained = uaa_gan::train(&config, &Evade, &images, &scene, &bar)?;
            let (parameters, seconds) = (trained.generator.parameters(), trained.seconds);
            let attack = GeneratorAttack {
                generator: trained.generator,
                objective: trained.objective,
                config: (*config).clone(),
            };
            let crafted = craft(&attack, &queries, &scene, &bar)?;
            let scores = system.search(&crafted.images)?.0.scores;
            let quality = quality::measure(&queries, &crafted.images)?;
            runs.push((parameters, scores, quality, seconds));
        }
        let all = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<_>>();
        let maps = all(|(_, scores, ..)| scores.map);
        let row = Row {
            name,
            changes: changes.join(", "),
            images: images.count(),
            parameters: runs.first().map_or(0, |run| run.0),
            rank1: median(all(|(_, scores, ..)| scores.rank1)),
            map_range: [maps.iter().copied().fold(1.0, f64::min), maps.iter().copied().fold(0.0, f64::max)],
            map: median(maps),
            psnr_db: runs
                .iter()
                .all(|run| run.2.psnr_db.is_some())
                .then(|| median(all(|(_, _, quality, _)| quality.psnr_db.unwrap_or_default()))),
            ssim: median(all(|(_, _, quality, _)| quality.ssim)),
            seconds: median(all(|(.., seconds)| *seconds)),
        };
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    let mut table = format!(
        "clean: rank-1 {:.1} %, mAP {:.1} %; ε = {}/255, target `{}`, data `{}`; seeds {}: medians, in brackets the range\n\n",
        100.0 * clean.rank1,
        100.0 * clean.map,
        epsilon.in_255(),
        target.name(),
        split.name,
        seeds.map(|seed| seed.to_string()).collect::<Vec<_>>().join(", ")
    );
    table.push_str(
        "| variant | changes | images | parameters | rank-1 % | mAP % | PSNR dB | SSIM | seconds |\n",
    );
    table.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for row in &rows {
        writeln!(table, "{}", line(row))?;
    }
    if let Some(path) = &args.out {
        write_atomic(path, table.as_bytes())?;
    }
    print(json, &rows, || table)
}

/// The configuration of `variant`, before anything is trained.
fn configure(variant: &Variant, args: &AblateArgs) -> Result<CheckedConfig> {
    let mut set = args.uaa_gan.set.clone();
    set.extend(variant.changes.iter().map(|change| (*change).to_owned()));
    let arguments = UaaGanArgs { config: args.uaa_gan.config.clone(), set };
    let sample = args.target.target.is_none();
    let attack = plan::configured_attack(&arguments, sample)?;
    let mut config = (*plan::generator(&arguments, attack, false, sample, false)?).clone();
    for width in &mut config.generator.widths {
        *width = ((*width as f64 * variant.width) as usize).max(4);
    }
    Ok(config.check()?)
}

fn line(row: &Row) -> String {
    format!(
        "| {} | {} | {} | {} | {:.1} | {:.1} ({:.1}–{:.1}) | {} | {:.3} | {:.0} |",
        row.name,
        row.changes,
        row.images,
        row.parameters,
        100.0 * row.rank1,
        100.0 * row.map,
        100.0 * row.map_range[0],
        100.0 * row.map_range[1],
        row.psnr_db.map_or_else(|| "–".into(), |psnr| format!("{psnr:.1}")),
        row.ssim,
        row.seconds
    )
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    0.5 * (values[low] + values[high])
}

/// Evenly spaced images, `part` of all.
fn part_of(images: &ImageBatch, part: f64) -> ImageBatch {
    let count = ((images.count() as f64 * part).round() as usize).clamp(1, images.count());
    images.select(&(0..count).map(|i| i * images.count() / count).collect::<Vec<_>>())
}
