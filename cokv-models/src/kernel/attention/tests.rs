use std::sync::Arc;

use cokv_core::{Coalition, Format, HeadSelection, Selection};
use proptest::prelude::*;

use super::*;
use crate::backend::Cpu;
use crate::backend::Span;
use crate::backend::host::HostStore;
use crate::cache::RaggedCache;
use crate::kernel::rows::HeadRows;

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    (0..count as u64).map(|i| ((i * 48_271 + seed * 7919) % 4001) as f32 / 2000.5 - 1.0).collect()
}

/// A cache of one layer that has seen `tokens` tokens.
fn seen(layout: HeadLayout, format: Format, tokens: usize) -> RaggedCache {
    let mut cache = RaggedCache::new(layout, format, Box::new(HostStore::new(layout, format)));
    append(&mut cache, tokens, 1);
    cache
}

fn prompt(layout: HeadLayout, format: Format, tokens: usize) -> Arc<crate::cache::Segment> {
    seen(layout, format, tokens).into_segment().unwrap().unwrap()
}

fn append(cache: &mut RaggedCache, tokens: usize, seed: u64) {
    let width = cache.layout().kv_heads * cache.layout().head_dim;
    span(cache).own.push(0, &numbers(tokens * width, seed), &numbers(tokens * width, seed + 1));
    cache.advance(tokens);
}

fn span(cache: &mut RaggedCache) -> Span<'_, Cpu> {
    Span::of(0, cache, &mut []).unwrap()
}

/// Softmax attention of one query in f64, over the tokens of the head that it may see.
fn reference(layout: HeadLayout, row: &Row<'_>, query: usize, head: usize) -> Vec<f64> {
    let dim = layout.head_dim;
    let view = row.cache.head(0, head / layout.group());
    let tokens = row.queries.len() / (layout.query_heads * dim);
    let hidden = row.hidden.get(head / layout.group() * tokens + query).copied().unwrap_or(0);
    let visible = hidden..view.tokens() - tokens + query + 1;
    let (mut key_scratch, mut value_scratch) = (Vec::new(), Vec::new());
    let keys = view.load(HeadRows::keys, visible.clone(), dim, &mut key_scratch);
    let values = view.load(HeadRows::values, visible, dim, &mut value_scratch);
    let q = &row.queries[(query * layout.query_heads + head) * dim..][..dim];
    let dot = |key: &[f32]| q.iter().zip(key).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let weights: Vec<f64> = keys.chunks_exact(dim).map(|key| (dot(key) / (dim as f64).sqrt()).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..dim).map(|c| values.chunks_exact(dim).zip(&weights).map(|(v, w)| f64::from(v[c]) * w / sum).sum()).collect()
}

