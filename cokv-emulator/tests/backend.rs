//! The CUDA backend on the emulator keeps the contract of backends against plain f64: caches, planner, kernels, observations and
//! answers end to end, on models whose weights are drawn.

use std::sync::Arc;

use cokv_core::{Format, HeadLayout};
use cokv_cuda::Cuda;
use cokv_emulator::Emulated;
use cokv_models::config::{Architecture, ModelConfig};
use cokv_models::contract::{Case, check, small_model};
use cokv_models::engine::Engine;
use cokv_models::weights::{Drawn, Weights};
use cokv_models::{Device, LoadOptions, WeightType, load_engine, load_on};
use proptest::prelude::*;

fn config(architecture: Architecture, layout: HeadLayout) -> ModelConfig {
    small_model(architecture, layout, 64)
}

/// The emulator, with a schedule of its own, and plain f64 on the same weights; nothing where there is no emulator.
fn engines(config: &ModelConfig, weight_type: WeightType, seed: u64) -> Option<[Arc<dyn Engine>; 2]> {
    let Some(device) = Emulated::new(seed) else {
        cokv_golden::skip("there is no C++ compiler: CUDA kernels are not emulated");
        return None;
    };
    let weights = Weights::Drawn(Drawn::new(config.tensors(), 3));
    let options = LoadOptions { weight_type, device: Device::Reference, ..LoadOptions::default() };
    let ours = load_on(Cuda::new(device), &weights, config.clone(), &options, |_, _| {}).unwrap();
    let reference = load_engine(&weights, config.clone(), &options, |_, _| {}).unwrap();
    Some([ours, reference])
}

fn holds(config: &ModelConfig, weight_type: WeightType, case: &Case) {
    let Some([ours, reference]) = engines(config, weight_type, case.seed) else { return };
    if let Err(difference) = check(&ours, &reference, case) {
        panic!("{case:?}, heads of {}: {difference}", config.layout.head_dim);
    }
}

fn tolerance(format: Format) -> f32 {
    match format {
        Format::F32 => 1e-4,
        Format::F16 => 3e-3,
        // Of these there are no cases.
        Format::Q8 | Format::Q4 => 0.0,
        Format::Bf16 => 2e-2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// Products in f32, so that nothing but the cache is rounded: kernels for all heads, plain and fast.
    #[test]
    fn the_contract_is_kept_in_f32(
        architecture in prop::sample::select(vec![Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3]),
        (group, head_dim) in prop::sample::select(vec![(2usize, 16usize), (3, 64), (1, 80), (4, 128)]),
        format in prop::sample::select(Format::FLOATS.to_vec()),
        prompt in prop::sample::select(vec![9usize, 40, 300]),
        chunk in prop::sample::select(vec![7usize, 64, 512]),
        answer in 2usize..6,
        seed in 0u64..1000,
    ) {
        let layout = HeadLayout::new(2, 2 * group, 2, head_dim).unwrap();
        let chunk = if prompt > 100 { chunk.max(64) } else { chunk };
        holds(&config(architecture, layout), WeightType::F32, &Case { format, prompt, chunk, answer, seed, biases: false, tolerance: tolerance(format) });
    }
}

/// Weights as they are, in bf16: activations are rounded to that before every product.
#[test]
fn the_contract_is_kept_in_16_bits() {
    for (format, seed) in [(Format::F16, 1), (Format::Bf16, 2)] {
        let layout = HeadLayout::new(2, 8, 2, 64).unwrap();
        let case = Case { format, prompt: 300, chunk: 128, answer: 5, seed, biases: false, tolerance: 0.05 };
        holds(&config(Architecture::Llama, layout), WeightType::Stored, &case);
    }
}

#[test]
fn sliding_windows_keep_the_contract() {
    for window in [1, 12, 255] {
        let layout = HeadLayout::new(2, 4, 2, 64).unwrap();
        let mut config = config(Architecture::Llama, layout);
        config.windows = vec![Some(window), None];
        let case = Case {
            format: Format::F16,
            prompt: 300,
            chunk: 128,
            answer: 4,
            seed: 3,
            biases: false,
            tolerance: tolerance(Format::F16),
        };
        holds(&config, WeightType::F32, &case);
    }
}
