//! Parity with transformers on the real models (data: `tests/data/logits` and `cokv-golden`; models fetched as users fetch
//! them).

mod common;

use cokv_core::Format;
use cokv_core::ObservationRequest;
use cokv_models::WeightType;
use common::{ids, json, load_model};
use serde_json::Value as Json;

/// Prompts of 600 and 3,000 tokens, where they were fetched.
fn long_prompts() -> Option<Json> {
    Some(json(&cokv_golden::find("golden/logits_full_cache.json")?))
}

fn check_logits(golden: &Json, model_key: &str, preset: &str, cases: &[(&str, f64)]) {
    let model = load_model(preset, WeightType::F32, Format::F32);
    for (case, tolerance) in cases {
        let case_data = &golden[model_key][case];
        let prompt = ids(&case_data["ids"]);
        if let Some(text) = case_data["text"].as_str() {
            assert_eq!(model.tokenizer().encode(text, true).unwrap(), prompt, "token ids of `{case}`");
        }
        let prefill = model.prefill(&prompt, ObservationRequest::default(), |_| {}).unwrap();
        let expected = case_data["hf_top20_logits"].as_array().unwrap();
        let largest = ids(&case_data["hf_top20_ids"])
            .iter()
            .zip(expected)
            .map(|(&id, logit)| (f64::from(prefill.logits()[id as usize]) - logit.as_f64().unwrap()).abs())
            .fold(0.0, f64::max);
        println!("{model_key} {case}: largest difference of the top-20 logits {largest:.2e}");
        assert!(largest <= *tolerance, "{model_key} {case}: {largest} is above {tolerance}");
    }
}

#[test]
fn logits_of_a_short_prompt_equal_transformers() {
    let golden: Json = serde_json::from_str(include_str!("data/logits/short.json")).unwrap();
    check_logits(&golden, "smol", "smollm2-135m-instruct", &[("short", 2e-3)]);
}

#[test]
fn smollm2_logits_equal_transformers() {
    let Some(golden) = long_prompts() else { return };
    check_logits(&golden, "smol", "smollm2-135m-instruct", &[("600", 2e-3), ("3000", 1e-2)]);
}

#[test]
#[ignore = "500 MB model, two minutes: cargo xtask test --full"]
fn qwen_logits_equal_transformers() {
    let Some(golden) = long_prompts() else { return };
    check_logits(&golden, "qwen", "qwen2.5-coder-0.5b-instruct", &[("short", 2e-3), ("600", 2e-3), ("3000", 1e-2)]);
}
