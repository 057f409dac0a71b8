//! What a compressor may ask of a prefill, and what it then sees: plain slices, one layer at a time.

use crate::{HeadLayout, PolicyError};

/// What prefill must record. The union over all configured methods is recorded once, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservationRequest {
    /// Attention of the last this many prompt queries to every prompt token; 1 gives the last row alone.
    pub window: usize,
    /// Attention that every prompt token received, summed over all prompt queries.
    pub column_sums: bool,
    /// Mean and covariance of the queries before RoPE, from [`QueryStatistics::FIRST_POSITION`] on.
    pub query_statistics: bool,
    /// Keys after RoPE.
    pub keys: bool,
    /// Values.
    pub values: bool,
    /// How much each value weighs in the layer's output.
    pub value_output_norms: bool,
}

impl ObservationRequest {
    /// Everything that either asks for. Neither sees a difference: what a method reads does not depend on the others.
    pub fn union(self, other: Self) -> Self {
        Self {
            window: self.window.max(other.window),
            column_sums: self.column_sums || other.column_sums,
            query_statistics: self.query_statistics || other.query_statistics,
            keys: self.keys || other.keys,
            values: self.values || other.values,
            value_output_norms: self.value_output_norms || other.value_output_norms,
        }
    }
}

/// Mean and (population) covariance of a layer's queries before RoPE, over the positions from
/// [`FIRST_POSITION`](Self::FIRST_POSITION) on.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryStatistics {
    /// `[query_heads, head_dim]`
    pub mean: Vec<f32>,
    /// `[query_heads, head_dim, head_dim]`
    pub covariance: Vec<f32>,
}

impl QueryStatistics {
    /// Attention sinks are left out, because their queries are unlike all that follow. One number for everybody: if
    /// methods could choose, a method's scores would depend on which others run beside it.
    pub const FIRST_POSITION: usize = 4;
}

/// How a model turns queries and keys by their position (RoPE).
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryEmbedding {
    /// Angle per position of each pair, in radians: `[head_dim / 2]`.
    pub frequencies: Vec<f32>,
    /// What a turned vector's length is multiplied with (the attention factor of YaRN and LongRoPE): 1 for most models. Keys
    /// that a view shows have it already.
    pub scale: f32,
    /// Which two elements make a pair.
    pub pairs: RotaryPairs,
}

/// Which elements of a vector RoPE turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotaryPairs {
    /// `i` and `i + head_dim / 2` (Hugging Face).
    Halves,
    /// `2 i` and `2 i + 1` (GGUF of the Llama family).
    Neighbours,
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
    /// Their ids: `[prompt_len]`.
    pub tokens: &'a [u32],
    /// How many of the last ones a chat template put behind the user's text.
    pub tail: usize,
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
    /// `‖W_o v‖₁` of every token: the 1-norm of its value behind the columns of the output projection that belong to the
    /// query head. `[query_heads, prompt_len]`, if asked for.
    pub value_output_norms: Option<&'a [f32]>,
    /// The model's rotation, where the model side provides it.
    pub rotary: Option<&'a RotaryEmbedding>,
}

impl<'a> LayerView<'a> {
    /// Attention of the last `rows` queries of one query head: `[rows, prompt_len]`. A prompt shorter than `rows` gives
    /// a row for each of its tokens.
    pub fn last_rows(&self, query_head: usize, rows: usize) -> Result<&'a [f32], PolicyError> {
        let rows = rows.min(self.prompt_len);
        if rows > self.window {
            return self.recorded("window attention", None);
        }
        let end = (query_head + 1) * self.window * self.prompt_len;
        Ok(&self.window_attention[end - rows * self.prompt_len..end])
    }

    /// An observation that was asked for: `view.recorded("keys", view.keys)?`.
    ///
    /// # Errors
    /// [`PolicyError::MissingObservation`] where it was not recorded.
    pub fn recorded<T>(&self, what: &'static str, observation: Option<T>) -> Result<T, PolicyError> {
        observation.ok_or(PolicyError::MissingObservation { what, layer: self.layer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_asks_for_all_that_either_needs() {
        let a = ObservationRequest { window: 8, query_statistics: true, ..Default::default() };
        let b = ObservationRequest { window: 32, keys: true, ..Default::default() };
        let union = a.union(b);
        assert_eq!(union, b.union(a));
        assert_eq!((union.window, union.keys, union.query_statistics), (32, true, true));
    }

    #[test]
    fn last_rows_are_the_youngest_queries() {
        let layout = HeadLayout::new(1, 2, 1, 4).unwrap();
        let attention: Vec<f32> = (0..2 * 2 * 3).map(|x| x as f32).collect();
        let view = LayerView {
            layer: 0,
            layout,
            prompt_len: 3,
            tokens: &[7, 8, 9],
            tail: 0,
            window: 2,
            window_attention: &attention,
            column_sums: None,
            query_statistics: None,
            keys: None,
            values: None,
            value_output_norms: None,
            rotary: None,
        };
        assert_eq!(view.last_rows(0, 1).unwrap(), [3.0, 4.0, 5.0]);
        assert_eq!(view.last_rows(1, 2).unwrap(), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert!(view.last_rows(1, 3).is_err());
    }
}
