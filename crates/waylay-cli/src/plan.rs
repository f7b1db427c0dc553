//! Command-line arguments as checked values.

use std::path::Path;

use anyhow::{Context, Result};
use waylay::attack::Epsilon;
use waylay::attack::uaa_gan::{CheckedConfig, ConfigError, Family, Guidance, UaaGanConfig};
use waylay::dataset::{self, FolderOptions, Split};
use waylay::device::{Device, DeviceError, DeviceKind};
use waylay::embedder::preprocess::{Preprocess, Preset};
use waylay::embedder::{Embedder, OnnxEmbedder, OpenOptions, sample_embedder};
use waylay::embedding::Metric;
use waylay::image::io::MIN_SIDE;
use waylay::onnx::{GRADIENT_FACTOR, Head, Pool, TOLERANCE, Verification, verify};

use crate::attacks::Choice;
use crate::cli::{DataArgs, NetworkArgs, SceneArgs, TargetArgs, UaaGanArgs};
use crate::error::{Mismatch, Unfit, Unwritable, Usage};

/// The configuration that ships inside the program, by the name that `--config` takes.
pub const PAPER: &str = "paper";
/// Training steps and queries of `--quick`.
const QUICK_STEPS: usize = 30;
const QUICK_QUERIES: usize = 40;

/// Bytes of stack per thread: what a main thread usually has, since one of them does its work.
const STACK: usize = 8 << 20;

/// Starts the threads that compute.
pub fn start_threads(threads: Option<usize>) -> Result<()> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or(available);
    if !(1..=1024).contains(&threads) {
        return Err(Usage(format!("--threads {threads}; need 1 to 1,024")).into());
    }
    waylay_conv::keep_freed_memory();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK);
    pool.build_global().context("start the threads")
}

/// The target: a file, or the embedded sample's.
pub fn target(args: &TargetArgs) -> Result<OnnxEmbedder> {
    let device = device(&args.network)?;
    let Some(path) = &args.target else {
        let network = &args.network;
        let described = args.preprocess.is_some() || args.normalise_twice || network.output.is_some();
        if described || network.pool.is_some() || network.whiten.is_some() {
            let text = "--preprocess, --output, --pool and --whiten describe a model; need --target FILE";
            return Err(Usage(text.into()).into());
        }
        return Ok(sample_embedder(device)?);
    };
    let preset = args.preprocess.as_deref().map(str::parse::<Preset>).transpose()?;
    let preprocess = Preprocess::choose(path, preset)?;
    let options = OpenOptions {
        output: args.network.output.clone(),
        head: head(&args.network)?,
        normalise_twice: args.normalise_twice,
        device,
        ..OpenOptions::new(preprocess)
    };
    let target = OnnxEmbedder::open(path, options).with_context(|| format!("target `{}`", path.display()))?;
    let [_, height, width] = target.input();
    if height.min(width) < MIN_SIDE {
        let (name, need) = (target.name(), MIN_SIDE);
        return Err(Unfit(format!(
            "target `{name}` takes {height} x {width} pixels; need at least {need} x {need}"
        ))
        .into());
    }
    Ok(target)
}

/// Where the network runs.
pub fn device(args: &NetworkArgs) -> Result<Device> {
    let kind = args.device.parse::<DeviceKind>().map_err(|e| Usage(e.to_string()))?;
    Ok(kind.open().map_err(|error| {
        let hint = match error {
            DeviceError::NotBuilt(_) => format!(" (cargo build --release --features {kind})"),
            _ => String::new(),
        };
        Usage(format!("--device {kind}: {error}{hint}"))
    })?)
}

/// What comes behind the network.
pub fn head(args: &NetworkArgs) -> Result<Head> {
    let p = args.gem_p.unwrap_or(3.0);
    let pool = match args.pool.as_deref() {
        None => None,
        Some("avg") => Some(Pool::Average),
        Some("max") => Some(Pool::Maximum),
        Some("gem") if (0.1..=100.0).contains(&p) => Some(Pool::Gem { p }),
        Some("gem") => return Err(Usage(format!("--gem-p {p}; need 0.1 to 100")).into()),
        Some(other) => return Err(Usage(format!("--pool {other}; need gem, avg or max")).into()),
    };
    if args.gem_p.is_some() && !matches!(pool, Some(Pool::Gem { .. })) {
        return Err(Usage("--gem-p belongs to --pool gem".into()).into());
    }
    Ok(Head { pool, whiten: args.whiten.clone() })
}

