//! Words that nobody said, which stand for what somebody said. Whoever could guess them could say them: they are drawn for each
//! rendering.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A word that nobody said.
pub(super) struct Secret(String);

impl Secret {
    /// 128 bits in hexadecimal digits, drawn by what keys the standard library's hash maps: SipHash under keys of the system's.
    pub(super) fn draw() -> Self {
        let half = || RandomState::new().build_hasher().finish();
        Self(format!("{:016x}{:016x}", half(), half()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}
