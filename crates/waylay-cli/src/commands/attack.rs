//! `waylay attack`.

use std::path::Path;

use anyhow::Result;
use serde_json::json;
use waylay::attack::uaa_gan::{Family, GeneratorAttack};
use waylay::attack::{Attack, Epsilon, Scene, craft};
use waylay::dataset;
use waylay::embedder::Embedder;
use waylay::embedding::Metric;
use waylay::image::write_png;
use waylay::output::OutputDir;
use waylay::quality;
use waylay::seed::Seed;

use super::audit::load_generator;
use super::{announce, print};
use crate::attacks::Choice;
use crate::bar::Bar;
use crate::cli::AttackArgs;
use crate::error::Usage;
use crate::plan;

/// Where the attack comes from.
enum Source<'a> {
    /// It needs no generator.
    Attack(Box<dyn Attack>),
    /// A generator's file, and which attack it was said to be.
    Generator(&'a Path, Option<Family>),
}

pub fn run(args: AttackArgs, json: bool) -> Result<()> {
    let metric = args.metric.parse::<Metric>().map_err(|e| Usage(e.to_string()))?;
    let choice = args.attack.as_deref().map(Choice::read).transpose()?;
    if let Some(Choice::Attack(attack)) = &choice
        && let Some(own) = attack.epsilon()
    {
        return Err(Usage(format!(
            "--attack {}: the budget of a single attack is --epsilon; need --epsilon {} instead of `@`",
            attack.name(),
            own.in_255()
        ))
        .into());
    }
    let source = match (choice, &args.generator) {
        (Some(Choice::Attack(attack)), Some(_)) => {
            return Err(Usage(format!(
                "--generator is for uaa-gan and guided-gan, not for {}",
                attack.name()
            ))
            .into());
        }
        (Some(Choice::Generator(family)), None) => {
            return Err(Usage(format!("{family} needs --generator FILE; `waylay train` makes one")).into());
        }
        (None, None) => return Err(Usage("need --attack NAME or --generator FILE".into()).into()),
        (Some(Choice::Attack(attack)), None) => Source::Attack(attack),
        (choice, Some(path)) => Source::Generator(path, choice.and_then(|choice| choice.family())),
    };
    let target = plan::target(&args.target)?;
    let asked = args.epsilon.map(Epsilon::from_255).transpose()?;
    let (attack, epsilon, metric): (Box<dyn Attack>, _, _) = match source {
        Source::Attack(attack) => (attack, asked.unwrap_or_default(), metric),
        Source::Generator(path, named) => {
            let (facts, generator) = load_generator(path, &target, args.transfer)?;
            let own = facts.config.family();
            if let Some(other) = named.filter(|family| *family != own) {
                return Err(
                    Usage(format!("--attack {other} with a generator of {own}; leave --attack out")).into()
                );
            }
            let own = (facts.epsilon_255, facts.metric);
            // --metric has a default: only a budget can contradict.
            facts.fits(asked.unwrap_or(own.0), own.1).map_err(|e| Usage(e.to_string()))?;
            let attack = GeneratorAttack { generator, objective: facts.objective, config: facts.config };
            (Box::new(attack), own.0, own.1)
        }
    };
    let items = dataset::read_unlabelled(&args.images)?;
    let names = dataset::png_names(&items)?;
    if args
        .out
        .canonicalize()
        .ok()
        .is_some_and(|out| args.images.canonicalize().is_ok_and(|images| images == out))
    {
        return Err(Usage(
            "--out is --images; need another folder, or the images would be overwritten".into(),
        )
        .into());
    }
    let out = OutputDir::create(&args.out, true)?;
    announce(&target, Some(epsilon));
    let clean = dataset::load(&items, target.input(), target.resizing())?;
    let scene = Scene { target: &target, metric, epsilon, seed: Seed(args.seed), device: target.device() };
    let crafted = craft(attack.as_ref(), &clean, &scene, &Bar::default())?;
    for (i, name) in names.iter().enumerate() {
        write_png(&out.file(name)?, &crafted.images, i)?;
    }
    let quality = quality::measure(&clean, &crafted.images)?;
    let summary = json!({
        "attack": attack.name(),
        "knowledge": attack.knowledge(),
        "epsilon_255": epsilon.in_255(),
        "images": clean.count(),
        "ms_per_image": 1e3 * crafted.seconds / clean.count() as f64,
        "linf_255": quality.linf_255,
        "l2": quality.l2,
        "psnr_db": quality.psnr_db,
        "ssim": quality.ssim,
        "out": args.out,
    });
    print(json, &summary, || {
        format!(
            "{}: {} images, {:.1} ms each, largest change {:.0}/255, SSIM {:.3}\nimages: {}",
            attack.label(),
            clean.count(),
            1e3 * crafted.seconds / clean.count() as f64,
            quality.linf_255,
            quality.ssim,
            args.out.display()
        )
    })
}
