//! What a compressor may ask of a prefill, and what it then sees: plain slices, one layer at a time.

use serde::Serialize;

use crate::{BlockSums, Frame, HeadLayout, LearnedLayer, PolicyError, QueryStatistics, Replay, Replayed, WindowSum};

/// What prefill must record. The union over all configured methods is recorded once, nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservationRequest {
    /// Attention of the last this many prompt queries to every prompt token; 1 gives the last row alone. Whoever only adds rows
    /// up asks for `window_sums`: rows of a long prompt take longer to bring from a GPU than half of its prefill.
    pub window: usize,
    /// The same, summed over queries where attention is computed.
    pub window_sums: Vec<WindowSum>,
    /// Attention that every prompt token received, summed over all prompt queries.
    pub column_sums: bool,
    /// Attention that every prompt token received inside its block.
    pub block_sums: Vec<BlockSums>,
    /// Mean and covariance of the queries before RoPE, from [`QueryStatistics::FIRST_POSITION`] on.
    pub query_statistics: bool,
    /// Keys after RoPE.
    pub keys: bool,
    /// Values.
    pub values: bool,
    /// How much each value weighs in the layer's output.
    pub value_output_norms: bool,
    /// Products of the output projection with itself, which say how much any vector weighs in the layer's output.
    pub output_grams: bool,
    /// What the layer's projections read: the tokens' hidden states behind the first norm.
    pub inputs: bool,
    /// This many last queries after RoPE.
    pub queries: usize,
}

impl ObservationRequest {
    /// Everything that either asks for. Neither sees a difference: what a method reads does not depend on the others.
    pub fn union(self, other: Self) -> Self {
        Self {
            window: self.window.max(other.window),
            window_sums: both(self.window_sums, other.window_sums),
            block_sums: both(self.block_sums, other.block_sums),
            column_sums: self.column_sums || other.column_sums,
            query_statistics: self.query_statistics || other.query_statistics,
            keys: self.keys || other.keys,
            values: self.values || other.values,
            value_output_norms: self.value_output_norms || other.value_output_norms,
            output_grams: self.output_grams || other.output_grams,
            inputs: self.inputs || other.inputs,
            queries: self.queries.max(other.queries),
        }
    }

    /// How many of a prompt's last queries are needed, by themselves, for its window and for all sums.
    pub fn last_queries(&self) -> usize {
        self.window_sums.iter().map(|sum| sum.reach()).fold(self.window.max(self.queries), usize::max)
    }
}

/// What either asks for, each once.
fn both<T: Ord + Clone>(some: Vec<T>, others: Vec<T>) -> Vec<T> {
    let mut all = [some, others].concat();
    all.sort_unstable();
    all.dedup();
    all
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

impl RotaryEmbedding {
    /// Turns a vector by so many positions; its length stays.
    pub fn turn(&self, vector: &mut [f32], positions: f64) {
        for (pair, &frequency) in self.frequencies.iter().enumerate() {
            let [first, second] = self.pairs.elements(pair, vector.len());
            let (sin, cos) = (positions * f64::from(frequency)).sin_cos();
            let (x, y) = (f64::from(vector[first]), f64::from(vector[second]));
            vector[first] = (x * cos - y * sin) as f32;
            vector[second] = (y * cos + x * sin) as f32;
        }
    }

    /// A key or query as it was before it was turned by its position, and before the attention factor went into its length.
    pub fn turn_back(&self, vector: &mut [f32], position: usize) {
        self.turn(vector, -(position as f64));
        vector.iter_mut().for_each(|x| *x /= self.scale);
    }
}

/// Which elements of a vector RoPE turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RotaryPairs {
    /// `i` and `i + head_dim / 2` (Hugging Face).
    Halves,
    /// `2 i` and `2 i + 1` (GGUF of the Llama family).
    Neighbours,
}

impl RotaryPairs {
    /// Where the two elements of a pair are, in vectors of this length.
    pub fn elements(self, pair: usize, head_dim: usize) -> [usize; 2] {
        match self {
            Self::Halves => [pair, pair + head_dim / 2],
            Self::Neighbours => [2 * pair, 2 * pair + 1],
        }
    }
}

