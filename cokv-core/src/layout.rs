//! How a model's attention heads are arranged.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The attention heads of a model: `layers × kv_heads` KV heads, each shared by a group of query heads.
///
/// A KV head is a player of the game, a row of a budget plan and a buffer of the cache. Its flat index is
/// `layer * kv_heads + kv_head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeadLayout {
    /// Decoder layers.
    pub layers: usize,
    /// Query heads of a layer.
    pub query_heads: usize,
    /// KV heads of a layer; divides `query_heads`.
    pub kv_heads: usize,
    /// Length of a key, a value and a query.
    pub head_dim: usize,
}

/// A layout that no attention layer can have.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{query_heads} query heads cannot be shared out over {kv_heads} KV heads ({layers} layers, head_dim {head_dim})"
)]
pub struct LayoutError {
    layers: usize,
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl HeadLayout {
    /// Checks that no count is zero and that the query heads divide evenly over the KV heads.
    pub fn new(layers: usize, query_heads: usize, kv_heads: usize, head_dim: usize) -> Result<Self, LayoutError> {
        let sound =
            layers > 0 && kv_heads > 0 && head_dim > 0 && query_heads > 0 && query_heads.is_multiple_of(kv_heads);
        sound.then_some(Self { layers, query_heads, kv_heads, head_dim }).ok_or(LayoutError {
            layers,
            query_heads,
            kv_heads,
            head_dim,
        })
    }

    /// Query heads that share one KV head.
    pub fn group(&self) -> usize {
        self.query_heads / self.kv_heads
    }

    /// KV heads of the whole model: the players of the game.
    pub fn heads(&self) -> usize {
        self.layers * self.kv_heads
    }

    /// Layer of a flat index, and KV head of that layer.
    pub fn place(&self, flat: usize) -> (usize, usize) {
        (flat / self.kv_heads, flat % self.kv_heads)
    }

    /// Flat index of a KV head.
    pub fn flat(&self, layer: usize, kv_head: usize) -> usize {
        layer * self.kv_heads + kv_head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_flat_indices() {
        let layout = HeadLayout::new(30, 9, 3, 64).unwrap();
        assert_eq!(layout.group(), 3);
        assert_eq!(layout.heads(), 90);
        assert_eq!(layout.flat(2, 1), 7);
        assert_eq!(layout.place(7), (2, 1));
    }

    #[test]
    fn heads_that_do_not_divide_are_refused() {
        assert!(HeadLayout::new(1, 9, 2, 64).is_err());
        assert!(HeadLayout::new(1, 0, 1, 64).is_err());
        assert!(HeadLayout::new(0, 1, 1, 64).is_err());
    }
}
