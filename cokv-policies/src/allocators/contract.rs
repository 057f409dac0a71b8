//! What every registered allocator must keep (`cokv_core::testing`), in each of its forms, and what it must refuse.

use std::collections::BTreeSet;

use cokv_core::testing::AllocatorContract;
use cokv_core::{
    AllocationRequest, BudgetAllocator, BudgetPlan, ConfigTable, Gqa, HeadLayout, HeadScores, Named, PolicyError,
    Protected, Spending, TokenScores,
};

use super::{AdaKv, Normalise, Scope, ShapleyAda};
use crate::registry;
use crate::settings::{Rounding, Share};

/// An allocator as a TOML file writes it.
pub fn allocator(written: &str) -> Named<dyn BudgetAllocator> {
    try_allocator(written).unwrap()
}

fn try_allocator(written: &str) -> Result<Named<dyn BudgetAllocator>, cokv_core::ConfigError> {
    let text = format!("allocator = {{ {written} }}");
    let choice = ConfigTable::parse("test", &text).unwrap().take_choice("allocator")?.unwrap();
    registry().allocator(&choice)
}

/// A plan for one prompt whose token scores do not matter.
pub fn plan(
    allocator: &dyn BudgetAllocator,
    scores: &HeadScores,
    layout: HeadLayout,
    window: usize,
    base: usize,
    prompt_len: usize,
) -> Result<BudgetPlan, PolicyError> {
    allocator.allocate(&AllocationRequest {
        layout,
        prompt_len,
        total: base * layout.heads(),
        protected: Protected { sinks: 0, window },
        token_scores: &TokenScores::with_capacity(layout, 0),
        head_scores: Some(scores),
    })
}

#[test]
fn every_allocator_keeps_the_contract() {
    let forms = [
        ("'uniform'", "exactly"),
        ("'proportional'", "exactly"),
        ("'cokv', drop_lowest = 2, rounding = 'paper'", "at most"),
        ("'cokv', drop_lowest = 2, rounding = 'paper', cap = true", "at most"),
        ("'cokv', drop_lowest = 2", "exactly"),
        ("'cokv', drop_lowest = 0", "exactly"),
        ("'pyramidkv', rounding = 'paper'", "may exceed"),
        ("'pyramidkv', beta = 3", "exactly"),
        ("'ada-kv', rounding = 'paper'", "may exceed"),
        ("'ada-kv', rounding = 'paper', scope = 'model', normalise = 'top-mass'", "may exceed"),
        ("'ada-kv'", "exactly"),
        ("'ada-kv', scope = 'model', normalise = 'sum', floor = 0.7", "exactly"),
        ("'ada-pyramidkv', rounding = 'paper'", "may exceed"),
        ("'ada-pyramidkv', beta = 4", "exactly"),
        ("'headkv', rounding = 'paper'", "at most"),
        ("'headkv', beta = 1.5", "exactly"),
        ("'headkv', gqa = 'per-query-head', rounding = 'paper'", "may exceed"),
        ("'duo-attention', sinks = 2, recent = 5", "exactly"),
        ("'duo-attention', retrieval_share = 0.25", "exactly"),
        ("'water-filling', tau = 5", "exactly"),
        ("'water-filling', floor = 0.3", "exactly"),
        ("'water-filling', curve = 'per-head'", "exactly"),
        ("'composite-ranks'", "exactly"),
        ("'dynamic-kv', most = 1000", "exactly"),
        ("'layer-entropy'", "exactly"),
        ("'layer-preferences'", "exactly"),
        ("'lazy-layers', threshold = 0.5", "may exceed"),
        ("'per-layer', shares = [3]", "exactly"),
        ("'threshold', threshold = 0.5", "may exceed"),
        ("'shapley-ada'", "exactly"),
        ("'shapley-ada', drop_lowest = 1, floor = 0.2, normalise = 'none'", "exactly"),
    ];
    let mut seen = BTreeSet::new();
    for (form, spending) in forms {
        let allocator = allocator(&format!("name = {form}"));
        assert_eq!(allocator.spending().to_string(), spending, "{form}");
        let contract = AllocatorContract::new(&*allocator);
        let border = ["drop_lowest = 1", "drop_lowest = 2"].iter().any(|setting| form.contains(setting));
        let contract = if border { contract.shift_invariant() } else { contract };
        contract.check().unwrap_or_else(|violation| panic!("{form}: {violation}"));
        seen.insert(form.split('\'').nth(1).unwrap());
    }
    let registry = registry();
    assert_eq!(seen, registry.allocators().collect(), "every registered allocator must stand in the list");
}

/// Forms that may take a token back when the total grows, and say so.
#[test]
fn all_else_holds_where_a_larger_total_may_take_a_token() {
    let forms = [
        "'proportional', apportionment = 'largest-remainder'",
        "'ada-kv', normalise = 'top-mass'",
        "'dynamic-kv'",
        "'dynamic-kv', most = 1.5",
    ];
    for form in forms {
        let allocator = allocator(&format!("name = {form}"));
        AllocatorContract::new(&*allocator).not_house_monotone().check().unwrap_or_else(|v| panic!("{form}: {v}"));
    }
}