/// One layer of a prefilled prompt as a compressor sees it; or one KV head of it with its group, as that compressor sees it
/// [while the model answers](crate::WhileDecoding).
#[derive(Clone, Copy, Debug)]
pub struct LayerView<'a> {
    /// Which layer.
    pub layer: usize,
    /// Heads of the model, or the head that is looked at.
    pub layout: HeadLayout,
    /// Which of the layer's KV heads is the first here: 0, or the head that is looked at.
    pub first_kv_head: usize,
    /// Prompt tokens, or those that the head holds.
    pub prompt_len: usize,
    /// Ids of the prompt's tokens, `[prompt_len]`; none of an answer's.
    pub tokens: &'a [u32],
    /// Where the tokens stand, ascending, `[prompt_len]`; none where it is one after the other from 0 on.
    pub positions: Option<&'a [u32]>,
    /// Where document, question and what a chat template added lie.
    pub frame: Frame,
    /// Tokens that a head may keep on average, for compressors that [ask for it](crate::CacheCompressor::follows_budget).
    pub kept: Option<usize>,
    /// Rows of `window_attention` for each query head: the largest window asked for, or the whole prompt where it is shorter.
    pub window: usize,
    /// Softmax attention of the last `window` queries: `[query_heads, window, prompt_len]`, oldest query first.
    pub window_attention: &'a [f32],
    /// Each sum that was asked for: `[query_heads, prompt_len]`.
    pub window_sums: &'a [(WindowSum, Vec<f32>)],
    /// `[query_heads, prompt_len]`, if asked for.
    pub column_sums: Option<&'a [f32]>,
    /// Each that was asked for: `[query_heads, prompt_len]`, 0 outside of all blocks.
    pub block_sums: &'a [(BlockSums, Vec<f32>)],
    /// If asked for.
    pub query_statistics: Option<&'a QueryStatistics>,
    /// Keys after RoPE, `[kv_heads, prompt_len, head_dim]`, if asked for.
    pub keys: Option<&'a [f32]>,
    /// `[kv_heads, prompt_len, head_dim]`, if asked for.
    pub values: Option<&'a [f32]>,
    /// `‖W_o v‖₁` of every token: the 1-norm of its value behind the columns of the output projection that belong to the
    /// query head. `[query_heads, prompt_len]`, if asked for.
    pub value_output_norms: Option<&'a [f32]>,
    /// `W_oᵀ W_o` of the columns of the output projection that belong to each query head: `[query_heads, head_dim, head_dim]`, if
    /// asked for. `‖W_o x‖₂² = xᵀ (W_oᵀ W_o) x` of a vector of the head.
    pub output_grams: Option<&'a [f32]>,
    /// Hidden states of the tokens behind the layer's first norm, `[prompt_len, hidden_size]`, if asked for.
    pub inputs: Option<&'a [f32]>,
    /// The last queries that were asked for, after RoPE, oldest first: `[queries, query_heads, head_dim]`.
    pub queries: &'a [f32],
    /// What second passes saw of every layer, for each that the methods of a run asked for.
    pub replays: &'a [(Replay, Vec<Replayed>)],
    /// The model's rotation, where the model side provides it.
    pub rotary: Option<&'a RotaryEmbedding>,
    /// What was learned of the whole layer, for compressors that [need it](crate::CacheCompressor::needs_learned).
    pub learned: Option<&'a LearnedLayer>,
}

impl<'a> LayerView<'a> {
    /// A layer of a prompt of which nothing was recorded.
    pub fn new(layer: usize, layout: HeadLayout, tokens: &'a [u32]) -> Self {
        Self {
            layer,
            layout,
            first_kv_head: 0,
            prompt_len: tokens.len(),
            tokens,
            positions: None,
            frame: Frame::default(),
            kept: None,
            window: 0,
            window_attention: &[],
            window_sums: &[],
            column_sums: None,
            block_sums: &[],
            query_statistics: None,
            keys: None,
            values: None,
            value_output_norms: None,
            output_grams: None,
            inputs: None,
            queries: &[],
            replays: &[],
            rotary: None,
            learned: None,
        }
    }

