//! Closed-form cases of ../shared/spec/policies.md 6.3, and the contract that every registered compressor keeps.

use cokv_core::config::Choice;
use cokv_core::{ConfigTable, HeadLayout, HeadSelection, LayerView, select};

use crate::registry;

const TOKENS: usize = 16;

/// Two KV heads of two query heads each, 16 tokens, head_dim 4.
fn layout() -> HeadLayout {
    HeadLayout::new(1, 4, 2, 4).unwrap()
}

/// Softmax attention of the last `window` queries, `[query_heads, window, 16]`, of the closed-form tensors
/// k = sin(1.7(t+1)(c+1)/(h+2) + 0.3h), q = 2 cos(0.9(t+1)(c+1)/(hq+1)).
fn window_attention(window: usize) -> Vec<f32> {
    let key = |h: usize, t: usize, c: usize| (1.7 * ((t + 1) * (c + 1)) as f64 / (h + 2) as f64 + 0.3 * h as f64).sin();
    let query = |h: usize, t: usize, c: usize| 2.0 * (0.9 * ((t + 1) * (c + 1)) as f64 / (h + 1) as f64).cos();
    let mut attention = Vec::new();
    for head in 0..4 {
        for row in TOKENS - window..TOKENS {
            let dot = |t: usize| (0..4).map(|c| query(head, row, c) * key(head / 2, t, c)).sum::<f64>() / 2.0;
            let weights: Vec<f64> = (0..TOKENS).map(|t| if t <= row { dot(t).exp() } else { 0.0 }).collect();
            let sum: f64 = weights.iter().sum();
            attention.extend(weights.iter().map(|weight| (weight / sum) as f32));
        }
    }
    attention
}

fn view(attention: &[f32], window: usize) -> LayerView<'_> {
    LayerView {
        layer: 0,
        layout: layout(),
        prompt_len: TOKENS,
        window,
        window_attention: attention,
        column_sums: None,
        query_statistics: None,
        keys: None,
        values: None,
    }
}

/// What a compressor keeps of 8 tokens in each of the two heads, the window of 4 left out.
fn kept(compressor: &str) -> [Vec<u32>; 2] {
    let text = format!("compressor = {compressor}");
    let method = registry().method(ConfigTable::parse("test", &text).unwrap()).unwrap();
    let attention = window_attention(4);
    let scores = method.score(&view(&attention, 4)).unwrap();
    let mut all = cokv_core::TokenScores::with_capacity(layout(), TOKENS);
    all.push_layer(&scores);
    let selection = method.select(layout(), &all, 16).unwrap();
    [0, 1].map(|head| match &selection.heads[head] {
        HeadSelection::Tokens(tokens) => tokens.clone(),
        HeadSelection::Everything => panic!("8 of 16 tokens are not everything"),
    })
}

fn with_window(head: [u32; 4]) -> Vec<u32> {
    head.into_iter().chain(12..16).collect()
}

#[test]
fn snapkv_keeps_the_tokens_of_the_closed_form() {
    let snapkv = |settings: &str| kept(&format!("{{ name = 'snapkv', window = 4, {settings} }}"));
    for (settings, first, second) in [
        ("pooling = 'none'", [0, 6, 7, 8], [5, 6, 7, 8]),
        ("pooling = 'avg', kernel = 3", [1, 6, 7, 8], [4, 5, 6, 7]),
        ("pooling = 'avg', kernel = 5", [6, 7, 8, 9], [4, 5, 6, 7]),
        ("pooling = 'max', kernel = 3", [6, 7, 8, 9], [4, 5, 6, 7]),
        ("pooling = 'max', kernel = 3, group = 'max'", [0, 6, 7, 8], [4, 5, 6, 7]),
        ("pooling = 'max', kernel = 7", [4, 5, 6, 7], [2, 3, 4, 5]),
        ("pooling = 'max', kernel = 7, order = 'pool-first'", [4, 5, 6, 7], [4, 5, 6, 7]),
    ] {
        assert_eq!(snapkv(settings), [with_window(first), with_window(second)], "{settings}");
    }
}

#[test]
fn window_means_are_those_of_the_closed_form() {
    let text = "compressor = { name = 'snapkv', window = 4, pooling = 'none' }";
    let method = registry().method(ConfigTable::parse("test", text).unwrap()).unwrap();
    let attention = window_attention(4);
    let scores = method.score(&view(&attention, 4)).unwrap();
    let expected = [
        [0.1166, 0.0747, 0.0576, 0.0319, 0.0312, 0.0385, 0.0824, 0.1895, 0.1452, 0.0568, 0.0423, 0.0306],
        [0.0321, 0.0235, 0.0445, 0.0591, 0.0600, 0.2176, 0.1303, 0.1114, 0.0993, 0.0450, 0.0384, 0.0337],
    ];
    for (head, expected) in expected.iter().enumerate() {
        for (token, expected) in expected.iter().enumerate() {
            assert!((scores[head * TOKENS + token] - expected).abs() < 5.1e-5, "head {head}, token {token}");
        }
    }
}

#[test]
fn streaming_llm_keeps_sinks_and_the_latest() {
    let expected = vec![0, 1, 2, 3, 12, 13, 14, 15];
    assert_eq!(kept("'streaming-llm'"), [expected.clone(), expected]);
}

#[test]
fn random_draws_differ_by_head_and_seed() {
    let [first, second] = kept("'random'");
    assert_ne!(first, second);
    assert_eq!(kept("'random'")[0], first);
    assert_ne!(kept("{ name = 'random', seed = 1 }")[0], first);
    assert!(kept("{ name = 'random', window = 4 }")[0].ends_with(&[12, 13, 14, 15]));
}

/// Every registered compressor: the right shape, finite, the same twice, its protection kept, short prompts untouched.
#[test]
fn every_compressor_keeps_the_contract() {
    let registry = registry();
    let table = ConfigTable::parse("test", "").unwrap();
    for name in registry.compressors() {
        let compressor = registry.compressor(&Choice::named(name, &table)).unwrap();
        let request = compressor.observations();
        let window = request.window.min(TOKENS);
        let attention = window_attention(window);
        let view = view(&attention, window);
        let scores = compressor.score(&view).unwrap();
        assert_eq!(scores.len(), 2 * TOKENS, "{name}");
        assert!(scores.iter().all(|score| score.is_finite()), "{name}");
        assert_eq!(scores, compressor.score(&view).unwrap(), "{name} is not deterministic");
        let protected = compressor.protected();
        for budget in 0..=TOKENS {
            let head = select::best_tokens(&scores[..TOKENS], budget, protected);
            assert_eq!(head.len(TOKENS), budget, "{name}");
            match head {
                HeadSelection::Everything => assert_eq!(budget, TOKENS, "{name}"),
                HeadSelection::Tokens(tokens) => {
                    let window = TOKENS - protected.window.min(budget)..TOKENS;
                    assert!(window.clone().all(|token| tokens.contains(&(token as u32))), "{name}: {window:?}");
                }
            }
        }
    }
}

#[test]
fn contradictory_settings_are_refused_with_their_line() {
    let error = |text: &str| registry().method(ConfigTable::parse("a.toml", text).unwrap()).err().unwrap().to_string();
    assert!(error("compressor = { name = 'snapkv', kernel = 4 }").starts_with("a.toml:1: snapkv needs an odd kernel"));
    assert!(error("compressor = { name = 'snapkv', window = 0 }").contains("window of at least 1"));
    assert!(error("compressor = { name = 'snapkv', pooling = 'avgg' }").contains("did you mean `avg`"));
}