/// Compares `target` with the reference arrays beside it, `MODEL.npz`, where there are any; an
/// error where they differ.
pub fn verified(args: &TargetArgs, target: &OnnxEmbedder) -> Result<Option<Verification>> {
    let Some(model) = &args.target else { return Ok(None) };
    let reference = model.with_extension("npz");
    if !reference.exists() {
        return Ok(None);
    }
    let found = verify(target.model(), &reference)?;
    if !found.passes(TOLERANCE) {
        let gradient =
            found.gradient.map_or(String::new(), |g| format!(", its input gradients by {:.1e}", g.max_rel));
        return Err(Mismatch(format!(
            "`{}` differs from its reference `{}`: its values by {:.1e} of the largest{gradient}; need {TOLERANCE:.0e} and {:.0e}. \
             Was the reference made from this model, and with this --output?",
            model.display(),
            reference.display(),
            found.values.max_rel,
            TOLERANCE * GRADIENT_FACTOR
        ))
        .into());
    }
    Ok(Some(found))
}

/// A file to write later: checked before the work begins. `extension` is what its name must end in.
pub fn output_file(path: &Path, extension: &str) -> Result<()> {
    if path.extension().is_none_or(|found| found != extension) {
        return Err(Usage(format!("--out {}; need a name ending in .{extension}", path.display())).into());
    }
    let refuse = |reason: String| Err(Unwritable(path.display().to_string(), reason).into());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return refuse(format!("folder `{}` does not exist", folder.display()));
    }
    if path.is_dir() {
        return refuse("it is a folder".into());
    }
    Ok(())
}

/// The images: folders, or the embedded sample.
pub fn split(data: &DataArgs, target: &TargetArgs) -> Result<Split> {
    let options = FolderOptions { allow_mixed_sizes: data.resize };
    let split = match (&data.data, &data.query, &data.gallery) {
        (Some(folder), ..) => dataset::read_data(folder, &options)?,
        (None, Some(query), Some(gallery)) => {
            dataset::read_split(query, gallery, data.train.as_deref(), &options)?
        }
        _ if target.target.is_some() => {
            let need = "--target needs images: --data DIR, or --query DIR --gallery DIR --train DIR";
            return Err(Usage(need.into()).into());
        }
        _ => return Ok(dataset::sample()?),
    };
    if target.target.is_none() {
        return Err(Usage("images of your own need a model: --target FILE".into()).into());
    }
    Ok(split)
}

/// The budget and the metric.
pub fn scene(args: &SceneArgs) -> Result<(Epsilon, Metric)> {
    let metric = args.metric.parse::<Metric>().map_err(|e| Usage(e.to_string()))?;
    Ok((Epsilon::from_255(args.epsilon)?, metric))
}

/// The configuration of `attack`'s generator: defaults (the sample's for the sample), the file or
/// `paper`, then the flags, in that order. `also` is set where the other generator is configured by
/// the same flags: keys that only that one has are then no mistake.
pub fn generator(
    args: &UaaGanArgs,
    attack: Family,
    also: bool,
    sample: bool,
    quick: bool,
) -> Result<CheckedConfig> {
    let guided = attack == Family::GuidedGan;
    if guided && is_paper(args) {
        let text = "--config paper is the paper's generator, which sees the image alone; guided-gan needs another --config, \
                    or none";
        return Err(Usage(text.into()).into());
    }
    let mut table = table(args, sample)?;
    if guided {
        under(&mut table, parse(UaaGanConfig::GUIDED)?);
    }
    guide(&mut table, guided, also)?;
    let mut config = typed(&table)?;
    if config.generator.guidance != Guidance::Gradients {
        config.generator.refinement_steps = 1;
    }
    if quick {
        config.training.steps = config.training.steps.min(QUICK_STEPS);
        config.training.warmup = config.training.warmup.min(config.training.steps);
    }
    Ok(config.check()?)
}