#[test]
fn equal_values_make_shapley_ada_ada_kv_across_layers() {
    let layout = HeadLayout::new(3, 4, 2, 4).unwrap();
    let mut token_scores = TokenScores::with_capacity(layout, 50);
    let score = |at: u64| (cokv_core::random::mix(at) >> 44) as f32 * if at < 100 { 3.0 } else { 1.0 };
    token_scores.push_layer(&(0..300).map(score).collect::<Vec<_>>());
    let scores = HeadScores::new(layout, vec![0.7; 6]).unwrap();
    for total in [60, 61, 150, 299] {
        let request = AllocationRequest {
            layout,
            prompt_len: 50,
            total,
            protected: Protected { sinks: 1, window: 4 },
            token_scores: &token_scores,
            head_scores: Some(&scores),
        };
        for (normalise, floor) in [(Normalise::Sum, 0.0), (Normalise::None, 0.2)] {
            let floor = Share::new(floor).unwrap();
            let ada = AdaKv { floor, scope: Scope::Model, normalise, rounding: Rounding::Exact };
            let shapley = ShapleyAda { drop_lowest: 0, floor, normalise };
            let plan = shapley.allocate(&request).unwrap();
            assert_eq!(plan, ada.allocate(&request).unwrap());
            assert!(total != 150 || plan.kept().iter().any(|&kept| kept != 25), "the prompt must make a difference");
        }
    }
}

#[test]
fn a_higher_border_never_leaves_fewer_heads_with_nothing() {
    let layout = HeadLayout::new(4, 5, 5, 4).unwrap();
    let scores = (0..20).map(|head| (cokv_core::random::mix(head) % 16) as f64 - 4.0).collect();
    let scores = HeadScores::new(layout, scores).unwrap();
    let empty = |drop_lowest: usize| {
        let cokv = allocator(&format!("name = 'cokv', drop_lowest = {drop_lowest}"));
        let plan = plan(&*cokv, &scores, layout, 0, 200, 5000).unwrap();
        plan.kept().iter().filter(|&&kept| kept == 0).count()
    };
    // From a border that some heads are above to the last.
    let highest = scores.values().iter().copied().fold(f64::MIN, f64::max);
    let below = scores.values().iter().filter(|&&score| score < highest).count();
    let counts: Vec<usize> = (1..=below).map(empty).collect();
    assert!(counts.is_sorted(), "{counts:?}");
    assert!(counts.iter().enumerate().all(|(at, &empty)| empty > at), "{counts:?}");
}

/// Columns of a table are to be compared at the same memory, unless somebody asks for a paper's own.
#[test]
fn every_allocator_spends_its_total_by_default() {
    let registry = registry();
    // The prompt decides what these keep, in every form of them.
    for name in registry.allocators().filter(|name| !["lazy-layers", "threshold"].contains(name)) {
        assert_eq!(allocator(&format!("name = '{name}'")).spending(), Spending::Exact, "{name}");
    }
}

#[test]
fn settings_out_of_range_are_refused_with_their_line() {
    let error = |written: &str| try_allocator(written).unwrap_err().to_string();
    for (written, expected) in [
        ("name = 'ada-kv', floor = 1.2", "test:1: 1.2 is no share: it must lie between 0 and 1"),
        ("name = 'headkv', beta = 0.5", "test:1: 0.5 is out of range: it must be at least 1 and finite"),
        ("name = 'pyramidkv', beta = nan", "test:1: NaN is out of range"),
        ("name = 'cokv', drop_lowest = -1", "test:1: invalid value"),
        ("name = 'cokv', drop = 3", "test:1: unknown key `drop`; did you mean `drop_lowest`?"),
        ("name = 'cokv', rounding = 'exactly'", "unknown value `exactly`; did you mean `exact`?"),
        ("name = 'coakv'", "test:1: unknown allocator `coakv`; did you mean `cokv`?"),
        ("name = 'per-layer', shares = []", "test:1: per-layer needs a share for the first layer"),
        ("name = 'per-layer', shares = [1, -2]", "test:1: -2 is out of range: it must be at least 0"),
        ("name = 'lazy-layers', threshold = 2", "2 is no share"),
        ("name = 'threshold', threshold = nan", "a threshold is a finite number"),
        ("name = 'headkv', gqa = 'per-query-head'", "write rounding = \"paper\" beside it"),
    ] {
        assert!(error(written).contains(expected), "{written}: {}", error(written));
    }
}

#[test]
fn what_does_not_fit_the_model_is_refused_before_there_is_a_prompt() {
    let layout = HeadLayout::new(2, 4, 2, 4).unwrap();
    let scores = HeadScores::new(layout, vec![0.1, 0.4, 0.2, 0.3]).unwrap();
    let cokv = allocator("name = 'cokv', drop_lowest = 4");
    let nothing_left = PolicyError::NothingLeft { drop_lowest: 4, heads: 4 };
    assert_eq!(cokv.check(layout, Some(&scores)), Err(nothing_left));
    let other = HeadLayout::new(4, 2, 1, 4).unwrap();
    assert_eq!(cokv.check(other, Some(&scores)), Err(PolicyError::OtherModel { scores: (2, 2), model: (4, 1) }));

    let headkv = allocator("name = 'headkv', gqa = 'per-query-head', rounding = 'paper'");
    assert_eq!(headkv.gqa(), Gqa::PerQueryHead);
    let message = headkv.check(layout, Some(&scores)).unwrap_err().to_string();
    assert!(message.contains("needs a score for every query head"), "{message}");

    let uniform = allocator("name = 'uniform'");
    let message = plan(&*uniform, &scores, layout, 8, 5, 100).unwrap_err().to_string();
    assert!(message.contains("a total of 20 tokens is below the 8 protected tokens"), "{message}");
    assert_eq!(plan(&*uniform, &scores, layout, 200, 100, 100).unwrap().kept(), [100; 4], "a window above the prompt");
}
