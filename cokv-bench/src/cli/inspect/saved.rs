//! What is in a saved cache.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cokv_models::cache::file::{Description, SavedCache, Summary};
use cokv_models::source::DEFAULT_MODEL;
use serde_json::json;

use super::{COLUMNS, Show};
use crate::cli::load::outline;
use crate::document::model_settings;
use crate::machine::memory::mebibytes;
use crate::model::ModelSettings;
use crate::run::KeptTokens;
use crate::scores::HeadName;

/// Shows a file, of whose model the tokenizer is needed for the text of a head and nothing for all else.
pub fn inspect(path: &Path, model: &ModelSettings, show: &Show) -> Result<()> {
    let at = || path.display().to_string();
    let summary = Summary::read(path).with_context(at)?;
    let saved = SavedCache::read(path).with_context(at)?;
    let layout = saved.description.identity.layout;
    let chosen = show.head.map(|head| head.flat(layout)).transpose()?;
    let heads = saved.positions.iter().enumerate();
    let heads = heads.map(|(flat, kept)| (HeadName::of(flat, layout.kv_heads), &kept[..])).collect();
    let kept = KeptTokens { length: saved.tokens.len(), heads };
    let Description { method, budget, .. } = &saved.description;
    show.pictured(&format!("{method} at {budget}"), &kept)?;
    show.written(|| Ok(as_json(&summary, &saved, &kept).to_string()))?;
    let texts = match chosen {
        Some(_) => texts(&saved, model).with_context(at)?,
        None => Vec::new(),
    };
    show.printed(&kept, chosen.map(|flat| (flat, &texts[..])), || {
        format!("{}\n\n{}", described(&summary, &saved), kept.map(COLUMNS))
    })
}

/// What the tokens are to the model that made the cache, or to one of the same tokenizer that is named.
fn texts(saved: &SavedCache, model: &ModelSettings) -> Result<Vec<String>> {
    let named = Some(model.source.as_str()).filter(|&source| source != DEFAULT_MODEL);
    let settings = model_settings(&saved.description, named, model.device)?;
    let outlined = outline(&settings, true)?;
    let tokenizer = outlined.outline.tokenizer();
    let (theirs, ours) = (&saved.description.identity.tokenizer, tokenizer.fingerprint()?);
    if *theirs != ours {
        let source = &settings.source;
        bail!("the tokenizer of {source} is {ours}, and the cache has tokens of {theirs}: name the model that made it");
    }
    Ok(tokenizer.pieces(&saved.tokens)?)
}

/// Bytes that a cache of so many tokens takes.
fn cache_bytes(summary: &Summary, tokens: usize) -> u64 {
    let identity = &summary.description.identity;
    (tokens * identity.format.token_bytes(identity.layout.head_dim)) as u64
}

/// For people.
fn described(summary: &Summary, saved: &SavedCache) -> String {
    let Summary { description, seen, kept, has_text, bytes } = summary;
    let Description { identity, model, weights, backend, method, budget, created, cokv, .. } = description;
    let whole = identity.layout.heads() * seen;
    let scores = description.head_scores.as_ref().map_or(String::new(), |scores| format!(", head scores {scores:.16}"));
    let cache = description.entries().get("cache").cloned().unwrap_or_default();
    let text = if *has_text { "with its text" } else { "without its text" };
    let letters = saved.text.as_ref().map_or(String::new(), |text| format!(", {} letters", text.chars().count()));
    [
        format!("model     {model} ({weights} weights, {cache} cache, {backend}, numerics {})", identity.numerics),
        format!("method    {method} at {budget}{scores}"),
        format!("document  {seen} tokens{letters}, {text}"),
        format!(
            "kept      {kept} of {whole} tokens in {} heads, {:.1} %: {} of {}",
            identity.layout.heads(),
            100.0 * *kept as f64 / whole as f64,
            mebibytes(cache_bytes(summary, *kept)),
            mebibytes(cache_bytes(summary, whole)),
        ),
        format!("file      {}, {created}, cokv {cokv}", mebibytes(*bytes)),
    ]
    .join("\n")
}

/// For programs.
fn as_json(summary: &Summary, saved: &SavedCache, kept: &KeptTokens<'_>) -> serde_json::Value {
    let heads = kept.heads.iter();
    let heads: Vec<_> = heads.map(|(head, kept)| json!({ "head": head, "budget": kept.len(), "kept": kept })).collect();
    json!({
        "description": summary.description.entries(), "document_tokens": summary.seen, "kept_tokens": summary.kept,
        "cache_bytes": cache_bytes(summary, summary.kept), "file_bytes": summary.bytes, "text": saved.text,
        "tokens": saved.tokens, "heads": heads,
    })
}
