//! What scores belong to.

use std::fmt;

use cokv_core::HeadLayout;
use serde::{Deserialize, Serialize};

use super::Problem;

/// The model whose heads were scored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelStamp {
    /// As users call it.
    pub name: String,
    /// Hash of its weights; none for scores that others measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads of a layer.
    pub query_heads: usize,
    /// KV heads of a layer.
    pub kv_heads: usize,
    /// Length of a key.
    pub head_dim: usize,
}

/// Layers, heads of a layer and their length at most. Products of such counts do not overflow.
const COUNT_LIMIT: usize = 1 << 16;

impl ModelStamp {
    /// The arrangement of its heads; an error where no model has such heads.
    pub fn layout(&self) -> Result<HeadLayout, Problem> {
        let counts = [self.layers, self.query_heads, self.kv_heads, self.head_dim];
        if let Some(&count) = counts.iter().find(|&&count| count > COUNT_LIMIT) {
            let (value, place) = (count as f64, format!(" for {}", self.name));
            return Err(Problem::Value {
                field: "model",
                value,
                place,
                expected: "at most 65536 layers, heads and numbers of a head",
            });
        }
        Ok(HeadLayout::new(self.layers, self.query_heads, self.kv_heads, self.head_dim)?)
    }

    /// A model that is at hand; its fingerprint may not be known before all of it was read.
    pub fn of(name: &str, fingerprint: Option<&str>, layout: HeadLayout) -> Self {
        let HeadLayout { layers, query_heads, kv_heads, head_dim } = layout;
        Self { name: name.into(), fingerprint: fingerprint.map(str::to_owned), layers, query_heads, kv_heads, head_dim }
    }

    /// What to tell a user who takes this model's scores for another model, or for what may be another one.
    pub fn notice(&self, used: &Self) -> Option<String> {
        let same = match (&self.fingerprint, &used.fingerprint) {
            (Some(scored), Some(used)) => scored == used,
            _ => self.name == used.name,
        };
        let named = |model: &Self| match &model.fingerprint {
            Some(fingerprint) => format!("{} (fingerprint {fingerprint})", model.name),
            None => format!("{} (no fingerprint)", model.name),
        };
        let notice = || format!("scores of {} are used for {}: another model", named(self), named(used));
        (!same).then(notice)
    }
}

impl fmt::Display for ModelStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} layers × {} KV heads)", self.name, self.layers, self.kv_heads)
    }
}

/// The game that was played.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GameStamp {
    /// Hash of all that could change a utility.
    pub fingerprint: String,
    /// Name of the utility.
    pub utility: String,
    /// Last prompt tokens that a head outside the coalition keeps.
    pub window: usize,
    /// Last prompt tokens that are read after compression.
    pub holdout_suffix: usize,
    /// Names of the tasks whose records were played.
    pub tasks: Vec<String>,
    /// Records played.
    pub records: usize,
    /// Hashes of the records, so that no method is tested on what its scores were made from.
    #[serde(default)]
    pub seen: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::model;
    use super::*;

    #[test]
    fn impossible_models_are_refused() {
        assert!(model("toy", 2, 3, 2).layout().is_ok());
        assert!(matches!(model("toy", 0, 3, 2).layout(), Err(Problem::Layout(_))));
        let error = model("toy", 1 << 40, 3, 2).layout().unwrap_err().to_string();
        assert!(error.contains("`model` is 1099511627776 for toy"), "{error}");
    }

    #[test]
    fn models_are_told_apart_by_fingerprint_and_else_by_name() {
        let stamp = |name: &str, fingerprint: Option<&str>| ModelStamp {
            fingerprint: fingerprint.map(Into::into),
            ..model(name, 2, 3, 2)
        };
        for (scored, used, notice) in [
            (stamp("a", Some("12")), stamp("b", Some("12")), None),
            (stamp("a", None), stamp("a", Some("12")), None),
            (
                stamp("a", Some("12")),
                stamp("a", Some("34")),
                Some("scores of a (fingerprint 12) are used for a (fingerprint 34): another model"),
            ),
            (
                stamp("a", None),
                stamp("b", Some("34")),
                Some("scores of a (no fingerprint) are used for b (fingerprint 34): another model"),
            ),
        ] {
            assert_eq!(scored.notice(&used).as_deref(), notice);
        }
    }
}
