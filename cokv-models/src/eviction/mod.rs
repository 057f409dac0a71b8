//! Eviction while a model answers: what a cache holds is looked at again every so many tokens. See [`WhileDecoding`](cokv_core::WhileDecoding).

mod held;
mod rest;

use std::sync::Arc;

use cokv_core::{
    Budget, HeadLayout, HeadSelection, LayerView, Method, ObservationRequest, Pairs, Protected, Selection,
};

use self::held::{HeldHead, Queries};
pub use self::rest::compress_at_rest;
use crate::backend::Watch;
use crate::cache::RaggedCache;
use crate::engine::Engine;
use crate::error::ModelError;
use crate::kernel::pool;

/// What keeps the cache of one answer small. Whoever decodes gives [`watch`](Self::watch) to the row of each pass and then calls
/// [`after`](Self::after).
pub struct Eviction {
    engine: Arc<dyn Engine>,
    /// Looks again at what is held.
    method: Method,
    /// What its compressor looks at.
    request: ObservationRequest,
    budget: Budget,
    every: usize,
    watch: Box<dyn Watch>,
    /// Answer tokens that were watched, and those since the last look.
    watched: usize,
    since: usize,
    /// Attention that the tokens of each head got until the last look, `[group, held]`; none where nobody sums it up.
    sums: Option<Vec<Vec<f32>>>,
    /// Tokens that all heads together held at most, before a look.
    most_held: usize,
}

impl Eviction {
    /// What a method does while the model answers a prompt, of which a selection was kept; none where it does nothing. `sums` reads the
    /// attention that the prompt's tokens got in a layer, `[query_heads, prompt_len]`.
    ///
    /// # Errors
    /// Of the backend, where attention to the prompt is read.
    pub fn new(
        engine: &Arc<dyn Engine>,
        method: &Method,
        budget: Budget,
        selection: &Selection,
        sums: impl FnMut(usize) -> Result<Vec<f32>, ModelError>,
    ) -> Result<Option<Self>, ModelError> {
        let (Some(again), Some(while_decoding)) = (method.again(), method.while_decoding()) else {
            return Ok(None);
        };
        let summed = again.observations(Default::default()).column_sums;
        let sums = summed.then(|| sums_of_prompt(engine.config().layout, selection, sums)).transpose()?;
        Ok(Some(Self::from(engine, again, budget, while_decoding.every, sums)))
    }

    fn from(
        engine: &Arc<dyn Engine>,
        method: Method,
        budget: Budget,
        every: usize,
        sums: Option<Vec<Vec<f32>>>,
    ) -> Self {
        let request = method.observations(Default::default());
        let watch = engine.watch_queries(queries(&request, every));
        let engine = Arc::clone(engine);
        Self { engine, method, request, budget, every, watch, watched: 0, since: 0, sums, most_held: 0 }
    }

    /// The same for another cache that is to be answered from. It must not have watched anything yet.
    pub fn anew(&self) -> Self {
        Self::from(&self.engine, self.method.clone(), self.budget, self.every, self.sums.clone())
    }

    /// What records the row of the next pass.
    pub fn watch(&mut self) -> &mut dyn Watch {
        self.watch.as_mut()
    }

    /// Answer tokens until the cache is looked at next: they may be fed in one pass.
    pub fn until_next(&self) -> usize {
        // The first look waits until there are as many queries as the compressor looks at.
        let missing = self.request.last_queries().saturating_sub(self.watched);
        (self.every - self.since.min(self.every)).max(missing).max(1)
    }

    /// Tokens that a head grows by at most.
    pub fn most_growth(&self) -> usize {
        self.every.max(self.request.last_queries())
    }

    /// Tokens that all heads of a cache may hold together after a look, once the sequence has so many.
    pub fn allowed(&self, cache: &RaggedCache, seen: usize) -> usize {
        self.method.allowed(self.budget, cache.layout(), seen, cache.format())
    }

    /// Tokens that all heads together held at most so far.
    pub fn most_held(&self) -> usize {
        self.most_held
    }

    /// Counts tokens that were fed with the watch, and evicts if it is time. Says whether it did.
    ///
    /// # Errors
    /// Of the method, and where the backend has no memory for what is kept.
    pub fn after(&mut self, cache: &mut RaggedCache, tokens: usize) -> Result<bool, ModelError> {
        let due = tokens >= self.until_next();
        self.watched += tokens;
        self.since += tokens;
        self.most_held = self.most_held.max(cache.total_tokens());
        if due {
            self.evict(cache)?;
        }
        Ok(due)
    }

