//! Weights that are drawn, the same on every machine and every backend: speed can be measured, and backends can be compared,
//! without a checkpoint.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use cokv_core::random::mix;
use half::bf16;

use super::stored::Stored;
use crate::config::{Architecture, ModelConfig};

/// A model's weights, drawn.
pub struct Drawn {
    config: ModelConfig,
    seed: u64,
}

/// How a tensor is drawn: number `i` is uniform with mean 0, from [`mix`] of `seed ^ i`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Of the tensor.
    pub seed: u64,
    /// Standard deviation.
    pub deviation: f32,
    /// How many numbers.
    pub count: usize,
}

impl Draw {
    /// A number.
    pub fn number(&self, at: usize) -> f32 {
        // 24 bits, in [-1, 1), whose standard deviation is 1 / sqrt(3).
        let uniform = (mix(self.seed ^ at as u64) >> 40) as f32 * (1.0 / 8_388_608.0) - 1.0;
        uniform * self.deviation * 1.732_050_8
    }

    /// All numbers as bf16, little-endian.
    pub(super) fn bytes(&self) -> Vec<u8> {
        (0..self.count).flat_map(|at| bf16::from_f32(self.number(at)).to_le_bytes()).collect()
    }
}

impl Drawn {
    /// How numbers are stored.
    pub(super) const KIND: GgmlDType = GgmlDType::BF16;

    /// Weights of a shape. Other seeds are other models.
    pub fn new(config: ModelConfig, seed: u64) -> Self {
        Self { config, seed }
    }

    /// Whether a model of this shape has a tensor.
    pub fn contains(&self, name: &str) -> bool {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        match (name, layer) {
            ("model.embed_tokens.weight" | "model.norm.weight", _) => true,
            ("lm_head.weight", _) => self.config.tied_embeddings != Some(true),
            (_, Some((layer, part))) if layer.parse().is_ok_and(|layer: usize| layer < self.layers()) => match part {
                "self_attn.q_norm.weight" | "self_attn.k_norm.weight" => self.config.architecture == Architecture::Qwen3,
                "input_layernorm.weight" | "post_attention_layernorm.weight" => true,
                _ => self.config.linear_layers().iter().any(|(linear, _)| match part.strip_prefix(linear) {
                    Some(".weight") => true,
                    Some(".bias") => self.config.attention_bias && ["q", "k", "v"].iter().any(|kind| *linear == format!("self_attn.{kind}_proj")),
                    _ => false,
                }),
            },
            _ => false,
        }
    }

    /// Layers of the shape.
    pub fn layers(&self) -> usize {
        self.config.layout.layers
    }

    /// A tensor. Weights of norms are ones, so that numbers keep their size from layer to layer.
    pub(super) fn stored(&self, name: &str, shape: &[usize]) -> Stored {
        let count = shape.iter().product();
        if name.ends_with("norm.weight") {
            let ones: Vec<u8> = std::iter::repeat_n(bf16::ONE.to_le_bytes(), count).flatten().collect();
            return Stored::new(shape, Self::KIND, ones);
        }
        let seed = name.bytes().fold(self.seed, |seed, byte| mix(seed ^ u64::from(byte)));
        // A matrix keeps the size of what goes through it.
        let deviation = match shape {
            [_, columns] => 1.0 / (*columns as f32).sqrt(),
            _ => 0.02,
        };
        Stored::drawn(shape, Draw { seed, deviation, count })
    }

    /// There is no file to name.
    pub(super) fn path(&self) -> &Path {
        Path::new("drawn weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_as_they_say() {
        let draw = Draw { seed: 7, deviation: 0.02, count: 100_000 };
        let numbers: Vec<f64> = (0..draw.count).map(|at| f64::from(draw.number(at))).collect();
        let mean = numbers.iter().sum::<f64>() / draw.count as f64;
        let deviation = (numbers.iter().map(|x| x * x).sum::<f64>() / draw.count as f64).sqrt();
        assert!(mean.abs() < 3e-4 && (deviation / 0.02 - 1.0).abs() < 0.01, "{mean} {deviation}");
        assert_eq!(draw.bytes().len(), 2 * draw.count);
    }
}
