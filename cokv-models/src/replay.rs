//! A second pass over a prefilled prompt: its text is fed again, and what that looks at is recorded.

use std::collections::VecDeque;
use std::ops::Range;

use cokv_core::{Format, HeadLayout, Replay, Replayed};

use crate::ask::Ask;
use crate::backend::{Replaying, Watch};
use crate::cache::RaggedCache;
use crate::engine::Row;
use crate::error::ModelError;
use crate::model::LanguageModel;
use crate::prefill::Prefill;
use crate::tokenizer::Tokenizer;

/// Tokens of a chunk below which a second pass is none.
const SMALLEST_CHUNK: usize = 16;
/// Tokens that surely suffice for what asks for a chunk.
const ASKED: usize = 128;

/// One chunk to be fed.
struct Fed {
    /// Of the prompt.
    chunk: Range<usize>,
    tokens: Vec<u32>,
}

/// One chunk on its way.
struct Feeding {
    fed: Fed,
    cache: RaggedCache,
    watch: Box<dyn Watch>,
    /// Of its tokens those that are fed.
    at: usize,
}

/// A second pass on its way: it can be put down between pieces, so that others may run.
///
/// A prompt's document is fed again: of the prompt what lies between the chat template's head and tail, or verbatim all of it.
/// Where the model's context leaves no room for a whole chunk behind the prompt, chunks are smaller.
pub struct SecondPass {
    replay: Replay,
    /// In their order.
    left: VecDeque<Fed>,
    feeding: Option<Feeding>,
    layers: Vec<Replayed>,
    done: usize,
    of: usize,
}

impl LanguageModel {
    /// Feeds a prompt again, for all methods that look at it, as [`SecondPass`] does; nothing where that is done already. `close` is
    /// what the template puts behind a user's text, before the answer. `progress` hears of tokens done and of how many.
    ///
    /// # Errors
    /// As of [`SecondPass::new`].
    pub fn replay(
        &self,
        prefill: &mut Prefill,
        replay: &Replay,
        close: &[u32],
        mut progress: impl FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        if prefill.is_replayed(replay) {
            return Ok(());
        }
        let mut pass = SecondPass::new(self.tokenizer(), prefill, replay, close)?;
        while pass.left() > 0 {
            pass.step(prefill, self.engine().chunk())?;
            progress(pass.done, pass.of);
        }
        pass.finish(prefill);
        Ok(())
    }
}

impl SecondPass {
    /// Nothing fed yet. `close` is what the chat template puts behind a user's text, before the answer.
    ///
    /// # Errors
    /// Where not even a small chunk fits behind the prompt.
    pub fn new(tokenizer: &Tokenizer, prefill: &Prefill, replay: &Replay, close: &[u32]) -> Result<Self, ModelError> {
        let layout = prefill.prompt().layout();
        let places = layout.query_heads * prefill.prompt_len();
        let left = fed(tokenizer, prefill, replay, close)?;
        let of = left.iter().map(|fed| fed.tokens.len()).sum();
        let mut layers: Vec<Replayed> = Vec::with_capacity(layout.layers);
        layers.resize_with(layout.layers, || {
            let weights = vec![0.0; places];
            Replayed { weights_by_input: weights.clone(), weights, queries: Vec::new() }
        });
        Ok(Self { replay: replay.clone(), left, feeding: None, layers, done: 0, of })
    }

    /// Tokens fed.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Tokens still to be fed.
    pub fn left(&self) -> usize {
        self.of - self.done
    }

    /// Bytes that a cache takes at most while a prompt of so many tokens is fed again.
    pub fn most_bytes(replay: &Replay, layout: HeadLayout, format: Format, prompt_len: usize) -> usize {
        let chunk = replay.chunk.min(prompt_len) + replay.overlap + ASKED;
        chunk * layout.heads() * format.token_bytes(layout.head_dim)
    }

    /// Feeds at most `tokens` tokens.
    ///
    /// # Errors
    /// Of the backend.
    pub fn step(&mut self, prefill: &Prefill, tokens: usize) -> Result<(), ModelError> {
        let engine = prefill.engine();
        let mut feeding = match self.feeding.take() {
            Some(feeding) => feeding,
            None => match self.left.pop_front() {
                Some(fed) => self.begin(prefill, fed)?,
                None => return Ok(()),
            },
        };
        let Feeding { fed, cache, watch, at } = &mut feeding;
        let piece = &fed.tokens[*at..fed.tokens.len().min(*at + tokens)];
        let (watches, within) = (vec![watch.as_mut()], prefill.prompt_len() + fed.tokens.len());
        engine.step(&mut [Row { tokens: piece, cache, watches, ask: Ask::Nothing, within }])?;
        *at += piece.len();
        self.done += piece.len();
        match *at < fed.tokens.len() {
            true => self.feeding = Some(feeding),
            false => self.take(prefill, feeding)?,
        }
        Ok(())
    }

