//! Speed of the kernels, beside what candle offers for the same: `cargo bench -p cokv-models`.
//!
//! Throughputs are operations (of products) and bytes (of decoding) in a second, on all threads.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use cokv_core::HeadLayout;
use cokv_models::backend::host::HostStore;
use cokv_models::cache::Store;
use cokv_models::kernel::attention::{Row, attend};
use cokv_models::kernel::{matmul, quantised};
use cokv_models::sampling::{Sampler, Sampling};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Numbers between -1 and 1 that are the same on every machine.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// The first product of SmolLM2's feed-forward layer, from one row (a decode step) to a chunk of a prompt.
fn products(criterion: &mut Criterion) {
    let (inner, columns) = (576, 1536);
    let w = numbers(columns * inner);
    let eight_bits = quantised::Weight::quantise(&w, inner);
    let blocks = |format, dtype| -> candle_core::Result<quantised::Weight> {
        let blocks = QTensor::quantize(&Tensor::from_slice(&w, (columns, inner), &Device::Cpu)?, dtype)?;
        let weight = quantised::Weight::from_blocks(format, &blocks.data()?, columns, inner);
        Ok(weight.expect("as many blocks as there are"))
    };
    let four_bits = blocks(quantised::Format::Q4_1, GgmlDType::Q4_1).expect("a product of Q4_1");
    let five_bits = blocks(quantised::Format::Q5_0, GgmlDType::Q5_0).expect("a product of Q5_0");
    let candle = || -> candle_core::Result<QMatMul> {
        // Candle's tuned kernel takes an inner dimension that is a multiple of 256.
        let w = Tensor::from_slice(&w, (columns, inner), &Device::Cpu)?.pad_with_zeros(1, 0, 768 - inner)?;
        QMatMul::from_qtensor(QTensor::quantize(&w, GgmlDType::Q8_0)?)
    };
    let candle = candle().expect("a product of Q8_0");
    let mut group = criterion.benchmark_group("product 576 x 1536");
    for rows in [1, 4, 16, 64, 512] {
        let x = numbers(rows * inner);
        let padded =
            Tensor::from_slice(&x, (rows, inner), &Device::Cpu).and_then(|x| x.pad_with_zeros(1, 0, 768 - inner));
        let padded = padded.expect("rows of the operand");
        group.throughput(Throughput::Elements((2 * rows * inner * columns) as u64));
        for (name, weight) in [("Q4_1", &four_bits), ("Q5_0", &five_bits), ("Q8_0", &eight_bits)] {
            group.bench_with_input(BenchmarkId::new(name, rows), &x, |bench, x| {
                bench.iter(|| weight.product(&quantised::Activations::quantise(x, inner)));
            });
        }
        group.bench_with_input(BenchmarkId::new("candle's padded Q8_0", rows), &padded, |bench, x| {
            bench.iter(|| candle.forward(x));
        });
        group.bench_with_input(BenchmarkId::new("f32", rows), &x, |bench, x| {
            bench.iter(|| matmul::linear(x, &w, rows, inner, columns));
        });
    }
    group.finish();
}

/// A cache of one layer that has seen `tokens` tokens.
fn seen(layout: HeadLayout, format: cokv_core::Format, tokens: usize) -> HostStore {
    let width = layout.kv_heads * layout.head_dim;
    let mut cache = HostStore::with_capacity(layout, format, tokens);
    cache.push(0, &numbers(tokens * width), &numbers(tokens * width));
    cache
}

/// Attention of one token of SmolLM2, and of a model with 8 KV heads of 4 query heads each.
fn decode_attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode attention");
    for (name, query_heads, kv_heads, head_dim) in [("9 heads of 64", 9, 3, 64), ("32 heads of 128", 32, 8, 128)] {
        let layout = HeadLayout::new(1, query_heads, kv_heads, head_dim).expect("a layout");
        for (format, tokens) in
            [(cokv_core::Format::F16, 4096), (cokv_core::Format::F16, 128), (cokv_core::Format::F32, 4096)]
        {
            let cache = seen(layout, format, tokens);
            let queries = numbers(query_heads * head_dim);
            group.throughput(Throughput::Bytes(cache.allocated_bytes() as u64));
            group.bench_function(format!("{name}, {tokens} tokens in {format:?}"), |bench| {
                bench.iter(|| attend(layout, 0, &[Row { queries: &queries, cache: cache.view(), hidden: &[] }]));
            });
        }
    }
    group.finish();
}

/// A chunk of a prompt that attends to itself and to what came before.
fn prefill_attention(criterion: &mut Criterion) {
    let layout = HeadLayout::new(1, 9, 3, 64).expect("a layout");
    let mut group = criterion.benchmark_group("prefill attention");
    for (before, tokens) in [(0, 512), (3584, 512)] {
        let cache = seen(layout, cokv_core::Format::F16, before + tokens);
        let queries = numbers(tokens * 9 * 64);
        let attended = tokens * before + tokens * (tokens + 1) / 2;
        group.throughput(Throughput::Elements((4 * 9 * 64 * attended) as u64));
        group.bench_function(format!("{tokens} tokens after {before}"), |bench| {
            bench.iter(|| attend(layout, 0, &[Row { queries: &queries, cache: cache.view(), hidden: &[] }]));
        });
    }
    group.finish();
}

/// A token of Qwen's vocabulary, with logits that fall off as those of models do; half a millisecond is what it may cost.
fn sampling(criterion: &mut Criterion) {
    let logits: Vec<f32> = numbers(151_936).iter().map(|x| 12.0 * x * x * x).collect();
    let nucleus = Sampling { top_p: 0.95, ..Sampling::default() };
    let mut group = criterion.benchmark_group("a token of 151,936");
    for (name, sampling) in [
        ("of all", Sampling::default()),
        ("of 40", Sampling { top_k: 40, ..Sampling::default() }),
        ("of 40, then 0.95", Sampling { top_k: 40, ..nucleus.clone() }),
        ("of 0.95", nucleus),
        ("with penalties", Sampling { repetition_penalty: 1.1, presence_penalty: 0.5, ..Sampling::default() }),
        ("with log-probabilities", Sampling { top_logprobs: Some(20), ..Sampling::default() }),
    ] {
        let prompt: Vec<u32> = (0..8000).map(|i| i * 19 % 151_936).collect();
        group.bench_function(name, |bench| {
            bench.iter_batched_ref(
                || (Sampler::new(sampling.clone(), 0, &prompt), logits.clone()),
                |(sampler, logits)| sampler.choose(std::mem::take(logits), &[], None),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, products, decode_attention, prefill_attention, sampling);
criterion_main!(benches);
