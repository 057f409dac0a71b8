//! Attention of a decode step works in memory that is there already.

use cokv_core::HeadLayout;
use cokv_models::cache::{CacheType, RaggedCache};
use cokv_models::kernel::attention::{Attention, Row, attend_into};

#[test]
fn a_step_of_decoding_allocates_nothing() {
    let layout = HeadLayout::new(1, 6, 2, 64).unwrap();
    let numbers = |count: usize| (0..count).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect::<Vec<f32>>();
    let seen = |tokens: usize| {
        let mut cache = RaggedCache::with_capacity(layout, CacheType::F16, tokens);
        cache.append(0, &numbers(tokens * 128), &numbers(tokens * 128));
        cache.advance(tokens);
        cache
    };
    // One long enough for several pieces of work, one short.
    let caches = [seen(3000), seen(7)];
    let queries = numbers(6 * 64);
    let rows: Vec<Row<'_>> = caches.iter().map(|cache| Row { queries: &queries, cache }).collect();
    let mut attention = Attention::default();
    attend_into(layout, 0, &rows, &mut attention);
    let first = attention.output.clone();
    let counted = allocation_counter::measure(|| attend_into(layout, 0, &rows, &mut attention));
    assert_eq!(counted.count_total, 0);
    assert_eq!(attention.output, first);
    assert!(allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 10]))).count_total > 0, "it counts");
}
