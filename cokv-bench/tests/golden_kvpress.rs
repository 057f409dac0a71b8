//! What methods keep of a prompt beside what kvpress 0.5.5 itself keeps: all layers and heads, scores, and the answers
//! that come of it (data: `tests/data/kvpress-0.5.5`, which `benches/peers/kvpress_golden.py` makes and describes).
//!
//! Which method a press is here, and how much of it is the same, is `cokv_policies::kvpress`, which `docs/methods.md`
//! shows.

mod common;

use std::fmt::{self, Write as _};
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;

use cokv_bench::data::prompt::framed;
use cokv_core::{
    ConfigTable, Format, Frame, HeadLayout, HeadScores, Method, ObservationRequest, Pairs, Replay, Selection,
    TokenScores,
};
use cokv_models::cache::RaggedCache;
use cokv_models::{LanguageModel, Prefill, StopRule, WeightType};
use cokv_policies::kvpress::{Counterpart, Here, PRESSES};
use common::{ids, json, load_model};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value as Json;

/// Layers and tokens of which there are samples.
const LAYERS: [usize; 3] = [0, 14, 29];
const STEP: usize = 10;

/// Cases that are not a press as it comes, as `[[method]]` tables, and the least share of its pairs that is the same.
const VARIANTS: [(&str, &str, f64); 14] = [
    // Its floor counts the window, ours what lies beside it.
    ("ada-snapkv", "compressor = 'snapkv-kvpress'\nallocator = { name = 'ada-kv', floor = 0 }", 0.999),
    (
        "kvzip-in-chunks",
        "compressor = { name = 'kvzip', chunk = 256, protect_template = false }
         allocator = { name = 'ada-kv', scope = 'model', floor = 0 }",
        0.999,
    ),
    (
        "kvzip-layerwise",
        "compressor = { name = 'kvzip', protect_template = false }\nallocator = { name = 'ada-kv', floor = 0 }",
        0.999,
    ),
    (
        "kvzip-plus",
        "compressor = { name = 'kvzip-plus', protect_template = false }
         allocator = { name = 'ada-kv', scope = 'model', floor = 0 }",
        0.999,
    ),
    (
        "kvcompose-unstructured",
        "compressor = 'kvcompose'\nallocator = { name = 'ada-kv', scope = 'model', floor = 0 }",
        0.999,
    ),
    ("chunk", "compressor = { name = 'chunk', chunk = 256, base = 'knorm' }", 0.999),
    ("finch-in-place", "compressor = { name = 'finch', rerotate = false }", 0.999),
    (
        "simlayerkv",
        "compressor = { name = 'simlayerkv', recent = 128 }\nallocator = { name = 'lazy-layers', threshold = 0.7 }",
        0.999,
    ),
    // A base without a window: what the first stage has does not depend on how it is counted.
    ("critical-cur", "compressor = { name = 'critical-kv', base = { name = 'cur', sinks = 0 } }", 0.999),
    (
        "critical-ada-cur",
        "compressor = { name = 'critical-kv', base = { name = 'cur', sinks = 0 } }
         allocator = { name = 'ada-kv', floor = 0.2 }",
        0.999,
    ),
    ("merging-some", "compressor = { name = 'merging', base = 'snapkv-kvpress', share = 0.3334 }", 0.999),
    // What any of them protects is kept: SnapKV's window, too.
    ("composed-snapkv", "compressor = { name = 'composed', compressors = ['snapkv-kvpress', 'keydiff'] }", 0.94),
    (
        "per-layer",
        "compressor = 'knorm'
         allocator = { name = 'per-layer', shares = [4, 2, 1, 4, 2, 1, 4, 2, 1, 4, 2, 1, 4, 2, 1, \
         4, 2, 1, 4, 2, 1, 4, 2, 1, 4, 2, 1, 4, 2, 1] }",
        0.999,
    ),
    (
        "duo-attention",
        "compressor = { name = 'streaming-llm', sinks = 64 }
         allocator = { name = 'duo-attention', sinks = 64, recent = 128 }",
        1.0,
    ),
];

