//! Both protocols of compression, on the small model: after the question, and before anybody asks.

mod common;

use std::fs;
use std::path::Path;

use common::{cokv, json, rows_of, stderr, stdout, wheel_source};
use serde_json::{Value as Json, json as object};

/// A run of these lines; its rows.
fn run(folder: &Path, text: &str) -> Vec<Json> {
    let model = format!("[model]\nsource = '{}'\ncache = 'f32'\n", wheel_source());
    fs::write(folder.join("c.toml"), text.replace("[model]\n", &model)).unwrap();
    stdout(&cokv(folder, &["bench", "--config", "c.toml", "--quiet"]));
    rows_of(&folder.join("runs/c/results.jsonl"))
}

fn error(folder: &Path, text: &str) -> String {
    fs::write(folder.join("c.toml"), text.replace("[model]\n", &format!("[model]\nsource = '{}'\n", wheel_source())))
        .unwrap();
    let output = cokv(folder, &["bench", "--config", "c.toml"]);
    assert!(!output.status.success());
    stderr(&output)
}

const METHODS: &str = "[[method]]\ncompressor = 'full'\n[[method]]\ncompressor = 'knorm'\n[[method]]\ncompressor = 'snapkv'\n\
    [[method]]\ncompressor = 'kvzip-global'\n[[method]]\ncompressor = { name = 'attention-matching', queries = 64 }\n\
    [[method]]\nname = 'turned'\ncompressor = { name = 'key-rerotation', base = 'keydiff' }\n\
    [[method]]\nname = 'compactor'\ncompressor = 'compactor'\n";

fn both(protocol: &str) -> String {
    format!(
        "budgets = ['30%', 100000]\n[model]\n[data]\nsource = 'synthetic'\ntasks = ['passkey']\ncontext_tokens = 300\nrecords = 2\n\
         [run]\nprotocol = {protocol}\n{METHODS}"
    )
}

#[test]
fn a_context_is_compressed_before_anybody_asks() {
    let folder = tempfile::tempdir().unwrap();
    let rows = run(folder.path(), &both("['question-seen', 'context-only']"));
    assert_eq!(rows.len(), 2 * 2 * (1 + 6 * 2));
    let of = |row: &Json, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    for row in &rows {
        let context_only = of(row, "protocol") == "context-only";
        assert_eq!(of(row, "method").ends_with(" (context-only)"), context_only, "{row}");
        let (tokens, context) = (row["prompt_tokens"].as_u64().unwrap(), row["context_tokens"].as_u64());
        assert_eq!(context.is_some_and(|context| context < tokens), context_only, "{row}");
        // What keeps everything answers as the full cache does, whatever becomes of its pairs.
        if row["kept_share"] == 1.0 {
            let divergence = row["divergence"].as_f64().unwrap_or(0.0);
            assert!(divergence < 1e-4 && row["agreement"].as_f64().unwrap_or(1.0) == 1.0, "{row}");
        } else {
            let share = row["kept_tokens"].as_f64().unwrap() / (90.0 * context.unwrap_or(tokens) as f64);
            assert!((share - 0.3).abs() < 0.01, "{row}");
        }
    }
    // A protocol by itself gives the same rows; what was done is not done again.
    let alone = tempfile::tempdir().unwrap();
    let alone = run(alone.path(), &both("'context-only'"));
    for row in &alone {
        let same = rows.iter().find(|other| other["fingerprint"] == row["fingerprint"]).expect("the same rows");
        assert_eq!((&same["prediction"], &same["kept_tokens"]), (&row["prediction"], &row["kept_tokens"]), "{row}");
    }
    assert_eq!(run(folder.path(), &both("['question-seen', 'context-only']")), rows);
    let report = fs::read_to_string(folder.path().join("runs/c/table.md")).unwrap();
    assert!(report.contains("knorm (context-only)"), "{report}");
    assert!(
        !report.contains("snapkv (context-only) − knorm at"),
        "protocols are not held against each other: {report}"
    );
}

