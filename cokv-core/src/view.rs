//! What a compressor may ask of a prefill, and what it then sees: plain slices, one layer at a time.

use crate::{HeadLayout, PolicyError};

/// What prefill must record. The union over all configured methods is recorded once, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservationRequest {
    /// Attention of the last this many prompt queries to every prompt token; 1 gives the last row alone.
    pub window: usize,
    /// Attention that every prompt token received, summed over all prompt queries.
    pub column_sums: bool,
    /// Mean and covariance of the queries before RoPE, over all positions from this one on.
    pub query_statistics: Option<usize>,
    /// Keys after RoPE.
    pub keys: bool,
    /// Values.
    pub values: bool,
}

impl ObservationRequest {
    /// Everything that either asks for. Query statistics start at the later of two positions, so that a union never
    /// counts a sink that one of the two leaves out.
    pub fn union(self, other: Self) -> Self {
        Self {
            window: self.window.max(other.window),
            column_sums: self.column_sums || other.column_sums,
            query_statistics: self.query_statistics.max(other.query_statistics),
            keys: self.keys || other.keys,
            values: self.values || other.values,
        }
    }
}

/// Mean and covariance of a layer's queries before RoPE.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryStatistics {
    /// `[query_heads, head_dim]`
    pub mean: Vec<f32>,
    /// `[query_heads, head_dim, head_dim]`
    pub covariance: Vec<f32>,
}

/// One layer of a prefilled prompt as a compressor sees it.
#[derive(Clone, Copy, Debug)]
pub struct LayerView<'a> {
    /// Which layer.
    pub layer: usize,
    /// Heads of the model.
    pub layout: HeadLayout,
    /// Prompt tokens.
    pub prompt_len: usize,
    /// Rows of `window_attention` for each query head: the largest window asked for, or the whole prompt where it is shorter.
    pub window: usize,
    /// Softmax attention of the last `window` queries: `[query_heads, window, prompt_len]`, oldest query first.
    pub window_attention: &'a [f32],
    /// `[query_heads, prompt_len]`, if asked for.
    pub column_sums: Option<&'a [f32]>,
    /// If asked for.
    pub query_statistics: Option<&'a QueryStatistics>,
    /// Keys after RoPE, `[kv_heads, prompt_len, head_dim]`, if asked for.
    pub keys: Option<&'a [f32]>,
    /// `[kv_heads, prompt_len, head_dim]`, if asked for.
    pub values: Option<&'a [f32]>,
}

impl<'a> LayerView<'a> {
    /// Attention of the last `rows` queries of one query head: `[rows, prompt_len]`. A prompt shorter than `rows` gives
    /// a row for each of its tokens.
    pub fn last_rows(&self, query_head: usize, rows: usize) -> Result<&'a [f32], PolicyError> {
        let rows = rows.min(self.prompt_len);
        if rows > self.window {
            return Err(PolicyError::MissingObservation { what: "window attention", layer: self.layer });
        }
        let end = (query_head + 1) * self.window * self.prompt_len;
        Ok(&self.window_attention[end - rows * self.prompt_len..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_asks_for_all_that_either_needs() {
        let a = ObservationRequest { window: 8, query_statistics: Some(4), ..Default::default() };
        let b = ObservationRequest { window: 32, keys: true, ..Default::default() };
        let union = a.union(b);
        assert_eq!(union, b.union(a));
        assert_eq!((union.window, union.keys, union.query_statistics), (32, true, Some(4)));
    }

    #[test]
    fn last_rows_are_the_youngest_queries() {
        let layout = HeadLayout::new(1, 2, 1, 4).unwrap();
        let attention: Vec<f32> = (0..2 * 2 * 3).map(|x| x as f32).collect();
        let view = LayerView {
            layer: 0,
            layout,
            prompt_len: 3,
            window: 2,
            window_attention: &attention,
            column_sums: None,
            query_statistics: None,
            keys: None,
            values: None,
        };
        assert_eq!(view.last_rows(0, 1).unwrap(), [3.0, 4.0, 5.0]);
        assert_eq!(view.last_rows(1, 2).unwrap(), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert!(view.last_rows(1, 3).is_err());
    }
}
