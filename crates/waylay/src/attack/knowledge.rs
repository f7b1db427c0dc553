//! What an attacker has of the target when crafting: every row of a report states it, and labels
//! are made from it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an attack sees when it crafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The image alone. A generator may have been trained with the target's gradients before;
    /// crafting needs no target.
    Image,
    /// The image and the target's feature maps of it.
    FeatureMaps,
    /// The image and gradients of the target with respect to it.
    Gradients,
}

/// What an attack takes of the target for one query. Shown as `image only`, `feature maps, 1
/// forward pass` or `10 gradients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knowledge {
    /// What it sees.
    pub access: Access,
    /// Forward passes of the target per query, those that a gradient belongs to included.
    pub target_forwards: usize,
    /// Gradients of the target with respect to the image per query; each is one backward pass.
    pub target_gradients: usize,
}

impl Knowledge {
    /// The image alone.
    pub const IMAGE: Self = Self { access: Access::Image, target_forwards: 0, target_gradients: 0 };

    /// Gradients of the target, `forwards` passes in all.
    pub fn gradients(target_gradients: usize, target_forwards: usize) -> Self {
        Self { access: Access::Gradients, target_forwards, target_gradients }
    }
}

impl fmt::Display for Knowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.access {
            Access::Image => f.write_str("image only"),
            Access::FeatureMaps => {
                let passes = if self.target_forwards == 1 { "pass" } else { "passes" };
                write!(f, "feature maps, {} forward {passes}", self.target_forwards)
            }
            Access::Gradients => {
                let gradients = if self.target_gradients == 1 { "gradient" } else { "gradients" };
                write!(f, "{} {gradients}", self.target_gradients)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knowledge_is_told_with_its_counts() {
        let maps = Knowledge { access: Access::FeatureMaps, target_forwards: 1, target_gradients: 0 };
        for (knowledge, text) in [
            (Knowledge::IMAGE, "image only"),
            (maps, "feature maps, 1 forward pass"),
            (Knowledge::gradients(1, 2), "1 gradient"),
            (Knowledge::gradients(10, 11), "10 gradients"),
        ] {
            assert_eq!(knowledge.to_string(), text);
        }
    }
}
