//! Audits a network on a folder with one folder per identity, and writes the page: `audit_folder
//! MODEL.onnx PRESET IMAGES OUT`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use waylay::dataset::FolderOptions;
use waylay::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, preset, images, out] = &arguments[..] else {
        return Err("audit_folder MODEL.onnx PRESET IMAGES OUT".into());
    };
    let embedder = OnnxEmbedder::open(Path::new(model), OpenOptions::new(preset.parse::<Preset>()?))?;
    let split = dataset::read_data(Path::new(images), &FolderOptions { allow_mixed_sizes: true })?;
    let out = OutputDir::create(Path::new(out), false)?;
    let report = Audit::new(&embedder, &split)
        .epsilon(Epsilon::from_255(8.0)?)
        .attack(Noise)
        .attack(Fgsm::default())
        .attack(PgdConfig::default().check()?)
        .run(&out, &Silent)?;
    out.write("index.html", report::to_html(&report)?.as_bytes())?;
    out.write("report.json", report::to_json(&report)?.as_bytes())?;
    println!("{}", report::to_text(&report));
    Ok(())
}
