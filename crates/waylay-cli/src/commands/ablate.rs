//! `waylay ablate`: the table of docs/ablation.md.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use waylay::attack::uaa_gan::{self, UaaGan};
use waylay::attack::{Scene, craft};
use waylay::dataset;
use waylay::image::ImageBatch;
use waylay::quality;
use waylay::retrieval::{self, Relevance};
use waylay::run::{Device, Seed, write_atomic};
use waylay::target::Target;

use super::{announce, print};
use crate::bar::Bar;
use crate::cli::{AblateArgs, UaaGanArgs};
use crate::exit::Usage;
use crate::plan;

/// A variant: its name, what it changes, and the part of the training images it uses.
struct Variant(&'static str, &'static [&'static str], f64);

/// Every variant changes one thing of the configuration it starts from.
const VARIANTS: &[Variant] = &[
    Variant("default", &[], 1.0),
    Variant("mining-nearest", &["loss.mining=nearest"], 1.0),
    Variant("mining-random", &["loss.mining=random"], 1.0),
    Variant("margin-0.5-farthest", &["loss.margin=0.5"], 1.0),
    Variant("margin-0.5-nearest", &["loss.margin=0.5", "loss.mining=nearest"], 1.0),
    Variant("margin-0.5-random", &["loss.margin=0.5", "loss.mining=random"], 1.0),
    Variant("discriminator-none", &["discriminator.kind=none"], 1.0),
    Variant("discriminator-global", &["discriminator.kind=global"], 1.0),
    Variant("gan-weight-1", &["loss.lambda_gan=1.0"], 1.0),
    Variant("gan-weight-10", &["loss.lambda_gan=10.0"], 1.0),
    Variant("lambda-r-0.05", &["loss.lambda_r=0.05"], 1.0),
    Variant("lambda-r-0.5", &["loss.lambda_r=0.5"], 1.0),
    Variant("lambda-r-2", &["loss.lambda_r=2.0"], 1.0),
    Variant("images-half", &[], 0.5),
    Variant("images-quarter", &[], 0.25),
    Variant("images-tenth", &[], 0.1),
    Variant("image-only", &["generator.kind=image-only"], 1.0),
    Variant("adam", &["training.optimiser=adam"], 1.0),
    Variant("constant-rate", &["training.schedule=constant"], 1.0),
    Variant("no-augmentation", &["augment.flip=false", "augment.shift=0", "augment.brightness=0.0"], 1.0),
    Variant("gain-3", &["generator.gain=3.0"], 1.0),
    Variant("half-width", &["generator.widths=[64, 64, 32, 16]"], 1.0),
];

/// One row of the table.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    changes: String,
    images: usize,
    parameters: usize,
    rank1: f64,
    map: f64,
    psnr_db: Option<f64>,
    ssim: f64,
    seconds: f64,
}

pub fn run(args: AblateArgs, json: bool) -> Result<()> {
    let (epsilon, metric) = plan::scene(&args.scene)?;
    for name in &args.only {
        if !VARIANTS.iter().any(|v| v.0 == name) {
            let known: Vec<&str> = VARIANTS.iter().map(|v| v.0).collect();
            return Err(Usage(format!("variant `{name}`; need {}", known.join(", "))).into());
        }
    }
    let sample = args.target.target.is_none();
    let target = plan::target(&args.target)?;
    let split = plan::split(&args.data, &args.target)?;
    announce(&target, Some(epsilon));
    let device = Device::flex();
    let train = dataset::load(&split.train, target.input())?;
    let queries = dataset::load(&split.query, target.input())?;
    let gallery = target.embed(&dataset::load(&split.gallery, target.input())?, &device)?;
    let names = |items: &[dataset::Item]| items.iter().map(|i| i.identity.clone()).collect::<Vec<_>>();
    let relevance = Relevance::by_identity(&names(&split.query), &names(&split.gallery));
    let scene = Scene { target: &target, metric, epsilon, seed: Seed(args.scene.seed), device: device.clone() };
    let clean = retrieval::evaluate(&target.embed(&queries, &device)?, &gallery, &relevance, metric)?.scores;

    let mut rows = Vec::new();
    for Variant(name, changes, part) in VARIANTS {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        let mut set = args.uaa_gan.set.clone();
        set.extend(changes.iter().map(|c| (*c).to_owned()));
        let config = plan::uaa_gan(&UaaGanArgs { config: args.uaa_gan.config.clone(), set }, sample, false)?;
        let images = part_of(&train, *part);
        eprintln!("variant {name}");
        let bar = Bar::default();
        let trained = uaa_gan::train(&config, &images, &scene, &bar)?;
        let parameters = trained.generator.parameters();
        let attack = UaaGan { generator: trained.generator, config: (*config).clone() };
        let crafted = craft(&attack, &queries, &scene, &bar)?;
        let found = target.embed(&crafted.images, &device)?;
        let scores = retrieval::evaluate(&found, &gallery, &relevance, metric)?.scores;
        let quality = quality::measure(&queries, &crafted.images)?;
        let row = Row {
            name,
            changes: changes.join(", "),
            images: images.count(),
            parameters,
            rank1: scores.rank1,
            map: scores.map,
            psnr_db: quality.psnr_db,
            ssim: quality.ssim,
            seconds: trained.seconds,
        };
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    let mut table = format!(
        "clean: rank-1 {:.1} %, mAP {:.1} %; ε = {}/255, seed {}, target `{}`, data `{}`\n\n",
        100.0 * clean.rank1,
        100.0 * clean.map,
        epsilon.in_255(),
        args.scene.seed,
        target.name(),
        split.name
    );
    table.push_str("| variant | changes | images | parameters | rank-1 % | mAP % | PSNR dB | SSIM | seconds |\n");
    table.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for row in &rows {
        writeln!(table, "{}", line(row))?;
    }
    if let Some(path) = &args.out {
        write_atomic(path, table.as_bytes())?;
    }
    print(json, &rows, || table)
}

fn line(row: &Row) -> String {
    format!(
        "| {} | {} | {} | {} | {:.1} | {:.1} | {} | {:.3} | {:.0} |",
        row.name,
        row.changes,
        row.images,
        row.parameters,
        100.0 * row.rank1,
        100.0 * row.map,
        row.psnr_db.map_or_else(|| "–".into(), |psnr| format!("{psnr:.1}")),
        row.ssim,
        row.seconds
    )
}

/// Evenly spaced images, `part` of all.
fn part_of(images: &ImageBatch, part: f64) -> ImageBatch {
    let count = ((images.count() as f64 * part).round() as usize).clamp(1, images.count());
    images.select(&(0..count).map(|i| i * images.count() / count).collect::<Vec<_>>())
}