#[test]
fn questions_about_one_text_share_its_prefill() {
    let folder = tempfile::tempdir().unwrap();
    let text = "The red house has four doors. The green house has nine doors. ".repeat(6);
    let line = |question: &str, answer: &str| {
        object!({"context": text, "question": question, "answers": [answer]}).to_string() + "\n"
    };
    let lines =
        line("How many doors has the red house?", "four") + &line("How many doors has the green house?", "nine");
    fs::write(folder.path().join("doors.jsonl"), lines).unwrap();
    let methods = "[[method]]\ncompressor = 'kvzip'\n[[method]]\ncompressor = 'full'\n";
    let data = "[data]\nsource = 'doors.jsonl'\nmax_new_tokens = 4\n[run]\nprotocol = 'context-only'\n";
    let model = format!("budgets = ['50%']\n[model]\nsource = '{}'\n{data}{methods}", wheel_source());
    fs::write(folder.path().join("c.toml"), model).unwrap();
    stdout(&cokv(folder.path(), &["bench", "--config", "c.toml", "--quiet"]));
    let rows = fs::read_to_string(folder.path().join("runs/c/results.jsonl")).unwrap();
    let rows: Vec<Json> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row["prefill_seconds"] == rows[0]["prefill_seconds"]), "it was read once");
    assert!(rows.iter().all(|row| row["context_tokens"] == rows[0]["context_tokens"]));
    assert_ne!(rows[0]["question"], rows[2]["question"]);
}

#[test]
fn what_cannot_be_compressed_before_the_question_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let passkey = "budgets = [40]\n[model]\n[data]\nsource = 'synthetic'\ntasks = ['passkey']\ncontext_tokens = 200\nrecords = 1\n";
    let finch =
        error(folder.path(), &format!("{passkey}[run]\nprotocol = 'context-only'\n[[method]]\ncompressor = 'finch'\n"));
    assert!(finch.contains("`finch` scores a prompt by its question"), "{finch}");
    let wrong =
        error(folder.path(), &format!("{passkey}[run]\nprotocol = 'before'\n[[method]]\ncompressor = 'knorm'\n"));
    assert!(wrong.contains("context-only"), "{wrong}");
    fs::write(folder.path().join("whole.jsonl"), "{\"context\": \"one two three\", \"answers\": [\"four\"]}\n")
        .unwrap();
    let whole = "budgets = [4]\n[model]\n[data]\nsource = 'whole.jsonl'\nprompt = '{context}'\n[run]\nprotocol = 'context-only'\n";
    let whole = error(folder.path(), &format!("{whole}[[method]]\ncompressor = 'knorm'\n"));
    assert!(whole.contains("has nothing behind {context}"), "{whole}");
    // A budget below what is always kept.
    let small = error(
        folder.path(),
        &format!(
            "{}[run]\nprotocol = 'context-only'\n[[method]]\ncompressor = 'kvzip'\n",
            passkey.replace("[40]", "[2]")
        ),
    );
    assert!(small.contains("is below the 4 protected tokens"), "{small}");
}

#[test]
fn heads_are_scored_by_what_they_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let source = wheel_source();
    let detect = || {
        let fixed = ["detect", "--model", &source, "--task", "passkey", "--records", "2", "--context-tokens", "200"];
        cokv(folder.path(), &[&fixed[..], &["--kind", "kvzip", "--out", "x.scores.json"]].concat())
    };
    let first = detect();
    assert!(stdout(&first).contains("kvzip"), "{}", stderr(&first));
    assert!(stderr(&first).contains("2 prompts were repeated"), "{}", stderr(&first));
    let scores = json(&folder.path().join("x.scores.json"));
    stdout(&detect());
    assert_eq!(json(&folder.path().join("x.scores.json")), scores, "nothing is looked at twice");
    let plan = ["plan", "--scores", "x.scores.json", "--allocator", "headkv", "--budget", "32"];
    assert!(stdout(&cokv(folder.path(), &plan)).contains("of 2880 tokens"));
}
