//! Attention of a decode step works in memory that is there already.

use cokv_core::{Format, HeadLayout};
use cokv_models::backend::host::HostStore;
use cokv_models::kernel::attention::{Attention, Row, attend_into};

#[test]
fn a_step_of_decoding_allocates_nothing() {
    let layout = HeadLayout::new(1, 6, 2, 64).unwrap();
    let numbers = |count: usize| (0..count).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect::<Vec<f32>>();
    let seen = |tokens: usize| {
        let mut store = HostStore::with_capacity(layout, Format::F16, tokens);
        store.push(0, &numbers(tokens * 128), &numbers(tokens * 128));
        store
    };
    // One long enough for several pieces of work, one short.
    let stores = [seen(3000), seen(7)];
    let queries = numbers(6 * 64);
    let rows: Vec<Row<'_>> =
        stores.iter().map(|store| Row { queries: &queries, cache: store.view(), hidden: &[] }).collect();
    let mut attention = Attention::default();
    attend_into(layout, 0, &rows, &mut attention);
    let first = attention.output.clone();
    let counted = allocation_counter::measure(|| attend_into(layout, 0, &rows, &mut attention));
    assert_eq!(counted.count_total, 0);
    assert_eq!(attention.output, first);
    assert!(allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 10]))).count_total > 0, "it counts");
}
