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
    /// A quarter and a bit: 8 bits a number, and a scale of half precision for each 32 of a head's key or value.
    Q8,
    /// An eighth and more: 4 bits a number, and a step and a minimum for each 32.
    Q4,
}

/// Numbers of a head's key or value that share a scale.
const BLOCK: usize = 32;

impl Format {
    /// All, the most exact first.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8, Self::Q4];

    /// Those that store each number by itself.
    pub const FLOATS: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Bytes of one token in one KV head: a key and a value of `head_dim` numbers each.
    pub const fn token_bytes(self, head_dim: usize) -> usize {
        match self {
            Format::F32 => 8 * head_dim,
            Format::F16 | Format::Bf16 => 4 * head_dim,
            Format::Q8 => 2 * (head_dim + 2 * head_dim.div_ceil(BLOCK)),
            Format::Q4 => {
                let numbers = head_dim / BLOCK * (BLOCK / 2) + (head_dim % BLOCK).div_ceil(2);
                2 * (numbers + 4 * head_dim.div_ceil(BLOCK))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_key_and_a_value() {
        assert_eq!(Format::ALL.map(|format| format.token_bytes(64)), [512, 256, 256, 2 * 2 * 34, 2 * 2 * 20]);
    }
}
