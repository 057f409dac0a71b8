//! How large a model's weights are, by what its headers say of them.

use candle_core::quantized::GgmlDType;

use crate::config::ModelConfig;
use crate::kernel::quantised::{BLOCK, Format};
use crate::weights::{WeightType, Weights};

/// The matrices of a model: how many numbers of which kind. Vectors (norms, biases) are left out; they are less than a
/// thousandth of any model.
#[derive(Clone, Debug)]
pub struct WeightKinds {
    /// All linear layers and the output layer, of which every step reads everything.
    linear: Vec<Matrix>,
    /// An embedding table of its own, of which a step reads a row for each token.
    table: Option<Matrix>,
}

#[derive(Clone, Copy, Debug)]
struct Matrix {
    kind: GgmlDType,
    numbers: u64,
}

impl WeightKinds {
    /// As the headers of the files say. What is missing does not count: loading will name it.
    pub fn of(config: &ModelConfig, weights: &Weights) -> Self {
        let matrix = |name: &str, [rows, columns]: [usize; 2]| {
            let kind = weights.kind(&format!("{name}.weight"))?;
            Some(Matrix { kind, numbers: rows as u64 * columns as u64 })
        };
        // A damaged configuration may name any number of layers.
        let layers = config.layout.layers.min(weights.layers());
        let linear = (0..layers).flat_map(|layer| {
            config.linear_layers().map(|(part, shape)| matrix(&format!("model.layers.{layer}.{part}"), shape))
        });
        let shape = [config.vocabulary, config.hidden_size];
        let (table, output) = (matrix("model.embed_tokens", shape), matrix("lm_head", shape));
        let (table, output) = if output.is_some() { (table, output) } else { (None, table) };
        Self { linear: linear.chain([output]).flatten().collect(), table }
    }

    /// As a model of this shape has them when all of its numbers have 32 bits, or else 16.
    pub fn dense(config: &ModelConfig, single: bool) -> Self {
        let kind = if single { GgmlDType::F32 } else { GgmlDType::BF16 };
        let matrix = |[rows, columns]: [usize; 2]| Matrix { kind, numbers: rows as u64 * columns as u64 };
        let layer = config.linear_layers().map(|(_, shape)| matrix(shape));
        let table = matrix([config.vocabulary, config.hidden_size]);
        let linear = (0..config.layout.layers).flat_map(|_| layer).chain([table]).collect();
        Self { linear, table: (config.tied_embeddings != Some(true)).then_some(table) }
    }

    /// Numbers of all matrices.
    pub fn numbers(&self) -> u64 {
        self.all().map(|matrix| matrix.numbers).sum()
    }

    /// Bytes that all matrices take in memory.
    pub fn bytes(&self, held: WeightType) -> u64 {
        self.all().map(|matrix| matrix.bytes(held)).sum()
    }

    /// Bytes that all matrices take on a GPU, where blocks are widened to 16 bits.
    pub fn widened_bytes(&self, held: WeightType) -> u64 {
        self.all().map(|matrix| if matrix.is_integer(held) { 2 * matrix.numbers } else { matrix.bytes(held) }).sum()
    }

    /// Bytes of those that every step reads.
    pub fn step_bytes(&self, held: WeightType) -> u64 {
        self.linear.iter().map(|matrix| matrix.bytes(held)).sum()
    }

    /// Share of the numbers of linear layers that are multiplied as integers of 8 bits or fewer.
    pub fn integer_share(&self, held: WeightType) -> f64 {
        let numbers = |matrices: &mut dyn Iterator<Item = &Matrix>| matrices.map(|matrix| matrix.numbers).sum::<u64>();
        let integers = numbers(&mut self.linear.iter().filter(|matrix| matrix.is_integer(held)));
        integers as f64 / numbers(&mut self.linear.iter()).max(1) as f64
    }

    fn all(&self) -> impl Iterator<Item = &Matrix> {
        self.linear.iter().chain(&self.table)
    }
}

impl Matrix {
    fn is_integer(&self, held: WeightType) -> bool {
        let dense = matches!(self.kind, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16);
        held == WeightType::Stored && !dense
    }

    fn bytes(&self, held: WeightType) -> u64 {
        match self.is_integer(held) {
            // Kinds that have no kernel are rounded to 8 bits.
            true => {
                self.numbers.div_ceil(BLOCK as u64) * Format::of(self.kind).unwrap_or(Format::Q8_0).block_bytes() as u64
            }
            false if held == WeightType::F32 => self.numbers * size_of::<f32>() as u64,
            false => self.numbers * self.kind.type_size() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_what_they_are_held_in() {
        let bytes = |kind, held| Matrix { kind, numbers: 320 }.bytes(held);
        assert_eq!(bytes(GgmlDType::BF16, WeightType::Stored), 640);
        assert_eq!(bytes(GgmlDType::F16, WeightType::F32), 1280);
        assert_eq!(bytes(GgmlDType::Q4_0, WeightType::Stored), 10 * (16 + 2));
        assert_eq!(bytes(GgmlDType::Q5_1, WeightType::Stored), 10 * (20 + 4));
        assert_eq!(bytes(GgmlDType::Q6K, WeightType::Stored), 10 * (24 + 4));
        // A kind without kernels, in blocks of 8 bits.
        assert_eq!(bytes(GgmlDType::Q8_1, WeightType::Stored), 10 * (32 + 2));
        assert_eq!(bytes(GgmlDType::Q4_0, WeightType::F32), 1280);
    }

    #[test]
    fn an_output_layer_of_its_own_leaves_the_table_unread() {
        let matrix = |numbers| Matrix { kind: GgmlDType::BF16, numbers };
        let quants = Matrix { kind: GgmlDType::Q8_0, numbers: 32 };
        let kinds = WeightKinds { linear: vec![matrix(10), matrix(22), quants], table: Some(matrix(7)) };
        assert_eq!(kinds.numbers(), 71);
        assert_eq!(kinds.widened_bytes(WeightType::Stored), 2 * 71);
        assert_eq!(kinds.widened_bytes(WeightType::F32), 4 * 71);
        assert_eq!(kinds.step_bytes(WeightType::Stored), 2 * 32 + 34);
        assert_eq!(kinds.bytes(WeightType::Stored), 2 * 39 + 34);
        assert_eq!((kinds.integer_share(WeightType::Stored), kinds.integer_share(WeightType::F32)), (0.5, 0.0));
    }
}
