//! The real binary on the real default model: what users type, and what they get wrong.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;

use common::{METHODS, PASSKEY, cokv, config, rows_of, stderr, stdout, wheel_source};
use serde_json::Value as Json;

fn rows(folder: &Path) -> Vec<Json> {
    rows_of(&folder.join("runs/cokv/results.jsonl"))
}

/// Where a run has SnapKV's predictions at a budget of 32, whatever the model is called.
fn prediction_folder(folder: &Path, kind: &str) -> String {
    let all = fs::read_dir(folder.join("runs/cokv").join(kind)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths = all.map(|path| path.to_str().unwrap().to_owned());
    paths.find(|path| path.ends_with("__snapkv@32")).unwrap()
}

#[test]
fn a_run_prints_its_table_and_resumes_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cokv.toml"), config(PASSKEY, METHODS)).unwrap();
    let first = cokv(folder.path(), &["bench"]);
    let table = stdout(&first);
    assert!(table.contains("| full ") && table.contains("| snapkv |"), "{table}");
    assert!(stderr(&first).matches("nothing is evicted").count() == 1, "said once: {}", stderr(&first));

    let written = fs::read_to_string(folder.path().join("runs/cokv/table.md")).unwrap();
    assert!(written.starts_with(&table[..table.len() - 1]), "{written}");
    assert!(written.contains("per-kv-head") && written.contains("{ name = \"snapkv\", group = \"mean\""), "{written}");

    let all = rows(folder.path());
    assert_eq!(all.len(), 2 * 4);
    for row in &all {
        let number = |key: &str| row[key].as_f64().unwrap();
        let heads = 90.0;
        assert_eq!(number("cache_bytes"), number("kept_tokens") * 2.0 * 64.0 * 2.0, "{row}");
        match (row["method"].as_str().unwrap(), row["budget"].as_str().unwrap()) {
            ("snapkv", "32") => {
                assert_eq!(number("kept_tokens"), 32.0 * heads);
                assert!(number("divergence") > 0.0);
            }
            ("snapkv", "50%") => assert_eq!(number("kept_tokens"), (number("prompt_tokens") / 2.0).floor() * heads),
            // Everything kept: no damage, to the bit.
            _ => {
                assert_eq!((number("kept_share"), number("divergence"), number("agreement")), (1.0, 0.0, 1.0), "{row}");
            }
        }
    }
    let again = cokv(folder.path(), &["bench"]);
    assert_eq!(stdout(&again), table);
    assert!(stderr(&again).contains("2 of them done"), "{}", stderr(&again));

    // A killed process leaves a torn line; its prompt is run again and everything else is kept.
    let results = folder.path().join("runs/cokv/results.jsonl");
    let text = fs::read_to_string(&results).unwrap();
    fs::write(&results, &text[..text.len() - 30]).unwrap();
    let repaired = cokv(folder.path(), &["bench"]);
    assert_eq!(stdout(&repaired), table);
    assert!(stderr(&repaired).contains("was cut off"), "{}", stderr(&repaired));
    assert_eq!(rows(folder.path()), all);
    for file in ["config.toml", "resolved.toml", "environment.json", "table.md"] {
        assert!(folder.path().join("runs/cokv").join(file).is_file(), "{file}");
    }

    // What the run resolved its configuration to is the same run.
    let resolved = cokv(folder.path(), &["bench", "--config", "runs/cokv/resolved.toml"]);
    assert_eq!(stdout(&resolved), table);
    assert!(stderr(&resolved).contains("2 of them done"), "{}", stderr(&resolved));
}

#[test]
fn rows_of_a_needle_in_a_haystack_say_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let data = "tasks = ['needle']\nrecords = 1\ncontext_lengths = [100, 150]\ndepths = 2";
    fs::write(folder.path().join("cokv.toml"), config(data, "[[method]]\ncompressor = 'full'\n")).unwrap();
    assert!(stdout(&cokv(folder.path(), &["bench"])).contains("needle"));
    let places: Vec<(String, u64, u64)> = rows(folder.path())
        .iter()
        .map(|row| {
            let number = |key: &str| row["place"][key].as_u64().unwrap();
            (row["record"].as_str().unwrap().to_owned(), number("context_tokens"), number("depth_percent"))
        })
        .collect();
    let expected = [("100", "0"), ("100", "100"), ("150", "0"), ("150", "100")].map(|(tokens, depth)| {
        (format!("needle-{tokens}-0-d{depth}-0"), tokens.parse().unwrap(), depth.parse().unwrap())
    });
    assert_eq!(places, expected);
}

