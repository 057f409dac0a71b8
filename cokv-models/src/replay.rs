//! A second pass over a prefilled prompt: its text is fed again, and what that looks at is recorded.

use std::ops::Range;

use cokv_core::{Replay, Replayed};

use crate::ask::Ask;
use crate::backend::Replaying;
use crate::cache::RaggedCache;
use crate::engine::Row;
use crate::error::ModelError;
use crate::model::LanguageModel;
use crate::prefill::Prefill;

/// Tokens of a chunk below which a second pass is none.
const SMALLEST_CHUNK: usize = 16;

/// One chunk on its way.
struct Fed {
    /// Of the prompt.
    chunk: Range<usize>,
    tokens: Vec<u32>,
}

impl LanguageModel {
    /// Feeds a prompt's document again, for all methods that look at it: of the prompt what lies between the chat template's head and
    /// tail, or verbatim all of it. `close` is what the template puts behind a user's text, before the answer. `progress` hears of
    /// tokens done and of how many.
    ///
    /// Where the model's context leaves no room for a whole chunk behind the prompt, chunks are smaller.
    ///
    /// # Errors
    /// Where not even a small chunk fits behind the prompt.
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
        let layout = self.config().layout;
        let (prompt_len, places) = (prefill.prompt_len(), layout.query_heads * prefill.prompt_len());
        let all_fed = self.fed(prefill, replay, close)?;
        let of: usize = all_fed.iter().map(|fed| fed.tokens.len()).sum();
        let mut layers: Vec<Replayed> = Vec::with_capacity(layout.layers);
        layers.resize_with(layout.layers, || {
            let weights = vec![0.0; places];
            Replayed { weights_by_input: weights.clone(), weights, queries: Vec::new() }
        });
        let (engine, mut done) = (prefill.engine().clone(), 0);
        for Fed { chunk, tokens } in all_fed {
            let kept = spread(replay.queries.min(of), of, done..done + tokens.len());
            let sinks = replay.sinks.min(chunk.start);
            let mut watch = engine.watch_replay(Replaying { prompt_len, sinks, keys: chunk.clone(), kept });
            let mut cache = RaggedCache::full(prefill.prompt());
            cache.reserve(tokens.len())?;
            for piece in tokens.chunks(engine.chunk()) {
                let watches = vec![watch.as_mut()];
                let within = prompt_len + tokens.len();
                engine.step(&mut [Row { tokens: piece, cache: &mut cache, watches, ask: Ask::Nothing, within }])?;
                done += piece.len();
                progress(done, of);
            }
            for (layer, all) in layers.iter_mut().enumerate() {
                let Replayed { weights, weights_by_input, queries } = engine.replayed(watch.as_mut(), layer)?;
                for (all, of_chunk) in [(&mut all.weights, weights), (&mut all.weights_by_input, weights_by_input)] {
                    let heads = all.chunks_exact_mut(prompt_len).zip(of_chunk.chunks_exact(chunk.len()));
                    heads.for_each(|(head, of_chunk)| head[chunk.clone()].copy_from_slice(of_chunk));
                }
                all.queries.extend(queries);
            }
        }
        let by_token = layout.query_heads * layout.head_dim;
        layers.iter_mut().for_each(|layer| layer.queries = by_head(&layer.queries, by_token, layout.head_dim));
        prefill.add_replay(replay.clone(), layers);
        Ok(())
    }

    /// What is fed, chunk by chunk.
    fn fed(&self, prefill: &Prefill, replay: &Replay, close: &[u32]) -> Result<Vec<Fed>, ModelError> {
        let (tokens, frame) = (prefill.tokens(), prefill.frame());
        let (document, close) = match replay.verbatim {
            true => (0..tokens.len(), &[][..]),
            false => (frame.head.min(tokens.len())..tokens.len() - frame.tail.min(tokens.len()), close),
        };
        let encode = |text: &str| match text {
            "" => Ok(Vec::new()),
            text => self.tokenizer().encode(text, false),
        };
        let [first, further] = [encode(&replay.first)?, encode(&replay.further)?];
        let asked = first.len().max(further.len() + replay.overlap) + close.len();
        let room = self.config().max_tokens().saturating_sub(tokens.len() + asked);
        let chunk = replay.chunk.min(room);
        if chunk < SMALLEST_CHUNK.min(document.len()) {
            return Err(ModelError::NoRoomToReplay {
                tokens: tokens.len(),
                more: asked + SMALLEST_CHUNK,
                limit: self.config().max_tokens(),
            });
        }
        let of_chunk = |start: usize| {
            let asks = match start == document.start {
                true => first.clone(),
                false => {
                    [&further[..], &tokens[document.start.max(start.saturating_sub(replay.overlap))..start]].concat()
                }
            };
            let chunk = start..document.end.min(start + chunk);
            Fed { tokens: [&asks, close, &tokens[chunk.clone()]].concat(), chunk }
        };
        Ok(document.clone().step_by(chunk.max(1)).map(of_chunk).collect())
    }
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
