//! Your own function as the network under attack: the image, averaged to 7 x 7 pixels.
//! `custom_embedder OUT`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use waylay::burn::tensor::module::adaptive_avg_pool2d;
use waylay::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("custom_embedder OUT")?;
    let pooled = embedder_fn("7 x 7 pixels", [1, 28, 28], 49, |pixels| {
        adaptive_avg_pool2d(pixels - 0.5, [7, 7]).flatten(1, 3)
    });
    let split = dataset::sample()?;
    let out = OutputDir::create(Path::new(&out), false)?;
    let audit = Audit::new(&pooled, &split).attack(Noise).attack(PgdConfig::default().check()?);
    println!("{}", report::to_text(&audit.run(&out, &Silent)?));
    Ok(())
}
