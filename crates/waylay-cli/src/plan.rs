//! What was typed, as checked values.

use std::path::Path;

use anyhow::{Context, Result};
use waylay::attack::uaa_gan::{CheckedConfig, ConfigError, UaaGanConfig};
use waylay::attack::{AttackChoice, Epsilon};
use waylay::dataset::{self, FolderOptions, Split};
use waylay::image::io::MIN_SIDE;
use waylay::target::onnx::{OnnxTarget, OpenOptions};
use waylay::target::preprocess::{Preprocess, Preset};
use waylay::target::{Metric, Target, sample_target};

use crate::cli::{DataArgs, SceneArgs, TargetArgs, UaaGanArgs};
use crate::exit::{Unfit, Unwritable, Usage};

/// UAA-GAN's settings for the embedded sample: smaller and shorter than for real images.
const SAMPLE_CONFIG: &str = include_str!("../../../assets/sample/uaa-gan.toml");
/// Training steps and queries of `--quick`.
const QUICK_STEPS: usize = 30;
const QUICK_QUERIES: usize = 40;

/// Starts the threads that compute and gives their number.
pub fn start_threads(threads: Option<usize>) -> Result<usize> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or(available);
    if !(1..=1024).contains(&threads) {
        return Err(Usage(format!("--threads {threads}; need 1 to 1,024")).into());
    }
    waylay::run::keep_freed_memory();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("start the threads")?;
    Ok(threads)
}

/// The target: a file, or the embedded sample's.
pub fn target(args: &TargetArgs) -> Result<OnnxTarget> {
    let Some(path) = &args.target else {
        if args.preprocess.is_some() || args.output.is_some() {
            return Err(Usage("--preprocess and --output describe a model; need --target FILE".into()).into());
        }
        return Ok(sample_target()?);
    };
    let preset = args.preprocess.as_deref().map(str::parse::<Preset>).transpose()?;
    let preprocess = Preprocess::choose(path, preset)?;
    let options = OpenOptions { preprocess, output: args.output.clone() };
    let target = OnnxTarget::open(path, options).with_context(|| format!("target `{}`", path.display()))?;
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

/// UAA-GAN's configuration: defaults (the sample's for the sample), the file, then the flags, in that order.
pub fn uaa_gan(args: &UaaGanArgs, sample: bool, quick: bool) -> Result<CheckedConfig> {
    let mut table = match &args.config {
        Some(path) => {
            let text = read(path)?;
            let typed = UaaGanConfig::from_toml(&text).map_err(anyhow::Error::from);
            typed.and_then(|_| parse(&text)).with_context(|| format!("config `{}`", path.display()))?
        }
        None if sample => parse(SAMPLE_CONFIG)?,
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
    let mut config = typed(&table)?;
    if quick {
        config.training.steps = config.training.steps.min(QUICK_STEPS);
        config.training.warmup = config.training.warmup.min(config.training.steps);
    }
    Ok(config.check()?)
}

/// Keeps evenly spaced queries, as many as a quick run takes.
pub fn shorten(split: &mut Split) {
    let count = split.query.len();
    if count > QUICK_QUERIES {
        let kept = (0..QUICK_QUERIES).map(|i| split.query[i * count / QUICK_QUERIES].clone()).collect();
        split.query = kept;
    }
}

/// The attacks by name, each once.
pub fn attacks(names: &[String]) -> Result<Vec<AttackChoice>> {
    let mut choices = Vec::new();
    for name in names {
        let choice: AttackChoice = name.trim().parse()?;
        if !choices.contains(&choice) {
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
        let config = uaa_gan(&args, false, false).unwrap();
        assert_eq!(config.training.steps, 7);
        assert_eq!(config.loss.mining, waylay::attack::uaa_gan::Mining::Nearest);
        assert_eq!(config.generator.widths, [8, 4]);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let args = UaaGanArgs { config: None, set: vec!["loss.lamda=1".into()] };
        assert!(format!("{:#}", uaa_gan(&args, false, false).unwrap_err()).contains("lamda"));
    }
}
