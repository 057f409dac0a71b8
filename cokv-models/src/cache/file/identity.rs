//! Whose cache it is: what has to be the same wherever keys and values are to mean anything.

use std::fmt::{self, Display};

use cokv_core::{Format, HeadLayout};

/// A model as a cache sees it. A cache goes on where all of this is the same, to the bit where the backend is the same too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Hash of all of the model's files.
    pub model: String,
    /// Hash of how text becomes tokens.
    pub tokenizer: String,
    /// What the arithmetic is called: [`NUMERICS`](crate::NUMERICS).
    pub numerics: String,
    /// Heads.
    pub layout: HeadLayout,
    /// How rows are stored.
    pub format: Format,
    /// How positions turn queries and keys: [`ModelConfig::rope`](crate::config::ModelConfig::rope).
    pub rope: String,
}

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    what: &'static str,
    file: String,
    here: String,
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, file, here } = self;
        write!(f, "{what} {file} in the file and {here} here")
    }
}

/// Where only this cokv is another one.
const COMPRESS_AGAIN: &str = "compress the document again";
/// Where the model is another one.
const OTHER_MODEL: &str = "name the model that made it, or compress the document again with this one";

impl Identity {
    /// What differs where the cache of this model meets another, and what to do about it; none where nothing does.
    pub(super) fn differences(&self, here: &Self) -> Option<(Vec<Difference>, &'static str)> {
        let heads = |layout: HeadLayout| {
            let HeadLayout { layers, query_heads, kv_heads, head_dim } = layout;
            format!("{layers} × {query_heads}/{kv_heads} × {head_dim}")
        };
        let pairs = [
            ("model", self.model.clone(), here.model.clone()),
            ("tokenizer", self.tokenizer.clone(), here.tokenizer.clone()),
            ("heads (layers × query/KV × length)", heads(self.layout), heads(here.layout)),
            ("RoPE", self.rope.clone(), here.rope.clone()),
            ("cache format", format_name(self.format).into(), format_name(here.format).into()),
            ("numerics", self.numerics.clone(), here.numerics.clone()),
        ];
        let differ = pairs.into_iter().filter(|(_, file, here)| file != here);
        let differences: Vec<Difference> = differ.map(|(what, file, here)| Difference { what, file, here }).collect();
        let advice = if self.model == here.model { COMPRESS_AGAIN } else { OTHER_MODEL };
        (!differences.is_empty()).then_some((differences, advice))
    }
}

/// As options and configurations write it.
pub(super) fn format_name(format: Format) -> &'static str {
    match format {
        Format::F32 => "f32",
        Format::F16 => "f16",
        Format::Bf16 => "bf16",
        Format::Q8 => "q8",
        Format::Q4 => "q4",
    }
}
