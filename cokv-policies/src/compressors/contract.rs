//! What every registered compressor must keep (`cokv_core::testing`), and what it must refuse.

use cokv_core::testing::CompressorContract;
use cokv_core::{ConfigTable, Frame, HeadSelection, Method, select};

use super::closed_form::{LAYOUT, Prompt, method};
use crate::registry;

fn all() -> Vec<Method> {
    registry().compressors().map(|name| method(&format!("'{name}'"))).collect()
}

#[test]
fn every_compressor_keeps_the_contract() {
    let registry = registry();
    let presets = registry.presets().map(|(name, _)| name.to_owned());
    let own = [
        "{ name = 'snapkv', pooling = 'none', group = 'max' }",
        "{ name = 'snapkv', window_from = 'prompt-end' }",
        "{ name = 'snapkv', window = 12, order = 'pool-first', window_from = 'user-text' }",
        "{ name = 'tova', window_from = 'user-text' }",
        "{ name = 'h2o', window = 0, mean_over_queries = true }",
        "{ name = 'critical-kv', base = { name = 'h2o', recent_share = 0.25 } }",
        "{ name = 'lagkv', sinks = 2, lag = 4 }",
        "{ name = 'expected-attention', future = 3, epsilon = 0.01 }",
        "{ name = 'expected-attention', statistics = 'learned' }",
        "{ name = 'tri-attention', furthest = 8, window = 3 }",
        "{ name = 'leverage', sketch = 3, seed = 2 }",
        "{ name = 'non-causal-attention', block = 7, padding = 'kvpress' }",
        "{ name = 'compactor', sinks = 2, recent = 1, blend = 0.35 }",
        "{ name = 'compactor', block = 9, padding = 'kvpress' }",
        "{ name = 'cur', kind = 'kv-avg', projection = 5 }",
        "{ name = 'cur', kind = 'key', block = 3, sinks = 0 }",
        "{ name = 'cur', kind = 'value' }",
        "{ name = 'capkv', sinks = 0, future = 3, sharpness = 1.5 }",
        "{ name = 'dropkv', window = 4, window_from = 'user-text' }",
        "{ name = 'rest-kv', window = 12, kernel = 1, power = 2, smoothing = 1, window_from = 'user-text' }",
        "{ name = 'chunkkv', chunk = 7, base = { name = 'lagkv', sinks = 2, lag = 4 } }",
        "{ name = 'chunkkv', base = 'compactor' }",
        "{ name = 'entropy-gated-chunkkv', chunk = 3, spiky = 1, base = 'knorm' }",
        "{ name = 'chunk', chunk = 7, base = { name = 'lagkv', sinks = 2, lag = 4 } }",
        "{ name = 'chunk', chunk = 9, base = { name = 'key-rerotation', base = 'cur' } }",
        "{ name = 'block', block = 7, base = { name = 'lagkv', sinks = 2, lag = 4 } }",
        "{ name = 'finch', rerotate = false }",
        "{ name = 'key-rerotation', base = { name = 'block', block = 50 } }",
        "{ name = 'critical-kv', base = 'finch' }",
        "{ name = 'kvzip', chunk = 5, sinks = 0, protect_template = false }",
        "{ name = 'kvzip-plus', chunk = 5, sinks = 2 }",
        "{ name = 'chunkkv', base = 'kvzip' }",
        "{ name = 'cake', window = 6, kernel = 1, spread_temperature = 2, window_from = 'user-text' }",
        "{ name = 'lava', window = 6, kernel = 1, window_from = 'user-text' }",
        "{ name = 'simlayerkv', sinks = 1, recent = 3 }",
        "{ name = 'merging', threshold = 0.5, share = 0.5, base = { name = 'key-rerotation', base = 'knorm' } }",
        "{ name = 'merging', base = 'finch' }",
        "{ name = 'composed', compressors = ['expected-attention', { name = 'lagkv', lag = 3 }, 'knorm'] }",
    ];
    let names = registry.compressors().map(str::to_owned).chain(presets).map(|name| format!("'{name}'"));
    for written in names.chain(own.map(str::to_owned)) {
        let text = format!("compressor = {written}");
        let table = registry.expand(ConfigTable::parse("test", &text).unwrap()).unwrap();
        let compressor = registry.compressor(&table.clone().take_choice("compressor").unwrap().unwrap()).unwrap();
        let contract = CompressorContract::new(&*compressor);
        // Draws by the head's place, which is all that it knows.
        let contract = if compressor.settings().name() == "random" { contract.not_equivariant() } else { contract };
        contract.check().unwrap_or_else(|violation| panic!("{written}: {violation}"));
    }
}

