//! `waylay config`.

use anyhow::Result;
use waylay::attack::AttackChoice;

use super::print;
use crate::cli::{ConfigArgs, ConfigName, UaaGanArgs};
use crate::plan;

pub fn run(args: &ConfigArgs, json: bool) -> Result<()> {
    let paper = UaaGanArgs { config: Some(plan::PAPER.into()), set: Vec::new() };
    let none = UaaGanArgs::default();
    let (attack, given, sample) = match args.name {
        ConfigName::Paper => (AttackChoice::UaaGan, paper, false),
        ConfigName::Default => (AttackChoice::UaaGan, none, false),
        ConfigName::Sample => (AttackChoice::UaaGan, none, true),
        ConfigName::GuidedGan => (AttackChoice::GuidedGan, none, false),
    };
    let config = plan::generator(&given, attack, false, sample, false)?;
    let text = config.to_toml()?;
    print(json, &*config, || text.trim_end().to_owned())
}