    /// What was learned of the layer.
    ///
    /// # Errors
    /// [`PolicyError::MissingObservation`] where nothing was.
    pub fn learned(&self) -> Result<&'a LearnedLayer, PolicyError> {
        self.recorded("what was learned of the model", self.learned)
    }

    /// Where a token stands.
    pub fn position(&self, token: usize) -> usize {
        self.positions.map_or(token, |positions| positions[token] as usize)
    }

    /// Where the token behind the last one will stand.
    pub fn next_position(&self) -> usize {
        self.prompt_len.checked_sub(1).map_or(0, |last| self.position(last) + 1)
    }

    /// The last `count` queries after RoPE, `[count, query_heads, head_dim]`: fewer where the prompt has fewer.
    ///
    /// # Errors
    /// [`PolicyError::MissingObservation`] where fewer were asked for.
    pub fn last_queries(&self, count: usize) -> Result<&'a [f32], PolicyError> {
        let numbers = count.min(self.prompt_len) * self.layout.query_heads * self.layout.head_dim;
        let from = self.recorded("the last queries", self.queries.len().checked_sub(numbers))?;
        Ok(&self.queries[from..])
    }

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

    /// Attention of one query head summed over queries at the end of the prompt: `[prompt_len]`.
    ///
    /// # Errors
    /// [`PolicyError::MissingObservation`] where this very sum was not asked for.
    pub fn window_sum(&self, query_head: usize, sum: WindowSum) -> Result<&'a [f32], PolicyError> {
        let recorded = self.window_sums.iter().find(|(recorded, _)| *recorded == sum);
        let (_, of_heads) = self.recorded("window sums", recorded)?;
        Ok(&of_heads[query_head * self.prompt_len..][..self.prompt_len])
    }

    /// Attention that each token of a query head got inside its block: `[prompt_len]`.
    ///
    /// # Errors
    /// [`PolicyError::MissingObservation`] where these very sums were not asked for.
    pub fn block_sum(&self, query_head: usize, sums: BlockSums) -> Result<&'a [f32], PolicyError> {
        let recorded = self.block_sums.iter().find(|(recorded, _)| *recorded == sums);
        let (_, of_heads) = self.recorded("block sums", recorded)?;
        Ok(&of_heads[query_head * self.prompt_len..][..self.prompt_len])
    }

    /// What a second pass saw.
    ///
    /// # Errors
    /// [`PolicyError::MissingObservation`] where there was no such pass.
    pub fn replayed(&self, replay: &Replay) -> Result<&'a Replayed, PolicyError> {
        let of_layer = |(of, layers): &'a (Replay, Vec<Replayed>)| layers.get(self.layer).filter(|_| of.covers(replay));
        self.recorded("a replay of the prompt", self.replays.iter().find_map(of_layer))
    }

    /// Keys before RoPE, `[kv_heads, prompt_len, head_dim]`: each turned back by its own position.
    ///
    /// # Errors
    /// [`PolicyError::MissingObservation`] where keys were not asked for, or the model's rotation is not known.
    pub fn keys_before_rope(&self) -> Result<Vec<f32>, PolicyError> {
        let mut keys = self.recorded("keys", self.keys)?.to_vec();
        let rotary = self.recorded("the model's rotation", self.rotary)?;
        for head in keys.chunks_exact_mut((self.prompt_len * self.layout.head_dim).max(1)) {
            for (token, key) in head.chunks_exact_mut(self.layout.head_dim).enumerate() {
                rotary.turn_back(key, self.position(token));
            }
        }
        Ok(keys)
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
        let [first, second, third] = [(8, 0), (8, 5), (40, 0)].map(|(rows, tail)| WindowSum { rows, tail });
        let a = ObservationRequest {
            window: 8,
            window_sums: vec![third, first],
            query_statistics: true,
            ..Default::default()
        };
        let b = ObservationRequest { window: 32, window_sums: vec![second, first], keys: true, ..Default::default() };
        let union = a.clone().union(b.clone());
        assert_eq!(union, b.clone().union(a));
        assert_eq!((union.window, union.keys, union.query_statistics), (32, true, true));
        assert_eq!(union.window_sums, [first, second, third], "each once");
        assert_eq!((union.last_queries(), b.last_queries()), (40, 32));
    }

    /// Key re-rotation of `more-methods`: token 5 of the toy moved to position 2.
    #[test]
    fn vectors_are_turned_by_positions_and_back() {
        for pairs in [RotaryPairs::Halves, RotaryPairs::Neighbours] {
            let rotary = RotaryEmbedding { frequencies: vec![1.0, 0.1], scale: 1.0, pairs };
            let mut vector = [-0.9258f32, -0.6999, 0.3967, 0.9998];
            if pairs == RotaryPairs::Neighbours {
                vector.swap(1, 2);
            }
            let was = vector;
            rotary.turn(&mut vector, -3.0);
            let mut moved = [0.9725f32, -0.3732, -0.2621, 1.1620];
            if pairs == RotaryPairs::Neighbours {
                moved.swap(1, 2);
            }
            assert!(vector.iter().zip(moved).all(|(ours, right)| (ours - right).abs() < 2e-4), "{vector:?}");
            rotary.turn(&mut vector, 3.0);
            assert!(vector.iter().zip(was).all(|(ours, right)| (ours - right).abs() < 1e-6));
        }
    }

    #[test]
    fn rows_and_sums_are_of_the_youngest_queries() {
        let layout = HeadLayout::new(1, 2, 1, 4).unwrap();
        let attention: Vec<f32> = (0..2 * 2 * 3).map(|x| x as f32).collect();
        let [sum, other] = [(2, 0), (2, 1)].map(|(rows, tail)| WindowSum { rows, tail });
        let sums = [(sum, attention.chunks(2 * 3).flat_map(|rows| sum.of(rows, 3)).collect())];
        let view = LayerView {
            window: 2,
            window_attention: &attention,
            window_sums: &sums,
            ..LayerView::new(0, layout, &[7, 8, 9])
        };
        assert_eq!(view.last_rows(0, 1).unwrap(), [3.0, 4.0, 5.0]);
        assert_eq!(view.last_rows(1, 2).unwrap(), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert!(view.last_rows(1, 3).is_err());
        assert_eq!(view.window_sum(1, sum).unwrap(), [15.0, 17.0, 19.0]);
        assert!(view.window_sum(1, other).is_err());
    }
}
