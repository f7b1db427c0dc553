//! The list of attacks: what can be named in `--attacks`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::pgd::Start;
use super::{Attack, Epsilon, Fgsm, Noise, PgdConfig};

/// An attack by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AttackChoice {
    /// `noise`.
    Noise,
    /// `fgsm`.
    Fgsm,
    /// `pgd-N` with N steps; `pgd` is `pgd-10`. `pgd-N-opposite` begins along the opposite direction, and `@E` behind
    /// either is a budget of its own in 1/255.
    Pgd(PgdConfig),
    /// `uaa-gan`: needs a trained generator, which sees the image alone.
    UaaGan,
    /// `guided-gan`: needs a trained generator, which sees feature maps or gradients of the target too.
    GuidedGan,
}

/// A name that is no attack.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "attack `{0}`; need `noise`, `fgsm`, `pgd`, `pgd-N` (N steps, 1 to 10,000), `pgd-N-opposite`, either with `@E` for a \
     budget of E/255, `uaa-gan` or `guided-gan`"
)]
pub struct AttackChoiceError(String);

impl AttackChoice {
    /// The attack; `None` for generators, which have to be trained or loaded first.
    pub fn build(self) -> Option<Box<dyn Attack>> {
        match self {
            Self::Noise => Some(Box::new(Noise)),
            Self::Fgsm => Some(Box::new(Fgsm)),
            Self::Pgd(config) => config.check().ok().map(|pgd| Box::new(pgd) as Box<dyn Attack>),
            Self::UaaGan | Self::GuidedGan => None,
        }
    }
}

/// `pgd`, `pgd-N`, `pgd-N-opposite`, with or without `@E`.
fn pgd(name: &str) -> Option<PgdConfig> {
    let (name, epsilon_255) = match name.split_once('@') {
        Some((name, budget)) => (name, Some(Epsilon::from_255(budget.parse().ok()?).ok()?)),
        None => (name, None),
    };
    let (name, start) = match name.strip_suffix("-opposite") {
        Some(name) => (name, Start::Opposite),
        None => (name, Start::Random),
    };
    let steps = match name.strip_prefix("pgd")? {
        "" => PgdConfig::default().steps,
        steps => steps.strip_prefix('-')?.parse().ok()?,
    };
    let config = PgdConfig { steps, start, epsilon_255, ..PgdConfig::default() };
    config.check().ok().map(|_| config)
}

impl FromStr for AttackChoice {
    type Err = AttackChoiceError;
    fn from_str(name: &str) -> Result<Self, AttackChoiceError> {
        match name {
            "noise" => Ok(Self::Noise),
            "fgsm" => Ok(Self::Fgsm),
            "uaa-gan" => Ok(Self::UaaGan),
            "guided-gan" => Ok(Self::GuidedGan),
            other => pgd(other).map(Self::Pgd).ok_or_else(|| AttackChoiceError(other.to_owned())),
        }
    }
}

impl fmt::Display for AttackChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noise => f.write_str("noise"),
            Self::Fgsm => f.write_str("fgsm"),
            Self::Pgd(config) => {
                f.write_str("pgd")?;
                match (config.start, config.steps) {
                    (Start::Random, 10) => {}
                    (Start::Random, steps) => write!(f, "-{steps}")?,
                    (Start::Opposite, steps) => write!(f, "-{steps}-opposite")?,
                }
                config.epsilon_255.map_or(Ok(()), |epsilon| write!(f, "@{}", epsilon.in_255()))
            }
            Self::UaaGan => f.write_str("uaa-gan"),
            Self::GuidedGan => f.write_str("guided-gan"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        let built = ["noise", "fgsm", "pgd", "pgd-40", "pgd@4", "pgd-3-opposite", "pgd-10-opposite@2.5"];
        for name in built {
            let choice: AttackChoice = name.parse().unwrap();
            assert_eq!(choice.to_string(), name);
            assert_eq!(choice.build().unwrap().name(), name);
        }
        for name in ["uaa-gan", "guided-gan"] {
            let choice: AttackChoice = name.parse().unwrap();
            assert_eq!(choice.to_string(), name);
            assert!(choice.build().is_none(), "a generator has to be trained first");
        }
        for name in ["", "PGD", "pgd-0", "pgd-x", "pgd-", "pgdx", "pgd@0", "pgd@", "pgd-3-other", "gan"] {
            assert!(name.parse::<AttackChoice>().unwrap_err().to_string().contains(name), "{name}");
        }
        assert_eq!("pgd-10".parse::<AttackChoice>().unwrap().to_string(), "pgd");
        assert_eq!("pgd-opposite".parse::<AttackChoice>().unwrap().to_string(), "pgd-10-opposite");
    }
}
