//! How users write a head: `18.2` is KV head 2 of layer 18, both counted from 0.

use std::fmt;
use std::str::FromStr;

use cokv_core::HeadLayout;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A KV head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeadName {
    /// Its layer, from 0.
    pub layer: usize,
    /// Its place in the layer, from 0.
    pub kv_head: usize,
}

/// A head that the model has not.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("there is no KV head {head}: the model has layers 0 to {last_layer} with KV heads 0 to {last_head} each")]
pub struct NoSuchHead {
    head: HeadName,
    last_layer: usize,
    last_head: usize,
}

impl HeadName {
    /// The name of a flat index.
    pub fn of(flat: usize, kv_heads: usize) -> Self {
        Self { layer: flat / kv_heads, kv_head: flat % kv_heads }
    }

    /// Its flat index in a model.
    pub fn flat(self, layout: HeadLayout) -> Result<usize, NoSuchHead> {
        match self.layer < layout.layers && self.kv_head < layout.kv_heads {
            true => Ok(layout.flat(self.layer, self.kv_head)),
            false => Err(NoSuchHead { head: self, last_layer: layout.layers - 1, last_head: layout.kv_heads - 1 }),
        }
    }
}

impl fmt::Display for HeadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.layer, self.kv_head)
    }
}

impl FromStr for HeadName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (layer, kv_head) = text.trim().split_once('.')?;
            Some(Self { layer: layer.parse().ok()?, kv_head: kv_head.parse().ok()? })
        };
        read().ok_or_else(|| format!("`{text}` is no head: write layer.head, such as 18.2"))
    }
}

impl TryFrom<String> for HeadName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HeadName> for String {
    fn from(head: HeadName) -> Self {
        head.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_named_by_layer_and_place() {
        let layout = HeadLayout::new(30, 9, 3, 64).unwrap();
        let head: HeadName = "18.2".parse().unwrap();
        assert_eq!(head.flat(layout), Ok(56));
        assert_eq!(HeadName::of(56, 3).to_string(), "18.2");
        let error = "18.3".parse::<HeadName>().unwrap().flat(layout).unwrap_err().to_string();
        assert_eq!(error, "there is no KV head 18.3: the model has layers 0 to 29 with KV heads 0 to 2 each");
        assert!("18".parse::<HeadName>().unwrap_err().contains("such as 18.2"));
    }
}