#[test]
fn protected_tokens_stay_and_budgets_are_kept() {
    for method in all() {
        let (name, protected) = (method.name(), method.protected(Frame::default()));
        for tokens in [1, 5, 16, 40] {
            let scores = Prompt::new(tokens).score(&method);
            for budget in 0..=tokens {
                for head in scores.chunks_exact(tokens) {
                    match select::best_tokens(head, budget, protected) {
                        HeadSelection::Everything => assert_eq!(budget, tokens, "{name}"),
                        HeadSelection::Tokens(kept) => {
                            assert_eq!(kept.len(), budget, "{name}");
                            let window = protected.window.min(budget);
                            let sinks = protected.sinks.min(budget - window);
                            let mut promised = (0..sinks).chain(tokens - window..tokens);
                            assert!(promised.all(|token| kept.contains(&(token as u32))), "{name}: {kept:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_prompt_within_the_budget_passes_through() {
    for method in all() {
        for tokens in [1, 3, 9] {
            let mut scores = cokv_core::TokenScores::with_capacity(LAYOUT, tokens);
            scores.push_layer(&Prompt::new(tokens).score(&method));
            let selection = method.select(LAYOUT, &scores, 2 * tokens).unwrap();
            assert!(selection.heads.iter().all(|head| *head == HeadSelection::Everything), "{}", method.name());
        }
    }
}

#[test]
fn random_draws_differ_by_head_and_seed() {
    let kept = |compressor: &str| Prompt::new(16).kept(compressor, 8);
    let [first, second] = kept("'random'");
    assert_ne!(first, second);
    assert_eq!(kept("'random'")[0], first);
    assert_ne!(kept("{ name = 'random', seed = 1 }")[0], first);
    assert!(kept("{ name = 'random', window = 4 }")[0].ends_with(&[12, 13, 14, 15]));
}

#[test]
fn contradictory_settings_are_refused_with_their_line() {
    let error = |text: &str| registry().method(ConfigTable::parse("a.toml", text).unwrap()).err().unwrap().to_string();
    for (settings, expected) in [
        ("name = 'snapkv', kernel = 4", "a.toml:1: snapkv needs an odd kernel"),
        ("name = 'snapkv', window = 0", "window of at least 1"),
        ("name = 'snapkv', pooling = 'avgg'", "did you mean `avg`"),
        ("name = 'h2o', recent_share = 2", "a.toml:1: 2 is no share"),
        ("name = 'lagkv', lag = 1", "a.toml:1: lagkv needs a lag of at least 2"),
        ("name = 'critical-kv', base = 'snapvk'", "unknown compressor `snapvk`; did you mean `snapkv`?"),
        ("name = 'critical-kv', base = { name = 'snapkv', windw = 3 }", "unknown key `windw`"),
        ("name = 'critical-kv', first_stag = 1", "did you mean `first_stage`?"),
        ("name = 'critical-kv', bse = 'snapkv'", "did you mean `base`?"),
        ("name = 'leverage', sketch = 0", "a.toml:1: invalid value: integer `0`, expected a nonzero"),
        ("name = 'compactor', blend = 1.5", "1.5 is no share"),
        ("name = 'cur', kind = 'kv-averag'", "did you mean `kv-avg`?"),
        ("name = 'dropkv', window = 0", "dropkv needs a window of at least 1"),
        ("name = 'rest-kv', kernel = 2", "rest-kv needs an odd kernel"),
        ("name = 'chunkkv', chunk = 0", "expected a nonzero"),
        ("name = 'chunk', base = 'snapkv'", "and `snapkv` also looks at window sums: use knorm"),
        ("name = 'chunk', base = 'leverage'", "and `leverage` also looks at the model's rotation"),
        ("name = 'block', base = 'kvzip'", "and `kvzip` also looks at a replay of the prompt"),
        ("name = 'block', base = { name = 'block', base = 'knorm' }", "and `block` also looks at the budget"),
        ("name = 'key-rerotation', base = 'finch'", "`finch` makes pairs of its own: leave key-rerotation out"),
        ("name = 'cake', variance_weight = -1", "a.toml:1: -1 is out of range: it must be at least 0"),
        ("name = 'capkv', sharpness = inf", "a.toml:1: inf is out of range"),
        ("name = 'cake', shift_temperature = 0", "a.toml:1: shift_temperature must be above 0"),
        ("name = 'lava', kernel = 4", "lava needs an odd kernel"),
        ("name = 'merging', threshold = 2", "threshold is a cosine"),
        ("name = 'composed', compressors = []", "composed needs at least one compressor"),
        ("name = 'composed', compressors = 'snapkv'", "must be a list of names or of tables with a name, not string"),
        ("name = 'composed', compressors = ['knorm', 'tova']", "and `tova` also looks at window attention"),
        ("name = 'composed', compressors = ['finch']", "`finch` changes what is kept"),
        ("name = 'composed', compressors = ['knrm']", "did you mean `knorm`?"),
        ("name = 'composed', compresors = ['knorm']", "did you mean `compressors`?"),
        ("name = 'kvzip-plus', sink = 3", "did you mean `sinks`?"),
    ] {
        let message = error(&format!("compressor = {{ {settings} }}"));
        assert!(message.contains(expected), "{settings}: {message}");
    }
}

#[test]
fn whole_methods_whose_parts_do_not_fit_are_refused_before_there_is_a_prompt() {
    for allocator in ["layer-preferences", "lazy-layers"] {
        let check = |compressor: &str| method(&format!("{compressor}\nallocator = '{allocator}'")).check(LAYOUT);
        let error = check("'snapkv'").unwrap_err().to_string();
        assert!(error.contains(&format!("the allocator `{allocator}`")) && error.contains("`snapkv` says nothing"));
        assert!(check("'cake'").is_ok() && check("{ name = 'chunkkv', base = 'simlayerkv' }").is_ok());
    }
    let per_layer = method("'snapkv'\nallocator = { name = 'per-layer', shares = [1, 2] }");
    let error = per_layer.check(LAYOUT).unwrap_err().to_string();
    assert_eq!(error, "`shares` lists 2 layers, and the model has 1: list at most as many");
}
