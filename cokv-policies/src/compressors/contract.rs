//! What every registered compressor must keep.

use cokv_core::{ConfigTable, HeadSelection, Method, select};

use super::closed_form::{LAYOUT, Prompt, method};
use crate::registry;

fn all() -> Vec<Method> {
    registry().compressors().map(|name| method(&format!("'{name}'"))).collect()
}

#[test]
fn scores_are_complete_finite_and_the_same_twice() {
    for method in all() {
        for tokens in [0, 1, 3, 4, 5, 16, 300] {
            let prompt = Prompt::new(tokens);
            // `Method::score` refuses another shape and numbers that are none.
            let scores = method.score(&prompt.view()).unwrap_or_else(|e| panic!("{}, {tokens}: {e}", method.name()));
            assert_eq!(scores, prompt.score(&method), "{}, {tokens} tokens", method.name());
        }
    }
}

#[test]
fn heads_that_change_places_take_their_scores_along() {
    for method in all() {
        // Draws by the head's place, which is all that it knows.
        if method.name() == "random" {
            continue;
        }
        for tokens in [16, 300] {
            let prompt = Prompt::new(tokens);
            let mut scores = prompt.score(&method);
            scores.rotate_left(tokens);
            let swapped = prompt.swapped().score(&method);
            for (at, (a, b)) in scores.iter().zip(&swapped).enumerate() {
                // A mean over all heads may add up in another order.
                assert!((a - b).abs() <= 1e-6 * a.abs(), "{}, {tokens} tokens, place {at}: {a}, {b}", method.name());
            }
        }
    }
}

#[test]
fn protected_tokens_stay_and_budgets_are_kept() {
    for method in all() {
        let (name, protected) = (method.name(), method.protected(0));
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

/// What prefill did not record is an error that names it, not a panic.
#[test]
fn missing_observations_are_named() {
    let prompt = Prompt::new(16);
    let view = cokv_core::LayerView {
        window: 0,
        window_attention: &[],
        column_sums: None,
        query_statistics: None,
        keys: None,
        values: None,
        value_output_norms: None,
        rotary: None,
        ..prompt.view()
    };
    for method in all() {
        let blind = ["full", "random", "streaming-llm"].contains(&method.name());
        match method.score(&view) {
            Ok(_) => assert!(blind, "{} must look at something", method.name()),
            Err(error) => {
                assert!(!blind && error.to_string().contains("was not recorded"), "{}: {error}", method.name())
            }
        }
        assert_eq!(method.observations(0) == Default::default(), blind, "{}", method.name());
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
    ] {
        let message = error(&format!("compressor = {{ {settings} }}"));
        assert!(message.contains(expected), "{settings}: {message}");
    }
}
