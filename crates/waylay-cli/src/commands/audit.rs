//! `waylay audit`.

use anyhow::Result;
use waylay::attack::AttackChoice;
use waylay::attack::uaa_gan::{Generator, GeneratorFile, GeneratorFileError};
use waylay::audit::{AuditPlan, audit};
use waylay::report;
use waylay::run::{OutputDir, Seed};
use waylay::target::Target;
use waylay::target::onnx::OnnxTarget;

use super::{announce, print};
use crate::bar::Bar;
use crate::cli::AuditArgs;
use crate::exit::Usage;
use crate::plan;

pub fn run(args: AuditArgs, threads: usize, json: bool) -> Result<()> {
    let (epsilon, metric) = plan::scene(&args.scene)?;
    let attacks = plan::attacks(&args.attacks)?;
    let sample = args.target.target.is_none();
    let uaa_gan = plan::uaa_gan(&args.uaa_gan, sample, args.quick)?;
    let target = plan::target(&args.target)?;
    let mut split = plan::split(&args.data, &args.target)?;
    if args.quick {
        plan::shorten(&mut split);
    }
    let generator =
        args.generator.as_deref().map(|path| load_generator(path, &target, args.transfer)).transpose()?;
    if generator.is_some() && (args.uaa_gan.config.is_some() || !args.uaa_gan.set.is_empty()) {
        return Err(
            Usage("--config and --set are for training; --generator is trained already".into()).into()
        );
    }
    if generator.is_some() && !attacks.contains(&AttackChoice::UaaGan) {
        return Err(Usage("--generator needs uaa-gan among --attacks".into()).into());
    }
    if attacks.contains(&AttackChoice::UaaGan) {
        match &generator {
            None if split.train.is_empty() => {
                let need = "uaa-gan needs images to train on: --train DIR, or a trained --generator FILE, or --attacks \
                            without uaa-gan";
                return Err(Usage(need.into()).into());
            }
            None => {}
            Some((facts, _)) => facts.fits(epsilon, metric).map_err(|e| Usage(e.to_string()))?,
        }
    }
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

    let found = audit(
        AuditPlan {
            target: &target,
            preprocess: target.preprocess().to_string(),
            verified,
            split: &split,
            metric,
            epsilon,
            attacks,
            uaa_gan,
            generator,
            seed: Seed(args.scene.seed),
            threads,
            quick: args.quick,
            command: command_line(),
        },
        &out,
        &Bar::default(),
    )?;
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

/// A generator file for `target`, without automatic differentiation.
pub fn load_generator(
    path: &std::path::Path,
    target: &OnnxTarget,
    transfer: bool,
) -> Result<(GeneratorFile, Generator)> {
    let bytes = std::fs::read(path).map_err(|e| GeneratorFileError::Format {
        path: path.display().to_string(),
        reason: e.to_string(),
    })?;
    let (facts, generator) =
        GeneratorFile::decode(path, bytes, target as &dyn Target, transfer, &target.device())?;
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