/// How much scores and lengths may differ, as a share of the largest.
fn tolerance(case: &str) -> f32 {
    match case {
        // kvpress solves in f32 what we solve in f64.
        "leverage" => 1e-4,
        // Its blend is the ratio that was asked for, ours what is kept.
        "compactor" => 1e-3,
        _ => 1e-5,
    }
}

/// A case of `expected.json`.
#[derive(Deserialize)]
struct Case {
    case: String,
    press: String,
    removed: f64,
    tokens: usize,
    kept: usize,
    #[serde(default)]
    answer: Vec<u32>,
    #[serde(default)]
    scores: bool,
    #[serde(default)]
    values: bool,
    head_scores: Option<Vec<f64>>,
}

impl Case {
    /// The method, and the least share of its pairs that is the same.
    fn method(&self, layout: HeadLayout) -> (Method, f64) {
        let variant = VARIANTS.iter().find(|(case, ..)| *case == self.case).map(|&(_, method, share)| (method, share));
        let (method, share) = variant.unwrap_or_else(|| {
            let press = PRESSES.iter().find(|press| self.press.strip_suffix("Press") == Some(press.name));
            match press.map(|press| press.here) {
                Some(Here::Method(Counterpart { method, same: Some(share), .. })) => (method, share),
                other => panic!("{self}: {other:?}"),
            }
        });
        let mut method = cokv_policies::registry().method(ConfigTable::parse(&self.case, method).unwrap()).unwrap();
        if let Some(scores) = &self.head_scores {
            method.set_head_scores(HeadScores::new(layout, scores.clone()).unwrap());
        }
        (method, share)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} removed", self.case, self.removed)
    }
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut all).unwrap();
    all
}

/// What is read in turn.
struct Tape<T>(std::vec::IntoIter<T>);

impl<T> Tape<T> {
    fn take(&mut self, count: usize) -> Vec<T> {
        let taken: Vec<T> = self.0.by_ref().take(count).collect();
        assert_eq!(taken.len(), count, "the data end before the cases do");
        taken
    }
}

/// A text as its cases' methods see it.
struct Text {
    prefill: Prefill,
    /// One for each case, in their order.
    scores: std::vec::IntoIter<Arc<TokenScores>>,
}

impl Text {
    /// Reads the text for all methods at once, each at what its press kept.
    fn new(model: &LanguageModel, tokens: &[u32], frame: Frame, close: &[u32], asked: &[(&Method, usize)]) -> Self {
        let observed = asked.iter().map(|(method, _)| method.observations(frame));
        let request = observed.fold(ObservationRequest::default(), ObservationRequest::union);
        let mut prefill = model.prefill(tokens, request, |_| {}).unwrap().within(frame);
        for replay in Replay::covering(asked.iter().filter_map(|(method, _)| method.replay()).collect()) {
            model.replay(&mut prefill, &replay, close, |_, _| {}).unwrap();
        }
        let scores = prefill.score_all(asked).unwrap().into_iter();
        Self { prefill, scores }
    }
}

