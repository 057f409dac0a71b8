//! The promises that every policy keeps.

use cokv_core::testing::{AllocatorContract, CompressorContract, MadeUpPrompt};
use cokv_core::{CacheCompressor, ConfigTable, HeadLayout, LayerView, PolicyError, WindowSum};
use custom_policy::{LateLayers, Separators, Vatp};

#[test]
fn the_allocator_keeps_the_contract() {
    for weight in [0.0, 1.0, 2.5] {
        AllocatorContract::new(&LateLayers { weight }).check().unwrap();
    }
}

#[test]
fn the_compressors_keep_the_contract() {
    for window in [1, 8, 40] {
        CompressorContract::new(&Vatp { window }).check().unwrap();
    }
    CompressorContract::new(&Separators { ids: vec![3, 7], sinks: 2 }).check().unwrap();
}

#[test]
fn separators_come_before_all_others() {
    let prompt = MadeUpPrompt::new(HeadLayout::new(1, 1, 1, 4).unwrap(), 10);
    let scores = Separators { ids: vec![2, 6], sinks: 0 }.score(&prompt.view()).unwrap();
    let mut best_first: Vec<usize> = (0..10).collect();
    best_first.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    assert_eq!(best_first[..4], [6, 2, 9, 8]);
}

#[test]
fn attention_counts_as_much_as_the_value_it_reads() {
    let registry = custom_policy::registry();
    let table = ConfigTable::parse("test", "compressor = { name = 'vatp', window = 1 }").unwrap();
    let method = registry.method(table).unwrap();
    let sums = [(WindowSum { rows: 1, tail: 0 }, vec![0.5, 0.3, 0.2])];
    let mut view = LayerView {
        window_sums: &sums,
        values: Some(&[1.0, -1.0, 0.0, 4.0, 2.0, 2.0]),
        ..LayerView::new(0, HeadLayout::new(1, 1, 1, 2).unwrap(), &[5, 6, 7])
    };
    assert_eq!(method.score(&view).unwrap(), [1.0, 0.3 * 4.0, 0.8]);
    view.values = None;
    assert!(matches!(method.score(&view), Err(PolicyError::MissingObservation { what: "values", .. })));
}
