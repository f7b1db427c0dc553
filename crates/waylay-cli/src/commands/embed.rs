//! `waylay embed`.

use std::time::Instant;

use anyhow::{Context, Result};
use npyz::WriterBuilder;
use serde_json::json;
use waylay::dataset;
use waylay::embedder::{Embedder, STREAM_BATCH, embed_stream};
use waylay::output::{AtomicFile, write_atomic};
use waylay::progress::Progress;

use super::{announce, print};
use crate::bar::Bar;
use crate::cli::EmbedArgs;
use crate::plan;

pub fn run(args: EmbedArgs, json: bool) -> Result<()> {
    plan::output_file(&args.out, "npy")?;
    let target = plan::target(&args.target)?;
    let items = dataset::read_unlabelled(&args.images)?;
    announce(&target, None);
    let names: String = items.iter().map(|item| format!("{}\n", item.name)).collect();
    let count = items.len();
    let mut file = AtomicFile::create(&args.out)?;
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[count as u64, target.dim() as u64])
        .writer(&mut file)
        .begin_nd()
        .context("begin the array")?;
    let bar = Bar::default();
    let (start, mut done) = (Instant::now(), 0);
    let per_second = |done: usize| done as f64 / start.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
    bar.begin("Embed", count.div_ceil(STREAM_BATCH));
    embed_stream(items.into_iter(), &target, &target.device(), |batch, _, embeddings| -> Result<()> {
        writer.extend(embeddings.values().iter().copied()).context("write the array")?;
        done += batch.len();
        bar.advance(&format!("{:.0} images/s", per_second(done)));
        Ok(())
    })?;
    bar.end();
    writer.finish().context("finish the array")?;
    let per_second = per_second(count);
    file.commit()?;
    let names_path = args.out.with_extension("txt");
    write_atomic(&names_path, names.as_bytes())?;
    let summary = json!({
        "embeddings": args.out, "names": names_path, "images": count, "dim": target.dim(),
        "images_per_second": per_second,
    });
    print(json, &summary, || {
        format!(
            "{count} embeddings of {} dimensions, {per_second:.0} images/s: {}",
            target.dim(),
            args.out.display()
        )
    })
}
