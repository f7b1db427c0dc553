//! Your own attack, audited beside those of waylay, on the embedded sample: `custom_attack OUT`.

#![allow(clippy::print_stdout)]

use std::error::Error;

use waylay::burn::tensor::Tensor;
use waylay::prelude::*;

/// Makes every image brighter by the whole budget.
struct Brighter;

impl Attack for Brighter {
    fn name(&self) -> String {
        "brighter".into()
    }

    fn label(&self) -> String {
        format!("Brighter, {}", self.knowledge())
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge::IMAGE
    }

    fn propose(&self, clean: &ImageBatch, _: usize, scene: &Scene<'_>) -> Result<Tensor<4>, AttackError> {
        Ok(clean.to_tensor(&scene.device) + scene.epsilon.in_pixels())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("custom_attack OUT")?;
    let (embedder, split) = (sample_embedder(Device::flex())?, dataset::sample()?);
    let audit = Audit::new(&embedder, &split).attack(Brighter).attack(PgdConfig::default().check()?);
    println!("{}", report::to_text(&audit.run(&OutputDir::create(out.as_ref(), false)?, &Silent)?));
    Ok(())
}
