//! Whether a card computes what plain f64 does: `cargo run --release -p cokv-cuda --example parity`.
//!
//! The contract of all backends (`cokv_models::contract`) on small models whose weights are drawn, in f32 and in 16 bits.

use std::sync::Arc;

use cokv_core::{Format, HeadLayout, ObservationRequest};
use cokv_cuda::Cuda;
use cokv_cuda::gpu::Gpu;
use cokv_models::ask::Ask;
use cokv_models::cache::RaggedCache;
use cokv_models::config::{Architecture, ModelConfig};
use cokv_models::contract::{Case, check, small_model};
use cokv_models::engine::{Engine, Row};
use cokv_models::weights::{Drawn, Weights};
use cokv_models::{Device, LoadOptions, ModelError, Prefilling, WeightType, load_engine, load_on};

/// Whether a prompt and a step after it have the same bits when they are run again.
fn same_twice(engine: &Arc<dyn Engine>, format: Format, prompt: usize, chunk: usize) -> Result<bool, ModelError> {
    let run = || -> Result<Vec<u32>, ModelError> {
        let tokens: Vec<u32> = (0..prompt as u32).map(|at| at * 37 % 499).collect();
        let mut prefilling = Prefilling::new(engine, tokens, format, ObservationRequest::default())?;
        while prefilling.left() > 0 {
            let answers = engine.step(&mut [prefilling.row(chunk)])?;
            answers.into_iter().try_for_each(|answer| prefilling.take(answer))?;
        }
        let prefill = prefilling.finish()?;
        let mut caches: Vec<RaggedCache> = (0..5).map(|_| RaggedCache::full(prefill.prompt())).collect();
        let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::new(&[5, 6], cache, Ask::Logits)).collect();
        let mut numbers = prefill.logits().to_vec();
        for answer in engine.step(&mut rows)? {
            numbers.extend(answer.logits(String::new)?);
        }
        Ok(numbers.into_iter().map(f32::to_bits).collect())
    };
    Ok(run()? == run()?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut failed, mut cases, mut repeated) = (0, 0, 0);
    for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3] {
        for (group, head_dim) in [(2, 16), (3, 64), (1, 80), (7, 96), (4, 128)] {
            // Families differ outside of attention.
            if architecture != Architecture::Llama && head_dim != 64 {
                continue;
            }
            let small = small_model(architecture, HeadLayout::new(2, 2 * group, 2, head_dim)?, 128);
            let config = ModelConfig { vocabulary: 500, context_length: 8192, ..small };
            let weights = Weights::Drawn(Drawn::new(config.tensors(), 3));
            for (format, weight_type, tolerance) in [
                (Format::F32, WeightType::F32, 1e-4),
                (Format::F16, WeightType::F32, 5e-3),
                (Format::Bf16, WeightType::F32, 2e-2),
                (Format::F16, WeightType::Stored, 5e-2),
            ] {
                let options = LoadOptions { weight_type, device: Device::Reference, ..LoadOptions::default() };
                let gpu = Gpu::open(0, head_dim, Some(&std::env::temp_dir().join("cokv-parity")))?;
                let ours: Arc<dyn Engine> = load_on(Cuda::new(gpu), &weights, config.clone(), &options, |_, _| {})?;
                let reference = load_engine(&weights, config.clone(), &options, |_, _| {})?;
                for (prompt, chunk, answer) in [(9, 7, 2), (300, 64, 5), (700, 512, 24)] {
                    if prompt == 700 && (head_dim != 128 || weight_type == WeightType::F32 && format != Format::F16) {
                        continue;
                    }
                    cases += 1;
                    if same_twice(&ours, format, prompt, chunk)? {
                        repeated += 1;
                    }
                    let case = Case { format, prompt, chunk, answer, seed: 7, biases: false, tolerance };
                    if let Err(difference) = check(&ours, &reference, &case) {
                        failed += 1;
                        println!("{architecture:?}, heads of {head_dim}, {weight_type:?}, {case:?}: {difference}");
                    }
                }
            }
        }
    }
    println!("{failed} of {cases} cases differ; the same bits twice in {repeated} of {cases}");
    Ok(())
}
