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

/// What a result was computed with: the build's version and its [`NUMERICS`], and the backend, which rounds as no other does.
pub fn build(backend: &str) -> [String; 2] {
    let backend = match backend {
        // As builds wrote it that knew no backends, so that what they computed stays good.
        "cpu" => format!("{:?}", [false; 4]),
        other => other.to_owned(),
    };
    [format!("{} {NUMERICS}", env!("CARGO_PKG_VERSION")), backend]
}

/// The same for people, whatever computes.
pub fn numerics() -> String {
    format!("{}, numerics {NUMERICS}", env!("CARGO_PKG_VERSION"))
}

/// What computes, for people.
pub fn computed_by(backend: &str) -> String {
    format!("{backend}, numerics {NUMERICS}")
}
