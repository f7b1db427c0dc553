//! What is wanted of an adversarial embedding, one objective per file. Every optimiser can follow
//! every objective: FGSM and PGD, and the training of a generator.

mod evade;
mod opposite;

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::Tensor;

use crate::embedding::Metric;

pub use evade::Evade;
pub use opposite::Opposite;

/// A function of the clean and the adversarial embedding that an attack makes as large as it can.
///
/// ```
/// use waylay::burn::tensor::Tensor;
/// use waylay::prelude::*;
///
/// /// Moves one coordinate of the embedding, whatever the others do.
/// #[derive(Debug)]
/// struct First;
///
/// impl Objective for First {
///     fn name(&self) -> &'static str {
///         "first"
///     }
///
///     fn value(&self, _clean: Tensor<2>, adversarial: Tensor<2>, _metric: Metric) -> Tensor<1> {
///         adversarial.narrow(1, 0, 1).squeeze_dim(1)
///     }
/// }
///
/// let attack = PgdConfig::default().check()?.towards(First);
/// assert_eq!(attack.name(), "pgd+first");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Objective: Debug + Send + Sync {
    /// Short name, as in `report.json` and lists of attacks.
    fn name(&self) -> &'static str;

    /// How far the objective is reached, per image, `[N]`; attacks enlarge it. `clean` are the
    /// embeddings f_x `[N, dim]` of the clean images, `adversarial` those of the attacked ones,
    /// f_x̃, both as the network gives them. Must be differentiable in `adversarial`.
    fn value(&self, clean: Tensor<2>, adversarial: Tensor<2>, metric: Metric) -> Tensor<1>;
}

impl Objective for Arc<dyn Objective> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn value(&self, clean: Tensor<2>, adversarial: Tensor<2>, metric: Metric) -> Tensor<1> {
        (**self).value(clean, adversarial, metric)
    }
}

/// `name`, with `+` and the objective behind it where that is not [`Evade`].
pub(crate) fn named(name: String, objective: &str) -> String {
    match objective {
        "evade" => name,
        other => format!("{name}+{other}"),
    }
}

/// `name` for people, with the objective where that is not [`Evade`].
pub(super) fn labelled(name: &str, objective: &str) -> String {
    match objective {
        "evade" => name.to_owned(),
        other => format!("{name} towards {other}"),
    }
}
