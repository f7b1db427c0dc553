//! Projected gradient descent: the strong, slow reference. Source: Madry et al., arXiv:1706.06083,
//! sec. 2.1. Differs: enlarges an objective of the embedding, by default d(f_x, f_x̃), instead of a
//! classification loss.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::gradient;
use crate::attack::objective::{labelled, named};
use crate::attack::{Attack, AttackError, Epsilon, Evade, Knowledge, Objective, Opposite, Scene};
use crate::image::ImageBatch;

/// How [`Pgd`] moves. Used only through [`PgdConfig::check`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PgdConfig {
    /// Gradient steps; 1 to 10,000. Default 10.
    pub steps: usize,
    /// Step length in 1/255, above 0 and at most 255. Default 2.5 ε / steps, the rule of Madry et
    /// al.
    pub step_size: Option<f64>,
    /// Where it begins. Default `random`.
    pub start: Start,
    /// A budget of its own in 1/255, where that is smaller than the scene's: for the strength at
    /// several budgets in one report. Default none.
    pub epsilon_255: Option<Epsilon>,
}

/// Where [`Pgd`] begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At a uniformly random point of the budget: at the clean image itself the gradient of the
    /// feature distance is zero.
    #[default]
    Random,
    /// At the clean image, the first step towards [`Opposite`], whose gradient is not zero there:
    /// no step is spent on leaving a random point, and one forward pass less is needed.
    Opposite,
}

impl Default for PgdConfig {
    fn default() -> Self {
        Self { steps: 10, step_size: None, start: Start::default(), epsilon_255: None }
    }
}

/// A [`PgdConfig`] that cannot run.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum PgdConfigError {
    /// Too few or too many steps.
    #[error("pgd steps {0}; need 1 to 10,000")]
    Steps(usize),
    /// The step is no length.
    #[error("pgd step size {0}/255; need above 0 and at most 255")]
    StepSize(f64),
    /// A name that is no PGD.
    #[error(
        "attack `{0}`; need `pgd`, `pgd-N` or `pgd-N-opposite`, N from 1 to 10,000, with or without `@E` for E/255"
    )]
    Name(String),
}

/// The name in reports and lists of attacks: `pgd-N` with N steps, `pgd` for 10; `-opposite` and
/// `@E` behind it where that is not the default.
impl fmt::Display for PgdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pgd")?;
        match (self.start, self.steps) {
            (Start::Random, 10) => {}
            (Start::Random, steps) => write!(f, "-{steps}")?,
            (Start::Opposite, steps) => write!(f, "-{steps}-opposite")?,
        }
        self.epsilon_255.map_or(Ok(()), |epsilon| write!(f, "@{}", epsilon.in_255()))
    }
}

impl FromStr for PgdConfig {
    type Err = PgdConfigError;

    fn from_str(name: &str) -> Result<Self, PgdConfigError> {
        let wrong = || PgdConfigError::Name(name.to_owned());
        let (rest, epsilon_255) = match name.split_once('@') {
            Some((rest, budget)) => {
                let budget = budget.parse().ok().and_then(|budget| Epsilon::from_255(budget).ok());
                (rest, Some(budget.ok_or_else(wrong)?))
            }
            None => (name, None),
        };
        let (rest, start) = match rest.strip_suffix("-opposite") {
            Some(rest) => (rest, Start::Opposite),
            None => (rest, Start::Random),
        };
        let steps = match rest.strip_prefix("pgd").ok_or_else(wrong)? {
            "" => Self::default().steps,
            steps => steps.strip_prefix('-').and_then(|steps| steps.parse().ok()).ok_or_else(wrong)?,
        };
        let config = Self { steps, start, epsilon_255, ..Self::default() };
        config.check().map_err(|_| wrong())?;
        Ok(config)
    }
}

impl PgdConfig {
    /// The attack, if every value is in its range.
    pub fn check(self) -> Result<Pgd, PgdConfigError> {
        if !(1..=10_000).contains(&self.steps) {
            return Err(PgdConfigError::Steps(self.steps));
        }
        match self.step_size {
            Some(step) if !(step > 0.0 && step <= 255.0) => Err(PgdConfigError::StepSize(step)),
            _ => Ok(Pgd { config: self, ..Pgd::default() }),
        }
    }
}

/// Steps along the sign of the gradient of an objective, kept within the budget. Made by
/// [`PgdConfig::check`].
#[derive(Clone, Debug)]
pub struct Pgd {
    config: PgdConfig,
    objective: Arc<dyn Objective>,
}

impl Default for Pgd {
    /// Ten steps from a random point, to evade.
    fn default() -> Self {
        Self { config: PgdConfig::default(), objective: Arc::new(Evade) }
    }
}