#[test]
fn supplied_questions_are_asked_and_fill_the_context_with_the_chat_template() {
    let folder = tempfile::tempdir().unwrap();
    let record = |at: usize| {
        let more = "It was a long way from the sea. ".repeat(1 + at % 4);
        let context = format!("Town {at} lies on the river Ax {at}. {more}");
        let (input, answers) =
            (format!("On which river lies town {at}?"), [format!("river Ax {at}"), format!("Ax {at}")]);
        serde_json::json!({"input": input, "context": context, "answers": answers}).to_string() + "\n"
    };
    fs::write(folder.path().join("rivers.jsonl"), (0..30).map(record).collect::<String>()).unwrap();
    let data = "tasks = ['ruler-qa']\nquestions = 'rivers.jsonl'\nrecords = 2\ncontext_tokens = 400";
    fs::write(folder.path().join("cokv.toml"), config(data, "[[method]]\ncompressor = 'full'\n")).unwrap();
    assert!(stdout(&cokv(folder.path(), &["bench"])).contains("ruler-qa"));
    for row in rows(folder.path()) {
        assert!((385..=400).contains(&row["prompt_tokens"].as_u64().unwrap()), "{row}");
        assert!(row["answers"][0].as_str().unwrap().starts_with("river Ax ") && row["prediction"] != "", "{row}");
    }
}

#[test]
fn longbench_records_run_and_their_predictions_score() {
    let Some(longbench) = cokv_golden::find("longbench-mini") else { return };
    let folder = tempfile::tempdir().unwrap();
    let data =
        format!("source = '{}'\ntasks = ['qasper', 'trec']\nrecords = 1\nmax_prompt_tokens = 301", longbench.display());
    fs::write(folder.path().join("cokv.toml"), config(&data, METHODS)).unwrap();
    let table = stdout(&cokv(folder.path(), &["bench"]));
    assert!(table.contains("qasper") && table.contains("trec"), "{table}");
    let all = rows(folder.path());
    let prompt_tokens =
        |task: &str| all.iter().find(|row| row["task"] == task).unwrap()["prompt_tokens"].as_u64().unwrap();
    // Two halves of 150 tokens; the chat template comes on top, for qasper only.
    assert!((290..=305).contains(&prompt_tokens("trec")), "{}", prompt_tokens("trec"));
    assert!(prompt_tokens("qasper") > prompt_tokens("trec") + 10);

    // Our predictions are in the layout that `cokv score`, and upstream's eval.py, read.
    let predictions = prediction_folder(folder.path(), "pred");
    let scores = stdout(&cokv(folder.path(), &["score", &predictions, "--json"]));
    let scores: Json = serde_json::from_str(&scores).unwrap();
    for task in ["qasper", "trec"] {
        let row = all.iter().find(|row| row["task"] == task && row["budget"] == "32").unwrap();
        let percent = (row["score"].as_f64().unwrap() * 1e4).round() / 100.0;
        assert!((scores[task].as_f64().unwrap() - percent).abs() < 0.011, "{task}");
    }
}

/// LongBench-E out of an archive, with the configuration beside it.
#[test]
fn longbench_e_runs_from_an_archive() {
    let Some(longbench) = cokv_golden::find("longbench-mini") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut zip = zip::ZipWriter::new(fs::File::create(folder.path().join("data.zip")).unwrap());
    for name in ["trec", "trec_e"] {
        zip.start_file(format!("data/{name}.jsonl"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&fs::read(longbench.join("data/trec.jsonl")).unwrap()).unwrap();
    }
    zip.finish().unwrap();
    fs::create_dir(folder.path().join("config")).unwrap();
    for name in ["config/dataset2prompt.json", "config/dataset2maxlen.json"] {
        fs::copy(longbench.join(name), folder.path().join(name)).unwrap();
    }
    let data = "source = 'data.zip'\ntasks = ['few-shot', 'all-e']\nrecords = 1\nmax_prompt_tokens = 101";
    fs::write(folder.path().join("cokv.toml"), config(data, METHODS)).unwrap();
    let table = stdout(&cokv(folder.path(), &["bench"]));
    assert!(table.contains("trec_e"), "{table}");

    let all = rows(folder.path());
    let answer = |task: &str| all.iter().find(|row| row["task"] == task && row["budget"] == "32").unwrap().clone();
    assert_eq!(answer("trec")["prediction"], answer("trec_e")["prediction"]);
    let predictions = prediction_folder(folder.path(), "pred_e");
    let scores = stdout(&cokv(folder.path(), &["score", &predictions, "--json"]));
    let scores: Json = serde_json::from_str(&scores).unwrap();
    let bucket = match answer("trec_e")["length"].as_u64().unwrap() {
        0..4000 => "0-4k",
        4000..8000 => "4-8k",
        _ => "8k+",
    };
    assert_eq!(scores["trec"][bucket].as_f64(), answer("trec_e")["score"].as_f64().map(|score| score * 100.0));
}

#[test]
fn published_predictions_score_as_published() {
    let Some(longbench) = cokv_golden::find("longbench-mini") else { return };
    let predictions = longbench.join("predictions");
    let json = stdout(&cokv(&predictions, &["score", ".", "--json"]));
    let ours: Json = serde_json::from_str(&json).unwrap();
    let expected: Json = serde_json::from_str(include_str!("data/longbench-mini/expected_scores.json")).unwrap();
    assert_eq!(ours.as_object().unwrap().len(), 21);
    for (task, scores) in expected.as_object().unwrap() {
        assert_eq!(ours[task], scores["average"], "{task}");
    }
    assert!(stdout(&cokv(&predictions, &["score", "."])).contains("| mean of tasks"));
}

#[test]
fn generate_streams_an_answer_and_says_what_it_took() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompt.txt"), "The sky is blue. ".repeat(60)).unwrap();
    let source = wheel_source();
    let common = ["generate", "--model", &source, "--prompt-file", "prompt.txt", "--max-new-tokens", "8"];
    let output = cokv(folder.path(), &[&common[..], &["--raw"]].concat());
    assert!(stdout(&output).contains("sky is blue"), "{}", stdout(&output));
    let small = [&common[..], &["--method", "{ name = 'snapkv', window = 16 }", "--budget", "25%"]].concat();
    let output = cokv(folder.path(), &small);
    assert!(stdout(&output).trim().len() > 2);
    let summary = stderr(&output);
    assert!(summary.contains("tokens/s") && summary.contains(" % of the prompt kept"), "{summary}");
}

