//! `waylay config`.

use anyhow::Result;
use waylay::attack::uaa_gan::{Family, UaaGanConfig};

use super::print;
use crate::cli::{ConfigArgs, ConfigName, UaaGanArgs};
use crate::plan;

pub fn run(args: &ConfigArgs, json: bool) -> Result<()> {
    let paper = UaaGanArgs { config: Some(plan::PAPER.into()), set: Vec::new() };
    let none = UaaGanArgs::default();
    let (attack, given, sample, source) = match args.name {
        ConfigName::Paper => (Family::UaaGan, paper, false, UaaGanConfig::PAPER),
        ConfigName::Default => (Family::UaaGan, none, false, ""),
        ConfigName::Sample => (Family::UaaGan, none, true, UaaGanConfig::SAMPLE),
        ConfigName::GuidedGan => (Family::GuidedGan, none, false, UaaGanConfig::GUIDED),
    };
    let config = plan::generator(&given, attack, false, sample, false)?;
    let text = config.to_toml()?;
    print(json, &*config, || format!("{}{}", remarks(source), text.trim_end()))
}

/// The comments at the beginning of a configuration: where its values come from.
fn remarks(source: &str) -> String {
    source.lines().take_while(|line| line.starts_with('#')).flat_map(|line| [line, "\n"]).collect()
}