impl Pgd {
    /// The same attack with another objective than [`Evade`].
    #[must_use]
    pub fn towards(self, objective: impl Objective + 'static) -> Self {
        Self { objective: Arc::new(objective), ..self }
    }
}

impl Attack for Pgd {
    fn name(&self) -> String {
        named(self.config.to_string(), self.objective.name())
    }

    fn label(&self) -> String {
        let budget = self.config.epsilon_255.map_or(String::new(), |e| format!(" at {}/255", e.in_255()));
        let start = match self.config.start {
            Start::Random => "",
            Start::Opposite => " from opposite",
        };
        let name = labelled(&format!("PGD{start}{budget}"), self.objective.name());
        format!("{name}, {}", self.knowledge())
    }

    fn knowledge(&self) -> Knowledge {
        let forwards = match self.config.start {
            Start::Random => self.config.steps + 1,
            Start::Opposite => self.config.steps,
        };
        Knowledge::gradients(self.config.steps, forwards)
    }

    fn epsilon(&self) -> Option<Epsilon> {
        self.config.epsilon_255
    }

    fn config(&self) -> serde_json::Value {
        let mut config = serde_json::json!(self.config);
        config["objective"] = self.objective.name().into();
        config
    }

    fn propose(&self, clean: &ImageBatch, first: usize, scene: &Scene<'_>) -> Result<Tensor<4>, AttackError> {
        let step = match self.config.step_size {
            Some(step) => (step / 255.0) as f32,
            None => 2.5 * scene.epsilon.in_pixels() / self.config.steps as f32,
        };
        let x = clean.to_tensor(&scene.device);
        match self.config.start {
            Start::Random => {
                let f_x = scene.target.embedding(x.clone())?;
                let delta = uniform_start(clean, first, scene, "pgd");
                ascend(&*self.objective, x, f_x, delta, self.config.steps, step, scene)
            }
            Start::Opposite => {
                let (f_x, gradient) = gradient(&Opposite, None, x.clone(), scene)?;
                let delta = bounded(gradient.sign() * step, scene);
                ascend(&*self.objective, x, f_x, delta, self.config.steps - 1, step, scene)
            }
        }
    }
}

/// Uniform in ±ε, one stream per image.
pub(super) fn uniform_start(clean: &ImageBatch, first: usize, scene: &Scene<'_>, purpose: &str) -> Tensor<4> {
    let epsilon = scene.epsilon.in_pixels();
    let per_image = clean.size().iter().product::<usize>();
    let delta: Vec<f32> = (0..clean.count())
        .flat_map(|i| {
            let mut random = scene.seed.stream(&format!("{purpose}/{}", first + i));
            (0..per_image).map(move |_| random.random_range(-epsilon..=epsilon)).collect::<Vec<f32>>()
        })
        .collect();
    Tensor::from_data(TensorData::new(delta, clean.shape()), &scene.device)
}

/// δ ← clip(δ + step · sign ∇ objective(f_x, f(x + δ)), ±ε), `steps` times; returns x + δ.
pub(super) fn ascend(
    objective: &dyn Objective,
    x: Tensor<4>,
    f_x: Tensor<2>,
    mut delta: Tensor<4>,
    steps: usize,
    step: f32,
    scene: &Scene<'_>,
) -> Result<Tensor<4>, AttackError> {
    for _ in 0..steps {
        let perturbed = (x.clone() + delta.clone()).clamp(0.0, 1.0);
        let (_, gradient) = gradient(objective, Some(&f_x), perturbed, scene)?;
        delta = bounded(delta + gradient.sign() * step, scene);
    }
    Ok(x + delta)
}

fn bounded(delta: Tensor<4>, scene: &Scene<'_>) -> Tensor<4> {
    let epsilon = scene.epsilon.in_pixels();
    delta.clamp(-epsilon, epsilon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in ["pgd", "pgd-40", "pgd@4", "pgd-3-opposite", "pgd-10-opposite@2.5"] {
            assert_eq!(name.parse::<PgdConfig>().unwrap().to_string(), name);
        }
        for name in ["", "PGD", "pgd-0", "pgd-x", "pgd-", "pgdx", "pgd@0", "pgd@", "pgd-3-other", "gan"] {
            assert!(
                name.parse::<PgdConfig>().unwrap_err().to_string().contains(&format!("`{name}`")),
                "{name}"
            );
        }
        assert_eq!("pgd-10".parse::<PgdConfig>().unwrap().to_string(), "pgd");
        assert_eq!("pgd-opposite".parse::<PgdConfig>().unwrap().to_string(), "pgd-10-opposite");
    }
}
