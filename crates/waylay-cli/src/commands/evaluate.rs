//! `waylay evaluate`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use waylay::audit::System;
use waylay::dataset::{self, Item};
use waylay::embedder::Embedder;
use waylay::embedding::Metric;
use waylay::image::Resizing;
use waylay::quality;
use waylay::retrieval::Scores;

use super::{announce, print};
use crate::bar::Bar;
use crate::cli::EvaluateArgs;
use crate::error::Usage;
use crate::plan;

pub fn run(args: EvaluateArgs, json: bool) -> Result<()> {
    let metric = args.metric.parse::<Metric>().map_err(|e| Usage(e.to_string()))?;
    let target = plan::target(&args.target)?;
    let (clean_items, gallery_items) =
        (dataset::read_folder(&args.clean)?, dataset::read_folder(&args.gallery)?);
    announce(&target, None);
    let system =
        System::new(&target, metric, &clean_items, &gallery_items, &target.device(), &Bar::default())?;
    let clean = dataset::load(&clean_items, target.input(), target.resizing())?;
    let score = |images| -> Result<Scores> { Ok(system.search(images)?.0.scores) };
    let mut result = BTreeMap::from([("metric", json!(metric)), ("clean", json!(score(&clean)?))]);
    if let Some(folder) = &args.attacked {
        let attacked_items = matching(&clean_items, dataset::read_folder(folder)?, folder)?;
        // Saved at the target's size, and taken as they are.
        let attacked = dataset::load(&attacked_items, target.input(), Resizing::default())?;
        let quality = quality::measure(&clean, &attacked)?;
        let mut row = json!(score(&attacked)?);
        for (key, value) in [
            ("linf_255", json!(quality.linf_255)),
            ("l2", json!(quality.l2)),
            ("psnr_db", json!(quality.psnr_db)),
            ("ssim", json!(quality.ssim)),
        ] {
            row[key] = value;
        }
        result.insert("attacked", row);
    }
    print(json, &result, || {
        let line = |name: &str, row: &Value| {
            let percent = |key: &str| 100.0 * row[key].as_f64().unwrap_or(f64::NAN);
            format!(
                "{name:<9} rank-1 {:5.1} %  rank-5 {:5.1} %  mAP {:5.1} %  mINP {:5.1} %  ({} queries, {} without a match)",
                percent("rank1"),
                percent("rank5"),
                percent("map"),
                percent("minp"),
                row["queries"],
                row["without_match"]
            )
        };
        let rows = ["clean", "attacked"].into_iter().filter_map(|name| Some(line(name, result.get(name)?)));
        rows.collect::<Vec<_>>().join("\n")
    })
}

/// The attacked images in the order of the clean ones; names match without their extension.
fn matching(clean: &[Item], attacked: Vec<Item>, folder: &std::path::Path) -> Result<Vec<Item>> {
    let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned();
    let mut by_stem: BTreeMap<String, Item> =
        attacked.into_iter().map(|item| (stem(&item.name), item)).collect();
    clean
        .iter()
        .map(|item| {
            by_stem.remove(&stem(&item.name)).ok_or_else(|| {
                let text =
                    format!("`{}` holds no attacked image for query `{}`", folder.display(), item.name);
                Usage(text).into()
            })
        })
        .collect()
}
