//! Tiny checkpoints against transformers (data: `tests/data/transformers`), on every backend, in chunks and whole.

mod tiny;

use std::sync::Arc;

use cokv_core::{Format, ObservationRequest};
use cokv_models::ask::Ask;
use cokv_models::batch::{Batch, BatchSettings, Event, Request, Start};
use cokv_models::cache::RaggedCache;
use cokv_models::config::ModelConfig;
use cokv_models::engine::{Engine, Row};
use cokv_models::ledger::Ledger;
use cokv_models::weights::{Safetensors, Weights};
use cokv_models::{Device, LoadOptions, Prefill, Prefilling, StopRule, load_engine};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tiny::Tiny;

#[derive(Deserialize)]
struct Case {
    name: String,
    family: String,
    head_dim: usize,
    settings: Json,
    /// Tokens of the prompt.
    prompt: usize,
    /// After the prompt.
    #[serde(default)]
    frequencies: Vec<f32>,
    attention_factor: Option<f32>,
    /// After the prompt, and after each token decoded behind it.
    logits: Vec<Vec<f32>>,
}

fn rope() -> Vec<Case> {
    serde_json::from_str(include_str!("data/transformers/rope.json")).unwrap()
}

fn windows() -> Vec<Case> {
    serde_json::from_str(include_str!("data/transformers/windows.json")).unwrap()
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 31 + i / 7) % 50).collect()
}

fn engine(tiny: &Tiny, device: Device) -> Arc<dyn Engine> {
    let config = ModelConfig::from_folder(tiny.folder()).unwrap();
    let weights = Weights::Safetensors(Safetensors::open(vec![tiny.weights()]).unwrap());
    load_engine(&weights, config, &LoadOptions { device, ..LoadOptions::default() }, |_, _| {}).unwrap()
}

impl Case {
    fn tiny(&self) -> Tiny {
        let mut settings = self.settings.clone();
        settings["head_dim"] = json!(self.head_dim);
        Tiny::new(&self.family, settings, false, self.head_dim)
    }

    /// Logits after the prompt, read in chunks, and after each token behind it, all of which come at once where `together`.
    fn run(&self, engine: &Arc<dyn Engine>, chunk: usize, together: bool) -> Vec<Vec<f32>> {
        let tokens = tokens(self.prompt + self.logits.len() - 1);
        let (prompt, answer) = tokens.split_at(self.prompt);
        let prefill = prefill(engine, prompt, chunk);
        let mut cache = RaggedCache::full(prefill.prompt());
        let mut all = vec![prefill.logits().to_vec()];
        for tokens in answer.chunks(if together { answer.len() } else { 1 }) {
            all.push(logits(engine, Row::new(tokens, &mut cache, Ask::Logits)));
        }
        all
    }

    fn assert_close(&self, ours: &[f32], step: usize, what: &str) {
        let theirs = &self.logits[step];
        assert_eq!(ours.len(), theirs.len());
        let largest = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let scale = theirs.iter().fold(1.0f32, |scale, x| scale.max(x.abs()));
        assert!(largest < 1e-4 * scale, "{}, {what}, {step} tokens after the prompt: {largest} of {scale}", self.name);
    }

    /// Whatever computes, and however the tokens come.
    fn check(&self) {
        let tiny = self.tiny();
        for device in [Device::Reference, Device::Cpu, Device::Candle] {
            let engine = engine(&tiny, device);
            for (chunk, together) in [(512, false), (7, false), (1, true)] {
                let what = format!("{device:?} in chunks of {chunk}");
                let ours = self.run(&engine, chunk, together);
                self.assert_close(&ours[0], 0, &what);
                self.assert_close(&ours[ours.len() - 1], self.logits.len() - 1, &what);
                if !together {
                    ours.iter().enumerate().for_each(|(step, ours)| self.assert_close(ours, step, &what));
                }
            }
        }
    }
}

fn prefill(engine: &Arc<dyn Engine>, prompt: &[u32], chunk: usize) -> Prefill {
    let request = ObservationRequest::default();
    let mut prefilling = Prefilling::new(engine, prompt.to_vec(), Format::F32, request).unwrap();
    while prefilling.left() > 0 {
        let answer = engine.step(&mut [prefilling.row(chunk)]).unwrap().remove(0);
        prefilling.take(answer).unwrap();
    }
    prefilling.finish().unwrap()
}

fn logits(engine: &Arc<dyn Engine>, row: Row<'_>) -> Vec<f32> {
    engine.step(&mut [row]).unwrap().remove(0).logits(String::new).unwrap()
}

#[test]
fn stretched_rotary_embeddings_equal_those_of_transformers() {
    for case in rope() {
        let engine = engine(&case.tiny(), Device::Cpu);
        let rotary = engine.rotary(case.prompt);
        assert_eq!(rotary.frequencies.len(), case.frequencies.len(), "{}", case.name);
        for (ours, theirs) in rotary.frequencies.iter().zip(&case.frequencies) {
            assert!((ours / theirs - 1.0).abs() < 1e-6, "{}: frequency {ours}, not {theirs}", case.name);
        }
        let theirs = case.attention_factor.unwrap();
        assert!((rotary.scale - theirs).abs() < 1e-6, "{}: factor {}, not {theirs}", case.name, rotary.scale);
        case.check();
    }
}

#[test]
fn sliding_windows_equal_those_of_transformers() {
    windows().iter().for_each(Case::check);
}

/// The prompt's own length decides, and after it that of the text which a question ends: not the chunk's.
#[test]
fn a_text_behind_a_cache_may_come_in_chunks() {
    let mut lengths_matter = 0;
    for case in rope() {
        let engine = engine(&case.tiny(), Device::Cpu);
        let text = tokens(45);
        let document = prefill(&engine, &text[..20], 512);
        let ask = |chunk: usize, within: usize| {
            let mut cache = RaggedCache::full(document.prompt());
            let chunks = text[20..].chunks(chunk);
            chunks
                .map(|tokens| logits(&engine, Row::new(tokens, &mut cache, Ask::Logits).within(within)))
                .last()
                .unwrap()
        };
        let whole = ask(25, 45);
        let near = |other: &[f32]| whole.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(near(&ask(4, 45)), "{}", case.name);
        lengths_matter += usize::from(!near(&ask(25, 0)));

        let best = (0..whole.len()).max_by(|&a, &b| whole[a].total_cmp(&whole[b])).unwrap() as u32;
        for chunk in [4, 25] {
            let settings = BatchSettings { format: Format::F32, chunk, ..BatchSettings::default() };
            let mut batch = Batch::new(Arc::clone(&engine), settings, Ledger::new(None));
            let start = Start::Then { cache: RaggedCache::full(document.prompt()), tokens: text[20..].to_vec() };
            let stop = StopRule { tokens: Vec::new(), max_new_tokens: 1, min_new_tokens: 0 };
            batch.submit(Request::greedy(start, stop)).unwrap();
            let mut answer = Vec::new();
            let mut heard = |_, event| {
                if let Event::Token { token, .. } = event {
                    answer.push(token);
                }
            };
            while batch.step(&mut heard).unwrap() {}
            assert_eq!(answer, [best], "{} in chunks of {chunk}", case.name);
        }
    }
    assert!(lengths_matter >= 3, "only {lengths_matter} cases look at the length");
}
