//! The attacks that the command line can name. A new one is a line in [`LIST`].

use std::fmt;
use std::sync::Arc;

use waylay::attack::uaa_gan::Family;
use waylay::attack::{Attack, Evade, Fgsm, Noise, Objective, Opposite, PgdConfig};

use crate::error::Usage;

/// The attack that a name without its objective is, and the objective that was named behind it.
type Read = fn(&str, Option<Arc<dyn Objective>>) -> Option<Box<dyn Attack>>;

/// How names are written, for messages, and how they are read.
struct Named(&'static str, Read);

/// Attacks that need no training.
const LIST: &[Named] = &[
    Named("`noise`", |name, objective| {
        (name == "noise" && objective.is_none()).then(|| Box::new(Noise) as _)
    }),
    Named("`fgsm`", |name, objective| {
        (name == "fgsm").then(|| Box::new(Fgsm::default().towards(or_evade(objective))) as _)
    }),
    Named(
        "`pgd`, `pgd-N` (N steps, 1 to 10,000), `pgd-N-opposite`, either with `@E` for a budget of E/255",
        |name, objective| {
            let pgd = name.parse::<PgdConfig>().ok()?.check().ok()?;
            Some(Box::new(pgd.towards(or_evade(objective))))
        },
    ),
];

/// `objective`, or to evade where none was named.
fn or_evade(objective: Option<Arc<dyn Objective>>) -> Arc<dyn Objective> {
    objective.unwrap_or_else(|| Arc::new(Evade))
}

/// What attacks can follow.
const OBJECTIVES: &[fn() -> Arc<dyn Objective>] = &[|| Arc::new(Evade), || Arc::new(Opposite)];

/// The objective called `name`.
pub fn objective(name: &str) -> Result<Arc<dyn Objective>, Usage> {
    let all = || OBJECTIVES.iter().map(|make| make());
    all().find(|objective| objective.name() == name).ok_or_else(|| {
        let names: Vec<&str> = all().map(|objective| objective.name()).collect();
        Usage(format!("objective `{name}`; need {}", names.join(" or ")))
    })
}

/// An attack that was named.
pub enum Choice {
    /// It can run as it is.
    Attack(Box<dyn Attack>),
    /// It needs a generator, trained or loaded.
    Generator(Family),
}

impl Choice {
    /// The attack called `name`.
    pub fn read(name: &str) -> Result<Self, Usage> {
        let generator = Family::ALL.into_iter().find(|family| family.to_string() == name);
        let (plain, towards) = match name.split_once('+') {
            Some((plain, towards)) => (plain, Some(objective(towards)?)),
            None => (name, None),
        };
        let attack = || LIST.iter().find_map(|Named(_, read)| read(plain, towards.clone())).map(Self::Attack);
        generator.map(Self::Generator).or_else(attack).ok_or_else(|| {
            let forms: Vec<&str> = LIST.iter().map(|Named(form, _)| *form).collect();
            Usage(format!("attack `{name}`; need {}, `uaa-gan` or `guided-gan`; behind fgsm and pgd, `+opposite` for that objective", forms.join(", ")))
        })
    }

    /// Which generator it needs.
    pub fn family(&self) -> Option<Family> {
        match self {
            Self::Attack(_) => None,
            Self::Generator(family) => Some(*family),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attack(attack) => f.write_str(&attack.name()),
            Self::Generator(family) => family.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_is_found_by_the_name_that_it_states() {
        for name in [
            "noise",
            "fgsm",
            "fgsm+opposite",
            "pgd",
            "pgd-40",
            "pgd@4",
            "pgd-3-opposite",
            "pgd-3+opposite",
            "uaa-gan",
            "guided-gan",
        ] {
            let choice = Choice::read(name).unwrap();
            assert_eq!(choice.to_string(), name);
            assert_eq!(choice.family().is_some(), name.ends_with("gan"));
        }
        for name in ["", "PGD", "pgd-0", "pgd@", "gan", "none", "noise+opposite"] {
            let error = Choice::read(name).err().unwrap().to_string();
            assert!(error.contains(&format!("attack `{name}`; need `noise`, `fgsm`, `pgd`")), "{error}");
        }
        let error = Choice::read("pgd+friend").err().unwrap().to_string();
        assert_eq!(error, "objective `friend`; need evade or opposite");
    }
}
