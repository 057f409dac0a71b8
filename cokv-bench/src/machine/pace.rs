//! About how long a model takes on this machine, from its shape alone: nothing of it is loaded.
//!
//! A pass takes the time of its products and of what it reads from memory, one after the other:
//!
//! ```text
//! seconds = 2 × weights of the linear layers × tokens     / (rate × F)     rate 2.4 for integers, 0.8 for floats
//!         + 2 × weights of the output layer × tokens asked / (rate × F)
//!         + max(4 × head_dim × query heads × keys seen / F, bytes of caches / 0.8 B)
//!         + bytes of the weights / 0.8 B                                   of a decode step or a batch of coalitions
//! ```
//!
//! where F are the operations in a second of a product of f32 matrices and B the bytes read in a second ([`Machine`]). The
//! rates are those of `docs/speed.md`: SmolLM2 as stored (4 bits) prefills 512 to 8,000 tokens within three hundredths of this and 128
//! within a quarter, decodes one and eight sequences within three tenths, and a coalition in f32 within a tenth.

use cokv_core::Format;
use cokv_models::config::ModelConfig;
use cokv_models::{Outline, WeightType};

use super::Machine;

/// Operations of linear layers in a second, over those of a product of f32 matrices, where weights are integers of 4 to 8
/// bits, and where they are floats.
const INTEGER_RATE: f64 = 2.4;
const FLOAT_RATE: f64 = 0.8;

/// Share of the memory's bandwidth that a step reads weights and caches with.
const READING_RATE: f64 = 0.8;

/// How fast a model of some shape runs on this machine, by estimate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Weights of the linear layers of all layers.
    linear: f64,
    /// Weights of the output layer.
    output: f64,
    /// KV heads of all layers.
    heads: f64,
    /// Operations of a query on one key and value of a KV head, by all query heads that share it.
    attention: f64,
    /// Bytes of the weights that a step reads.
    weight_bytes: f64,
    /// Bytes of one token of one KV head.
    token_bytes: f64,
    linear_operations_per_second: f64,
    attention_operations_per_second: f64,
    bytes_per_second: f64,
}

impl Pace {
    /// Of a model whose weights and cache are held like this.
    pub fn of(outline: &Outline, held: WeightType, format: Format, machine: &Machine) -> Self {
        let weights = outline.weights();
        Self::of_shape(outline.config(), weights.step_bytes(held), weights.integer_share(held), format, machine)
    }

    /// Of a shape whose weights take so many bytes, of which this share are integers of 8 bits or fewer.
    pub fn of_shape(
        config: &ModelConfig,
        weight_bytes: u64,
        integer_share: f64,
        format: Format,
        machine: &Machine,
    ) -> Self {
        let layout = config.layout;
        let f32_operations = machine.product_gigaflops * 1e9;
        let time_of_linear = integer_share / INTEGER_RATE + (1.0 - integer_share) / FLOAT_RATE;
        Self {
            linear: linear_weights(config),
            output: (config.hidden_size * config.vocabulary) as f64,
            heads: layout.heads() as f64,
            attention: 4.0 * (layout.head_dim * layout.query_heads / layout.kv_heads) as f64,
            weight_bytes: weight_bytes as f64,
            token_bytes: format.token_bytes(layout.head_dim) as f64,
            linear_operations_per_second: f32_operations / time_of_linear,
            attention_operations_per_second: f32_operations,
            bytes_per_second: READING_RATE * machine.read_gigabytes_per_second * 1e9,
        }
    }

    /// Seconds of the prefill of a prompt.
    pub fn prefill(&self, tokens: usize) -> f64 {
        let tokens = tokens as f64;
        self.products(tokens, 1.0) + self.attended(self.heads * tokens * (tokens + 1.0) / 2.0, 0.0)
    }

    /// Seconds of a pass in which `rows` that share the cache of a prompt bring `tokens` each and look at the logits of all:
    /// a batch of coalitions, as if all of their heads saw the whole prompt. (Half of them do; their products are smaller
    /// and slower by as much.)
    pub fn together(&self, rows: usize, tokens: usize, prompt: usize) -> f64 {
        let (new, cached) = ((rows * tokens) as f64, self.heads * prompt as f64);
        self.products(new, new) + self.attended(new * cached, cached) + self.weight_bytes / self.bytes_per_second
    }

    /// Seconds of a pass in which `rows` with caches of their own bring `tokens` each and look at the logits of all.
    /// `cached` are the tokens in the caches of all rows and KV heads.
    pub fn apart(&self, rows: usize, tokens: usize, cached: usize) -> f64 {
        let (new, cached) = ((rows * tokens) as f64, cached as f64);
        self.products(new, new)
            + self.attended(tokens as f64 * cached, cached)
            + self.weight_bytes / self.bytes_per_second
    }

    fn products(&self, tokens: f64, looked_at: f64) -> f64 {
        2.0 * (self.linear * tokens + self.output * looked_at) / self.linear_operations_per_second
    }

    /// `keys` are those of all KV heads that any query attends to, `cached` those that are read from memory.
    fn attended(&self, keys: f64, cached: f64) -> f64 {
        let products = self.attention * keys / self.attention_operations_per_second;
        products.max(cached * self.token_bytes / self.bytes_per_second)
    }
}

/// Multiplications and additions of a prefill: two for every weight of a linear layer and token, two for every
/// number of each key and value that a query head attends to. The output layer sees the last token alone.
pub fn prefill_operations(config: &ModelConfig, tokens: usize) -> f64 {
    let layout = config.layout;
    let attended = tokens as f64 * (tokens as f64 + 1.0) / 2.0;
    let attention = 4.0 * (layout.query_heads * layout.head_dim * layout.layers) as f64 * attended;
    2.0 * linear_weights(config) * tokens as f64 + attention + 2.0 * (config.hidden_size * config.vocabulary) as f64
}

