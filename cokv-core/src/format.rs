//! How a row of the cache is stored: the one place where a token becomes bytes.

use serde::{Deserialize, Serialize};

/// How the keys and values of a KV head are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Exact: what the model computes.
    F32,
    /// Half the memory, six times closer to f32 than bf16: the default.
    #[default]
    F16,
    /// Half the memory, the range of f32.
    Bf16,
}

impl Format {
    /// All, the most exact first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Bytes of one token in one KV head: a key and a value of `head_dim` numbers each.
    pub const fn token_bytes(self, head_dim: usize) -> usize {
        match self {
            Format::F32 => 8 * head_dim,
            Format::F16 | Format::Bf16 => 4 * head_dim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_key_and_a_value() {
        assert_eq!(Format::ALL.map(|format| format.token_bytes(64)), [512, 256, 256]);
    }
}
