//! `waylay audit`.

use std::sync::Arc;

use anyhow::Result;
use waylay::attack::uaa_gan::{Family, Generator, GeneratorFile, GeneratorFileError};
use waylay::attack::{Epsilon, Evade};
use waylay::audit::{Audit, Context, GeneratorSource};
use waylay::embedder::Embedder;
use waylay::embedder::OnnxEmbedder;
use waylay::embedding::Metric;
use waylay::output::OutputDir;
use waylay::report;
use waylay::seed::Seed;

use super::{announce, print};
use crate::attacks::Choice;
use crate::bar::Bar;
use crate::cli::AuditArgs;
use crate::error::Usage;
use crate::plan;

pub fn run(args: AuditArgs, json: bool) -> Result<()> {
    let (epsilon, metric) = plan::scene(&args.scene)?;
    let attacks = plan::attacks(&args.attacks, epsilon)?;
    let target = plan::target(&args.target)?;
    let mut split = plan::split(&args.data, &args.target)?;
    if args.quick {
        plan::shorten(&mut split);
    }
    let mut generators = generators(&args, &attacks, &target, split.train.is_empty(), epsilon, metric)?;
    let verified = plan::verified(&args.target, &target)?;
    let out = OutputDir::create(&args.out, args.force)?;
    announce(&target, Some(epsilon));
    if let Some(found) = &verified {
        eprintln!(
            "reference: agrees with the arrays beside the model, values within {:.1e}{}",
            found.values.max_rel,
            if found.is_unsteady() {
                "; its gradients are at a kink of the network and show nothing"
            } else {
                ""
            }
        );
    }
    eprintln!(
        "data: {} ({} queries, {} in the gallery, {} to train on)",
        split.name,
        split.query.len(),
        split.gallery.len(),
        split.train.len()
    );

    let context = Context { command: command_line(), quick: args.quick, verified };
    let mut audit = Audit::new(&target, &split)
        .metric(metric)
        .epsilon(epsilon)
        .seed(Seed(args.scene.seed))
        .context(context);
    for choice in attacks {
        audit = match choice {
            Choice::Attack(attack) => audit.boxed(attack),
            Choice::Generator(family) => {
                generators.extract_if(.., |source| source.family() == family).fold(audit, Audit::generator)
            }
        };
    }
    let found = audit.run(&out, &Bar::default())?;
    out.write("index.html", report::to_html(&found)?.as_bytes())?;
    out.write("contact-sheet.png", &report::contact_sheet(&found.examples)?)?;
    out.write("attacks.csv", report::to_csv(&found).as_bytes())?;
    out.write("report.json", report::to_json(&found)?.as_bytes())?;
    print(json, &found, || {
        format!(
            "\n{}\nreport: {}",
            report::to_text(&found).trim_end(),
            out.path().join("index.html").display()
        )
    })
}

/// The generators of the attacks that need one: given, or to be trained.
fn generators(
    args: &AuditArgs,
    attacks: &[Choice],
    target: &OnnxEmbedder,
    no_images: bool,
    epsilon: Epsilon,
    metric: Metric,
) -> Result<Vec<GeneratorSource>> {
    let wanted: Vec<Family> = attacks.iter().filter_map(Choice::family).collect();
    let mut sources: Vec<GeneratorSource> = Vec::new();
    for path in &args.generator {
        let (facts, generator) = load_generator(path, target, args.transfer)?;
        facts.fits(epsilon, metric).map_err(|e| Usage(e.to_string()))?;
        let attack = facts.config.family();
        if !wanted.contains(&attack) {
            return Err(Usage(format!(
                "--generator {} is of {attack}; need {attack} among --attacks",
                path.display()
            ))
            .into());
        }
        if sources.iter().any(|source| source.family() == attack) {
            return Err(
                Usage(format!("two generators of {attack}; need one --generator of each attack")).into()
            );
        }
        let train_seconds = train_seconds(&path.with_file_name(attack.files()[2]));
        let (facts, generator) = (Box::new(facts), Box::new(generator));
        sources.push(GeneratorSource::Given { facts, generator, train_seconds });
    }
    let configured = args.uaa_gan.config.is_some() || !args.uaa_gan.set.is_empty();
    let untrained: Vec<Family> =
        wanted.iter().copied().filter(|a| !sources.iter().any(|source| source.family() == *a)).collect();
    if configured && !args.generator.is_empty() && untrained.is_empty() {
        return Err(
            Usage("--config and --set are for training; --generator is trained already".into()).into()
        );
    }
    if !untrained.is_empty() && no_images {
        return Err(Usage(format!(
            "{} needs images to train on: --train DIR, or a trained --generator FILE, or --attacks without it",
            untrained[0]
        ))
        .into());
    }
    for attack in &untrained {
        let (also, sample) = (untrained.len() > 1, args.target.target.is_none());
        let config = plan::generator(&args.uaa_gan, *attack, also, sample, args.quick)?;
        sources.push(GeneratorSource::Train { config: Box::new(config), objective: Arc::new(Evade) });
    }
    Ok(sources)
}

/// The time in the last line of a training log; `None` where there is no such log.
fn train_seconds(log: &std::path::Path) -> Option<f64> {
    let text = std::fs::read_to_string(log).ok()?;
    let last: serde_json::Value = serde_json::from_str(text.lines().last()?).ok()?;
    last.get("seconds")?.as_f64()
}

/// A generator file for `target`, without automatic differentiation.
pub fn load_generator(
    path: &std::path::Path,
    target: &OnnxEmbedder,
    transfer: bool,
) -> Result<(GeneratorFile, Generator)> {
    let bytes = std::fs::read(path).map_err(|e| GeneratorFileError::Format {
        path: path.display().to_string(),
        reason: e.to_string(),
    })?;
    let (facts, generator) =
        GeneratorFile::decode(path, bytes, target as &dyn Embedder, transfer, &target.device())?;
    Ok((facts, generator))
}

/// The command as it can be typed again.
pub fn command_line() -> String {
    let quote = |word: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    let words = std::env::args_os().skip(1).map(|w| quote(w.to_string_lossy().into_owned()));
    std::iter::once("waylay".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
