//! One seed per run, one stream of random numbers per purpose.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// A run's only source of randomness.
///
/// ```
/// use rand::RngExt;
/// use waylay::prelude::*;
///
/// let draw = |purpose| Seed(7).stream(purpose).random::<u64>();
/// assert_eq!(draw("noise/0"), draw("noise/0"));
/// assert_ne!(draw("noise/0"), draw("noise/1"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream for `purpose`: the same seed and purpose give the same numbers, different
    /// purposes independent ones, so that adding a random choice in one place moves no other.
    pub fn stream(self, purpose: &str) -> ChaCha8Rng {
        let digest = Sha256::new().chain_update(self.0.to_le_bytes()).chain_update(purpose).finalize();
        ChaCha8Rng::from_seed(digest.into())
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_purpose_and_seed() {
        let first = |seed: u64, purpose: &str| Seed(seed).stream(purpose).next_u64();
        assert_eq!(first(1, "noise"), first(1, "noise"));
        assert_ne!(first(1, "noise"), first(1, "init"));
        assert_ne!(first(1, "noise"), first(2, "noise"));
    }
}
