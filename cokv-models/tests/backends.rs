//! Every backend of this crate against plain f64.

mod tiny;

use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use cokv_core::Format;
use cokv_models::config::ModelConfig;
use cokv_models::contract::{Case, check};
use cokv_models::engine::Engine;
use cokv_models::kernel::simd::Registers;
use cokv_models::weights::{Gguf, Safetensors, Weights};
use cokv_models::{Device, LoadOptions, WeightType, load_engine};
use proptest::prelude::*;
use serde_json::json;
use tiny::Tiny;

/// Plain f64 and another backend on the same checkpoint.
fn engines(tiny: &Tiny, device: Device) -> [Arc<dyn Engine>; 2] {
    [device, Device::Reference].map(|device| {
        let config = ModelConfig::from_folder(tiny.folder()).unwrap();
        let weights = Weights::Safetensors(Safetensors::open(vec![tiny.weights()]).unwrap());
        let options = LoadOptions { device, ..LoadOptions::default() };
        let engine = load_engine(&weights, config, &options, |_, _| {}).unwrap();
        assert_eq!(engine.backend(), device.backend());
        engine
    })
}

fn holds(engines: &[Arc<dyn Engine>; 2], case: &Case) {
    if let Err(difference) = check(&engines[0], &engines[1], case) {
        panic!("{} against {}, {case:?}: {difference}", engines[0].backend(), engines[1].backend());
    }
}

/// A cache in f16 or bf16 rounds a number differently where the backends' numbers lie on two sides of a border. Tiles of bf16 lose
/// more than f32: 1.1e-4 were measured of weights of attention.
fn tolerance(format: Format) -> f32 {
    match format {
        Format::F32 if Registers::widest() == Registers::Amx => 3e-4,
        Format::F32 => 1e-4,
        Format::F16 => 2e-3,
        Format::Bf16 => 1.5e-2,
        // A step of a block.
        Format::Q8 => 3e-2,
        Format::Q4 => 0.4,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_cpu_and_candle_keep_the_contract(
        family in prop::sample::select(vec!["llama", "qwen2", "qwen3"]),
        format in prop::sample::select(Format::ALL.to_vec()),
        prompt in prop::sample::select(vec![9usize, 40, 300]),
        chunk in prop::sample::select(vec![7usize, 64, 512]),
        answer in 2usize..6,
        seed in 0u64..1000,
    ) {
        let tiny = Tiny::new(family, json!({}), family == "qwen2", 8);
        let case = Case { format, prompt, chunk, answer, seed, biases: true, tolerance: tolerance(format) };
        for device in [Device::Cpu, Device::Candle] {
            holds(&engines(&tiny, device), &case);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn sliding_windows_keep_the_contract(
        (family, layers) in prop::sample::select(vec![
            ("mistral", json!({})),
            ("qwen2", json!({ "max_window_layers": 1 })),
            ("qwen3", json!({ "layer_types": ["sliding_attention", "full_attention"] })),
        ]),
        window in prop::sample::select(vec![1usize, 7, 12, 255, 257, 290]),
        prompt in prop::sample::select(vec![9usize, 40, 300, 560]),
        chunk in prop::sample::select(vec![7usize, 64, 512]),
        answer in prop::sample::select(vec![2usize, 5, 16]),
        seed in 0u64..1000,
    ) {
        let mut settings = layers;
        settings["use_sliding_window"] = json!(true);
        settings["sliding_window"] = json!(window);
        let tiny = Tiny::new(family, settings, false, 8);
        let case = Case { format: Format::F32, prompt, chunk, answer, seed, biases: true, tolerance: 1e-4 };
        for device in [Device::Cpu, Device::Candle] {
            holds(&engines(&tiny, device), &case);
        }
    }
}

/// Few rows and many, short heads and long: they take other kernels, in all registers that the processor has.
#[test]
fn all_registers_keep_the_contract() {
    let tiny = Tiny::new("llama", json!({ "max_position_embeddings": 2048, "head_dim": 16 }), false, 16);
    let engines = engines(&tiny, Device::Cpu);
    for registers in Registers::ALL.into_iter().filter(|&registers| registers <= Registers::detect()) {
        Registers::limit(registers);
        let (format, tolerance) = (Format::F32, tolerance(Format::F32));
        holds(&engines, &Case { format, prompt: 1100, chunk: 512, answer: 20, seed: 3, biases: true, tolerance });
    }
    Registers::limit(Registers::detect());
}

/// Products of quantised weights round the other operand to 8 bits, which is coarser than everything else.
#[test]
fn quantised_weights_keep_the_contract() {
    for kind in [GgmlDType::Q4_1, GgmlDType::Q5_0, GgmlDType::Q8_0] {
        let tiny = Tiny::of_size([256, 512], "llama", json!({}), false, 64, |_, numbers| {
            numbers.iter_mut().for_each(|x| *x *= 0.3);
        });
        let path = tiny.write_gguf_of("llama", kind);
        let engines = [Device::Cpu, Device::Reference].map(|device| {
            let gguf = Gguf::open(&path).unwrap();
            let config = ModelConfig::from_gguf(&gguf).unwrap();
            let options = LoadOptions { device, weight_type: WeightType::Stored, ..LoadOptions::default() };
            load_engine(&Weights::Gguf(gguf), config, &options, |_, _| {}).unwrap()
        });
        holds(
            &engines,
            &Case { format: Format::F16, prompt: 40, chunk: 16, answer: 4, seed: 5, biases: true, tolerance: 0.05 },
        );
    }
}

#[test]
fn a_difference_is_noticed() {
    let tiny = Tiny::new("llama", json!({}), false, 8);
    let other = Tiny::with_weights("llama", json!({}), false, 8, |name, numbers| {
        if name.contains("layers.1.self_attn.v_proj") {
            numbers[3] += 0.05;
        }
    });
    let [ours, _] = engines(&tiny, Device::Cpu);
    let [_, theirs] = engines(&other, Device::Cpu);
    let case = Case { format: Format::F32, prompt: 40, chunk: 16, answer: 4, seed: 1, biases: true, tolerance: 1e-4 };
    assert!(check(&ours, &theirs, &case).unwrap_err().starts_with("logits after the prompt: number "));
}