/// Weights of the linear layers of all layers.
fn linear_weights(config: &ModelConfig) -> f64 {
    let layer: usize = config.linear_layers().iter().map(|(_, [rows, columns])| rows * columns).sum();
    (layer * config.layout.layers) as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use cokv_core::{HeadLayout, RotaryPairs};
    use cokv_models::config::{Architecture, RopeScaling};

    use super::*;

    /// A shape; `layout` are layers, query heads, KV heads and the length of a key.
    pub(crate) fn config(
        layout: [usize; 4],
        hidden_size: usize,
        intermediate_size: usize,
        vocabulary: usize,
    ) -> ModelConfig {
        let [layers, query_heads, kv_heads, head_dim] = layout;
        ModelConfig {
            architecture: Architecture::Llama,
            layout: HeadLayout::new(layers, query_heads, kv_heads, head_dim).unwrap(),
            hidden_size,
            intermediate_size,
            vocabulary,
            context_length: 8192,
            windows: Vec::new(),
            norm_epsilon: 1e-5,
            rope_theta: 1e4,
            rope_scaling: RopeScaling::None,
            rope_attention_factor: 1.0,
            rope_pairs: RotaryPairs::Halves,
            attention_bias: false,
            tied_embeddings: None,
            stop_tokens: Vec::new(),
        }
    }

    fn machine(gigaflops: f64, gigabytes: f64) -> Machine {
        Machine {
            threads: 2,
            instructions: "AVX2",
            read_gigabytes_per_second: gigabytes,
            product_gigaflops: gigaflops,
            product_of: "f32",
            device: None,
        }
    }

    fn about(found: f64, expected: f64, share: f64) {
        assert!((found / expected - 1.0).abs() < share, "{found} is not about {expected}");
    }

    /// Two layers, 8 wide: queries and outputs 64 weights each, keys and values 32 each, feed-forward 3 × 128, together 576.
    #[test]
    fn a_pass_counts_what_it_multiplies_and_reads() {
        let config = config([2, 2, 1, 4], 8, 16, 10);
        // 10 tokens: 2 × 1152 × 10 of linear layers, 2 × 80 of the output layer, 4 × 8 × 55 × 2 of attention.
        assert_eq!(prefill_operations(&config, 10), 23_040.0 + 160.0 + 3_520.0);
        let pace = Pace::of_shape(&config, 1600, 1.0, Format::F16, &machine(1e-9, 1e-9));
        about(pace.prefill(10), 23_200.0 / 2.4 + 3_520.0, 1e-12);
        // Floats are multiplied three times as slowly.
        let floats = Pace::of_shape(&config, 1600, 0.0, Format::F16, &machine(1e-9, 1e-9));
        about(floats.prefill(10), 23_200.0 / 0.8 + 3_520.0, 1e-12);
        // Three rows of two tokens on a prompt of 10: 6 tokens, all looked at, on 20 keys of two heads; what they read is 1600
        // bytes of weights, and less of the cache than they multiply.
        let products = 2.0 * (1152.0 + 80.0) * 6.0 / 2.4 + 32.0 * 6.0 * 20.0;
        about(pace.together(3, 2, 10), products + 1600.0 / 0.8, 1e-12);
        // One row of its own: a step does 32 operations on each of 20 tokens of 16 bytes.
        let step = 2.0 * 1232.0 / 2.4 + f64::max(32.0 * 20.0, 16.0 * 20.0 / 0.8) + 1600.0 / 0.8;
        about(pace.apart(1, 1, 20), step, 1e-12);
        // Where memory is slow it is what the caches take that counts.
        let slow = Pace::of_shape(&config, 1600, 1.0, Format::F16, &machine(1e-9, 1e-10));
        about(slow.apart(1, 1, 20), 2.0 * 1232.0 / 2.4 + (16.0 * 20.0 + 1600.0) / 0.08, 1e-12);
    }

    /// What `cokv perf` measured of SmolLM2 as stored, 136 MiB of weights (docs/speed.md).
    #[test]
    fn the_rates_are_those_that_were_measured() {
        let config = config([30, 9, 3, 64], 576, 1536, 49152);
        let pace = Pace::of_shape(&config, 136 << 20, 1.0, Format::F16, &machine(127.0, 24.0));
        for (tokens, seconds) in [(512, 0.44), (2048, 2.56), (4096, 7.43), (8000, 23.01)] {
            about(pace.prefill(tokens), seconds, 0.06);
        }
        about(pace.prefill(128), 0.077, 0.25);
        let heads = 90;
        for (rows, prompt, tokens_per_second) in
            [(1, 128, 148.7), (1, 2048, 99.5), (1, 8000, 57.4), (8, 128, 563.1), (8, 2048, 205.0), (8, 8000, 91.0)]
        {
            about(pace.apart(rows, 1, rows * heads * prompt), rows as f64 / tokens_per_second, 0.3);
        }
        // In f32: prefill of 4,096 tokens at 379 tokens/s, and 55 ms for a coalition with an answer of 16 tokens.
        let floats = Pace::of_shape(&config, 538 << 20, 0.0, Format::F32, &machine(160.0, 36.0));
        about(floats.prefill(4096), 4096.0 / 379.0, 0.1);
        about(floats.together(32, 15, 4096) / 32.0, 0.055, 0.1);
    }
}
