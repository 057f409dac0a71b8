//! Compressors that build on another one.

use cokv_core::config::Choice;
use cokv_core::{CacheCompressor, ConfigError, ConfigTable, HeadLayout, LayerView, Named, PolicyError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A compressor and what is made of it. Whoever implements [`CacheCompressor`] for it says what `base` it has and what
/// it does differently; all else is the base's word.
#[derive(Debug, Serialize)]
pub struct OnBase<S> {
    /// What it builds on.
    pub base: Named<dyn CacheCompressor>,
    /// The settings beside the base.
    #[serde(flatten)]
    pub settings: S,
}

impl<S: DeserializeOwned> OnBase<S> {
    /// Reads the settings and the base, one of this crate's compressors: `base = "snapkv"` or a table with a name.
    pub fn read(settings: &ConfigTable<'_>, default_base: &str) -> Result<Self, ConfigError> {
        let mut rest = settings.clone();
        let base = rest.take_choice("base")?.unwrap_or_else(|| Choice::named(default_base, settings));
        Ok(Self { base: crate::registry().compressor(&base)?, settings: rest.read_beside(&["base"])? })
    }

    /// Refuses a base that looks at more than keys and values; `why` says who may not.
    pub fn of_keys_and_values(self, settings: &ConfigTable<'_>, why: &str) -> Result<Self, ConfigError> {
        match keys_and_values_suffice(&*self.base) {
            Ok(()) => Ok(self),
            Err(more) => Err(settings.error_at("base", refusal(self.base.settings().name(), &more, why))),
        }
    }
}

/// What to say of a compressor that looks at more than keys and values.
pub fn refusal(name: &str, more: &str, why: &str) -> String {
    format!(
        "{why} may look at keys and values alone, and `{name}` also looks at {more}: use knorm, keydiff, lagkv or cur"
    )
}

/// Whether a compressor scores a prompt of which it sees keys and values alone, or what else it looks at. It is tried:
/// what observations it asks for does not say whether it also looks at positions or the budget.
pub fn keys_and_values_suffice(compressor: &dyn CacheCompressor) -> Result<(), String> {
    // Long enough for every window and chunk that is a default; keys that are neither equal nor 0.
    const TOKENS: usize = 300;
    let layout = HeadLayout { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 2 };
    let numbers: Vec<f32> = (0..TOKENS * layout.head_dim).map(|at| (at as f32).sin()).collect();
    let ids = [0; TOKENS];
    let view = LayerView { keys: Some(&numbers), values: Some(&numbers), ..LayerView::new(0, layout, &ids) };
    match compressor.score(&view) {
        Ok(_) => Ok(()),
        Err(PolicyError::MissingObservation { what, .. }) => Err(what.into()),
        Err(other) => Err(other.to_string()),
    }
}
