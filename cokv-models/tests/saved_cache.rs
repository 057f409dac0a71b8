//! Caches that are saved go on where they are loaded, to the bit, in another process.

mod tiny;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cokv_core::{Format, HeadSelection, ObservationRequest, Pairs, Selection};
use cokv_models::ask::{Against, Ask};
use cokv_models::cache::file::{CacheFileError, Description, SavedCache, encode};
use cokv_models::cache::{RaggedCache, Segment};
use cokv_models::engine::Row;
use cokv_models::source::ModelFiles;
use cokv_models::{LanguageModel, LoadOptions, Outline, fingerprint};
use serde_json::json;
use tiny::Tiny;

const DOCUMENT: usize = 300;
/// Tells the other process where it finds the files.
const FOLDER: &str = "COKV_TEST_SAVED_CACHES";

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 31 + i / 7 + seed) % 50).collect()
}

fn files(folder: &Path) -> ModelFiles {
    ModelFiles::Folder(folder.to_path_buf())
}

fn model(folder: &Path, format: Format) -> LanguageModel {
    LanguageModel::load(&files(folder), &LoadOptions { format, ..LoadOptions::default() }, |_, _| {}).unwrap()
}

fn description(folder: &Path, outline: &Outline, format: Format) -> Description {
    let text = str::to_owned;
    Description {
        identity: outline.identity(&fingerprint(&files(folder)).unwrap(), format).unwrap(),
        model: format!("path:{}", folder.display()),
        weights: text("stored"),
        backend: text("cpu"),
        chat_template_kwargs: text("{}"),
        prefix: text("aa"),
        method: text("every other token"),
        budget: text("50%"),
        head_scores: None,
        created: text("2026-10-01T12:00:00Z"),
        cokv: text("0.1.0"),
    }
}

/// A head that keeps everything, one that keeps nothing, and others; with numbers of its own and biases where that is asked for.
fn compressed(model: &LanguageModel, rewritten: bool) -> Arc<Segment> {
    let prefill = model.prefill(&tokens(DOCUMENT, 3), ObservationRequest::default(), |_| {}).unwrap();
    let every = |step: usize| (0..DOCUMENT as u32).step_by(step).collect::<Vec<u32>>();
    let heads = vec![every(1), every(2), Vec::new(), vec![0, 7, 299]];
    let pairs = heads.iter().enumerate().map(|(head, kept)| {
        let all = prefill.prompt().read(head).unwrap();
        let rows = |numbers: &[f32]| -> Vec<f32> {
            kept.iter().flat_map(|&at| &numbers[at as usize * 8..][..8]).map(|number| 0.5 * number).collect()
        };
        let biases = kept.iter().map(|&at| 0.01 * at as f32 - 1.0).collect();
        Pairs { keys: rows(&all.keys), values: rows(&all.values), biases }
    });
    let pairs: Vec<Pairs> = pairs.collect();
    let selection = Selection { heads: heads.into_iter().map(HeadSelection::Tokens).collect() };
    let cache = match rewritten {
        true => RaggedCache::rewritten(prefill.prompt(), &selection, &pairs),
        false => RaggedCache::compressed(prefill.prompt(), &selection),
    };
    cache.unwrap().into_segment().unwrap().unwrap()
}

/// Bits of all logits along questions to copies of one cache: each alone, then all in one pass.
fn answers(model: &LanguageModel, document: &RaggedCache) -> Vec<u8> {
    let ask = Ask::Along { skip: 0, targets: &[], against: Against::Nobody, keep: true };
    let questions: Vec<Vec<u32>> = (0..5).map(|at| tokens(3 + at, 11 * at as u32)).collect();
    let mut bits = Vec::new();
    for together in [1, questions.len()] {
        for questions in questions.chunks(together) {
            let mut caches: Vec<RaggedCache> = questions.iter().map(|_| document.fork().unwrap()).collect();
            for tokens in [questions.to_vec(), vec![vec![9]; together], vec![vec![4]; together]] {
                let rows = tokens.iter().zip(&mut caches).map(|(tokens, cache)| Row::new(tokens, cache, ask));
                for answer in model.engine().step(&mut rows.collect::<Vec<_>>()).unwrap() {
                    let logits = answer.along(String::new).unwrap().kept.unwrap().read().unwrap();
                    bits.extend(logits.into_iter().flat_map(f32::to_le_bytes));
                }
            }
        }
    }
    bits
}

fn cases() -> impl Iterator<Item = (Format, bool, String)> {
    Format::ALL
        .into_iter()
        .flat_map(|format| [false, true].map(|rewritten| (format, rewritten, format!("{format:?}-{rewritten}"))))
}

#[test]
fn a_saved_cache_goes_on_with_the_same_bits_in_another_process() {
    let tiny = Tiny::new("llama", json!({}), false, 8);
    let folder = tiny.folder();
    for (format, rewritten, name) in cases() {
        let model = model(folder, format);
        let segment = compressed(&model, rewritten);
        let description = description(folder, model.outline(), format);
        let bytes = encode(&description, &tokens(DOCUMENT, 3), None, &segment).unwrap();
        fs::write(folder.join(format!("{name}.cokv")), bytes).unwrap();
        fs::write(folder.join(format!("{name}.here")), answers(&model, &RaggedCache::full(&segment))).unwrap();
    }
    let mut other = Command::new(std::env::current_exe().unwrap());
    let other = other.args(["--exact", "the_other_process", "--ignored"]).env(FOLDER, folder).output().unwrap();
    assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stdout));
    for (_, _, name) in cases() {
        let read = |kind: &str| fs::read(folder.join(format!("{name}.{kind}"))).unwrap();
        assert!(read("here").len() > 10_000 && read("here") == read("there"), "{name}");
    }
}

#[test]
#[ignore = "run by the test before it"]
fn the_other_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    for (format, _, name) in cases() {
        let model = model(folder, format);
        let saved = SavedCache::read(&folder.join(format!("{name}.cokv"))).unwrap();
        let identity = description(folder, model.outline(), format).identity;
        let cache = model.restore(saved, &identity).unwrap();
        fs::write(folder.join(format!("{name}.there")), answers(&model, &cache)).unwrap();
    }
}

#[test]
fn the_cache_of_another_model_is_refused() {
    let mine = Tiny::new("llama", json!({}), false, 8);
    let others = Tiny::new("llama", json!({ "rope_theta": 500.0 }), false, 8);
    let theirs = model(others.folder(), Format::F16);
    let description_of =
        |tiny: &Tiny, format| description(tiny.folder(), &Outline::open(&files(tiny.folder())).unwrap(), format);
    let of_theirs = description_of(&others, Format::F16);
    let bytes = encode(&of_theirs, &tokens(DOCUMENT, 3), None, &compressed(&theirs, false)).unwrap();
    let path = mine.folder().join("theirs.cokv");
    fs::write(&path, bytes).unwrap();
    let refused = |format: Format| {
        let mine_as = description_of(&mine, format).identity;
        model(mine.folder(), format).restore(SavedCache::read(&path).unwrap(), &mine_as).unwrap_err()
    };
    let error = refused(Format::F16);
    assert!(matches!(error, CacheFileError::Differs { .. }));
    let error = error.to_string();
    assert!(error.contains("RoPE {\"theta\":500.0,") && error.contains("and {\"theta\":10000.0,"), "{error}");
    assert!(error.contains(&of_theirs.identity.model) && !error.contains("cache format"), "{error}");
    assert!(refused(Format::Bf16).to_string().contains("cache format f16 in the file and bf16 here"));
}