fn check(layout: HeadLayout, rows: &[Row<'_>]) {
    let attention = attend(layout, 0, rows);
    let mut at = 0;
    for row in rows {
        for query in 0..row.queries.len() / (layout.query_heads * layout.head_dim) {
            for head in 0..layout.query_heads {
                let ours = &attention.output[at..at + layout.head_dim];
                for (a, b) in ours.iter().zip(reference(layout, row, query, head)) {
                    assert!((f64::from(*a) - b).abs() < 2e-5, "query {query}, head {head}: {a} and {b}");
                }
                at += layout.head_dim;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn attention_equals_the_reference(
        kv_heads in 1usize..4,
        group in 1usize..9,
        head_dim in prop::sample::select(vec![7usize, 16, 64, 80, 96, 128, 256]),
        before in prop::sample::select(vec![0usize, 1, 63, 64, 65, 300, 1100]),
        tokens in prop::sample::select(vec![1usize, 2, 31, 33, 70]),
        format in prop::sample::select(vec![Format::F32, Format::F16, Format::Bf16]),
    ) {
        let layout = HeadLayout::new(1, kv_heads * group, kv_heads, head_dim).unwrap();
        let mut cache = seen(layout, format, before + tokens);
        let queries = numbers(tokens * layout.query_heads * head_dim, 3);
        check(layout, &[Row { queries: &queries, cache: span(&mut cache).view(kv_heads), hidden: &[] }]);
    }

    #[test]
    fn rows_of_a_batch_have_their_own_ragged_caches(kept in proptest::collection::vec(0usize..90, 6), tokens in 1usize..4) {
        let layout = HeadLayout::new(1, 4, 2, 16).unwrap();
        let prompt = prompt(layout, Format::F16, 90);
        let mut caches: Vec<RaggedCache> = kept.chunks_exact(2).map(|kept| {
            let heads = kept.iter().map(|&kept| match kept {
                89 => HeadSelection::Everything,
                kept => HeadSelection::Tokens((0..kept as u32).collect()),
            });
            RaggedCache::compressed(&prompt, &Selection { heads: heads.collect() }).unwrap()
        }).collect();
        // With frozen segments of their own, or without: the first holds one, the last two.
        caches[0].freeze().unwrap();
        append(&mut caches[2], 3, 9);
        caches[2].freeze().unwrap();
        for cache in &mut caches {
            append(cache, tokens, 5);
        }
        let queries = numbers(tokens * 64, 7);
        let spans: Vec<Span<'_, Cpu>> = caches.iter_mut().map(span).collect();
        let rows: Vec<Row<'_>> = spans.iter().map(|span| Row { queries: &queries, cache: span.view(2), hidden: &[] }).collect();
        check(layout, &rows);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn rows_that_share_a_slice_are_one_product(
        length in prop::sample::select(vec![255usize, 256, 300, 1100]),
        tokens in prop::sample::select(vec![1usize, 3, 20, 40]),
        members in proptest::collection::vec(0usize..4, 4..9),
        format in prop::sample::select(vec![Format::F32, Format::F16]),
    ) {
        let layout = HeadLayout::new(1, 6, 2, 16).unwrap();
        let prompt = prompt(layout, format, length);
        let masked: Vec<RaggedCache> = members
            .iter()
            .map(|bits| Coalition::from_members(2, (0..2).filter(|head| bits >> head & 1 == 1)))
            .map(|coalition| RaggedCache::masked(&prompt, &coalition, 8))
            .collect();
        // A compressed prompt that is frozen is shared as a whole one is.
        let heads = vec![HeadSelection::Everything, HeadSelection::Tokens((0..length as u32).step_by(2).collect())];
        let mut document = RaggedCache::compressed(&prompt, &Selection { heads }).unwrap();
        document.freeze().unwrap();
        let questions = members.iter().map(|_| document.fork().unwrap());
        let mut caches: Vec<RaggedCache> = masked.into_iter().chain(questions).collect();
        for (row, cache) in caches.iter_mut().enumerate() {
            // Rows of different lengths, each with tokens of its own.
            append(cache, tokens + row, 5 + row as u64);
        }
        let queries: Vec<Vec<f32>> =
            (0..caches.len()).map(|row| numbers((tokens + row) * 96, 7 + row as u64)).collect();
        let spans: Vec<Span<'_, Cpu>> = caches.iter_mut().map(span).collect();
        let rows = spans.iter().zip(&queries).map(|(span, queries)| Row { queries, cache: span.view(2), hidden: &[] });
        check(layout, &rows.collect::<Vec<_>>());
    }
}

#[test]
fn sharing_the_prompt_and_copying_it_give_the_same_bits() {
    let layout = HeadLayout::new(1, 6, 2, 64).unwrap();
    for (format, tokens) in [(Format::F32, 1), (Format::F16, 1), (Format::F16, 40)] {
        let prompt = prompt(layout, format, 777);
        let everything: Vec<u32> = (0..777).collect();
        let copied = Selection { heads: vec![HeadSelection::Tokens(everything); 2] };
        let half: Vec<u32> = (0..777).step_by(2).collect();
        let half = |freeze: bool| {
            let halves = Selection { heads: vec![HeadSelection::Tokens(half.clone()); 2] };
            let mut cache = RaggedCache::compressed(&prompt, &halves).unwrap();
            if freeze {
                cache.freeze().unwrap();
            }
            cache
        };
        let whole = [RaggedCache::full(&prompt), RaggedCache::compressed(&prompt, &copied).unwrap()];
        for mut caches in [whole, [half(true), half(false)]] {
            let queries = numbers(tokens * 6 * 64, 7);
            let [shared, copied] = caches.each_mut().map(|cache| {
                append(cache, tokens, 5);
                attend(layout, 0, &[Row { queries: &queries, cache: span(cache).view(2), hidden: &[] }]).output
            });
            assert_eq!(shared, copied);
        }
    }
}

/// What is hidden of a cache of so many tokens, the last of which are new, by a sliding window.
fn hidden(kv_heads: usize, all: usize, tokens: usize, window: usize) -> Vec<usize> {
    let of_head = || (all - tokens..all).map(|at| (at + 1).saturating_sub(window));
    (0..kv_heads).flat_map(|_| of_head()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn attention_of_a_window_equals_the_reference(
        before in prop::sample::select(vec![1usize, 63, 300, 1100]),
        tokens in prop::sample::select(vec![1usize, 2, 33, 70]),
        window in prop::sample::select(vec![1usize, 2, 31, 255, 256, 257, 700]),
        format in prop::sample::select(vec![Format::F32, Format::F16]),
        rows in 1usize..7,
    ) {
        let layout = HeadLayout::new(1, 6, 2, 16).unwrap();
        let queries = numbers(tokens * 96, 3);
        let hidden = hidden(2, before + tokens, tokens, window);
        // Few that are alone, or enough that what they share is one product.
        let prompt = prompt(layout, format, before);
        let mut caches: Vec<RaggedCache> = (0..rows).map(|_| RaggedCache::full(&prompt)).collect();
        caches.iter_mut().for_each(|cache| append(cache, tokens, 5));
        let spans: Vec<Span<'_, Cpu>> = caches.iter_mut().map(span).collect();
        let rows = spans.iter().map(|span| Row { queries: &queries, cache: span.view(2), hidden: &hidden });
        let rows: Vec<Row<'_>> = rows.collect();
        check(layout, &rows);
    }
}

#[test]
fn keys_before_the_window_are_not_read() {
    let layout = HeadLayout::new(1, 4, 2, 16).unwrap();
    for (all, tokens) in [(5000, 512), (5000, 1), (1024, 1024)] {
        let mut cache = seen(layout, Format::F16, all);
        let queries = numbers(tokens * 64, 3);
        let hidden = hidden(2, all, tokens, 300);
        let span = span(&mut cache);
        let mut work = Work::default();
        work.cut(layout, 0, &[Row { queries: &queries, cache: span.view(2), hidden: &hidden }]);
        assert!(!work.pieces.is_empty());
        for piece in &work.pieces {
            assert!(piece.keys.len() < 300 + QUERIES + KEYS, "{:?} of {all}", piece.keys);
            assert_eq!(piece.keys.start % KEYS, 0, "tiles are counted from the start of the cache");
        }
    }
}

#[test]
fn column_sums_and_window_attention_are_the_softmax_rows() {
    for window in [None, Some(1), Some(40), Some(290)] {
        check_summaries(window);
    }
}

fn check_summaries(window: Option<usize>) {
    let layout = HeadLayout::new(1, 6, 2, 16).unwrap();
    let tokens = 300;
    let mut cache = seen(layout, Format::F32, tokens);
    let queries = numbers(tokens * 96, 3);
    let span = span(&mut cache);
    let hidden = window.map_or(Vec::new(), |window| hidden(2, tokens, tokens, window));
    let row = Row { queries: &queries, cache: span.view(2), hidden: &hidden };
    let attention = attend(layout, 0, std::slice::from_ref(&row));
    let sums = column_sums(layout, 0, &row, &attention.log_sum_exp);
    // A window as long as the prompt holds every row.
    let rows = window_attention(layout, 0, &queries, (span.view(2), tokens), window);
    for head in 0..6 {
        for key in 0..tokens {
            let seen = |query: usize| key <= query && window.is_none_or(|window| query - key < window);
            assert!((0..tokens).all(|query| (rows[(head * tokens + query) * tokens + key] > 0.0) == seen(query)));
            let exact: f64 = (0..tokens).map(|q| f64::from(rows[(head * tokens + q) * tokens + key])).sum();
            assert!((f64::from(sums[head * tokens + key]) - exact).abs() < 1e-4 * exact.max(1.0));
        }
        let total: f32 = sums[head * tokens..(head + 1) * tokens].iter().sum();
        assert!((total - tokens as f32).abs() < 0.01);
    }
}
