//! What somebody meets who uses cokv for the first time: records of their own, a second configuration, scores that are noise.

mod common;

use std::fs;
use std::path::Path;

use common::{METHODS, PASSKEY, cokv, config, rows_of, stderr, stdout, wheel_source};
use serde_json::{Value as Json, json};

/// Notes of some days, each with two questions.
fn write_records(folder: &Path) {
    let line = |day: usize| {
        let code = format!("{} blue", 5500 + day);
        let text = format!(
            "Notes of day {day}. The lab is open from 9 to 5. The door code is {code}. The canteen sells soup."
        );
        let questions = [("What is the door code?", code), ("What does the canteen sell?", "hot soup".to_owned())];
        let questions = questions.map(|(question, answer)| json!({"question": question, "answer": answer}));
        json!({"text": text, "questions": questions}).to_string() + "\n"
    };
    fs::write(folder.join("my.jsonl"), (0..3).map(line).collect::<String>()).unwrap();
}

/// Regression: users were told to delete their file.
#[test]
fn records_of_one_s_own_become_a_table_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_records(path);
    let text = config("source = 'my.jsonl'\nmetric = 'contains'\nmax_new_tokens = 8", METHODS);
    fs::write(path.join("mine.toml"), text.replace("32, '50%', 100000", "'50%'")).unwrap();
    let output = cokv(path, &["bench", "--config", "mine.toml"]);
    let table = stdout(&output);
    assert!(table.contains("| snapkv") && table.contains("snapkv"), "{table}");
    let said = stderr(&output);
    assert!(said.contains("note: my: context from `text`, question from `question`, answers from `answer`"), "{said}");
    assert!(said.contains("report in runs/mine/report/index.html"), "{said}");
    let rows = rows_of(&path.join("runs/mine/results.jsonl"));
    assert_eq!(rows.len(), 6 * 2);
    assert!(rows.iter().all(|row| row["metric"] == "string_match_part" && row["task"] == "my"), "{rows:?}");
    let texts: std::collections::BTreeSet<&str> = rows.iter().filter_map(|row| row["text"].as_str()).collect();
    assert_eq!(texts.len(), 3, "two questions about each of three texts");
    let page = fs::read_to_string(path.join("runs/mine/report/index.html")).unwrap();
    assert!(page.contains("string_match_part of my") && page.contains("What is the door code?"));

    let source = wheel_source();
    let check = stdout(&cokv(path, &["data", "check", "mine.toml", "--model", &source, "--prompts", "1"]));
    for part in ["my: 6 records, scored by string_match_part", "Notes of day 0.", "── right: \"5500 blue\""] {
        assert!(check.contains(part), "{check}");
    }
    let check = stdout(&cokv(path, &["data", "check", "my.jsonl", "--model", &source, "--json"]));
    let check: Json = serde_json::from_str(&check).unwrap();
    assert_eq!((check["metric"].as_str(), check["records"].as_array().map(Vec::len)), (Some("f1"), Some(6)));
}

/// Regression: a second configuration replaced the first one's tables and deleted its predictions.
#[test]
fn a_second_configuration_leaves_the_first_one_s_results_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = config(PASSKEY, METHODS).replace("32, '50%', 100000", "32");
    fs::write(path.join("first.toml"), &text).unwrap();
    stdout(&cokv(path, &["bench", "--quiet", "--config", "first.toml"]));
    let table = fs::read(path.join("runs/first/table.md")).unwrap();
    fs::write(path.join("second.toml"), format!("name = 'first'\n{}", text.replace("[32]", "[64]"))).unwrap();
    let refused = stderr(&cokv(path, &["bench", "--config", "second.toml"]));
    assert!(
        refused.contains("holds the results of another configuration") && refused.contains("first.toml"),
        "{refused}"
    );
    assert_eq!(fs::read(path.join("runs/first/table.md")).unwrap(), table);
    assert!(path.join("runs/first/pred").is_dir());
}

/// Regression: head scores of reliability 0.04 won a bold row.
#[test]
fn scores_that_are_noise_stop_a_run_or_are_marked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let source = wheel_source();
    let detect = ["detect", "--model", &source, "--kind", "random", "--out", "noise.scores.json"];
    stdout(&cokv(path, &detect));
    let file = path.join("noise.scores.json");
    let mut scores: Json = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    scores["reliability"] = json!(0.04);
    fs::write(&file, scores.to_string()).unwrap();
    let method =
        "[[method]]\nname = 'noisy'\ncompressor = 'snapkv'\nallocator = 'cokv'\nscores = 'noise.scores.json'\n";
    let text = config(PASSKEY, method).replace("32, '50%', 100000", "32");
    fs::write(path.join("run.toml"), &text).unwrap();
    let refused = stderr(&cokv(path, &["bench", "--config", "run.toml"]));
    assert!(refused.contains("method `noisy`: its head scores are noise: their reliability is 0.04"), "{refused}");
    assert!(!path.join("runs").exists());
    fs::write(path.join("run.toml"), format!("{text}[run]\nnoisy_scores = 'mark'\n")).unwrap();
    let table = stdout(&cokv(path, &["bench", "--config", "run.toml"]));
    assert!(table.contains("| noisy † ") && table.contains("† Head scores of noisy are noise"), "{table}");
    let rows = rows_of(&path.join("runs/run/results.jsonl"));
    assert_eq!(rows[0]["head_scores"]["reliability"], 0.04);
    let shown = stdout(&cokv(path, &["scores", "show", "noise.scores.json", "--json"]));
    let shown: Json = serde_json::from_str(&shown).unwrap();
    assert!(shown["worth"]["unworthy"].as_str().unwrap().contains("0.04"));
}

#[test]
fn several_methods_answer_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let source = wheel_source();
    let prompt = format!(
        "{}The door code is 5583 blue. {}What is the door code?",
        "It rains. ".repeat(20),
        "It snows. ".repeat(20)
    );
    let arguments = [
        "generate",
        "--model",
        &source,
        "--method",
        "full",
        "--method",
        "ada-snapkv",
        "--budget",
        "40,80",
        "--max-new-tokens",
        "8",
        "--json",
        "--prompt",
        &prompt,
    ];
    let said: Json = serde_json::from_str(&stdout(&cokv(folder.path(), &arguments))).unwrap();
    let answers = said["answers"].as_array().unwrap();
    let of = |at: usize| (answers[at]["method"].as_str().unwrap(), answers[at]["budget"].to_string());
    assert_eq!(answers.len(), 3);
    assert_eq!((of(0).0, of(1), of(2).0), ("full", ("ada-snapkv", "\"40\"".to_owned()), "ada-snapkv"));
    assert!(answers[1]["kept_tokens"].as_u64() < answers[2]["kept_tokens"].as_u64());
    let piped = ["generate", "--model", &source, "--max-new-tokens", "2", "--method", "snapkv", "--method", "snapkv"];
    let twice = stderr(&cokv(folder.path(), &piped));
    assert!(twice.contains("--method: `snapkv` is named twice"), "{twice}");
}
