//! What the CPU computes, to the last bit: hashes of logits, caches and utilities of tiny checkpoints, held against
//! `bits.txt`.
//!
//! A change of code that changes a hash changes users' results, and rows that were computed before must not be taken for
//! what would be computed now: it has to raise `NUMERICS`. Then `COKV_BITS=write cargo test --test bits` writes the hashes
//! down anew; without a new `NUMERICS` it refuses to.

mod tiny;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::ControlFlow;

use candle_core::quantized::GgmlDType;
use cokv_core::{Coalition, Format, Game, HeadSelection, ObservationRequest, Pairs, Query, Selection};
use cokv_models::ask::{Against, Ask};
use cokv_models::cache::RaggedCache;
use cokv_models::engine::Row;
use cokv_models::game::{GameRecord, GameRules, HeadMaskGame, UtilityKind};
use cokv_models::kernel::simd::Registers;
use cokv_models::source::ModelFiles;
use cokv_models::{LanguageModel, LoadOptions, NUMERICS, StopRule, WeightType};
use serde_json::json;
use sha2::{Digest, Sha256};
use tiny::Tiny;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bits.txt");
/// A checkpoint, how its weights are held, and how much of it is looked at.
struct Checkpoint {
    name: String,
    prompt_len: usize,
    formats: &'static [Format],
    /// Holds the files' folder.
    _tiny: Tiny,
    files: ModelFiles,
    weights: WeightType,
}

fn checkpoints() -> Vec<Checkpoint> {
    let mut all = Vec::new();
    for (family, tied) in [("llama", false), ("qwen2", true), ("qwen3", false)] {
        let tiny = Tiny::new(family, json!({ "max_position_embeddings": 2048 }), tied, 8);
        let files = ModelFiles::Folder(tiny.folder().to_path_buf());
        all.push(Checkpoint {
            name: format!("{family} dense"),
            // Longer than a chunk of prefill and than a piece of a head's keys.
            prompt_len: 1100,
            formats: &[Format::F32, Format::F16, Format::Bf16],
            _tiny: tiny,
            files,
            weights: WeightType::Stored,
        });
    }
    let quantised = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];
    for (kind, weights) in
        quantised.map(|kind| (kind, WeightType::Stored)).into_iter().chain([(GgmlDType::Q4_1, WeightType::F32)])
    {
        let settings = json!({ "max_position_embeddings": 2048 });
        let tiny = Tiny::of_size([256, 512], "llama", settings, false, 64, |_, numbers| {
            numbers.iter_mut().for_each(|x| *x *= 0.3);
        });
        let files = ModelFiles::Gguf(tiny.write_gguf_of("llama", kind));
        let held = if weights == WeightType::F32 { " in f32" } else { "" };
        all.push(Checkpoint {
            name: format!("llama {kind:?}{held}"),
            prompt_len: 300,
            formats: &[Format::F16],
            _tiny: tiny,
            files,
            weights,
        });
    }
    all
}

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 31 + i / 7 + seed) % 50).collect()
}

#[derive(Default)]
struct Hash(Sha256);

impl Hash {
    fn add(&mut self, numbers: &[f32]) {
        numbers.iter().for_each(|number| self.0.update(number.to_bits().to_le_bytes()));
    }

