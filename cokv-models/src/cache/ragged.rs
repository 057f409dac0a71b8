//! Caches in which every KV head has its own length.

use std::ops::Range;
use std::sync::Arc;

use cokv_core::{Coalition, HeadLayout, HeadSelection, Selection};

use super::rows::{CacheType, HeadRows};
use crate::kernel::memory;

/// Keys and values of a whole prompt, in every KV head: computed once, shared by all methods, budgets and coalitions.
#[derive(Debug)]
pub struct PromptCache {
    layout: HeadLayout,
    cache_type: CacheType,
    len: usize,
    heads: Vec<HeadRows>,
}

impl PromptCache {
    /// Heads of the model.
    pub fn layout(&self) -> HeadLayout {
        self.layout
    }

    /// How elements are stored.
    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// Prompt tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the prompt is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keys and values of one KV head; keys carry RoPE at their positions.
    pub fn head(&self, layer: usize, kv_head: usize) -> &HeadRows {
        &self.heads[self.layout.flat(layer, kv_head)]
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.heads.iter().map(HeadRows::allocated_bytes).sum()
    }
}

/// Bytes from which on it is worth the time to give a prompt's memory back to the system.
const LARGE: usize = 8 << 20;

impl Drop for PromptCache {
    fn drop(&mut self) {
        let large = self.bytes() >= LARGE;
        self.heads = Vec::new();
        if large {
            memory::give_back();
        }
    }
}

/// A KV cache of one sequence. Each KV head holds a slice of the shared prompt (all of it, its last tokens, or nothing)
/// followed by rows of its own: kept prompt tokens after compression, then every token since.
///
/// The next position is the number of tokens seen, not the number kept: keys keep the RoPE of their original positions.
#[derive(Clone, Debug)]
pub struct RaggedCache {
    layout: HeadLayout,
    cache_type: CacheType,
    prompt: Option<Arc<PromptCache>>,
    heads: Vec<HeadCache>,
    next_position: usize,
}

#[derive(Clone, Debug)]
struct HeadCache {
    shared: Range<usize>,
    own: HeadRows,
}

impl HeadCache {
    fn len(&self) -> usize {
        self.shared.len() + self.own.len()
    }
}

/// One KV head of a cache as the attention kernel reads it: rows of the shared prompt, then rows of its own.
#[derive(Clone, Copy)]
pub(crate) struct HeadView<'a> {
    pub prompt: Option<&'a HeadRows>,
    pub shared_start: usize,
    pub shared_len: usize,
    pub own: &'a HeadRows,
}

impl RaggedCache {
    /// A cache that has seen nothing, with room for `tokens` in every head.
    pub fn with_capacity(layout: HeadLayout, cache_type: CacheType, tokens: usize) -> Self {
        let own = || HeadRows::with_capacity(layout.head_dim, cache_type, tokens);
        let heads = (0..layout.heads()).map(|_| HeadCache { shared: 0..0, own: own() }).collect();
        Self { layout, cache_type, prompt: None, heads, next_position: 0 }
    }

    /// What a selection keeps of a prompt. Heads that keep everything share the prompt's memory; all others copy their
    /// tokens into buffers of exactly that size. When no head shares it, the prompt's memory is free to go.
    pub fn compressed(prompt: &Arc<PromptCache>, selection: &Selection) -> Self {
        let (layout, cache_type) = (prompt.layout, prompt.cache_type);
        let heads: Vec<HeadCache> = selection
            .heads
            .iter()
            .zip(&prompt.heads)
            .map(|(kept, rows)| match kept {
                HeadSelection::Everything => {
                    HeadCache { shared: 0..prompt.len, own: HeadRows::with_capacity(layout.head_dim, cache_type, 0) }
                }
                HeadSelection::Tokens(tokens) => HeadCache { shared: 0..0, own: rows.gather(tokens) },
            })
            .collect();
        let shares = heads.iter().any(|head| !head.shared.is_empty());
        Self { layout, cache_type, prompt: shares.then(|| Arc::clone(prompt)), heads, next_position: prompt.len }
    }

    /// The whole prompt in every head.
    pub fn full(prompt: &Arc<PromptCache>) -> Self {
        Self::compressed(prompt, &Selection::everything(prompt.layout.heads()))
    }

    /// What a coalition sees of a prompt: its members all of it, every other head the last `window` tokens. Nothing is
    /// copied.
    pub fn masked(prompt: &Arc<PromptCache>, coalition: &Coalition, window: usize) -> Self {
        let own = || HeadRows::with_capacity(prompt.layout.head_dim, prompt.cache_type, 0);
        let start = |head| if coalition.contains(head) { 0 } else { prompt.len.saturating_sub(window) };
        let heads = (0..prompt.layout.heads()).map(|head| HeadCache { shared: start(head)..prompt.len, own: own() });
        Self {
            layout: prompt.layout,
            cache_type: prompt.cache_type,
            prompt: Some(Arc::clone(prompt)),
            heads: heads.collect(),
            next_position: prompt.len,
        }
    }

    /// Freezes the cache of a prefill, so that many caches can share it.
    pub(crate) fn into_prompt(self) -> PromptCache {
        PromptCache {
            layout: self.layout,
            cache_type: self.cache_type,
            len: self.next_position,
            heads: self.heads.into_iter().map(|head| head.own).collect(),
        }
    }

    /// Heads of the model.
    pub fn layout(&self) -> HeadLayout {
        self.layout
    }

