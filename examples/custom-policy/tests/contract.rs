//! The promises that every policy keeps.

use cokv_core::testing::AllocatorContract;
use cokv_core::{ConfigTable, HeadLayout, LayerView, PolicyError};
use custom_policy::LateLayers;

#[test]
fn the_allocator_keeps_the_contract() {
    for weight in [0.0, 1.0, 2.5] {
        AllocatorContract::new(&LateLayers { weight }).check().unwrap();
    }
}

#[test]
fn attention_counts_as_much_as_the_value_it_reads() {
    let registry = custom_policy::registry();
    let table = ConfigTable::parse("test", "compressor = { name = 'vatp', window = 1 }").unwrap();
    let method = registry.method(table).unwrap();
    let attention = [0.5, 0.3, 0.2];
    let mut view = LayerView {
        layer: 0,
        layout: HeadLayout::new(1, 1, 1, 2).unwrap(),
        prompt_len: 3,
        window: 1,
        window_attention: &attention,
        column_sums: None,
        query_statistics: None,
        keys: None,
        values: Some(&[1.0, -1.0, 0.0, 4.0, 2.0, 2.0]),
        value_output_norms: None,
        rotary: None,
    };
    assert_eq!(method.score(&view).unwrap(), [1.0, 0.3 * 4.0, 0.8]);
    view.values = None;
    assert!(matches!(method.score(&view), Err(PolicyError::MissingObservation { what: "values", .. })));
}
