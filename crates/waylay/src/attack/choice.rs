//! The list of attacks: what can be named in `--attacks`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Attack, Fgsm, Noise, Pgd, PgdConfig};

/// An attack by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttackChoice {
    /// `noise`.
    Noise,
    /// `fgsm`.
    Fgsm,
    /// `pgd-N` with N steps; `pgd` is `pgd-10`.
    Pgd(usize),
    /// `uaa-gan`: needs a trained generator.
    UaaGan,
}

/// A name that is no attack.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("attack `{0}`; need `noise`, `fgsm`, `pgd`, `pgd-N` (N steps, 1 to 10,000) or `uaa-gan`")]
pub struct AttackChoiceError(String);

impl AttackChoice {
    /// The attack; `None` for UAA-GAN, which has to be trained or loaded first.
    pub fn build(self) -> Option<Box<dyn Attack>> {
        match self {
            Self::Noise => Some(Box::new(Noise)),
            Self::Fgsm => Some(Box::new(Fgsm)),
            Self::Pgd(steps) => {
                let checked: Result<Pgd, _> = PgdConfig { steps, ..PgdConfig::default() }.check();
                checked.ok().map(|pgd| Box::new(pgd) as Box<dyn Attack>)
            }
            Self::UaaGan => None,
        }
    }
}

impl FromStr for AttackChoice {
    type Err = AttackChoiceError;
    fn from_str(name: &str) -> Result<Self, AttackChoiceError> {
        let unknown = || AttackChoiceError(name.to_owned());
        match name {
            "noise" => Ok(Self::Noise),
            "fgsm" => Ok(Self::Fgsm),
            "pgd" => Ok(Self::Pgd(10)),
            "uaa-gan" => Ok(Self::UaaGan),
            other => {
                let steps = other.strip_prefix("pgd-").and_then(|n| n.parse().ok()).ok_or_else(unknown)?;
                PgdConfig { steps, ..PgdConfig::default() }.check().map_err(|_| unknown())?;
                Ok(Self::Pgd(steps))
            }
        }
    }
}

impl fmt::Display for AttackChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noise => f.write_str("noise"),
            Self::Fgsm => f.write_str("fgsm"),
            Self::Pgd(10) => f.write_str("pgd"),
            Self::Pgd(steps) => write!(f, "pgd-{steps}"),
            Self::UaaGan => f.write_str("uaa-gan"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in ["noise", "fgsm", "pgd", "pgd-40", "uaa-gan"] {
            let choice: AttackChoice = name.parse().unwrap();
            assert_eq!(choice.to_string(), name);
            assert!(choice.build().is_none_or(|attack| attack.name() == name));
        }
        for name in ["", "PGD", "pgd-0", "pgd-x", "gan"] {
            assert!(name.parse::<AttackChoice>().unwrap_err().to_string().contains(name));
        }
    }
}