#[test]
fn answers_are_drawn_as_a_seed_says() {
    let folder = tempfile::tempdir().unwrap();
    let generate = |more: &[&str]| {
        let fixed = ["generate", "--model", "random:tiny", "--prompt", "Hello.", "--max-new-tokens", "24"];
        cokv(folder.path(), &[&fixed[..], more].concat())
    };
    let drawn = |seed: &str| stdout(&generate(&["--temperature", "1", "--top-p", "0.95", "--seed", seed]));
    assert_eq!(drawn("3"), drawn("3"));
    assert!(drawn("3") != drawn("4") && drawn("3") != stdout(&generate(&[])));
    let repeated = stdout(&generate(&["--presence-penalty", "-2"]));
    assert!(repeated != stdout(&generate(&["--presence-penalty", "2", "--repetition-penalty", "1.5"])));
    for (mistake, told) in [
        (&["--top-p", "0.9"][..], "--temperature"),
        (&["--temperature", "3"], "--temperature: 3 is not between 0 and 2"),
        (&["--temperature", "1", "--top-p", "0"], "--top-p: 0 is not above 0"),
        (&["--temperature", "1", "--json"], "without --json"),
        (&["--temperature", "1", "--method", "snapkv", "--budget", "8,9"], "one method"),
    ] {
        let output = generate(mistake);
        assert!(!output.status.success() && stderr(&output).contains(told), "{mistake:?}: {}", stderr(&output));
    }
}

#[test]
fn answers_do_not_depend_on_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompt.txt"), "The sky is blue, and the grass is green. ".repeat(40)).unwrap();
    let source = wheel_source();
    let generate = |threads: &str| {
        let prompt = ["generate", "--model", &source, "--prompt-file", "prompt.txt", "--max-new-tokens", "24"];
        let method = ["--raw", "--method", "snapkv", "--budget", "64", "--threads", threads];
        cokv(folder.path(), &[&prompt[..], &method[..]].concat())
    };
    let one = generate("1");
    assert!(stdout(&one).trim().len() > 10, "{}", stdout(&one));
    assert_eq!(stdout(&generate("2")), stdout(&one));
    // More threads than cores work too, and are not taken without a word.
    let many = std::thread::available_parallelism().unwrap().get() + 1;
    let crowded = generate(&many.to_string());
    assert_eq!(stdout(&crowded), stdout(&one));
    assert!(stderr(&crowded).contains("wait for each other"), "{}", stderr(&crowded));
    assert!(stderr(&generate("0")).contains("--threads"));
}

