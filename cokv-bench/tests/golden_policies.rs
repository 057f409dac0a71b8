//! Parity with kvpress: token ids, greedy answers, and the tokens that SnapKV and StreamingLLM keep, layer by layer and
//! head by head (data: `tests/data/kvpress`, scores in `cokv-golden`).

mod common;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;

use cokv_core::select::select;
use cokv_core::{Budget, BudgetPlan, ConfigTable, Format, Frame, HeadSelection, Method, ObservationRequest};
use cokv_models::ask::{Against, Ask};
use cokv_models::cache::RaggedCache;
use cokv_models::engine::Row;
use cokv_models::{LanguageModel, Prefill, StopRule, WeightType};
use common::{ids, json, load_model};
use serde::Deserialize;
use serde_json::Value as Json;

/// The tensors of `policies.safetensors` by name.
struct Golden {
    header: Json,
    file: File,
    data_start: u64,
}

impl Golden {
    fn open() -> Option<Self> {
        let mut file = File::open(cokv_golden::find("golden/policies.safetensors")?).unwrap();
        let mut size = [0; 8];
        file.read_exact(&mut size).unwrap();
        let mut header = vec![0; u64::from_le_bytes(size) as usize];
        file.read_exact(&mut header).unwrap();
        let data_start = 8 + header.len() as u64;
        Some(Self { header: serde_json::from_slice(&header).unwrap(), file, data_start })
    }

