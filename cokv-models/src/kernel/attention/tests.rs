use std::sync::Arc;

use cokv_core::{Coalition, HeadSelection, Selection};
use proptest::prelude::*;

use super::*;
use crate::cache::{CacheType, HeadRows};

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    (0..count as u64).map(|i| ((i * 48_271 + seed * 7919) % 4001) as f32 / 2000.5 - 1.0).collect()
}

/// A cache of one layer that has seen `tokens` tokens.
fn seen(layout: HeadLayout, cache_type: CacheType, tokens: usize) -> RaggedCache {
    let width = layout.kv_heads * layout.head_dim;
    let mut cache = RaggedCache::with_capacity(layout, cache_type, tokens);
    cache.append(0, &numbers(tokens * width, 1), &numbers(tokens * width, 2));
    cache.advance(tokens);
    cache
}

/// Softmax attention of one query in f64, over the tokens of the head that it may see.
fn reference(layout: HeadLayout, row: &Row<'_>, query: usize, head: usize) -> Vec<f64> {
    let dim = layout.head_dim;
    let view = row.cache.view(0, head / layout.group());
    let visible = view.shared_len + view.own.len() - row.queries.len() / (layout.query_heads * dim) + query + 1;
    let (mut key_scratch, mut value_scratch) = (Vec::new(), Vec::new());
    let keys = view.load(HeadRows::keys, 0..visible, dim, &mut key_scratch);
    let values = view.load(HeadRows::values, 0..visible, dim, &mut value_scratch);
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
        cache_type in prop::sample::select(vec![CacheType::F32, CacheType::F16, CacheType::Bf16]),
    ) {
        let layout = HeadLayout::new(1, kv_heads * group, kv_heads, head_dim).unwrap();
        let cache = seen(layout, cache_type, before + tokens);
        let queries = numbers(tokens * layout.query_heads * head_dim, 3);
        check(layout, &[Row { queries: &queries, cache: &cache }]);
    }

    #[test]
    fn rows_of_a_batch_have_their_own_ragged_caches(kept in proptest::collection::vec(0usize..90, 6), tokens in 1usize..4) {
        let layout = HeadLayout::new(1, 4, 2, 16).unwrap();
        let prompt = Arc::new(seen(layout, CacheType::F16, 90).into_prompt());
        let mut caches: Vec<RaggedCache> = kept.chunks_exact(2).map(|kept| {
            let heads = kept.iter().map(|&kept| match kept {
                89 => HeadSelection::Everything,
                kept => HeadSelection::Tokens((0..kept as u32).collect()),
            });
            RaggedCache::compressed(&prompt, &Selection { heads: heads.collect() })
        }).collect();
        for cache in &mut caches {
            cache.append(0, &numbers(tokens * 32, 5), &numbers(tokens * 32, 6));
        }
        let queries = numbers(tokens * 64, 7);
        let rows: Vec<Row<'_>> = caches.iter().map(|cache| Row { queries: &queries, cache }).collect();
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
        cache_type in prop::sample::select(vec![CacheType::F32, CacheType::F16]),
    ) {
        let layout = HeadLayout::new(1, 6, 2, 16).unwrap();
        let prompt = Arc::new(seen(layout, cache_type, length).into_prompt());
        let mut caches: Vec<RaggedCache> = members
            .iter()
            .map(|bits| Coalition::from_members(2, (0..2).filter(|head| bits >> head & 1 == 1)))
            .map(|coalition| RaggedCache::masked(&prompt, &coalition, 8))
            .collect();
        for (row, cache) in caches.iter_mut().enumerate() {
            // Rows of different lengths, each with tokens of its own.
            cache.append(0, &numbers((tokens + row) * 32, 5 + row as u64), &numbers((tokens + row) * 32, 6));
        }
        let queries: Vec<Vec<f32>> =
            (0..caches.len()).map(|row| numbers((tokens + row) * 96, 7 + row as u64)).collect();
        let rows: Vec<Row<'_>> = caches.iter().zip(&queries).map(|(cache, queries)| Row { queries, cache }).collect();
        check(layout, &rows);
    }
}

#[test]
fn sharing_the_prompt_and_copying_it_give_the_same_bits() {
    let layout = HeadLayout::new(1, 6, 2, 64).unwrap();
    for (cache_type, tokens) in [(CacheType::F32, 1), (CacheType::F16, 1), (CacheType::F16, 40)] {
        let prompt = Arc::new(seen(layout, cache_type, 777).into_prompt());
        let everything: Vec<u32> = (0..777).collect();
        let copied = Selection { heads: vec![HeadSelection::Tokens(everything); 2] };
        let mut caches = [RaggedCache::full(&prompt), RaggedCache::compressed(&prompt, &copied)];
        let queries = numbers(tokens * 6 * 64, 7);
        let [shared, copied] = caches.each_mut().map(|cache| {
            cache.append(0, &numbers(tokens * 128, 5), &numbers(tokens * 128, 6));
            attend(layout, 0, &[Row { queries: &queries, cache }]).output
        });
        assert_eq!(shared, copied);
    }
}

#[test]
fn column_sums_and_window_attention_are_the_softmax_rows() {
    let layout = HeadLayout::new(1, 6, 2, 16).unwrap();
    let tokens = 300;
    let cache = seen(layout, CacheType::F32, tokens);
    let queries = numbers(tokens * 96, 3);
    let row = Row { queries: &queries, cache: &cache };
    let attention = attend(layout, 0, std::slice::from_ref(&row));
    let sums = column_sums(layout, 0, &row, &attention.log_sum_exp);
    // A window as long as the prompt holds every row.
    let rows = window_attention(layout, 0, &queries, &cache);
    for head in 0..6 {
        for key in 0..tokens {
            let exact: f64 = (0..tokens).map(|q| f64::from(rows[(head * tokens + q) * tokens + key])).sum();
            assert!((f64::from(sums[head * tokens + key]) - exact).abs() < 1e-4 * exact.max(1.0));
        }
        let total: f32 = sums[head * tokens..(head + 1) * tokens].iter().sum();
        assert!((total - tokens as f32).abs() < 0.01);
    }
}