#[test]
fn mistakes_are_clear_errors_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |text: &str, expected: &str| {
        fs::write(folder.path().join("cokv.toml"), text).unwrap();
        let output = cokv(folder.path(), &["bench"]);
        let message = stderr(&output);
        assert!(!output.status.success() && message.contains(expected), "expected `{expected}`, got:\n{message}");
        assert!(!message.contains("panicked"), "{message}");
    };
    let full = "[[method]]\ncompressor = 'full'\n";
    fails("budgets = [0]", "cokv.toml:1: a budget of `0` keeps nothing");
    fails(
        &format!("budgets = [1]\n[model]\nsorce = 'x'\n{full}"),
        "cokv.toml:3: unknown key `sorce`; did you mean `source`?",
    );
    fails(
        &format!("budgets = [1]\n{full}[[method]]\ncompressor = 'snapvk'\n"),
        "cokv.toml:5: unknown compressor `snapvk`; did you mean `snapkv`?",
    );
    fails(&format!("budgets = [1]\n[model]\nsource = 'path:/nowhere.gguf'\n{full}"), "/nowhere.gguf");
    fails(&format!("budgets = [1]\n[model]\nsource = 'smollm3'\n{full}"), "smollm2-135m-instruct");
    fails(&config("context_tokens = 10", full), "at least");
    fails(&config("tasks = ['passky']", full), "passky");
    fails(&config("tasks = ['rulr']", full), "did you mean `ruler`?");
    fails(&config("tasks = ['needle']\ndepths = 0", full), "cokv.toml:6: `depths` is 0");
    fails(&config("tasks = ['ruler']\ncontext_lengths = [1000, 30]", full), "at least");
    fails(&config("tasks = ['ruler-qa']", full), "name a file of LongBench's record layout");
    let questions = "tasks = ['ruler-qa']\nquestions = 'questions.jsonl'";
    fails(&config(questions, full), "questions.jsonl: ");
    fs::write(folder.path().join("questions.jsonl"), "{\"input\": \"Who?\", \"context\": \"She.\"}\n").unwrap();
    fails(&config(questions, full), "questions.jsonl:1: missing field `answers`");
    fails(&config("source = '/nowhere'", full), "`/nowhere` is no folder and no archive");
    fails(
        &config("context_tokens = 9000\nmax_prompt_tokens = 10000\ntasks = ['passkey']", full),
        "more than the 8064 that a prompt may have",
    );
    fs::write(folder.path().join("cut.gguf"), b"GGUF\x03\0\0\0").unwrap();
    fails(&format!("budgets = [1]\n[model]\nsource = 'path:cut.gguf'\n{full}"), "cut.gguf");
    let output = cokv(folder.path(), &["bench", "--config", "none.toml"]);
    assert!(stderr(&output).contains("none.toml"), "{}", stderr(&output));
    let output = cokv(folder.path(), &["generate", "--prompt", "x", "--budget", "0"]);
    assert!(stderr(&output).contains("keeps nothing"), "{}", stderr(&output));
    let output = cokv(folder.path(), &["score", "."]);
    assert!(stderr(&output).contains("no <task>.jsonl"), "{}", stderr(&output));
}

