//! Eviction while the model answers, and what is learned of a model once, on the small model.

mod common;

use std::fs;
use std::path::Path;

use common::{cokv, rows_of, stderr, stdout, wheel_source};
use serde_json::{Value as Json, json as object};

/// 30 layers of 3 KV heads.
const HEADS: u64 = 90;

/// A run of these methods on a list that is to be written again, 64 tokens kept of each head; its rows.
fn run(folder: &Path, methods: &str) -> Vec<Json> {
    let list: String =
        (1..40).map(|at| format!("{at}. {}\n", ["oak", "elm", "fir", "ash", "yew"][at * at % 5])).collect();
    let record = object!({"context": list, "question": "Write the list again.\n1.", "answers": [list[3..].trim()]});
    fs::write(folder.join("list.jsonl"), record.to_string() + "\n").unwrap();
    let data = "[data]\nsource = 'list.jsonl'\nprompt = \"{context}\\n{question}\"\nmax_new_tokens = 110\n";
    let model = format!("budgets = [64]\n[model]\nsource = '{}'\n{data}{methods}", wheel_source());
    fs::write(folder.join("c.toml"), model).unwrap();
    stdout(&cokv(folder, &["bench", "--config", "c.toml", "--quiet"]));
    rows_of(&folder.join("runs/c/results.jsonl"))
}

#[test]
fn long_answers_stay_within_their_budget_in_a_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let methods = "[[method]]\ncompressor = 'full'\n[[method]]\ncompressor = 'snapkv'\n\
        [[method]]\nname = 'snapkv-d'\ncompressor = 'snapkv'\nwhile_decoding = { every = 16 }\n\
        [[method]]\nname = 'late'\ncompressor = 'full'\nallocator = 'ada-kv'\nwhile_decoding = { every = 32, compressor = 'h2o' }\n\
        [[method]]\nname = 'merged'\ncompressor = 'snapkv'\nwhile_decoding = { every = 32, compressor = 'cam' }\n\
        [[method]]\nname = 'never'\ncompressor = 'snapkv'\nwhile_decoding = { every = 100000 }\n";
    let rows = run(folder.path(), methods);
    assert_eq!(rows.len(), 6);
    let of = |name: &'static str| rows.iter().filter(move |row| row["method"] == name);
    let number = |row: &Json, key: &str| row[key].as_f64().unwrap();
    for (name, most) in [("snapkv-d", 64 + 16), ("merged", 64 + 32)] {
        for row in of(name) {
            assert!(row["new_tokens"].as_u64().unwrap() > 64, "the answer is long: {row}");
            let held = row["most_held"].as_u64().unwrap();
            assert!((64 * HEADS..=most * HEADS).contains(&held), "{row}");
        }
    }
    for ((once, again), never) in of("snapkv").zip(of("snapkv-d")).zip(of("never")) {
        // What never happens changes nothing.
        for key in ["prediction", "log_likelihood", "divergence"] {
            assert_eq!(once[key], never[key], "{key}");
        }
        assert!(once["most_held"].is_null() && once["kept_tokens"] == again["kept_tokens"]);
        assert_ne!(once["divergence"], again["divergence"]);
        assert!(number(again, "divergence").is_finite() && number(again, "log_likelihood") < 0.0);
    }
    // The whole prompt is there until the first look.
    for row in of("late") {
        assert_eq!(row["kept_share"], 1.0);
        assert!(row["most_held"].as_u64().unwrap() > row["kept_tokens"].as_u64().unwrap());
    }
    let resolved = fs::read_to_string(folder.path().join("runs/c/resolved.toml")).unwrap();
    assert!(resolved.contains("while_decoding"), "{resolved}");
    fs::write(folder.path().join("c.toml"), &resolved).unwrap();
    let again = cokv(folder.path(), &["bench", "--config", "c.toml", "--quiet"]);
    assert!(again.status.success(), "what is resolved reads back: {}", stderr(&again));
    assert_eq!(rows_of(&folder.path().join("runs/c/results.jsonl")).len(), rows.len(), "to the same rows");
}

#[test]
fn what_cannot_evict_while_the_model_answers_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let source = wheel_source();
    let error = |again: &str| {
        let fixed = ["generate", "--model", &source, "--prompt", "One.", "--method", "snapkv", "--budget", "8"];
        let output = cokv(folder.path(), &[&fixed[..], &["--while-decoding", again]].concat());
        assert!(!output.status.success());
        stderr(&output)
    };
    let needs = error("kvzip");
    assert!(needs.contains("`kvzip` looks at a second reading of the prompt, which is not there"), "{needs}");
    assert!(error("key-rerotation").contains("turns them"), "{}", error("key-rerotation"));
    assert!(error("snapvk").contains("did you mean `snapkv`?"), "{}", error("snapvk"));
    assert!(error("q-filter").contains("cokv learn --text book.txt"), "{}", error("q-filter"));
}

#[test]
fn a_model_is_learned_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = wheel_source();
    let sentences = (0..120).map(|at| format!("House number {at} has {} doors and {} windows. ", at % 7, at % 11));
    fs::write(folder.path().join("houses.txt"), sentences.collect::<String>()).unwrap();
    let learn = |out: &str, more: &[&str]| {
        let fixed =
            ["learn", "--model", &source, "--text", "houses.txt", "--texts", "3", "--tokens", "200", "--out", out];
        cokv(folder.path(), &[&fixed[..], more].concat())
    };
    assert!(stdout(&learn("x.learned", &[])).contains("from 3 pieces of 200 tokens"));
    assert!(stdout(&learn("guess.learned", &["--guess"])).contains("a guess at KVzip+"));
    assert!(!folder.path().join("guess.learned.part").exists());
    let generate = |method: &str, learned: &str| {
        let fixed = ["generate", "--model", &source, "--prompt-file", "houses.txt", "--budget", "30%"];
        let more = ["--max-new-tokens", "4", "--method", method, "--learned", learned];
        cokv(folder.path(), &[&fixed[..], &more].concat())
    };
    for method in ["q-filter", "tri-attention", "{ name = 'expected-attention', statistics = 'learned' }", "kvzap"] {
        let output = generate(method, "guess.learned");
        assert!(stderr(&output).contains("30.0 % of the prompt kept"), "{method}: {}", stderr(&output));
    }
    let without = stderr(&generate("kvzap", "x.learned"));
    assert!(without.contains("has no guess at KVzip+: learn it again with cokv learn --guess"), "{without}");
    fs::write(folder.path().join("short.txt"), "Too short.").unwrap();
    let short = cokv(folder.path(), &["learn", "--model", &source, "--text", "short.txt", "--out", "y.learned"]);
    assert!(stderr(&short).contains("fewer than one piece of 1000"), "{}", stderr(&short));
    // In a run, by name.
    let methods = "[[method]]\ncompressor = 'q-filter'\nlearned = 'x.learned'\n\
        [[method]]\nname = 'tri'\ncompressor = 'full'\nlearned = 'x.learned'\nwhile_decoding = 'tri-attention'\n";
    let rows = run(folder.path(), methods);
    assert_eq!(rows.len(), 2);
    let methods = methods.replace("learned = 'x.learned'\n", "");
    let model =
        format!("budgets = [64]\n[model]\nsource = '{source}'\n[data]\nsource = 'synthetic'\ntasks = ['passkey']\n");
    fs::write(folder.path().join("c.toml"), format!("{model}{methods}")).unwrap();
    let error = stderr(&cokv(folder.path(), &["bench", "--config", "c.toml"]));
    assert!(error.contains("learned = \"FILE\" (cokv learn makes one)"), "{error}");
}
