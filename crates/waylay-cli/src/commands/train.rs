//! `waylay train`.

use anyhow::Result;
use serde_json::json;
use waylay::attack::Scene;
use waylay::attack::uaa_gan;
use waylay::audit::write_generator;
use waylay::dataset;
use waylay::embedder::Embedder;
use waylay::output::OutputDir;
use waylay::seed::Seed;

use super::{announce, print};
use crate::attacks::{self, Choice};
use crate::bar::Bar;
use crate::cli::TrainArgs;
use crate::error::Usage;
use crate::plan;

pub fn run(args: TrainArgs, json: bool) -> Result<()> {
    let (epsilon, metric) = plan::scene(&args.scene)?;
    let attack = match Choice::read(&args.attack)? {
        Choice::Generator(family) => family,
        Choice::Attack(other) => {
            let text = format!("--attack {} has nothing to train; need uaa-gan or guided-gan", other.name());
            return Err(Usage(text).into());
        }
    };
    let objective = attacks::objective(&args.objective)?;
    let config = plan::generator(&args.uaa_gan, attack, false, args.target.target.is_none(), false)?;
    let target = plan::target(&args.target)?.without_kept_filters();
    let items = match (&args.train, &args.target.target) {
        (Some(folder), Some(_)) => dataset::read_unlabelled(folder)?,
        (None, None) => dataset::sample()?.train,
        (None, Some(_)) => {
            return Err(Usage("--target needs images to learn from: --train DIR".into()).into());
        }
        (Some(_), None) => return Err(Usage("images of your own need a model: --target FILE".into()).into()),
    };
    let out = OutputDir::create(&args.out, true)?;
    let [weights, ..] = attack.files();
    let existing = args.out.join(weights);
    if existing.exists() && !args.force {
        return Err(Usage(format!("`{}` exists; need --force to overwrite it", existing.display())).into());
    }
    announce(&target, Some(epsilon));
    let images = dataset::load(&items, target.input(), target.resizing())?;
    let scene =
        Scene { target: &target, metric, epsilon, seed: Seed(args.scene.seed), device: target.device() };
    let trained = uaa_gan::train(&config, &objective, &images, &scene, &Bar::default())?;
    write_generator(&trained, &config, &scene, &out)?;
    let last = trained.log.last().cloned().unwrap_or_default();
    let summary = json!({
        "generator": existing,
        "attack": attack.to_string(),
        "objective": trained.objective,
        "hinge": trained.hinge,
        "target": target.name(),
        "epsilon_255": epsilon.in_255(),
        "images": images.count(),
        "steps": trained.log.len(),
        "seconds": trained.seconds,
        "warnings": trained.warnings,
        "last": last,
    });
    print(json, &summary, || {
        format!(
            "trained {} steps on {} images in {:.1} s; cosine between clean and perturbed at the end {:.3}\n\
             generator: {}",
            trained.log.len(),
            images.count(),
            trained.seconds,
            last.cosine,
            existing.display()
        )
    })
}
