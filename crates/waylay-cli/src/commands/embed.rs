//! `waylay embed`.

use anyhow::{Context, Result};
use npyz::WriterBuilder;
use serde_json::json;
use waylay::dataset;
use waylay::run::Device;
use waylay::run::write_atomic;
use waylay::target::Target;

use super::{announce, print};
use crate::bar::Bar;
use crate::cli::EmbedArgs;
use crate::plan;
use waylay::run::Progress;

/// Images decoded and embedded at a time: memory stays bounded whatever the folder holds.
const BATCH: usize = 64;

pub fn run(args: EmbedArgs, json: bool) -> Result<()> {
    plan::output_file(&args.out, "npy")?;
    let target = plan::target(&args.target)?;
    let items = dataset::read_unlabelled(&args.images)?;
    announce(&target, None);
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[items.len() as u64, target.dim() as u64])
        .writer(&mut bytes)
        .begin_nd()
        .context("begin the array")?;
    let bar = Bar::default();
    bar.begin("Embed", items.len().div_ceil(BATCH));
    for batch in items.chunks(BATCH) {
        let images = dataset::load(batch, target.input(), target.resizing())?;
        let embeddings = target.embed(&images, &Device::flex())?;
        writer.extend(embeddings.values().iter().copied()).context("write the array")?;
        bar.advance("");
    }
    writer.finish().context("finish the array")?;
    bar.end();
    write_atomic(&args.out, &bytes)?;
    let names: String = items.iter().map(|item| format!("{}\n", item.name)).collect();
    let names_path = args.out.with_extension("txt");
    write_atomic(&names_path, names.as_bytes())?;
    let summary = json!({
        "embeddings": args.out, "names": names_path, "images": items.len(), "dim": target.dim(),
    });
    print(json, &summary, || {
        format!("{} embeddings of {} dimensions: {}", items.len(), target.dim(), args.out.display())
    })
}