/// Seconds, in which no model is loaded.
#[test]
fn every_model_is_looked_at_before_the_first_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let second = path.join("second");
    fs::create_dir(&second).unwrap();
    fs::write(second.join("tokenizer.json"), "{}").unwrap();
    let models = format!("[[model]]\nsource = '{}'\n[[model]]\nsource = 'path:second'\n", wheel_source());
    let fails = |methods: &str, expected: &str| {
        let text = format!("budgets = [32]\n{models}[data]\n{PASSKEY}\n{methods}");
        fs::write(path.join("cokv.toml"), text).unwrap();
        let output = cokv(path, &["bench", "--plan"]);
        let message = stderr(&output);
        assert!(!output.status.success() && message.contains(expected), "expected `{expected}`, got:\n{message}");
        assert!(output.stdout.is_empty(), "nothing was planned");
    };
    let shape = "\"hidden_size\": 64, \"intermediate_size\": 64, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \
                 \"num_key_value_heads\": 2, \"vocab_size\": 100, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5";
    let configured = |family: &str| {
        fs::write(second.join("config.json"), format!("{{\"model_type\": \"{family}\", {shape}}}")).unwrap();
    };
    configured("llama");
    fs::write(second.join("model.safetensors"), [&100_u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    fails(METHODS, "model.safetensors");
    fs::write(second.join("model.safetensors"), [&2_u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    configured("mamba");
    fails(METHODS, "path:second: ");
    fails(METHODS, "`mamba`");
    configured("llama");
    stdout(&cokv(path, &["detect", "--model", &wheel_source(), "--kind", "random", "--out", "first.scores.json"]));
    let scored = "[[method]]\ncompressor = 'snapkv'\nallocator = 'cokv'\nscores = 'first.scores.json'\n";
    fails(scored, "30 layers");
}

const ESTIMATE: [&str; 9] =
    ["estimate", "--task", "passkey", "--records", "2", "--context-tokens", "200", "--batch", "16"];

#[test]
fn exact_values_of_some_heads_and_how_fast_estimators_come_near_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let source = wheel_source();
    let estimate =
        |rest: &[&str]| cokv(path, &[&ESTIMATE[..], &["--model", &source, "--out", "x.scores.json"], rest].concat());
    stdout(&estimate(&["--estimator", "exact", "--heads", "18.2,23.0,17.1,5.0"]));
    let file: Json = serde_json::from_str(&fs::read_to_string(path.join("x.scores.json")).unwrap()).unwrap();
    assert_eq!(file["players"], serde_json::json!([[18, 2], [23, 0], [17, 1], [5, 0]]));
    let log = fs::read_to_string(path.join("x.samples.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 2 + 8, "a header, the ends, 2^4 coalitions in pairs");
    let ends: Json = serde_json::from_str(log.lines().nth(1).unwrap()).unwrap();
    let mean = |who: &str| {
        let values = ends["ends"][who].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).sum::<f64>() / values.len() as f64
    };
    let layers = file["scores"].as_array().unwrap();
    let scores: Vec<f64> =
        layers.iter().flat_map(|layer| layer.as_array().unwrap()).map(|score| score.as_f64().unwrap()).collect();
    let efficiency = mean("full") - mean("empty");
    assert!((scores.iter().sum::<f64>() - efficiency).abs() < 1e-9, "{efficiency} {scores:?}");
    assert_eq!(scores.iter().filter(|&&score| score != 0.0).count(), 4);

    // Scores of some heads are no scores of a model.
    let plan = cokv(path, &["plan", "--scores", "x.scores.json", "--allocator", "cokv", "--budget", "32"]);
    assert!(stderr(&plan).contains("only 4 of the 90 heads were scored"), "{}", stderr(&plan));

    let convergence = ["convergence", "x.samples.jsonl", "--seeds", "2", "--out", "plots"];
    let table = stdout(&cokv(path, &convergence));
    assert!(table.contains("| scpr ") && table.contains("| leave-one-out "), "{table}");
    assert!(fs::read_to_string(path.join("plots/squared-correlation.svg")).unwrap().contains("<svg"));
    assert!(fs::read_to_string(path.join("plots/convergence.csv")).unwrap().lines().count() > 20);

    let fails = |rest: &[&str], expected: &str| {
        let output = estimate(rest);
        assert!(!output.status.success() && stderr(&output).contains(expected), "{}", stderr(&output));
    };
    fails(&["--estimator", "exact"], "evaluations, more years than the universe is old; name at most");
    fails(&["--heads", "30.0"], "there is no KV head 30.0: the model has layers 0 to 29");
    fails(&["--heads", "1.0,1.0"], "twice");
    fails(&["--set", "side='both'"], "unknown key `side`");
    fails(&["--reliability", "2"], "--reliability: reliability 2 is not between 0 and 1");
    fails(&["--design", "slices 90"], "sizes go from 1 to 89");
    fails(&["--design", "thirds"], "`thirds` is no design: write");
    fails(&["--estimator", "permutation", "--design", "halves"], "needs `permutations`");
    assert_eq!(fs::read_to_string(path.join("x.samples.jsonl")).unwrap(), log);
}

#[test]
fn importance_is_measured_when_a_method_needs_it_and_then_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let importance = "[importance.easy]\nestimator = { name = 'ssv', sides = 'both' }\ntasks = ['passkey']\nrecords = 2\n\
                      context_tokens = 200\nbatch = 16\nmax_evaluations = 68\n";
    // So few evaluations are noise.
    let method = "[[method]]\ncompressor = 'snapkv'\nallocator = 'proportional'\nimportance = 'easy'\n\
                  [run]\nnoisy_scores = 'mark'\n";
    fs::write(path.join("cokv.toml"), config(PASSKEY, &format!("{importance}{method}"))).unwrap();
    let plan = cokv(path, &["bench", "--plan"]);
    let left = "[importance.easy]: 2 records, ";
    assert!(
        stdout(&plan).contains(left) && stdout(&plan).contains("; 68 evaluations of coalitions"),
        "{}",
        stdout(&plan)
    );
    let first = cokv(path, &["bench"]);
    assert!(stdout(&first).contains("| snapkv+proportional"));
    assert!(stderr(&first).contains("[importance.easy] is measured"), "{}", stderr(&first));
    let second = cokv(path, &["bench"]);
    assert_eq!(stdout(&first), stdout(&second));
    assert!(!stderr(&second).contains("is measured"), "{}", stderr(&second));
    let plan = stdout(&cokv(path, &["bench", "--plan"]));
    assert!(plan.contains("2 of them done") && !plan.contains(left), "{plan}");

    // What is tested may not be looked at before.
    let seen = config(PASSKEY, &format!("{importance}data_seed = 0\n{method}"));
    fs::write(path.join("seen.toml"), seen).unwrap();
    let refused = cokv(path, &["bench", "--config", "seen.toml"]);
    assert!(stderr(&refused).contains("[importance.easy]: 2 of the 2 records"), "{}", stderr(&refused));
    let mut kept = fs::read_dir(path.join("runs/importance")).unwrap().map(|entry| entry.unwrap().path());
    let scores = kept.find(|path| path.to_string_lossy().ends_with(".scores.json")).unwrap();
    let method =
        format!("[[method]]\ncompressor = 'snapkv'\nallocator = 'proportional'\nscores = '{}'\n", scores.display());
    fs::write(path.join("file.toml"), config(&format!("{PASSKEY}\nseed = 1"), &method)).unwrap();
    let refused = cokv(path, &["bench", "--config", "file.toml"]);
    assert!(stderr(&refused).contains("2 of the 2 records that it was made from"), "{}", stderr(&refused));
}

#[test]
fn speeds_come_as_tables_and_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let source = wheel_source();
    let perf = |rest: &[&str]| {
        let fixed = ["perf", "--model", &source, "--budgets", "16", "--decode-tokens", "2", "--answer-tokens", "3"];
        let defaults: [[&str; 2]; 2] = [["--contexts", "64"], ["--batches", "1,2"]];
        let defaults = defaults.iter().filter(|default| !rest.contains(&default[0])).flatten().copied();
        cokv(folder.path(), &fixed.into_iter().chain(defaults).chain(rest.iter().copied()).collect::<Vec<_>>())
    };
    let table = stdout(&perf(&[]));
    assert!(table.contains("| coalitions a pass |") && table.contains("GB/s"), "{table}");
    let all = ["--json", "--cache", "f16,f32", "--sequences", "1,3"];
    let json: Json = serde_json::from_str(&stdout(&perf(&all))).unwrap();
    let measured = json["measured"].as_array().unwrap();
    assert_eq!((measured[0]["cache"].as_str(), measured[1]["cache"].as_str()), (Some("f16"), Some("f32")));
    assert_eq!(measured[1]["coalitions"].as_array().unwrap().len(), 2);
    let bytes = |held: usize, row: usize| measured[held]["decode"][row]["cache_bytes"].as_u64().unwrap();
    // The full cache, three of it, 16 of its 64 tokens, three times those.
    assert_eq!([bytes(0, 1), 4 * bytes(0, 2), 4 * bytes(0, 3)], [3 * bytes(0, 0), bytes(0, 0), 3 * bytes(0, 0)]);
    assert_eq!(bytes(1, 0), 2 * bytes(0, 0));
    let weights = measured[0]["weight_bytes"].as_u64().unwrap();
    assert!(measured[0]["decode"][0]["peak_resident_bytes"].as_u64().is_none_or(|peak| peak > weights));
    assert!(measured[0]["decode"][2]["compression_share_of_prefill"].as_f64().unwrap() > 0.0);
    assert!(!stdout(&perf(&["--batches", "none"])).contains("coalition"));
    assert!(stderr(&perf(&["--contexts", "100000"])).contains("8192"));
    assert!(stderr(&perf(&["--batches", "0"])).contains("give numbers of at least 1"));
}

/// What is missing is said before anything is read: a driver, or with one a device, since none is visible here.
#[test]
fn a_gpu_that_is_not_there_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let perf = |rest: &[&str]| cokv(folder.path(), &[&["perf"], rest].concat());
    let error = stderr(&perf(&["--random", "smollm2", "--device", "cuda"]));
    let no_driver = error.contains("NVIDIA's driver was not found") && error.contains("device = \"cpu\"");
    assert!(no_driver || error.contains("sees no device") || error.contains("cuInit failed"), "{error}");
    let error = stderr(&perf(&["--random", "smollm2", "--device", "gpu"]));
    assert!(error.contains("write auto, cpu, cuda or cuda:1"), "{error}");
    let error = stderr(&perf(&["--random", "llama9"]));
    assert!(error.contains("weights can be drawn for llama3-8b, mistral-7b"), "{error}");
}

