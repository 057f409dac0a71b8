//! Every configuration that is shipped is planned, on the small model and on the records that are here.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{cokv, stdout, wheel_source};
use serde_json::{Value as Json, json};
use toml::{Table, Value};

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let folder = |name: &str| fs::read_dir(root.join(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = folder("configs").chain(folder("configs/experiments")).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "toml") && !file.ends_with("mask-heads.toml"));
    files.push(root.join("cokv.toml"));
    files
}

/// Files of the layouts that configurations name, of some records each.
fn write_own_records(folder: &Path) {
    let lines = |line: &dyn Fn(usize) -> Json| (0..20).map(|at| line(at).to_string() + "\n").collect::<String>();
    let text =
        |at: usize| format!("The house {at} is green and has {at} doors. {}", "It stands by the sea. ".repeat(8));
    let plain =
        |at: usize| json!({"context": text(at), "question": "How many doors?", "answers": [format!("{at} doors")]});
    let quality = |at: usize| {
        let question = json!({"question": "Which colour?", "question_unique_id": format!("{at}-0"), "gold_label": 2,
            "options": ["red", "green", "blue", "white"]});
        json!({"article": text(at), "questions": [question]})
    };
    let v2 = |at: usize| {
        json!({"_id": at.to_string(), "context": text(at), "question": "Which colour?", "answer": "B", "choice_A": "red",
            "choice_B": "green", "choice_C": "blue", "choice_D": "white"})
    };
    fs::write(folder.join("my.jsonl"), lines(&plain)).unwrap();
    fs::write(folder.join("quality.jsonl"), lines(&quality)).unwrap();
    fs::write(folder.join("longbench-v2.jsonl"), lines(&v2)).unwrap();
    fs::write(folder.join("book.txt"), (0..200).map(text).collect::<String>()).unwrap();
}

/// The same matrix on what a test can have: other weights, fewer and shorter prompts, made-up scores.
fn small(mut config: Table, longbench: &Path) -> Table {
    let model = Value::Table([("source".to_owned(), Value::from(wheel_source()))].into_iter().collect());
    config.insert("model".into(), model);
    let here = |table: &mut Table, key: &str| {
        let of_hub = table.get(key).and_then(Value::as_str).and_then(|source| source.strip_prefix("hub:"));
        let instead = of_hub.map(|dataset| match dataset {
            "THUDM/LongBench" => longbench.to_str().unwrap(),
            "THUDM/LongBench-v2" => "longbench-v2.jsonl",
            _ => "my.jsonl",
        });
        if let Some(instead) = instead {
            table.insert(key.into(), instead.into());
            table.insert("max_prompt_tokens".into(), 500.into());
        }
        table.insert("records".into(), 1.into());
    };
    if let Some(data) = config.get_mut("data").and_then(Value::as_table_mut) {
        here(data, "source");
    }
    let importance = config.get_mut("importance").and_then(Value::as_table_mut);
    for (_, table) in importance.into_iter().flatten() {
        here(table.as_table_mut().unwrap(), "data");
    }
    for method in config.get_mut("method").and_then(Value::as_array_mut).unwrap() {
        let method = method.as_table_mut().unwrap();
        if method.contains_key("scores") {
            method.insert("scores".into(), "random.scores.json".into());
        }
    }
    config
}

#[test]
fn every_shipped_configuration_is_planned() {
    let Some(longbench) = cokv_golden::find("longbench-mini") else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = wheel_source();
    write_own_records(folder.path());
    stdout(&cokv(folder.path(), &["detect", "--model", &source, "--kind", "random", "--out", "random.scores.json"]));
    for file in shipped() {
        let config: Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        fs::write(folder.path().join("small.toml"), small(config, &longbench).to_string()).unwrap();
        let plan = stdout(&cokv(folder.path(), &["bench", "--plan", "--config", "small.toml"]));
        assert!(plan.contains("tokens to prefill") && plan.contains("of memory"), "{}: {plan}", file.display());
    }
    assert!(!folder.path().join("runs").exists(), "a plan leaves nothing behind");
}