#[test]
fn presses_keep_the_same() {
    let Some(prompt) = cokv_golden::find("golden/policies.json") else { return };
    let prompt = json(&prompt);
    let expected: Json = serde_json::from_str(include_str!("data/kvpress-0.5.5/expected.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_value(expected["runs"].clone()).unwrap();
    for press in PRESSES {
        let Here::Method(Counterpart { same: Some(_), .. }) = press.here else { continue };
        let compared = cases.iter().any(|case| case.press.strip_suffix("Press") == Some(press.name));
        assert!(compared, "nothing of {} is compared", press.name);
    }
    let mut kept = Tape(unzipped(include_bytes!("data/kvpress-0.5.5/kept.bin.gz")).into_iter());
    let samples = unzipped(include_bytes!("data/kvpress-0.5.5/samples.bin.gz"));
    let samples: Vec<f32> = samples.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
    let mut samples = Tape(samples.into_iter());

    let model = load_model("smollm2-135m-instruct", WeightType::F32, Format::F32);
    let layout = model.config().layout;
    let methods: Vec<(Method, f64)> = cases.iter().map(|case| case.method(layout)).collect();
    let [context, question] = [&prompt["context_ids"], &prompt["question_ids"]].map(ids);
    let whole = [&context[..], &question].concat();
    let Frame { head, tail, .. } = framed(model.tokenizer(), model.chat_template(), "a".into()).unwrap().frame;
    let (asks, close) = question.split_at(question.len() - tail);
    let before = Frame { head, ..Frame::default() };
    let seen = Frame { head, question: asks.len(), tail };
    let mut texts = [(&context, before), (&whole, seen)].map(|(tokens, frame)| {
        let shown = cases.iter().zip(&methods).filter(|(case, _)| case.tokens == tokens.len());
        let asked: Vec<(&Method, usize)> = shown.map(|(case, (method, _))| (method, case.kept)).collect();
        Text::new(&model, tokens, frame, close, &asked)
    });

    let mut wrong = String::new();
    for (case, (method, least)) in cases.iter().zip(&methods) {
        let Text { prefill, scores } = texts.iter_mut().find(|text| text.prefill.prompt_len() == case.tokens).unwrap();
        let scores = scores.next().unwrap();
        let theirs = kept_by_head(&kept.take(layout.heads() * case.tokens.div_ceil(8)), case.tokens);
        assert_eq!(theirs.iter().map(Vec::len).sum::<usize>(), case.kept, "{case}");
        let selection = method.select(layout, &scores, case.kept).unwrap();
        let (both, different) = compare(layout, &selection, &theirs, case.tokens);
        let share = both as f64 / case.kept as f64;
        println!("{case}: {both} of {} kept pairs are the same, {:.3} %", case.kept, 100.0 * share);
        if share < *least {
            writeln!(wrong, "{case}: {share:.5} of the kept pairs are the same, not {least}{different}").unwrap();
        }
        if case.scores {
            let candidates = method.protected(prefill.frame()).candidates(case.tokens);
            let sampled = || (0..case.tokens).step_by(STEP);
            let ours: Vec<(bool, f32)> = sampled_heads(layout)
                .flat_map(|head| sampled().map(move |token| (head, token)))
                .map(|(head, token)| (candidates.contains(&token), scores.head(head)[token]))
                .collect();
            // kvpress gives what it keeps anyway a score above all others; ours are protected instead.
            let both = ours.iter().zip(samples.take(ours.len())).filter(|((counts, _), _)| *counts);
            let both: Vec<(f32, f32)> = both.map(|((_, ours), theirs)| (*ours, theirs)).collect();
            wrong += &differences(&format!("{case}: scores"), &both, tolerance(&case.case));
        }
        let pairs = rewritten(method, prefill, &selection);
        if case.values {
            let values = |head: usize| pairs[head].values.chunks_exact(layout.head_dim).step_by(STEP);
            let length = |value: &[f32]| value.iter().map(|x| x * x).sum::<f32>().sqrt();
            let ours: Vec<f32> = sampled_heads(layout).flat_map(values).map(length).collect();
            let theirs = samples.take(ours.len());
            let both: Vec<(f32, f32)> = ours.into_iter().zip(theirs).collect();
            wrong += &differences(&format!("{case}: lengths of values"), &both, tolerance(&case.case));
        }
        // What is kept otherwise is answered otherwise.
        if !case.answer.is_empty() && share >= 0.999 {
            let cache = match method.rewrites() {
                true => RaggedCache::rewritten(prefill.prompt(), &selection, &pairs).unwrap(),
                false => RaggedCache::compressed(prefill.prompt(), &selection).unwrap(),
            };
            let ours = answer(&model, prefill, cache, &whole[case.tokens..], case.answer.len());
            if ours != case.answer {
                writeln!(wrong, "{case}: answers {ours:?} and not {:?}", case.answer).unwrap();
            }
        }
    }
    assert!(kept.0.len() == 0 && samples.0.len() == 0, "all data were compared");
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Flat indices of the heads of which there are samples.
fn sampled_heads(layout: HeadLayout) -> impl Iterator<Item = usize> {
    LAYERS.into_iter().flat_map(move |layer| layer * layout.kv_heads..(layer + 1) * layout.kv_heads)
}

/// Positions of each head, ascending.
fn kept_by_head(bits: &[u8], tokens: usize) -> Vec<Vec<usize>> {
    let is_kept = |head: &[u8], token: usize| head[token / 8] >> (token % 8) & 1 == 1;
    let of_head = |head: &[u8]| (0..tokens).filter(|&token| is_kept(head, token)).collect();
    bits.chunks_exact(tokens.div_ceil(8)).map(of_head).collect()
}

/// How many pairs both keep, and which tokens of the first heads only one of them does.
fn compare(layout: HeadLayout, ours: &Selection, theirs: &[Vec<usize>], tokens: usize) -> (usize, String) {
    let (mut both, mut different) = (0, String::new());
    for (head, (ours, theirs)) in ours.heads.iter().zip(theirs).enumerate() {
        let ours = ours.positions(tokens);
        let alone = |some: &[usize], others: &[usize]| -> Vec<usize> {
            some.iter().copied().filter(|token| others.binary_search(token).is_err()).collect()
        };
        let few = |tokens: &[usize]| format!("{:?} ({})", &tokens[..tokens.len().min(8)], tokens.len());
        let (only_ours, only_theirs) = (alone(&ours, theirs), alone(theirs, &ours));
        both += ours.len() - only_ours.len();
        if !(only_ours.is_empty() && only_theirs.is_empty()) && different.lines().count() < 6 {
            let (layer, kv_head) = layout.place(head);
            let (here, there) = (few(&only_ours), few(&only_theirs));
            write!(different, "\n    head {layer}.{kv_head}: only here {here}, only there {there}").unwrap();
        }
    }
    (both, different)
}

/// What is wrong with numbers that differ by more than a share of the largest.
fn differences(what: &str, pairs: &[(f32, f32)], tolerance: f32) -> String {
    let scale = pairs.iter().fold(0.0f32, |scale, (_, theirs)| scale.max(theirs.abs()));
    let largest = pairs.iter().map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max) / scale;
    println!("{what}: {} differ by at most {largest:.1e} of the largest", pairs.len());
    match largest < tolerance {
        true => String::new(),
        false => format!("{what} differ by {largest:.1e} of the largest\n"),
    }
}

/// What the method makes of what every head keeps, where it changes that.
fn rewritten(method: &Method, prefill: &Prefill, selection: &Selection) -> Vec<Pairs> {
    if !method.rewrites() {
        return Vec::new();
    }
    let kv_heads = prefill.prompt().layout().kv_heads;
    let of_layer = |(layer, kept)| prefill.view(layer, |view| method.rewrite(view, kept)).unwrap().unwrap();
    selection.heads.chunks_exact(kv_heads).enumerate().flat_map(of_layer).collect()
}

/// The greedy answer behind what is left to read, on what was kept.
fn answer(model: &LanguageModel, prefill: &Prefill, cache: RaggedCache, question: &[u32], tokens: usize) -> Vec<u32> {
    let stop = StopRule { tokens: vec![], max_new_tokens: tokens, min_new_tokens: 0 };
    let mut caches = [cache];
    let first = match question {
        [] => vec![prefill.first(&stop)],
        question => model.extend(&mut caches, question, &stop).unwrap(),
    };
    model.greedy(&mut caches, &first, &stop, |_, _| ControlFlow::Continue(())).unwrap().remove(0)
}