/// No file of weights is needed to see how fast a shape is.
#[test]
fn speeds_of_drawn_weights_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let shape = ["perf", "--random", "smollm2", "--contexts", "40", "--budgets", "16"];
    let small = ["--decode-tokens", "2", "--batches", "2", "--answer-tokens", "3"];
    let table = stdout(&cokv(folder.path(), &[shape.as_slice(), &small].concat()));
    assert!(table.starts_with("random:smollm2") && table.contains("in a product of f32 matrices"), "{table}");
}

#[test]
fn inspecting_shows_positions_scores_and_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let source = wheel_source();
    let prompt = "The pass key is 71432. Remember it. ".repeat(12);
    let inspect = |rest: &[&str]| {
        let fixed = ["inspect", "--model", &source, "--prompt", &prompt, "--method", "snapkv", "--budget", "24"];
        cokv(path, &[&fixed[..], rest].concat())
    };
    let map = stdout(&inspect(&["--json", "kept.json", "--svg", "kept.svg"]));
    assert_eq!(map.lines().count(), 1 + 90 + 1, "{map}");
    assert!(map.ends_with(&format!("all heads keep {0} of the {0} tokens that the budget allows\n", 24 * 90)), "{map}");
    let kept: Json = serde_json::from_str(&fs::read_to_string(path.join("kept.json")).unwrap()).unwrap();
    let heads = kept["heads"].as_array().unwrap();
    let tokens = kept["tokens"].as_array().unwrap().len();
    assert_eq!(heads.len(), 90);
    for head in heads {
        assert_eq!((head["kept"].as_array().unwrap().len(), head["budget"].as_u64().unwrap()), (24, 24));
        assert_eq!(head["scores"].as_array().unwrap().len(), tokens);
    }
    assert!(fs::read_to_string(path.join("kept.svg")).unwrap().contains("<svg"));
    let text = stdout(&inspect(&["--head", "18.2"]));
    assert!(text.contains("head 18.2 keeps 24 of") && text.contains('['), "{text}");
    let wrong = inspect(&["--head", "99.0"]);
    assert!(stderr(&wrong).contains("there is no KV head 99.0"), "{}", stderr(&wrong));
}

