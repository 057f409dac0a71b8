//! The CoKV authors' files through our import and our allocator give the authors' budgets.

use cokv_bench::scores::published::import_cokv;
use cokv_core::{AllocationRequest, ConfigTable, Protected, TokenScores};
use serde_json::Value;

const WINDOW: usize = 8;

#[test]
fn the_paper_allocation_reproduces_the_expected_plans() {
    let Some(folder) = cokv_golden::find("scores/cokv") else { return };
    let plans: Value = serde_json::from_str(include_str!("data/cokv-scores/expected_plans.json")).unwrap();
    let registry = cokv_policies::registry();
    let mut table =
        ConfigTable::parse("test", "allocator = { name = 'cokv', drop_lowest = 20, rounding = 'paper', cap = false }")
            .unwrap();
    let allocator = registry.allocator(&table.take_choice("allocator").unwrap().unwrap()).unwrap();
    let (mut checked, mut differing) = (0, 0);
    for (task, bases) in plans["llama3-8b"].as_object().unwrap() {
        let file = import_cokv(&folder.join("llama3-8b"), task, None).unwrap().file;
        let layout = file.model.layout().unwrap();
        let scores = file.head_scores(&file.model).unwrap();
        // Longer than any head's budget: the authors do not cap.
        let prompt_len = 20_000;
        let token_scores = TokenScores::with_capacity(layout, prompt_len);
        for (base, expected) in bases.as_object().unwrap() {
            let request = AllocationRequest {
                layout,
                prompt_len,
                total: base.parse::<usize>().unwrap() * layout.heads(),
                protected: Protected { sinks: 0, window: WINDOW },
                token_scores: &token_scores,
                head_scores: Some(&scores),
            };
            let plan = allocator.allocate(&request).unwrap();
            let expected: Vec<u64> = serde_json::from_value(expected.clone()).unwrap();
            for (ours, theirs) in plan.kept().iter().zip(expected) {
                let distance = (*ours as i64 - WINDOW as i64 - theirs as i64).abs();
                assert!(distance <= 1, "{task} at {base}: {ours} and {theirs}");
                differing += distance;
            }
            checked += 1;
        }
    }
    println!("{checked} plans, {differing} tokens differ");
    assert!(checked >= 30);
}