    fn evict(&mut self, cache: &mut RaggedCache) -> Result<(), ModelError> {
        let (layout, method) = (cache.layout(), &self.method);
        let seen = cache.next_position();
        let allowed = self.allowed(cache, seen);
        let of_layers: Vec<Queries> =
            (0..layout.layers).map(|layer| self.queries(layer, seen)).collect::<Result<_, _>>()?;
        let rotary = self.engine.rotary(seen);
        let look = |cache: &RaggedCache, head: usize| {
            let layer = layout.place(head).0;
            let sums = self.sums.as_ref().map(|sums| (sums[head].as_slice(), self.since));
            let window = self.engine.config().window(layer);
            HeldHead::look(cache, head, &of_layers[layer], &self.request, sums, window, &rotary)
        };
        let (selection, sums) = keep_best(cache, method, allowed, Protected::default(), look)?;
        self.sums = self.sums.is_some().then(|| sums_kept(layout, &sums, &selection));
        self.since = 0;
        cache.reserve(self.until_next())
    }

    /// The last queries of a layer, whose youngest stands before position `seen`.
    fn queries(&self, layer: usize, seen: usize) -> Result<Queries, ModelError> {
        let layout = self.engine.config().layout;
        let queries = self.engine.last_queries(self.watch.as_ref(), layer)?;
        let count = queries.len() / (layout.query_heads * layout.head_dim);
        Ok(Queries { of_layer: queries, first_position: seen - count, count })
    }
}

/// Keeps the best of what each head of a cache holds, `total` tokens of all heads together, apart from all segments. `look` sees a head of
/// it, counted flat. Returns what was chosen, and the attention that the tokens of each head got until then, where it is summed up.
fn keep_best<'a>(
    cache: &mut RaggedCache,
    method: &Method,
    total: usize,
    besides: Protected,
    look: impl Fn(&RaggedCache, usize) -> Result<HeldHead<'a>, ModelError> + Sync,
) -> Result<(Selection, Vec<Vec<f32>>), ModelError> {
    let layout = cache.layout();
    let kept = method.follows_budget().then(|| total / layout.heads());
    let held: &RaggedCache = cache;
    let looked = pool::map(layout.heads(), |head| -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        let mut held = look(held, head)?;
        let scores = method.score(&LayerView { kept, ..held.view() })?;
        Ok((scores, held.take_column_sums()))
    });
    let looked = looked.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (scores, sums): (Vec<_>, Vec<_>) = looked.into_iter().unzip();
    let selection = method.select_held(layout, &scores, total, besides)?;
    if !method.rewrites() {
        cache.keep(&selection)?;
        return Ok((selection, sums));
    }
    let rewritten = pool::map(layout.heads(), |head| match &selection.heads[head] {
        HeadSelection::Everything => held.read(head),
        kept => Ok(rewrite(method, &look(held, head)?.view(), kept)?),
    });
    let pairs = rewritten.into_iter().collect::<Result<Vec<_>, _>>()?;
    cache.keep_rewritten(&selection, &pairs)?;
    Ok((selection, sums))
}

/// Queries of an answer that are recorded, for a compressor that asks for this. What is summed up, and statistics, are of all tokens
/// since the last look.
fn queries(request: &ObservationRequest, every: usize) -> usize {
    let all = request.column_sums || request.query_statistics;
    request.last_queries().max(if all { every } else { 0 }).max(1)
}

/// The pairs of one head.
fn rewrite(method: &Method, view: &LayerView<'_>, kept: &HeadSelection) -> Result<Pairs, ModelError> {
    Ok(method.rewrite(view, std::slice::from_ref(kept))?.pop().unwrap_or_default())
}

/// Attention that each kept token of a prompt got, `[group, kept]` of each head.
fn sums_of_prompt(
    layout: HeadLayout,
    selection: &Selection,
    mut of_layer: impl FnMut(usize) -> Result<Vec<f32>, ModelError>,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let mut of_heads = Vec::with_capacity(selection.heads.len());
    for layer in 0..layout.layers {
        let sums = of_layer(layer)?;
        of_heads.extend(sums.chunks_exact((sums.len() / layout.kv_heads).max(1)).map(<[f32]>::to_vec));
    }
    Ok(sums_kept(layout, &of_heads, selection))
}

/// Of sums `[group, tokens]` of each head those of the tokens that are kept.
fn sums_kept(layout: HeadLayout, sums: &[Vec<f32>], selection: &Selection) -> Vec<Vec<f32>> {
    let of_head = |(sums, kept): (&Vec<f32>, &HeadSelection)| -> Vec<f32> {
        let tokens = sums.len() / layout.group();
        let kept = kept.positions(tokens);
        let members = sums.chunks_exact(tokens.max(1));
        members.flat_map(|sums| kept.iter().map(|&token| sums[token])).collect()
    };
    sums.iter().zip(&selection.heads).map(of_head).collect()
}