#[test]
fn retrieval_heads_are_detected_and_give_a_plan() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let source = wheel_source();
    let detect = |kind: &str| {
        let fixed = ["detect", "--model", &source, "--task", "passkey", "--records", "2", "--context-tokens", "200"];
        cokv(path, &[&fixed[..], &["--kind", kind, "--out", "x.scores.json"]].concat())
    };
    let first = detect("headkv-r2");
    assert!(stdout(&first).contains("headkv-r2"), "{}", stderr(&first));
    assert!(stderr(&first).contains("of 2 records were answered rightly"), "{}", stderr(&first));
    let found = fs::read_to_string(path.join("x.detected.jsonl")).unwrap();
    assert_eq!(found.lines().count(), 2);
    let scores = fs::read(path.join("x.scores.json")).unwrap();
    stdout(&detect("headkv-r2"));
    assert_eq!(fs::read_to_string(path.join("x.detected.jsonl")).unwrap(), found, "nothing is looked at twice");
    assert_eq!(fs::read(path.join("x.scores.json")).unwrap(), scores);
    let plan = ["plan", "--scores", "x.scores.json", "--allocator", "headkv", "--budget", "32"];
    assert!(stdout(&cokv(path, &plan)).contains("of 2880 tokens"));
    assert!(stdout(&detect("random")).contains("random"));
}

#[test]
fn settings_are_chosen_on_other_records_than_are_tested() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let method = "[[method]]\ncompressor = 'snapkv'\nallocator = 'ada-kv'\nselect = { floor = [0.0, 0.5] }\n";
    let text = config(PASSKEY, method).replace("32, '50%', 100000", "32, '50%'");
    fs::write(path.join("cokv.toml"), &text).unwrap();
    let early = cokv(path, &["bench"]);
    assert!(stderr(&early).contains("nothing was selected for `snapkv+ada-kv` on passkey at 32"), "{}", stderr(&early));
    let table = stdout(&cokv(path, &["select"]));
    assert!(table.matches("| snapkv+ada-kv | passkey |").count() == 2 && table.contains("floor=0."), "{table}");
    let sweep = fs::read_to_string(path.join("runs/cokv/selection/results.jsonl")).unwrap();
    assert_eq!(sweep.lines().count(), 2 * 2 * 2, "every record, setting and budget");
    assert!(stdout(&cokv(path, &["bench"])).contains("| snapkv+ada-kv |"));

    let refused = |text: String, expected: &str| {
        fs::write(path.join("cokv.toml"), text).unwrap();
        let output = cokv(path, &["bench"]);
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    };
    refused(text.replace("tasks", "seed = 1\ntasks"), "selection.json: 2 of the 2 records");
    refused(text.replace("0.5]", "0.4]"), "selection.json was made for another model, other methods");
    refused(text.replace("[0.0, 0.5]", "[]"), "`select` lists values to choose from");
}

