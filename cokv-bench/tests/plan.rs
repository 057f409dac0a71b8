//! `--plan` on models whose weights are not there: what counts is that nothing of them is needed.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use common::{cokv, stderr, stdout};
use serde_json::{Map, Value as Json, json};

/// Configuration and tokenizer of a model of Llama's shape; a letter is a token.
fn write_outline(folder: &Path, hidden: usize, intermediate: usize, layers: usize) {
    let config = json!({
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    });
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [],
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "." }, "behavior": "Isolated", "invert": false },
        "model": { "type": "WordLevel", "vocab": { "?": 0, "a": 1 }, "unk_token": "?" },
    });
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// A checkpoint of the right length that holds nothing: its zeros would be refused where they are loaded.
fn write_sparse_weights(folder: &Path, hidden: usize, intermediate: usize, layers: usize) {
    let keys = hidden / 4;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![128_256, hidden]),
        ("lm_head.weight".to_owned(), vec![128_256, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        };
        add("input_layernorm", &[hidden]);
        add("post_attention_layernorm", &[hidden]);
        for (name, rows) in [("q_proj", hidden), ("k_proj", keys), ("v_proj", keys), ("o_proj", hidden)] {
            add(&format!("self_attn.{name}"), &[rows, hidden]);
        }
        for (name, shape) in [
            ("gate_proj", [intermediate, hidden]),
            ("up_proj", [intermediate, hidden]),
            ("down_proj", [hidden, intermediate]),
        ] {
            add(&format!("mlp.{name}"), &shape);
        }
    }
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in shapes {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = Json::Object(header).to_string();
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

const RUN: &str = "budgets = [64]\n[model]\nsource = 'path:model'\n[data]\ntasks = ['passkey']\nrecords = 2\ncontext_tokens = 600\n\
                   [importance.keys]\ntasks = ['passkey']\nrecords = 3\ncontext_tokens = 500\nmax_evaluations = 5000\n\
                   [[method]]\ncompressor = 'snapkv'\n\
                   [[method]]\ncompressor = 'snapkv'\nallocator = 'cokv'\nimportance = 'keys'\n";

#[test]
fn a_plan_needs_no_weights_and_counts_the_calibration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // Llama 3.2 1B, with an output layer of its own: 1.5 billion numbers.
    write_outline(&path.join("model"), 2048, 8192, 16);
    let without = stdout(&cokv(path, &["bench", "--plan", "--config", &written(path, RUN)]));
    write_sparse_weights(&path.join("model"), 2048, 8192, 16);
    let text = stdout(&cokv(path, &["bench", "--plan", "--config", "run.toml"]));
    for part in [
        "run: 2 prompts × 2 cells; ",
        "[importance.keys]: 3 records, ",
        "evaluations of coalitions, 64 a pass; ",
        "at most 5000 evaluations",
        "of memory beside the 2858 MiB of the weights; an estimate",
    ] {
        assert!(text.contains(part) && without.contains(part), "expected `{part}` in:\n{text}\nand:\n{without}");
    }
    let study = text.lines().find(|line| line.starts_with("[importance.keys]")).unwrap();
    assert!(study.contains("; at least about "), "{study}");
    assert!(!text.contains("not counted"), "nothing was done before: {text}");

    let event: Json =
        serde_json::from_str(&stdout(&cokv(path, &["bench", "--plan", "--json", "--config", "run.toml"]))).unwrap();
    let work = &event["head_scores"][0]["work"];
    assert_eq!((&work["evaluations"]["most"], &work["records"], &event["done"]), (&json!(5000), &json!(3), &json!(0)));
    let number = |value: &Json| value.as_f64().unwrap();
    assert!(
        number(&work["prefill_tokens"]) > 3.0 * 400.0 && number(&event["tokens_to_prefill"]) > 2.0 * 500.0,
        "{event}"
    );
    let (most, matrix) = (number(&work["seconds"]["most"]), number(&event["seconds"]));
    // 2.2 billion operations for each of at least three tokens are minutes to hours, whatever the machine.
    assert!(most > 60.0 && matrix > 0.1, "{event}");
    assert!((number(&event["total_seconds"]["most"]) - most - matrix).abs() < 1e-6 * most, "{event}");
    assert!(!path.join("runs").exists(), "a plan leaves nothing behind");
}

/// Writes a configuration and says what it is called.
fn written(folder: &Path, text: &str) -> String {
    fs::write(folder.join("run.toml"), text).unwrap();
    "run.toml".into()
}

#[test]
fn estimates_detections_and_sweeps_are_planned_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_outline(&path.join("model"), 2048, 8192, 16);
    let plan = |arguments: &[&str]| {
        let model: &[&str] =
            &["--model", "path:model", "--out", "x.scores.json", "--records", "2", "--context-tokens", "400", "--plan"];
        cokv(path, &[arguments, model].concat())
    };
    let text = stdout(&plan(&["estimate", "--task", "passkey"]));
    assert!(
        text.starts_with("scpr on passkey: 2 records, ") && text.contains("only its stop rules end an estimation"),
        "{text}"
    );
    assert!(text.contains("; at least about ") && text.contains("of memory beside"), "{text}");
    let left_out = plan(&["estimate", "--task", "passkey", "--estimator", "leave-one-out", "--json"]);
    let event: Json = serde_json::from_str(&stdout(&left_out)).unwrap();
    // 128 heads are left out one by one on two records, and the ends are played.
    let evaluations = &event["head_scores"][0]["work"]["evaluations"];
    assert_eq!(evaluations["most"], 128 * 2 + 4, "{event}");
    let text = stdout(&plan(&["detect", "--kind", "headkv-r", "--task", "passkey"]));
    assert!(
        text.starts_with("headkv-r on passkey: 2 records, ") && text.contains("; 2 to answer and watch; "),
        "{text}"
    );
    assert!(stderr(&plan(&["detect", "--kind", "random"])).contains("there is nothing to plan"));

    let sweep = format!("{RUN}select = {{ drop_lowest = [1, 2, 3] }}\n");
    let text = stdout(&cokv(path, &["select", "--plan", "--config", &written(path, &sweep)]));
    assert!(text.starts_with("validation records of run: 2 prompts × 3 cells; "), "{text}");
    assert!(text.contains("[importance.keys]: 3 records, "), "{text}");
    assert_eq!(fs::read_dir(path).unwrap().count(), 2, "the model and the configuration");
}

/// A model that no machine has room for is refused by its plan and by everything that would load it, before it is read.
#[test]
fn a_model_that_does_not_fit_is_refused_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_outline(&path.join("model"), 32_768, 131_072, 170);
    let plan = cokv(path, &["bench", "--plan", "--config", &written(path, RUN)]);
    let error = stderr(&plan);
    assert!(!plan.status.success() && String::from_utf8_lossy(&plan.stdout).contains("of the weights"), "{error}");
    assert!(
        error.contains("path:model: the weights take ") && error.contains(" are free: even a GGUF of 4 bits"),
        "{error}"
    );

    write_sparse_weights(&path.join("model"), 32_768, 131_072, 170);
    let commands: [&[&str]; 4] = [
        &["bench", "--config", "run.toml"],
        &["generate", "--model", "path:model", "--prompt", "aaa", "--max-new-tokens", "4"],
        &["perf", "--model", "path:model", "--contexts", "16"],
        &["estimate", "--model", "path:model", "--task", "passkey", "--out", "x.scores.json", "--records", "1"],
    ];
    for command in commands {
        let refused = cokv(path, command);
        let error = stderr(&refused);
        assert!(!refused.status.success() && error.contains("even a GGUF of 4 bits"), "{command:?}: {error}");
    }
}
