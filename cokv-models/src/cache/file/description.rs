//! What a saved cache says of itself, beside its numbers: strings in the header of its file.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use cokv_core::{Format, HeadLayout};

use super::error::CacheFileError;
use super::identity::{Identity, format_name};

/// Where a cache comes from. All texts are the writer's; this crate compares nothing but the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Whose it is.
    pub identity: Identity,
    /// Where the model comes from, as users write it.
    pub model: String,
    /// How its weights were held: `stored` or `f32`.
    pub weights: String,
    /// What computed it.
    pub backend: String,
    /// What the chat template was told, an object in JSON.
    pub chat_template_kwargs: String,
    /// Hash of the text up to the document's end, with all that the chat template puts before it.
    pub prefix: String,
    /// Compressor and allocator with all settings.
    pub method: String,
    /// What it was allowed to keep.
    pub budget: String,
    /// Hash of the head scores, where the allocator had any.
    pub head_scores: Option<String>,
    /// When, as of RFC 3339.
    pub created: String,
    /// Version of the cokv that wrote it.
    pub cokv: String,
}

/// Layers, heads of a layer and their length at most: products of such counts do not overflow.
const LARGEST_COUNT: usize = 1 << 16;

impl Description {
    /// Refuses a model that the cache means nothing to, and one that computes otherwise.
    pub fn check(&self, here: &Identity) -> Result<(), CacheFileError> {
        match self.identity.differences(here) {
            None => Ok(()),
            Some((differences, advice)) => {
                Err(CacheFileError::Differs { model: self.model.clone(), differences, advice })
            }
        }
    }

    /// Every entry by its name in a file.
    pub fn entries(&self) -> BTreeMap<&'static str, String> {
        let Identity { model, tokenizer, numerics, layout, format, rope } = &self.identity;
        let mut entries = BTreeMap::from([
            ("model", self.model.clone()),
            ("model_fingerprint", model.clone()),
            ("tokenizer_fingerprint", tokenizer.clone()),
            ("numerics", numerics.clone()),
            ("layers", layout.layers.to_string()),
            ("query_heads", layout.query_heads.to_string()),
            ("kv_heads", layout.kv_heads.to_string()),
            ("head_dim", layout.head_dim.to_string()),
            ("cache", format_name(*format).to_owned()),
            ("rope", rope.clone()),
            ("weights", self.weights.clone()),
            ("backend", self.backend.clone()),
            ("chat_template_kwargs", self.chat_template_kwargs.clone()),
            ("prefix_sha256", self.prefix.clone()),
            ("method", self.method.clone()),
            ("budget", self.budget.clone()),
            ("created", self.created.clone()),
            ("cokv", self.cokv.clone()),
        ]);
        entries.extend(self.head_scores.clone().map(|scores| ("head_scores_sha256", scores)));
        entries
    }

    /// Of the entries of a file, which may have others besides.
    pub(super) fn read(entries: &HashMap<String, String>) -> Result<Self, CacheFileError> {
        let text = |key: &str| {
            let missing = || CacheFileError::Damaged(format!("its header does not say `{key}`"));
            entries.get(key).cloned().ok_or_else(missing)
        };
        let count = |key: &str| {
            let text = text(key)?;
            let count = usize::from_str(&text).ok().filter(|&count| count <= LARGEST_COUNT);
            count.ok_or_else(|| CacheFileError::Damaged(format!("`{key}` is {text:?}")))
        };
        let layout = HeadLayout::new(count("layers")?, count("query_heads")?, count("kv_heads")?, count("head_dim")?);
        let cache = text("cache")?;
        let format = Format::ALL.into_iter().find(|&format| format_name(format) == cache);
        Ok(Self {
            identity: Identity {
                model: text("model_fingerprint")?,
                tokenizer: text("tokenizer_fingerprint")?,
                numerics: text("numerics")?,
                layout: layout.map_err(|error| CacheFileError::Damaged(error.to_string()))?,
                format: format.ok_or_else(|| CacheFileError::Damaged(format!("`cache` is {cache:?}")))?,
                rope: text("rope")?,
            },
            model: text("model")?,
            weights: text("weights")?,
            backend: text("backend")?,
            chat_template_kwargs: text("chat_template_kwargs")?,
            prefix: text("prefix_sha256")?,
            method: text("method")?,
            budget: text("budget")?,
            head_scores: entries.get("head_scores_sha256").cloned(),
            created: text("created")?,
            cokv: text("cokv")?,
        })
    }
}
