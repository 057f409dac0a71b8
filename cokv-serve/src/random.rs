//! Numbers that nobody guesses.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Drawn by the system, as the keys of the standard library's hash maps are.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// An id that nobody guesses and no other answer has.
pub fn drawn_id(prefix: &str) -> String {
    format!("{prefix}{:016x}{:08x}", random(), random() >> 32)
}