    fn begin(&self, prefill: &Prefill, fed: Fed) -> Result<Feeding, ModelError> {
        let kept = spread(self.replay.queries.min(self.of), self.of, self.done..self.done + fed.tokens.len());
        let sinks = self.replay.sinks.min(fed.chunk.start);
        let replaying = Replaying { prompt_len: prefill.prompt_len(), sinks, keys: fed.chunk.clone(), kept };
        let watch = prefill.engine().watch_replay(replaying);
        let mut cache = RaggedCache::full(prefill.prompt());
        cache.reserve(fed.tokens.len())?;
        Ok(Feeding { fed, cache, watch, at: 0 })
    }

    /// What a chunk that is fed gave to every layer.
    fn take(&mut self, prefill: &Prefill, mut feeding: Feeding) -> Result<(), ModelError> {
        let (chunk, prompt_len) = (feeding.fed.chunk, prefill.prompt_len());
        for (layer, all) in self.layers.iter_mut().enumerate() {
            let of_chunk = prefill.engine().replayed(feeding.watch.as_mut(), layer)?;
            let Replayed { weights, weights_by_input, queries } = of_chunk;
            for (all, of_chunk) in [(&mut all.weights, weights), (&mut all.weights_by_input, weights_by_input)] {
                let heads = all.chunks_exact_mut(prompt_len).zip(of_chunk.chunks_exact(chunk.len()));
                heads.for_each(|(head, of_chunk)| head[chunk.clone()].copy_from_slice(of_chunk));
            }
            all.queries.extend(queries);
        }
        Ok(())
    }

    /// Hands all that was seen to the prompt.
    pub fn finish(mut self, prefill: &mut Prefill) {
        let layout = prefill.prompt().layout();
        let by_token = layout.query_heads * layout.head_dim;
        self.layers.iter_mut().for_each(|layer| layer.queries = by_head(&layer.queries, by_token, layout.head_dim));
        prefill.add_replay(self.replay, self.layers);
    }
}

/// What is fed, chunk by chunk.
fn fed(tokenizer: &Tokenizer, prefill: &Prefill, replay: &Replay, close: &[u32]) -> Result<VecDeque<Fed>, ModelError> {
    let (tokens, frame) = (prefill.tokens(), prefill.frame());
    let (document, close) = match replay.verbatim {
        true => (0..tokens.len(), &[][..]),
        false => (frame.head.min(tokens.len())..tokens.len() - frame.tail.min(tokens.len()), close),
    };
    let encode = |text: &str| match text {
        "" => Ok(Vec::new()),
        text => tokenizer.encode(text, false),
    };
    let [first, further] = [encode(&replay.first)?, encode(&replay.further)?];
    let asked = first.len().max(further.len() + replay.overlap) + close.len();
    let room = prefill.engine().config().max_tokens().saturating_sub(tokens.len() + asked);
    let chunk = replay.chunk.min(room);
    if chunk < SMALLEST_CHUNK.min(document.len()) {
        return Err(ModelError::NoRoomToReplay {
            tokens: tokens.len(),
            more: asked + SMALLEST_CHUNK,
            limit: prefill.engine().config().max_tokens(),
        });
    }
    let of_chunk = |start: usize| {
        let asks = match start == document.start {
            true => first.clone(),
            false => [&further[..], &tokens[document.start.max(start.saturating_sub(replay.overlap))..start]].concat(),
        };
        let chunk = start..document.end.min(start + chunk);
        Fed { tokens: [&asks, close, &tokens[chunk.clone()]].concat(), chunk }
    };
    Ok(document.clone().step_by(chunk.max(1)).map(of_chunk).collect())
}

/// Which tokens of a range of `of` are among `count` that lie evenly, counted from the range's start.
fn spread(count: usize, of: usize, range: Range<usize>) -> Vec<usize> {
    let before = |token: usize| token * count / of.max(1);
    range.clone().filter(|&token| before(token + 1) > before(token)).map(|token| token - range.start).collect()
}

/// `[tokens, heads, head_dim]` as `[heads, tokens, head_dim]`.
fn by_head(queries: &[f32], by_token: usize, head_dim: usize) -> Vec<f32> {
    let of_head = |head: usize| {
        queries.chunks_exact(by_token).flat_map(move |token| &token[head * head_dim..(head + 1) * head_dim]).copied()
    };
    (0..by_token / head_dim).flat_map(of_head).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_tokens_lie_evenly_over_all_chunks() {
        let all: Vec<usize> = [0..30, 30..70, 70..100]
            .into_iter()
            .flat_map(|range| spread(10, 100, range.clone()).into_iter().map(move |token| range.start + token))
            .collect();
        assert_eq!(all, [9, 19, 29, 39, 49, 59, 69, 79, 89, 99]);
        assert_eq!(spread(0, 100, 0..100), [0usize; 0]);
        assert_eq!(spread(5, 5, 1..4), [0, 1, 2]);
    }

    #[test]
    fn queries_are_sorted_by_head() {
        assert_eq!(by_head(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 4, 2), [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]);
    }
}
