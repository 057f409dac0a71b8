//! What could change a result, as one short text.

use cokv_models::NUMERICS;
use sha2::{Digest, Sha256};

/// Hash of all parts in their order; where one part ends and the next begins counts too.
pub fn fingerprint(parts: impl IntoIterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
/// What this build computes with: its version, and the accelerators and vendors' libraries, which round differently.
pub fn build() -> [String; 2] {
    let features =
        [cfg!(feature = "cuda"), cfg!(feature = "metal"), cfg!(feature = "mkl"), cfg!(feature = "accelerate")];
    [format!("{} {NUMERICS}", env!("CARGO_PKG_VERSION")), format!("{features:?}")]
}