    fn floats(&mut self, name: &str) -> Vec<f32> {
        let offsets = &self.header[name]["data_offsets"];
        let [start, end] = [0, 1].map(|at| offsets[at].as_u64().unwrap_or_else(|| panic!("no tensor {name}")));
        let mut data = vec![0; (end - start) as usize];
        self.file.seek(SeekFrom::Start(self.data_start + start)).unwrap();
        self.file.read_exact(&mut data).unwrap();
        data.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

fn method(compressor: &str) -> Method {
    allocated(compressor, "'uniform'")
}

fn allocated(compressor: &str, allocator: &str) -> Method {
    let text = format!("compressor = {compressor}\nallocator = {allocator}");
    cokv_policies::registry().method(ConfigTable::parse("test", &text).unwrap()).unwrap()
}

fn greedy(model: &LanguageModel, prefill: &Prefill, cache: RaggedCache) -> Vec<u32> {
    let stop = StopRule { tokens: vec![], max_new_tokens: 32, min_new_tokens: 0 };
    model.greedy(&mut [cache], &[prefill.first(&stop)], &stop, |_, _| ControlFlow::Continue(())).unwrap().remove(0)
}

/// The peer's policies as ours, by its names.
fn policies() -> [(&'static str, Method); 10] {
    let paper = "kernel = 5, pooling = 'avg', order = 'pool-first'";
    let windows = [64, 32].map(|window| format!("{{ name = 'snapkv', window = {window}, {paper} }}"));
    let ada = "{ name = 'ada-kv', rounding = 'exact', floor = 0 }";
    [
        ("snapkv", method(&windows[0])),
        ("snapkv_w32", method(&windows[1])),
        ("adakv_snapkv", allocated(&windows[0], ada)),
        ("adakv_snapkv_w32", allocated(&windows[1], ada)),
        // Its budgets are a formula of its own at half the cache, and uniform below, so that they are taken as given: what is
        // compared is which tokens fill them.
        ("pyramidkv", method(&windows[0])),
        ("streaming_llm", method("'streaming-llm'")),
        ("tova", method("'tova'")),
        ("knorm", method("'knorm'")),
        ("keydiff", method("'keydiff'")),
        ("expected_attention", method("'expected-attention'")),
    ]
}

/// The prompt of a golden file, prefilled for all policies.
fn prefilled(model: &LanguageModel, json: &Json) -> (Vec<u32>, Prefill) {
    let mut prompt = ids(&json["context_ids"]);
    prompt.extend(ids(&json["question_ids"]));
    let request = policies()
        .iter()
        .fold(ObservationRequest::default(), |all, (_, method)| all.union(method.observations(Frame::default())));
    let prefill = model.prefill(&prompt, request, |_| {}).unwrap();
    (prompt, prefill)
}

#[derive(Deserialize)]
struct Run {
    policy: String,
    removed: f64,
    kept: usize,
    answer: Vec<u32>,
}

#[test]
fn kept_tokens_and_answers_equal_kvpress() {
    let json: Json = serde_json::from_str(include_str!("data/kvpress/expected.json")).unwrap();
    let model = load_model("smollm2-135m-instruct", WeightType::F32, Format::F32);
    let layout = model.config().layout;
    for (text, expected, start) in [("context_text", "context_ids", true), ("question_text", "question_ids", false)] {
        let encoded = model.tokenizer().encode(json[text].as_str().unwrap(), start).unwrap();
        assert_eq!(encoded, ids(&json[expected]), "{text}");
    }
    let conversation = [&json["context_text"], &json["question_text"]].map(|text| text.as_str().unwrap()).concat();
    let (_, message) = conversation.split_once("<|im_start|>user\n").unwrap();
    let (message, _) = message.split_once("<|im_end|>").unwrap();
    assert_eq!(model.chat_template().unwrap().render(message).unwrap(), conversation, "chat template");

    let (prompt, prefill) = prefilled(&model, &json);
    for (id, logit) in ids(&json["top20_ids"]).into_iter().zip(json["top20_logits"].as_array().unwrap()) {
        let difference = f64::from(prefill.logits()[id as usize]) - logit.as_f64().unwrap();
        assert!(difference.abs() <= 2e-3, "the logit of {id} is off by {difference:e}");
    }
    assert_eq!(greedy(&model, &prefill, RaggedCache::full(prefill.prompt())), ids(&json["answer"]));

    let runs: Vec<Run> = serde_json::from_value(json["runs"].clone()).unwrap();
    let mut heads = include_bytes!("data/kvpress/kept.bin").chunks_exact(prompt.len().div_ceil(8));
    for (name, method) in policies() {
        let scores = prefill.score(&method, layout.heads() * prompt.len()).unwrap();
        for Run { removed, kept, answer, .. } in runs.iter().filter(|run| run.policy == name) {
            let run = format!("{name}, {removed} removed");
            let is_kept = |bits: &[u8], token: u32| bits[token as usize / 8] >> (token % 8) & 1 == 1;
            let theirs: Vec<Vec<u32>> = (heads.by_ref().take(layout.heads()))
                .map(|bits| (0..prompt.len() as u32).filter(|&token| is_kept(bits, token)).collect())
                .collect();
            let given = BudgetPlan::new(theirs.iter().map(Vec::len).collect());
            assert_eq!(given.total(), *kept, "{run}");
            let total = Budget::Share(1.0 - removed).total_tokens(layout, prompt.len(), Format::F32);
            let selection = match name {
                "pyramidkv" => select(&scores, &given, method.protected(Frame::default())),
                _ => method.select(layout, &scores, total).unwrap(),
            };
            let mut different = 0;
            for (head, (selected, theirs)) in selection.heads.iter().zip(&theirs).enumerate() {
                let HeadSelection::Tokens(ours) = selected else { panic!("{run}: head {head} keeps everything") };
                assert_eq!(ours.len(), theirs.len(), "{run}, head {head}");
                let scores = scores.head(head);
                let candidates = method.protected(Frame::default()).candidates(prompt.len());
                let scored = theirs.iter().map(|&token| token as usize).filter(|token| candidates.contains(token));
                let worst_kept = scored.map(|token| scores[token]).fold(f32::INFINITY, f32::min);
                // Another token is right only if it ties with the cut within the rounding of two programs.
                for token in ours.iter().filter(|token| !theirs.contains(token)) {
                    different += 1;
                    let margin = (scores[*token as usize] - worst_kept).abs() / worst_kept.abs();
                    assert!(margin < 2e-5, "{run}, head {head}, token {token}: off the cut by {margin:e}");
                }
            }
            println!("{run}: {different} of {kept} kept tokens differ, all of them ties");
            if different == 0 {
                let ours = greedy(&model, &prefill, RaggedCache::compressed(prefill.prompt(), &selection).unwrap());
                assert_eq!(ours, *answer, "{run}: greedy answer");
            }
        }
    }
    assert_eq!(heads.len(), 0, "all runs were compared");
}

#[test]
fn scores_equal_kvpress() {
    let (Some(mut golden), Some(file)) = (Golden::open(), cokv_golden::find("golden/policies.json")) else { return };
    let model = load_model("smollm2-135m-instruct", WeightType::F32, Format::F32);
    let layout = model.config().layout;
    let (prompt, prefill) = prefilled(&model, &json(&file));
    // Its StreamingLLM has no scores but zero and one.
    for (name, method) in policies().into_iter().filter(|(name, _)| *name != "streaming_llm") {
        let scores = prefill.score(&method, layout.heads() * prompt.len()).unwrap();
        let published = golden.floats(&format!("A/{}/scores", name.trim_start_matches("adakv_")));
        // The peer gives its window and its sinks a score above all; ours are protected instead.
        let candidates = method.protected(Frame::default()).candidates(prompt.len());
        let theirs = |head: usize| &published[head * prompt.len()..][candidates.clone()];
        let scale = (0..layout.heads()).flat_map(theirs).fold(1.0f32, |scale, score| scale.max(score.abs()));
        for head in 0..layout.heads() {
            let ours = &scores.head(head)[candidates.clone()];
            for (token, (a, b)) in ours.iter().zip(theirs(head)).enumerate() {
                assert!((a - b).abs() < 1e-5 * scale, "{name}, head {head}, token {token}: {a} and {b}");
            }
        }
    }
}

#[test]
fn a_full_budget_and_bytes_are_exact_on_the_real_model() {
    let model = load_model("smollm2-135m-instruct", WeightType::Stored, Format::F16);
    let layout = model.config().layout;
    let prompt = model.tokenizer().encode(&"One prefill serves the whole matrix. ".repeat(40), true).unwrap();
    let snapkv = method("'snapkv'");
    let prefill = model.prefill(&prompt, snapkv.observations(Frame::default()), |_| {}).unwrap();
    let everything: Vec<u32> = (0..prompt.len() as u32).collect();
    let copied = cokv_core::Selection { heads: vec![HeadSelection::Tokens(everything); layout.heads()] };
    let by_budget = prefill.select(&snapkv, layout.heads() * prompt.len()).unwrap();
    let small = prefill.select(&snapkv, layout.heads() * 16 + 5).unwrap();
    let mut caches = [
        RaggedCache::full(prefill.prompt()),
        RaggedCache::compressed(prefill.prompt(), &by_budget).unwrap(),
        RaggedCache::compressed(prefill.prompt(), &copied).unwrap(),
        RaggedCache::compressed(prefill.prompt(), &small).unwrap(),
    ];
    let kept = [
        prompt.len() * layout.heads(),
        prompt.len() * layout.heads(),
        prompt.len() * layout.heads(),
        16 * layout.heads() + 5,
    ];
    for (cache, kept) in caches.iter().zip(kept) {
        assert_eq!(cache.total_tokens(), kept);
        assert_eq!(cache.allocated_bytes(), kept * 2 * layout.head_dim * 2, "bytes of the buffers");
        assert_eq!(cache.bytes(), cache.allocated_bytes());
    }
    let ask = Ask::Along { skip: 0, targets: &[], against: Against::Nobody, keep: true };
    let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::new(&prompt[..5], cache, ask)).collect();
    let answers = model.engine().step(&mut rows).unwrap().into_iter();
    let logits: Vec<Vec<f32>> =
        answers.map(|answer| answer.along(String::new).unwrap().kept.unwrap().read().unwrap()).collect();
    assert!(logits[0] == logits[1] && logits[0] == logits[2], "a full budget must give the same bits");
    assert!(logits[0] != logits[3]);
}
