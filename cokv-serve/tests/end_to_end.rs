//! A real scheduler and a model whose weights are drawn: everything between the socket and the cache.

mod common;

use std::sync::Arc;

use cokv_models::cache::file::{Description, Identity};
use cokv_models::{LanguageModel, LoadOptions, NUMERICS, Outline};
use cokv_scheduler::Document;
use cokv_serve::Files;
use common::{Running, model};
use serde_json::{Value as Json, json};

struct EndToEnd {
    server: Running,
    _folder: tempfile::TempDir,
}

fn start() -> EndToEnd {
    let folder = tempfile::tempdir().unwrap();
    let files = model::write(folder.path());
    let model = Arc::new(LanguageModel::load(&files, &LoadOptions::default(), |_, _| {}).unwrap());
    let identity = Identity {
        model: "m".into(),
        tokenizer: "t".into(),
        numerics: NUMERICS.to_string(),
        layout: model.config().layout,
        format: model.format(),
        rope: model.config().rope().unwrap(),
    };
    let settings = cokv_scheduler::Settings { cache_memory: Some(64 << 20), ..cokv_scheduler::Settings::default() };
    let (handle, _worker) = cokv_scheduler::start(Arc::clone(&model), settings).unwrap();
    let of = identity.clone();
    let files_of = Files {
        folder: folder.path().to_owned(),
        identity,
        describe: Arc::new(move |document| describe(&of, document)),
        write: Arc::new(|path, bytes| std::fs::write(path, bytes)),
    };
    let outline = Outline::open(&files).unwrap();
    let format = model.format();
    let server = common::serve(handle, outline, |server| {
        server.files = Some(files_of);
        server.model.format = format;
    });
    EndToEnd { server, _folder: folder }
}

fn describe(identity: &Identity, document: &Document) -> Description {
    let made_by = document.made_by.as_ref();
    Description {
        identity: identity.clone(),
        model: "test".into(),
        weights: "stored".into(),
        backend: "cpu".into(),
        chat_template_kwargs: "{}".into(),
        prefix: "00".into(),
        method: made_by.map_or_else(|| "full".into(), |made| made.settings.clone()),
        budget: made_by.map_or_else(|| "100%".into(), |made| made.budget.clone()),
        head_scores: None,
        created: "2026-01-01T00:00:00Z".into(),
        cokv: "0".into(),
    }
}

/// Greedy, so that answers can be compared.
fn greedy(more: Json) -> Json {
    let mut body = json!({ "temperature": 0, "max_tokens": 12, "ignore_eos": true });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn text(answer: &Json) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn answers_are_the_same_whole_and_streamed_and_again() {
    let EndToEnd { server, _folder } = start();
    let whole = server.chat(greedy(json!({})));
    assert_eq!(whole.status, 200, "{}", whole.body);
    let whole = whole.json();
    assert_eq!(
        (&whole["choices"][0]["finish_reason"], &whole["usage"]["completion_tokens"]),
        (&json!("length"), &json!(12))
    );
    let events = server.chat(greedy(json!({ "stream": true }))).events();
    let told: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(told, text(&whole));
    let seeded = |seed: i64| {
        let body = json!({ "temperature": 1.5, "seed": seed, "max_tokens": 12, "ignore_eos": true, "n": 2 });
        server.chat(body).json()["choices"].clone()
    };
    assert_eq!(seeded(7), seeded(7));
    assert_ne!(seeded(7), seeded(8));
    assert_ne!(seeded(7)[0]["message"], seeded(7)[1]["message"]);
}

#[test]
fn a_document_serves_many_questions_and_survives_a_file() {
    let EndToEnd { server, _folder } = start();
    let text_of = "The sky is blue because of how air scatters light. ".repeat(4);
    let compress = json!({ "compressor": "keydiff", "budget": "50%" });
    let made = server.post("/v1/cokv/documents", &json!({ "id": "sky", "text": text_of, "compress": compress }));
    assert_eq!(made.status, 201, "{}", made.body);
    let made = made.json();
    assert_eq!(made["state"], "compressed");
    assert!(made["kept_tokens"].as_f64().unwrap() < made["tokens"].as_f64().unwrap() * 0.6);
    let ask = |document: &str| {
        let reply = server.chat(greedy(json!({ "cokv": { "document": document } })));
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    };
    let answer = ask("sky");
    assert_eq!(
        (&answer["cokv"]["cache"]["state"], &answer["cokv"]["cache"]["document"]),
        (&json!("compressed"), &json!("sky"))
    );
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], made["tokens"]);
    let begun = json!({ "messages": [{ "role": "user", "content": format!("{}\n\nhi", text_of.trim_end()) }] });
    let full = server.chat(greedy(begun.clone())).json();
    assert_eq!(full["cokv"]["cache"]["state"], "full", "nobody asked for less");
    let mut compressed = begun;
    compressed["cokv"] = json!({ "compress": "document" });
    let found = server.chat(greedy(compressed)).json();
    assert_eq!((text(&found), &found["cokv"]["cache"]["document"]), (text(&answer), &json!("sky")));
    let exact = server.chat(greedy(json!({ "cokv": { "document": "sky", "exact": true } })));
    assert_eq!(exact.error().1, "compressed_cache");

    let saved = server.post("/v1/cokv/documents/sky/save", &json!({ "name": "sky" }));
    assert_eq!(saved.status, 200, "{}", saved.body);
    let loaded = server.post("/v1/cokv/documents/load", &json!({ "name": "sky", "id": "again" }));
    assert_eq!(loaded.status, 200, "{}", loaded.body);
    assert_eq!(text(&ask("again")), text(&answer));

    let status = server.get("/v1/cokv/status").json();
    let entries = status["entries"].as_array().unwrap();
    assert!(
        entries.iter().any(|entry| entry["document"] == "sky" && entry["kept_by_head"].as_array().unwrap().len() == 2)
    );
    assert!(status["bytes"]["held"].as_u64().unwrap() > 0);
    assert_eq!(server.delete("/v1/cokv/documents/sky").status, 200);
    assert_eq!(server.chat(greedy(json!({ "cokv": { "document": "sky" } }))).status, 404);
}

#[test]
fn what_was_read_is_not_read_again() {
    let EndToEnd { server, _folder } = start();
    let messages = json!([{ "role": "user", "content": "Say something about the weather. ".repeat(6) }]);
    let ask = || server.chat(greedy(json!({ "messages": messages }))).json();
    let (first, second) = (ask(), ask());
    assert_eq!(text(&first), text(&second));
    let cached = |answer: &Json| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached(&first) == 0 && cached(&second) > 100, "{first} {second}");
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("cokv_ledger_error_bytes{model=\"tiny\"} 0"), "{metrics}");
}

#[test]
fn what_never_fits_is_refused_at_once() {
    let EndToEnd { server, _folder } = start();
    let logprobs = server.chat(greedy(json!({ "logprobs": true, "top_logprobs": 3 }))).json();
    let lines = logprobs["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(lines.len() == 12 && lines.iter().all(|line| line["top_logprobs"].as_array().unwrap().len() == 3));
    let long = server.post("/v1/completions", &json!({ "model": "tiny", "prompt": "x".repeat(511), "max_tokens": 2 }));
    assert_eq!(long.error().1, "context_length_exceeded");
    assert_eq!(long.json()["error"]["prompt_tokens"], 511);
}
