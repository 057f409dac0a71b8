//! Every configuration that is shipped is planned, on the small model and on the records that are here.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{cokv, stdout, wheel_source};
use toml::{Table, Value};

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let folder = |name: &str| fs::read_dir(root.join(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = folder("configs").chain(folder("configs/experiments")).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "toml") && !file.ends_with("mask-heads.toml"));
    files.push(root.join("cokv.toml"));
    files
}

/// The same matrix on what a test can have: other weights, fewer and shorter prompts, made-up scores.
fn small(mut config: Table, longbench: &Path) -> Table {
    let model = Value::Table([("source".to_owned(), Value::from(wheel_source()))].into_iter().collect());
    config.insert("model".into(), model);
    let here = |table: &mut Table, key: &str| {
        let from_hub = table.get(key).and_then(Value::as_str).is_some_and(|source| source.starts_with("hub:"));
        if from_hub {
            table.insert(key.into(), longbench.to_str().unwrap().into());
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
    stdout(&cokv(folder.path(), &["detect", "--model", &source, "--kind", "random", "--out", "random.scores.json"]));
    for file in shipped() {
        let config: Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        fs::write(folder.path().join("small.toml"), small(config, &longbench).to_string()).unwrap();
        let plan = stdout(&cokv(folder.path(), &["bench", "--plan", "--config", "small.toml"]));
        assert!(plan.contains("tokens to prefill") && plan.contains("of memory"), "{}: {plan}", file.display());
    }
    assert!(!folder.path().join("runs").exists(), "a plan leaves nothing behind");
}
