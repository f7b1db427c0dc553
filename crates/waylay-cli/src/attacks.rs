//! The attacks that the command line can name. A new one is a line in [`LIST`].

use std::fmt;

use waylay::attack::uaa_gan::Family;
use waylay::attack::{Attack, Fgsm, Noise, PgdConfig};

use crate::exit::Usage;

/// How names are written, for messages, and the attack that one of them names.
struct Named(&'static str, fn(&str) -> Option<Box<dyn Attack>>);

/// Attacks that need no training.
const LIST: &[Named] = &[
    Named("`noise`", |name| only("noise", name, Noise)),
    Named("`fgsm`", |name| only("fgsm", name, Fgsm)),
    Named(
        "`pgd`, `pgd-N` (N steps, 1 to 10,000), `pgd-N-opposite`, either with `@E` for a budget of E/255",
        |name| Some(Box::new(name.parse::<PgdConfig>().ok()?.check().ok()?)),
    ),
];

/// The attack, if it is the one called `name`.
fn only(own: &str, name: &str, attack: impl Attack + 'static) -> Option<Box<dyn Attack>> {
    (own == name).then(|| Box::new(attack) as _)
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
        let attack = || LIST.iter().find_map(|Named(_, read)| read(name)).map(Self::Attack);
        generator.map(Self::Generator).or_else(attack).ok_or_else(|| {
            let forms: Vec<&str> = LIST.iter().map(|Named(form, _)| *form).collect();
            Usage(format!("attack `{name}`; need {}, `uaa-gan` or `guided-gan`", forms.join(", ")))
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
        for name in ["noise", "fgsm", "pgd", "pgd-40", "pgd@4", "pgd-3-opposite", "uaa-gan", "guided-gan"] {
            let choice = Choice::read(name).unwrap();
            assert_eq!(choice.to_string(), name);
            assert_eq!(choice.family().is_some(), name.ends_with("gan"));
        }
        for name in ["", "PGD", "pgd-0", "pgd@", "gan", "none"] {
            let error = Choice::read(name).err().unwrap().to_string();
            assert!(error.contains(&format!("attack `{name}`; need `noise`, `fgsm`, `pgd`")), "{error}");
        }
    }
}