    fn finish(self) -> String {
        self.0.finalize().iter().take(6).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Hashes of everything that a user's results are made of: `logits … cache … utilities …`.
fn bits(model: &LanguageModel, prompt_len: usize) -> String {
    let prompt = tokens(prompt_len, 3);
    let observed = ObservationRequest {
        window: 8,
        window_sums: Vec::new(),
        column_sums: true,
        query_statistics: true,
        keys: true,
        values: true,
        value_output_norms: true,
        ..ObservationRequest::default()
    };
    let prefill = model.prefill(&prompt, observed, |_| {}).unwrap();
    let layout = model.config().layout;

    let mut cache = Hash::default();
    for layer in 0..layout.layers {
        for kv_head in 0..layout.kv_heads {
            let Pairs { keys, values, .. } = prefill.prompt().read(layout.flat(layer, kv_head)).unwrap();
            cache.add(&keys);
            cache.add(&values);
        }
        prefill
            .view(layer, |view| {
                cache.add(view.window_attention);
                cache.add(view.column_sums.unwrap());
                cache.add(&view.query_statistics.unwrap().covariance);
                cache.add(view.value_output_norms.unwrap());
            })
            .unwrap();
    }

    let mut logits = Hash::default();
    logits.add(prefill.logits());
    let mut heads: Vec<HeadSelection> = (1..=layout.heads() as u32)
        .map(|head| HeadSelection::Tokens((0..prompt.len() as u32).step_by(head as usize * 7).collect()))
        .collect();
    heads[1] = HeadSelection::Everything;
    let compressed = RaggedCache::compressed(prefill.prompt(), &Selection { heads }).unwrap();
    let caches = || vec![RaggedCache::full(prefill.prompt()), compressed.fork().unwrap(), compressed.fork().unwrap()];
    // Few rows and many: they take other kernels.
    for answer in [tokens(2, 1), tokens(20, 1)] {
        let ask = Ask::Along { skip: 0, targets: &answer[1..], against: Against::Nobody, keep: true };
        let mut caches = caches();
        let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::new(&answer, cache, ask)).collect();
        for answer in model.engine().step(&mut rows).unwrap() {
            logits.add(&answer.along(String::new).unwrap().kept.unwrap().read().unwrap());
        }
    }
    let stop = StopRule { tokens: vec![], max_new_tokens: 12, min_new_tokens: 0 };
    let answers =
        model.greedy(&mut caches(), &[prefill.first(&stop)], &stop, |_, _| ControlFlow::Continue(())).unwrap();
    answers.iter().flatten().for_each(|&token| logits.0.update(token.to_le_bytes()));

    let mut utilities = Sha256::new();
    for (utility, holdout_suffix) in [(UtilityKind::LogLikelihood, 0), (UtilityKind::Agreement, 3)] {
        let stop = StopRule { tokens: vec![], max_new_tokens: 5, min_new_tokens: 0 };
        let record = GameRecord { name: "one".into(), prompt: prompt.clone(), answer: tokens(6, 11), stop };
        let rules = GameRules { utility, holdout_suffix, agreement_tokens: 6, ..GameRules::default() };
        let mut game = HeadMaskGame::prepare(model, vec![record], rules, None, |_| {}).unwrap();
        let coalitions: Vec<Coalition> = (0..16usize)
            .map(|bits| Coalition::from_members(layout.heads(), (0..4).filter(|head| bits >> head & 1 == 1)))
            .collect();
        let queries: Vec<Query<'_>> = coalitions.iter().map(|coalition| Query { coalition, instance: 0 }).collect();
        let mut values = vec![f64::NAN; queries.len()];
        game.evaluate(&queries, &mut values).unwrap();
        values.iter().for_each(|value| utilities.update(value.to_bits().to_le_bytes()));
    }
    format!("logits {} cache {} utilities {}", logits.finish(), cache.finish(), Hash(utilities).finish())
}

/// Every checkpoint with every cache type, in all registers that the processor has.
fn computed() -> BTreeMap<String, String> {
    let checkpoints = checkpoints();
    let mut all = BTreeMap::new();
    for registers in Registers::ALL.into_iter().filter(|&registers| registers <= Registers::detect()) {
        Registers::limit(registers);
        for Checkpoint { name, prompt_len, formats, files, weights, .. } in &checkpoints {
            for &format in *formats {
                let options = LoadOptions { weight_type: *weights, format, ..LoadOptions::default() };
                let model = LanguageModel::load(files, &options, |_, _| {}).unwrap();
                let key = format!("{} {registers:?}, {name}, {format:?}", std::env::consts::ARCH);
                all.insert(key, bits(&model, *prompt_len));
            }
        }
    }
    all
}

#[test]
fn the_cpu_computes_what_it_did() {
    let computed = computed();
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    let mut lines = text.lines();
    let of = lines.next().and_then(|line| line.strip_prefix("NUMERICS ")?.parse().ok()).unwrap_or(0u32);
    let mut known: BTreeMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(key, bits)| (key.to_owned(), bits.to_owned())).collect();
    let changed: Vec<String> = computed
        .iter()
        .filter_map(|(key, now)| Some((key, now, known.get(key).filter(|before| *before != now)?)))
        .map(|(key, now, before)| format!("{key}: {before}, now {now}"))
        .collect();
    if std::env::var_os("COKV_BITS").is_some_and(|value| value == "write") {
        assert!(
            changed.is_empty() || of < NUMERICS,
            "these bits changed under the same NUMERICS, which has to be raised: {changed:#?}"
        );
        known.extend(computed);
        let lines: String = known.iter().map(|(key, bits)| format!("{key}: {bits}\n")).collect();
        std::fs::write(FILE, format!("NUMERICS {NUMERICS}\n{lines}")).unwrap();
        return;
    }
    assert_eq!(of, NUMERICS, "{FILE} is of another NUMERICS: COKV_BITS=write cargo test -p cokv-models --test bits");
    assert!(
        changed.is_empty(),
        "these bits changed. If they should not have, find out why; if they should, raise NUMERICS, so that rows and samples \
         of before are not taken for those of now, and write them down: COKV_BITS=write cargo test -p cokv-models --test \
         bits\n{changed:#?}"
    );
    let unknown: Vec<&String> = computed.keys().filter(|key| !known.contains_key(*key)).collect();
    if !unknown.is_empty() {
        cokv_golden::skip(&format!("{FILE} does not know the bits of this processor: {unknown:?}"));
    }
}
