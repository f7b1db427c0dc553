//! SHA-256 as it is written down: 64 hexadecimal digits.

use sha2::{Digest, Sha256};

/// The digest of all `parts`, one behind the other.
pub(crate) fn sha256<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hexadecimal(hash)
}

/// The digest of all that `hash` was given.
pub(crate) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
