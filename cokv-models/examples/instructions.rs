//! Two fixed pieces of work whose instructions are counted: `cargo xtask instructions`.
//!
//! One layer of a model of SmolLM2's shape, its attention with weights of 8 bits, its feed-forward layer with those of 4 and
//! 5: a chunk of a prompt, and steps of decoding over a ragged cache. Counts leave out what comes before [`measured`].

use cokv_core::HeadLayout;
use cokv_models::backend::host::HostStore;
use cokv_models::kernel::attention::{Row, attend};
use cokv_models::kernel::elementwise;
use cokv_models::kernel::quantised::{Activations, BLOCK, Format, Weight};

const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;
const KEYS: usize = 3 * 64;

struct Layer {
    layout: HeadLayout,
    norm: Vec<f32>,
    queries: Weight,
    keys: Weight,
    values: Weight,
    output: Weight,
    gate: Weight,
    up: Weight,
    down: Weight,
}

impl Layer {
    fn new(layout: HeadLayout) -> Self {
        let weight =
            |columns: usize, inner: usize, seed| Weight::quantise(&numbers(columns * inner, seed, 0.05), inner);
        Self {
            layout,
            norm: vec![1.0; HIDDEN],
            queries: weight(HIDDEN, HIDDEN, 1),
            keys: weight(KEYS, HIDDEN, 2),
            values: weight(KEYS, HIDDEN, 3),
            output: weight(HIDDEN, HIDDEN, 4),
            gate: blocks(Format::Q4_1, INTERMEDIATE, HIDDEN),
            up: blocks(Format::Q4_1, INTERMEDIATE, HIDDEN),
            down: blocks(Format::Q5_0, HIDDEN, INTERMEDIATE),
        }
    }

    /// Runs new tokens, `[tokens, HIDDEN]`, without turning queries and keys by their positions.
    fn forward(&self, hidden: &[f32], cache: &mut HostStore) -> Vec<f32> {
        let normed = Activations::quantise(&elementwise::rms_norm(hidden, &self.norm, 1e-5), HIDDEN);
        let queries = self.queries.product(&normed);
        cache.push(0, &self.keys.product(&normed), &self.values.product(&normed));
        let attention = attend(self.layout, 0, &[Row { queries: &queries, cache: cache.view(), hidden: &[] }]);
        let hidden = elementwise::add(hidden, &self.output.product(&Activations::quantise(&attention.output, HIDDEN)));
        let normed = Activations::quantise(&elementwise::rms_norm(&hidden, &self.norm, 1e-5), HIDDEN);
        let gated = elementwise::silu_times(&self.gate.product(&normed), &self.up.product(&normed));
        elementwise::add(&hidden, &self.down.product(&Activations::quantise(&gated, INTERMEDIATE)))
    }
}

/// Blocks as files have them: scales (and minima) of about 1/256, and any quants.
fn blocks(format: Format, columns: usize, inner: usize) -> Weight {
    let (halves, bytes) = match format {
        Format::Q4_1 => ([0x0c, 0x1c, 0x0c, 0x9c].as_slice(), 20),
        _ => ([0x0c, 0x1c].as_slice(), 22),
    };
    let block = |index: usize| {
        let quant = move |at: usize| ((index * 7919 + at * 104_729) % 251) as u8;
        halves.iter().copied().chain((halves.len()..bytes).map(quant))
    };
    let file: Vec<u8> = (0..columns * inner / BLOCK).flat_map(block).collect();
    Weight::from_blocks(format, &file, columns, inner).expect("as many blocks as there are")
}

/// Numbers of at most `largest` that are the same on every machine.
fn numbers(count: usize, seed: u64, largest: f32) -> Vec<f32> {
    let number = |i: u64| ((i.wrapping_mul(7919) + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
    (0..count as u64).map(|i| largest * number(i)).collect()
}

#[inline(never)]
fn measured(work: impl FnOnce() -> Vec<f32>) -> Vec<f32> {
    work()
}

fn main() {
    // Who waits for whom is no instruction of the work.
    cokv_models::set_threads(std::num::NonZeroUsize::MIN);
    let layout = HeadLayout::new(1, 9, 3, 64).expect("the layout of SmolLM2");
    let layer = Layer::new(layout);
    let mut cache = HostStore::with_capacity(layout, cokv_core::Format::F16, 1024);
    let result = match std::env::args().nth(1).as_deref() {
        Some("prefill") => measured(|| layer.forward(&numbers(128 * HIDDEN, 8, 1.0), &mut cache)),
        Some("decode") => {
            layer.forward(&numbers(512 * HIDDEN, 8, 1.0), &mut cache);
            measured(|| (0..32).fold(numbers(HIDDEN, 9, 1.0), |hidden, _| layer.forward(&hidden, &mut cache)))
        }
        _ => {
            eprintln!("usage: instructions prefill|decode");
            std::process::exit(2);
        }
    };
    // Looked at, so that nothing is left out.
    assert!(result.iter().all(|number| number.is_finite()));
}
