//! What the tests on real models share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cokv_core::Format;
use cokv_models::source::{DEFAULT_MODEL, Observer, Preset, Source};
use cokv_models::{LanguageModel, LoadOptions, WeightType};
use serde_json::Value as Json;

/// Golden data come from the GGUF files, so the preset's wheel is used and not its hub repository.
fn wheel(preset: &str) -> &'static Source {
    let mut sources = Preset::find(preset).unwrap().sources.iter();
    sources.find(|source| matches!(source, Source::Wheel(_))).unwrap()
}

/// The default model's wheel as users write it.
pub fn wheel_source() -> String {
    wheel(DEFAULT_MODEL).to_string()
}

pub fn load_model(preset: &str, weight_type: WeightType, format: Format) -> LanguageModel {
    let files = wheel(preset).fetch(Observer::default()).unwrap();
    let options = LoadOptions { weight_type, format, ..LoadOptions::default() };
    LanguageModel::load(&files, &options, |_, _| {}).unwrap()
}

/// Golden data that are in the repository (`tests/data`) or were fetched.
pub fn json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A JSON list of token ids.
pub fn ids(json: &Json) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Runs the binary in a folder, on the processor wherever it is.
pub fn cokv(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cokv"));
    command.env("CUDA_VISIBLE_DEVICES", "");
    command.current_dir(folder).args(arguments).env_remove("RUST_BACKTRACE").output().unwrap()
}

/// What a run that went well printed.
pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it said beside.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A small run on the default model's wheel.
pub fn config(data: &str, methods: &str) -> String {
    format!("budgets = [32, '50%', 100000]\n[model]\nsource = '{}'\n[data]\n{data}\n{methods}", wheel_source())
}

/// A matrix without policies that need anything.
pub const METHODS: &str = "[[method]]\ncompressor = 'full'\n[[method]]\ncompressor = 'snapkv'\n";

/// Two short prompts.
pub const PASSKEY: &str = "tasks = ['passkey']\nrecords = 2\ncontext_tokens = 200";

/// The rows of a run's file, without the seconds, which no two runs have in common.
pub fn rows_of(file: &Path) -> Vec<Json> {
    let untimed = |line: &str| -> Json {
        let mut row: Json = serde_json::from_str(line).unwrap();
        for key in ["prefill_seconds", "decode_seconds"] {
            row[key] = Json::Null;
        }
        row
    };
    fs::read_to_string(file).unwrap().lines().map(untimed).collect()
}