/// Whether `--config` names the configuration that ships inside the program.
pub fn is_paper(args: &UaaGanArgs) -> bool {
    args.config.as_deref() == Some(Path::new(PAPER))
}

/// Which attack the file and the flags configure: guided-gan where they name a guidance.
pub fn configured_attack(args: &UaaGanArgs, sample: bool) -> Result<Family> {
    let config = typed(&table(args, sample)?)?;
    Ok(config.family())
}

/// The file, `paper` or the sample's configuration, then the flags.
fn table(args: &UaaGanArgs, sample: bool) -> Result<toml::Table> {
    let mut table = match &args.config {
        Some(_) if is_paper(args) => parse(UaaGanConfig::PAPER)?,
        Some(path) => {
            let text = read(path)?;
            let typed = UaaGanConfig::from_toml(&text).map_err(anyhow::Error::from);
            typed.and_then(|_| parse(&text)).with_context(|| format!("config `{}`", path.display()))?
        }
        None if sample => parse(UaaGanConfig::SAMPLE)?,
        None => toml::Table::new(),
    };
    for assignment in &args.set {
        set(&mut table, assignment)?;
        typed(&table).map_err(|error| {
            // Line numbers of a table that nobody wrote would only confuse.
            let text = error.to_string();
            Usage(format!("--set {assignment}: {}", text.lines().last().unwrap_or_default()))
        })?;
    }
    Ok(table)
}

/// Puts the values of `defaults` under those of `table`.
fn under(table: &mut toml::Table, defaults: toml::Table) {
    for (name, section) in defaults {
        let own = table.entry(name).or_insert_with(|| toml::Table::new().into());
        if let (Some(own), toml::Value::Table(section)) = (own.as_table_mut(), section) {
            section.into_iter().for_each(|(key, value)| _ = own.entry(key).or_insert(value));
        }
    }
}

/// Makes the configuration that of guided-gan or of UAA-GAN, which has no guidance.
fn guide(table: &mut toml::Table, guided: bool, also: bool) -> Result<()> {
    let Some(section) = table.get_mut("generator").and_then(toml::Value::as_table_mut) else { return Ok(()) };
    let guidance = section.get("guidance").and_then(toml::Value::as_str).map(str::to_owned);
    let steps = section.get("refinement_steps").and_then(toml::Value::as_integer);
    let unguided = guidance.as_deref() == Some("none");
    if guided {
        return match guidance.as_deref() {
            Some("none") => Err(Usage(
                "guided-gan with generator.guidance = none; need `feature-maps` or `gradients`, or uaa-gan".into(),
            )
            .into()),
            Some("feature-maps") if steps.is_some_and(|steps| steps > 1) => Err(Usage(
                "`generator.refinement_steps` belongs to `generator.guidance = \"gradients\"`: feature maps are seen once"
                    .into(),
            )
            .into()),
            _ => Ok(()),
        };
    }
    // A configuration that was written out has both keys, with UAA-GAN's values.
    let stray = match (&guidance, steps) {
        _ if also || unguided => None,
        (Some(_), _) => Some("guidance"),
        (None, Some(_)) => Some("refinement_steps"),
        (None, None) => None,
    };
    if let Some(key) = stray {
        return Err(Usage(format!(
            "`generator.{key}` belongs to guided-gan; uaa-gan sees the image alone: need guided-gan, or leave the key out"
        ))
        .into());
    }
    section.retain(|key, _| key != "guidance" && key != "refinement_steps");
    Ok(())
}

/// Keeps evenly spaced queries, as many as a quick run takes.
pub fn shorten(split: &mut Split) {
    let count = split.query.len();
    if count > QUICK_QUERIES {
        let kept = (0..QUICK_QUERIES).map(|i| split.query[i * count / QUICK_QUERIES].clone()).collect();
        split.query = kept;
    }
}

/// The attacks by name, each once; a budget of their own is at most `epsilon`.
pub fn attacks(names: &[String], epsilon: Epsilon) -> Result<Vec<Choice>> {
    let mut choices: Vec<Choice> = Vec::new();
    for name in names {
        let choice = Choice::read(name.trim())?;
        if let Choice::Attack(attack) = &choice
            && let Some(own) = attack.epsilon().filter(|own| *own > epsilon)
        {
            let (own, epsilon) = (own.in_255(), epsilon.in_255());
            return Err(Usage(format!(
                "attack `{choice}` has a budget of {own}/255, above that of the audit, {epsilon}/255; raise --epsilon"
            ))
            .into());
        }
        if !choices.iter().any(|other| other.to_string() == choice.to_string()) {
            choices.push(choice);
        }
    }
    Ok(choices)
}