    /// Tokens that one KV head holds.
    pub fn len(&self, layer: usize, kv_head: usize) -> usize {
        self.heads[self.layout.flat(layer, kv_head)].len()
    }

    /// Tokens that all heads hold together.
    pub fn total_tokens(&self) -> usize {
        self.heads.iter().map(HeadCache::len).sum()
    }

    /// Position of the next token: the number of tokens seen so far, kept or not.
    pub fn next_position(&self) -> usize {
        self.next_position
    }

    /// Bytes of the keys and values held: of the shared slices and of the head's own rows.
    pub fn bytes(&self) -> usize {
        self.total_tokens() * self.layout.bytes_per_token(self.cache_type.bytes())
    }

    /// Bytes that this cache makes the machine hold: its slices of the shared prompt and its own buffers, room for
    /// tokens to come included.
    pub fn allocated_bytes(&self) -> usize {
        let per_token = self.layout.bytes_per_token(self.cache_type.bytes());
        self.heads.iter().map(|head| head.shared.len() * per_token + head.own.allocated_bytes()).sum()
    }

    /// Makes room for tokens to come, so that appending does not move what is there.
    pub fn reserve(&mut self, tokens: usize) {
        self.heads.iter_mut().for_each(|head| head.own.reserve(tokens));
    }

    /// Appends one layer's keys and values of new tokens, `[tokens, kv_heads, head_dim]` each.
    pub fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let HeadLayout { kv_heads, head_dim, .. } = self.layout;
        let heads = &mut self.heads[layer * kv_heads..(layer + 1) * kv_heads];
        for (kv_head, head) in heads.iter_mut().enumerate() {
            let keys = keys.chunks_exact(head_dim).skip(kv_head).step_by(kv_heads);
            let values = values.chunks_exact(head_dim).skip(kv_head).step_by(kv_heads);
            keys.zip(values).for_each(|(key, value)| head.own.push(key, value));
        }
    }

    /// Counts tokens that all layers have appended.
    pub fn advance(&mut self, tokens: usize) {
        self.next_position += tokens;
    }

    /// Forgets the last `tokens` tokens seen. Only tokens since the prompt can be forgotten; more than those is a bug of
    /// the caller and panics.
    pub fn rewind(&mut self, tokens: usize) {
        for head in &mut self.heads {
            assert!(tokens <= head.own.len(), "only tokens since the prompt can be forgotten");
            head.own.truncate(head.own.len() - tokens);
        }
        self.next_position -= tokens;
    }

    pub(crate) fn view(&self, layer: usize, kv_head: usize) -> HeadView<'_> {
        let flat = self.layout.flat(layer, kv_head);
        let head = &self.heads[flat];
        HeadView {
            prompt: self.prompt.as_ref().map(|prompt| &prompt.heads[flat]),
            shared_start: head.shared.start,
            shared_len: head.shared.len(),
            own: &head.own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(tokens: usize) -> Arc<PromptCache> {
        let layout = HeadLayout::new(2, 4, 2, 3).unwrap();
        let mut cache = RaggedCache::with_capacity(layout, CacheType::F16, tokens);
        for layer in 0..layout.layers {
            let numbers: Vec<f32> = (0..tokens * 6).map(|i| i as f32).collect();
            cache.append(layer, &numbers, &numbers);
        }
        cache.advance(tokens);
        Arc::new(cache.into_prompt())
    }

    #[test]
    fn bytes_are_the_buffers() {
        let prompt = prompt(10);
        assert_eq!(prompt.bytes(), 4 * 10 * 2 * 3 * 2);
        let full = RaggedCache::full(&prompt);
        assert_eq!((full.bytes(), full.allocated_bytes()), (prompt.bytes(), prompt.bytes()));

        let tokens = |tokens: &[u32]| HeadSelection::Tokens(tokens.to_vec());
        let heads = vec![tokens(&[1, 9]), HeadSelection::Everything, tokens(&[]), tokens(&[0, 3, 4])];
        let ragged = RaggedCache::compressed(&prompt, &Selection { heads });
        assert_eq!([ragged.len(0, 0), ragged.len(0, 1), ragged.len(1, 0), ragged.len(1, 1)], [2, 10, 0, 3]);
        assert_eq!((ragged.bytes(), ragged.allocated_bytes()), (15 * 12, 15 * 12));
        assert_eq!(ragged.next_position(), 10);
    }

    #[test]
    fn a_prompt_that_no_head_shares_is_let_go() {
        let prompt = prompt(4);
        let heads = vec![HeadSelection::Tokens(vec![3]); 4];
        let small = RaggedCache::compressed(&prompt, &Selection { heads });
        assert_eq!(Arc::strong_count(&prompt), 1);
        drop(prompt);
        assert_eq!(small.bytes(), 4 * 12);
    }

    #[test]
    fn appended_tokens_can_be_rewound() {
        let prompt = prompt(4);
        let mut cache = RaggedCache::full(&prompt);
        cache.reserve(5);
        for layer in 0..2 {
            cache.append(layer, &[1.0; 12], &[2.0; 12]);
        }
        cache.advance(2);
        assert_eq!((cache.len(1, 1), cache.next_position()), (6, 6));
        assert_eq!(cache.allocated_bytes(), prompt.bytes() + 4 * 5 * 12);
        cache.rewind(2);
        assert_eq!((cache.len(0, 0), cache.next_position(), cache.bytes()), (4, 4, prompt.bytes()));
    }
}