#[test]
fn estimates_resume_merge_plan_and_run_as_a_method() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let source = wheel_source();
    let estimate =
        |out: &str, rest: &[&str]| cokv(path, &[&ESTIMATE[..], &["--model", &source, "--out", out], rest].concat());
    let few = ["--max-evaluations", "68"];
    assert!(stdout(&estimate("a.scores.json", &few)).contains("90 "), "a table of heads");
    let whole = fs::read_to_string(path.join("a.scores.json")).unwrap();
    let log = fs::read_to_string(path.join("a.samples.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 2 + 32, "a header, the ends, 32 pairs of coalitions");

    // Killed in the middle of a line, and resumed: the same coalitions, and scores that differ by rounding at most.
    fs::write(path.join("b.samples.jsonl"), &log[..log.len() / 2]).unwrap();
    assert!(stderr(&estimate("b.scores.json", &few)).contains("going on after"));
    let scores = |text: &str| -> Vec<f64> {
        let json: Json = serde_json::from_str(text).unwrap();
        let layers = json["scores"].as_array().unwrap();
        layers.iter().flat_map(|layer| layer.as_array().unwrap()).map(|score| score.as_f64().unwrap()).collect()
    };
    let resumed = fs::read_to_string(path.join("b.scores.json")).unwrap();
    for (a, b) in scores(&whole).iter().zip(scores(&resumed)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }

    // Merging a file with a part of itself gives the whole.
    fs::write(path.join("part.samples.jsonl"), log.lines().take(20).collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let merge = ["merge", "part.samples.jsonl", "a.samples.jsonl", "--out", "c.samples.jsonl"];
    stdout(&cokv(path, &merge));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&fs::read_to_string(path.join("c.samples.jsonl")).unwrap()), sorted(&log), "in the order of k");

    // Another utility is another game, and its samples are not mixed in.
    let other = estimate("a.scores.json", &["--utility", "agreement", "--max-evaluations", "68"]);
    assert!(!other.status.success() && stderr(&other).contains("a.samples.jsonl"), "{}", stderr(&other));
    assert_eq!(fs::read_to_string(path.join("a.samples.jsonl")).unwrap(), log);

    let shown = stdout(&cokv(path, &["scores", "show", "a.scores.json", "--svg", "a.svg"]));
    assert!(shown.contains("reliability") && fs::read_to_string(path.join("a.svg")).unwrap().contains("<svg"));
    assert!(stdout(&cokv(path, &["scores", "compare", "a.scores.json", "b.scores.json"])).contains("1.00"));

    let mask = |rest: &[&str]| {
        let fixed = ["mask", "--model", &source, "--task", "passkey", "--records", "2", "--context-tokens", "200"];
        cokv(path, &[&fixed[..], &["--scores", "a.scores.json", "--counts", "0,8,45"], rest].concat())
    };
    let table = stdout(&mask(&["--out", "masked"]));
    assert!(table.contains("| a, highest first ") && table.contains("| random "), "{table}");
    assert_eq!(fs::read_to_string(path.join("masked/mask.csv")).unwrap().lines().count(), 1 + 3 * 3);
    assert!(fs::read_to_string(path.join("masked/mask.svg")).unwrap().contains("<svg"));
    let experiment = format!(
        "name = 'm'\n[model]\nsource = '{source}'\n[mask]\ntasks = ['passkey']\nrecords = 2\ncontext_tokens = 200\n\
         scores = ['a.scores.json']\ncounts = [0, 8, 45]\n"
    );
    fs::write(path.join("mask.toml"), experiment).unwrap();
    assert_eq!(stdout(&cokv(path, &["mask", "--config", "mask.toml"])), table);
    assert!(path.join("runs/m/mask.md").is_file());
    assert!(stderr(&mask(&["--data-seed", "1"])).contains("2 of the 2 records that it was made from"));
    assert!(stderr(&mask(&["--counts", "91"])).contains("91 heads cannot be masked, the model has 90"));

    let plan = ["plan", "--scores", "a.scores.json", "--allocator", "cokv", "--budget", "32", "--json"];
    let plan: Json = serde_json::from_str(&stdout(&cokv(path, &plan))).unwrap();
    assert_eq!(plan["budgets"].as_array().unwrap().len(), 30);
    assert!(plan["spent"].as_u64().unwrap() <= 32 * 90);
    let adaptive = cokv(path, &["plan", "--scores", "a.scores.json", "--allocator", "ada-kv", "--budget", "32"]);
    assert!(stderr(&adaptive).contains("depends on the prompt's own token scores"), "{}", stderr(&adaptive));

    let method = "[[method]]\ncompressor = 'snapkv'\nallocator = 'cokv'\nscores = 'a.scores.json'\n";
    let marked = format!("{method}[run]\nnoisy_scores = 'mark'\n");
    fs::write(path.join("cokv.toml"), config(PASSKEY, &marked)).unwrap();
    assert!(stdout(&cokv(path, &["bench"])).contains("| snapkv+cokv"));
    fs::write(path.join("none.toml"), config(PASSKEY, &method.replace("scores = 'a.scores.json'", ""))).unwrap();
    let missing = stderr(&cokv(path, &["bench", "--config", "none.toml"]));
    assert!(missing.contains("scores = \"FILE\" or importance"), "{missing}");
}