/// A text file of the user.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Usage(format!("config `{}`: {e}", path.display())).into())
}

fn typed(table: &toml::Table) -> Result<UaaGanConfig> {
    Ok(UaaGanConfig::from_toml(&toml::to_string(table)?)?)
}

fn parse(text: &str) -> Result<toml::Table> {
    toml::from_str(text).map_err(|e| ConfigError::Parse(e.to_string().trim_end().into()).into())
}

/// `training.steps=500` into `table`.
fn set(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let wrong = || Usage(format!("--set {assignment}; need SECTION.KEY=VALUE, such as training.steps=500"));
    let (key, value) = assignment.split_once('=').ok_or_else(wrong)?;
    let (section, key) = key.trim().split_once('.').ok_or_else(wrong)?;
    let value = value.trim();
    // A bare word is a string: mining=nearest.
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let entry = table.entry(section).or_insert_with(|| toml::Table::new().into());
    entry.as_table_mut().ok_or_else(wrong)?.insert(key.to_owned(), parsed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_defaults_and_words_are_strings() {
        let args = UaaGanArgs {
            config: None,
            set: vec![
                "training.steps=7".into(),
                "loss.mining=nearest".into(),
                "generator.widths=[8, 4]".into(),
                "generator.blocks=[1,1]".into(),
            ],
        };
        let config = generator(&args, Family::UaaGan, false, false, false).unwrap();
        assert_eq!(config.training.steps, 7);
        assert_eq!(config.loss.mining, waylay::attack::uaa_gan::Mining::Nearest);
        assert_eq!(config.generator.widths, [8, 4]);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let args = UaaGanArgs { config: None, set: vec!["loss.lamda=1".into()] };
        let error = generator(&args, Family::UaaGan, false, false, false).unwrap_err();
        assert!(format!("{error:#}").contains("lamda"));
    }

    fn guidance(config: Option<&str>, set: &[&str], attack: Family, also: bool) -> Result<Guidance> {
        let set = set.iter().map(|s| (*s).to_owned()).collect();
        let args = UaaGanArgs { config: config.map(Into::into), set };
        Ok(generator(&args, attack, also, false, false)?.generator.guidance)
    }

    #[test]
    fn guidance_is_for_guided_gan_only() {
        let (uaa, guided) = (Family::UaaGan, Family::GuidedGan);
        let maps = ["generator.guidance=feature-maps"];
        assert_eq!(guidance(None, &[], uaa, false).unwrap(), Guidance::None);
        assert_eq!(guidance(None, &[], guided, false).unwrap(), Guidance::Gradients);
        assert_eq!(guidance(None, &maps, guided, false).unwrap(), Guidance::FeatureMaps);
        assert_eq!(guidance(None, &maps, uaa, true).unwrap(), Guidance::None);
        assert_eq!(guidance(Some("paper"), &[], uaa, false).unwrap(), Guidance::None);
        let written_out = ["generator.guidance=none", "generator.refinement_steps=2"];
        assert_eq!(guidance(None, &written_out, uaa, false).unwrap(), Guidance::None);
        for (config, set, attack, part) in [
            (None, &maps[..], uaa, "`generator.guidance` belongs to guided-gan"),
            (
                None,
                &["generator.refinement_steps=3"],
                uaa,
                "`generator.refinement_steps` belongs to guided-gan",
            ),
            (Some("paper"), &maps, uaa, "`generator.guidance` belongs to guided-gan"),
            (Some("paper"), &[], guided, "--config paper is the paper's generator"),
            (
                None,
                &["generator.guidance=feature-maps", "generator.refinement_steps=3"],
                guided,
                "feature maps are seen once",
            ),
            (None, &["generator.guidance=none"], guided, "generator.guidance = none; need `feature-maps`"),
        ] {
            let error = guidance(config, set, attack, false).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
