//! Changes one image so that a network no longer recognises it: `craft_one MODEL.onnx PRESET IMAGE
//! OUT.png`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use waylay::dataset::{Item, Source};
use waylay::image::write_png;
use waylay::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, preset, image, out] = &arguments[..] else {
        return Err("craft_one MODEL.onnx PRESET IMAGE OUT.png".into());
    };
    let embedder = OnnxEmbedder::open(Path::new(model), OpenOptions::new(preset.parse::<Preset>()?))?;
    let source = Source::File(image.into());
    let item = Item { name: image.clone(), identity: String::new(), camera: None, source };
    let clean = dataset::load(&[item], embedder.input(), embedder.resizing())?;
    let scene = Scene {
        target: &embedder,
        metric: Metric::Cosine,
        epsilon: Epsilon::from_255(8.0)?,
        seed: Seed(0),
        device: embedder.device(),
    };
    let crafted = craft(&PgdConfig::default().check()?, &clean, &scene, &Silent)?;
    write_png(Path::new(out), &crafted.images, 0)?;
    let found = quality::measure(&clean, &crafted.images)?;
    let psnr = found.psnr_db.unwrap_or(f64::INFINITY);
    println!("largest change {}/255, PSNR {psnr:.1} dB, SSIM {:.3}", found.linf_255, found.ssim);
    Ok(())
}
