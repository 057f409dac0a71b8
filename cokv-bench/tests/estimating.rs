//! What users ask `cokv estimate` for beside the defaults: another utility, a pilot, and scores that were there before.

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::{cokv, stderr, stdout};
use serde_json::Value as Json;

const FIXED: [&str; 12] = [
    "estimate",
    "--model",
    "random:tiny",
    "--task",
    "passkey",
    "--records",
    "3",
    "--context-tokens",
    "200",
    "--batch",
    "16",
    "--json",
];

fn estimate(path: &Path, out: &str, rest: &[&str]) -> Output {
    cokv(path, &[&FIXED[..], &["--out", out], rest].concat())
}

#[track_caller]
fn refused(output: &Output, expected: &str) {
    assert!(!output.status.success() && stderr(output).contains(expected), "{}", stderr(output));
}

#[test]
fn retention_needs_no_reference_and_a_pilot_draws_by_what_records_tell() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let few = ["--utility", "retention", "--max-evaluations", "126"];
    let found: Json = serde_json::from_str(&stdout(&estimate(path, "a.scores.json", &few))).unwrap();
    let scores = &found["scores"];
    assert_eq!(scores["game"]["utility"], "retention");
    let of = |key: &str| scores[key].as_f64().unwrap();
    assert!((1.0..=3.0).contains(&of("records_with_signal")), "{found}");
    assert!((0.0..=1.0).contains(&of("tokens_to_move")), "{found}");
    // The full cache retains everything of itself, on every record.
    let log = fs::read_to_string(path.join("a.samples.jsonl")).unwrap();
    let ends: Json = serde_json::from_str(log.lines().nth(1).unwrap()).unwrap();
    let full = ends["ends"]["full"].as_array().unwrap();
    assert!(full.iter().all(|utility| (utility.as_f64().unwrap() - 1.0).abs() < 1e-6), "{ends}");
    let shown = stdout(&cokv(path, &["scores", "show", "a.scores.json"]));
    assert!(shown.contains("of 3 records carry signal") && shown.contains("tokens to move"), "{shown}");

    let pilot = [&few[..], &["--pilot", "8"]].concat();
    stdout(&estimate(path, "b.scores.json", &pilot));
    let again = fs::read_to_string(path.join("b.scores.json")).unwrap();
    stdout(&estimate(path, "b.scores.json", &pilot));
    assert_eq!(fs::read_to_string(path.join("b.scores.json")).unwrap(), again, "from the log alone");
    refused(
        &estimate(path, "c.scores.json", &[&pilot[..], &["--records-per-pair", "2"]].concat()),
        "records_per_pair = 1",
    );
    refused(&estimate(path, "c.scores.json", &[&pilot[..], &["--shard", "1/2"]].concat()), "a pilot needs");
    refused(
        &estimate(path, "c.scores.json", &[&pilot[..], &["--estimator", "leave-one-out"]].concat()),
        "a pilot needs",
    );
}

#[test]
fn scores_of_another_task_are_a_prior_if_they_are_of_this_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    stdout(&estimate(path, "a.scores.json", &["--max-evaluations", "206"]));
    let with = |prior: &str, rest: &[&str]| {
        let fixed = ["--utility", "log-likelihood", "--max-evaluations", "66", "--prior", prior];
        estimate(path, "b.scores.json", &[&fixed[..], rest].concat())
    };
    stdout(&with("a.scores.json", &[]));

    let text = fs::read_to_string(path.join("a.scores.json")).unwrap();
    let changed = |name: &str, of: &str, to: &str| {
        let json: Json = serde_json::from_str(&text).unwrap();
        let old = json["model"][of].to_string();
        fs::write(path.join(name), text.replacen(&format!("\"{of}\": {old}"), &format!("\"{of}\": {to}"), 1)).unwrap();
    };
    changed("other.scores.json", "fingerprint", "\"0123\"");
    refused(&with("other.scores.json", &[]), "another model");
    changed("shape.scores.json", "head_dim", "1024");
    refused(&with("shape.scores.json", &[]), "and this model is");
    refused(&with("none.scores.json", &[]), "none.scores.json");
    refused(&with("a.scores.json", &["--estimator", "ssv"]), "`ssv` expects nothing of heads");
    refused(&with("a.scores.json", &["--estimator", "headkv-r2"]), "leave `prior_scores` out");

    // As a configuration has it; what changes in the file is another estimation.
    let config = "budgets = [32]\n[model]\nsource = 'random:tiny'\n[data]\ntasks = ['passkey']\nrecords = 1\ncontext_tokens = 200\n\
         seed = 5\n[run]\nnoisy_scores = 'mark'\n[[method]]\ncompressor = 'snapkv'\nallocator = { name = 'cokv', drop_lowest = 1 }\nimportance = 'own'\n\
         [importance.own]\ntasks = ['passkey']\nrecords = 2\ncontext_tokens = 200\nutility = 'retention'\nmax_evaluations = 64\n\
         prior_scores = 'a.scores.json'\npilot = 2\ndrop_lowest = 1\n";
    fs::write(path.join("cokv.toml"), config).unwrap();
    assert!(stdout(&cokv(path, &["bench"])).contains("| snapkv+cokv"));
    let resolved = fs::read_to_string(path.join("runs/cokv/resolved.toml")).unwrap();
    assert!(resolved.contains("prior_scores = \"a.scores.json\"") && resolved.contains("pilot = 2"), "{resolved}");
}
