//! SHA-256 as it is written down: what tells two files apart.

use sha2::{Digest, Sha256};

/// SHA-256 of `parts`, one after another, as 64 hexadecimal digits.
pub fn sha256<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Hash::default();
    parts.into_iter().for_each(|part| hash.update(part));
    hash.finish()
}

/// SHA-256 of what comes bit by bit.
#[derive(Clone, Debug, Default)]
pub struct Hash(Sha256);

impl Hash {
    /// Takes `part` behind all before it.
    pub fn update(&mut self, part: impl AsRef<[u8]>) {
        self.0.update(part);
    }

    /// 64 hexadecimal digits.
    pub fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_fips_180() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(["abc"]), expected);
        assert_eq!(sha256(["a", "bc"]), expected);
    }
}
