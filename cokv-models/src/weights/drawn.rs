//! A model whose weights are drawn: speed can be measured, and backends can be compared, without a checkpoint.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use cokv_core::random::mix;
use half::bf16;

use super::draw::Draw;
use super::stored::Stored;

/// A model's weights, drawn.
pub struct Drawn {
    shapes: HashMap<String, Vec<usize>>,
    seed: u64,
}

impl Drawn {
    /// Tensors of some names and shapes, such as [`ModelConfig::tensors`](crate::config::ModelConfig::tensors) has. Other seeds
    /// are other models.
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>)>, seed: u64) -> Self {
        Self { shapes: tensors.into_iter().collect(), seed }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.shapes.keys()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    pub(super) fn kind(&self, name: &str) -> Option<GgmlDType> {
        self.contains(name).then_some(Draw::KIND)
    }

    /// A tensor; none where there is none of that name. Weights of norms are ones, so that numbers keep their size from layer to layer.
    pub(super) fn stored(&self, name: &str) -> Option<Stored> {
        let shape = self.shapes.get(name)?;
        let count = shape.iter().product();
        if name.ends_with("norm.weight") {
            let ones: Vec<u8> = std::iter::repeat_n(bf16::ONE.to_le_bytes(), count).flatten().collect();
            return Some(Stored::new(shape, Draw::KIND, ones));
        }
        let seed = name.bytes().fold(self.seed, |seed, byte| mix(seed ^ u64::from(byte)));
        // A matrix keeps the size of what goes through it.
        let deviation = match shape[..] {
            [_, columns] => 1.0 / (columns as f32).sqrt(),
            _ => 0.02,
        };
        Some(Stored::drawn(shape, Draw { seed, deviation, count }))
    }

    /// There is no file to name.
    pub(super) fn path(&self) -> &Path {
        Path::new("drawn weights")
    }
}
