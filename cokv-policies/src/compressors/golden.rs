//! Kept tokens of the closed-form prompt, computed from the papers' formulas by another program.

use cokv_core::select::best_tokens;
use cokv_core::{HeadLayout, HeadSelection, LayerView};

use super::closed_form::{LAYOUT, Prompt, best_of_layer, method, select};
use super::group::group_mean;
use super::ranking::best_first;

fn kept(compressor: &str) -> [Vec<u32>; 2] {
    Prompt::new(16).kept(compressor, 8)
}

fn with_window(head: [u32; 4]) -> Vec<u32> {
    head.into_iter().chain(12..16).collect()
}

#[test]
fn snapkv_keeps_the_tokens_of_the_closed_form() {
    for (settings, first, second) in [
        ("pooling = 'none'", [0, 6, 7, 8], [5, 6, 7, 8]),
        ("pooling = 'avg', kernel = 3", [1, 6, 7, 8], [4, 5, 6, 7]),
        ("pooling = 'avg', kernel = 5", [6, 7, 8, 9], [4, 5, 6, 7]),
        ("pooling = 'max', kernel = 3", [6, 7, 8, 9], [4, 5, 6, 7]),
        ("pooling = 'max', kernel = 3, group = 'max'", [0, 6, 7, 8], [4, 5, 6, 7]),
        ("pooling = 'max', kernel = 7", [4, 5, 6, 7], [2, 3, 4, 5]),
        ("pooling = 'max', kernel = 7, order = 'pool-first'", [4, 5, 6, 7], [4, 5, 6, 7]),
    ] {
        let snapkv = format!("{{ name = 'snapkv', window = 4, {settings} }}");
        assert_eq!(kept(&snapkv), [with_window(first), with_window(second)], "{settings}");
    }
}

#[test]
fn snapkv_without_groups_keeps_the_tokens_of_each_query_head() {
    let prompt = Prompt::new(16);
    let layout = HeadLayout { kv_heads: 4, ..LAYOUT };
    let snapkv = method("{ name = 'snapkv', window = 4, pooling = 'none' }");
    let scores = snapkv.score(&LayerView { layout, ..prompt.shown_to(&snapkv).view() }).unwrap();
    for (head, expected) in [[1, 6, 7, 8], [0, 1, 7, 8], [3, 4, 7, 8], [5, 6, 7, 8]].into_iter().enumerate() {
        let kept = best_tokens(&scores[head * 16..][..16], 8, snapkv.protected(cokv_core::Frame::default()));
        assert_eq!(kept, HeadSelection::Tokens(with_window(expected)), "query head {head}");
    }
}

#[test]
fn ada_kv_shares_out_the_layer() {
    let ada =
        "{ name = 'snapkv', window = 4, pooling = 'avg', kernel = 3 }\nallocator = { name = 'ada-kv', floor = 0 }";
    let expected = [[6, 7, 8].as_slice(), &[4, 5, 6, 7, 8]].map(|prefix| [prefix, &[12, 13, 14, 15]].concat());
    assert_eq!(kept(ada), expected);
}

#[test]
fn window_means_are_those_of_the_closed_form() {
    let prompt = Prompt::new(16);
    let scores = prompt.score(&method("{ name = 'snapkv', window = 4, pooling = 'none' }"));
    let expected = [
        [0.1166, 0.0747, 0.0576, 0.0319, 0.0312, 0.0385, 0.0824, 0.1895, 0.1452, 0.0568, 0.0423, 0.0306],
        [0.0321, 0.0235, 0.0445, 0.0591, 0.0600, 0.2176, 0.1303, 0.1114, 0.0993, 0.0450, 0.0384, 0.0337],
    ];
    for (head, expected) in expected.iter().enumerate() {
        for (token, expected) in expected.iter().enumerate() {
            assert!((scores[head * 16 + token] - expected).abs() < 5.1e-5, "head {head}, token {token}");
        }
    }
}

#[test]
fn streaming_llm_keeps_sinks_and_the_latest() {
    let expected = vec![0, 1, 2, 3, 12, 13, 14, 15];
    assert_eq!(kept("'streaming-llm'"), [expected.clone(), expected]);
}

#[test]
fn h2o_keeps_the_heavy_hitters() {
    let heavy = "{ name = 'h2o', window = 4 }";
    assert_eq!(kept(heavy), [with_window([0, 1, 2, 4]), with_window([0, 1, 2, 5])]);
    let observed = "{ name = 'h2o', window = 0, mean_over_queries = true }";
    assert_eq!(kept(observed), [vec![0, 1, 2, 3, 4, 5, 7, 8], vec![0, 1, 2, 3, 4, 5, 6, 7]]);
    // Half of the budget for the latest tokens is a window of four at a budget of eight.
    assert_eq!(kept("{ name = 'h2o', window = 0, recent_share = 0.5 }"), kept(heavy));
}

#[test]
fn tova_keeps_the_same_tokens_in_all_heads() {
    let expected = vec![2, 5, 6, 7, 8, 9, 13, 15];
    assert_eq!(kept("'tova'"), [expected.clone(), expected]);
}

#[test]
fn knorm_keeps_short_keys() {
    assert_eq!(kept("'knorm'"), [vec![0, 3, 6, 9, 10, 11, 12, 14], vec![3, 4, 6, 7, 10, 13, 14, 15]]);
}

#[test]
fn keydiff_keeps_keys_unlike_the_others() {
    assert_eq!(kept("'keydiff'"), [vec![1, 3, 5, 6, 9, 11, 12, 13], vec![2, 4, 5, 6, 7, 8, 9, 13]]);
}

#[test]
fn lagkv_ranks_inside_each_partition() {
    let prompt = Prompt::new(16);
    let scores = prompt.score(&method("{ name = 'lagkv', sinks = 2, lag = 4 }"));
    assert_eq!(scores[2..10], [0.75, 0.25, 0.5, 0.0, 0.0, 0.25, 0.75, 0.5]);
    assert_eq!(scores[16 + 2..16 + 10], [0.75, 0.5, 0.25, 0.0, 0.5, 0.75, 0.25, 0.0]);
    assert_eq!(scores[10..16], [1.0; 6], "the last partition and the tail");
    // One token less than two partitions behind the sinks.
    assert_eq!(Prompt::new(9).kept("{ name = 'lagkv', sinks = 2, lag = 4 }", 5)[0], [0, 1, 6, 7, 8]);
}

#[test]
fn critical_kv_has_two_stages() {
    let base = "{ name = 'snapkv', window = 4, pooling = 'none' }";
    let critical = |settings: &str| kept(&format!("{{ name = 'critical-kv', base = {base}, {settings} }}"));
    assert_eq!(critical("first_stage = 1"), kept(base));
    // Norms of the first KV head's group, mean: 1 + ((7t mod 11) + (7t + 2) mod 11) / 2. Tokens 7 and 8 are the best two
    // by attention (0.1895, 0.1452); times the norms, 0 (0.1166 · 2) falls behind 1 (0.0747 · 9) and 6 (0.0824 · 5.5).
    let [first, _] = critical("first_stage = 0.5");
    assert!([7, 8, 1].iter().all(|token| first.contains(token)) && !first.contains(&0), "{first:?}");
    assert_ne!(critical("first_stage = 0"), kept(base));
}

/// kvpress's CriticalAdaKV: heads get as many as they have of the layer's best tokens, a fifth of the budget sure; then
/// each has two stages of its own.
#[test]
fn critical_kv_under_ada_kv_is_critical_ada_kv() {
    let (prompt, base) = (Prompt::new(16), "{ name = 'kvzip', chunk = 8, sinks = 0 }");
    let (scores, view) = (prompt.score(&method(base)), prompt.view());
    let norms = group_mean(LAYOUT, view.value_output_norms.unwrap(), 16);
    let ours = format!("{{ name = 'critical-kv', base = {base} }}\nallocator = {{ name = 'ada-kv', floor = 0.2 }}");
    let mut uneven = 0;
    // Below 5 tokens a fifth of them is less than one, which kvpress rounds up.
    for budget in 5..=16 {
        let mut safe = scores.clone();
        for head in safe.chunks_exact_mut(16) {
            for token in best_first(head).into_iter().take(budget / 5) {
                head[token] = f32::INFINITY;
            }
        }
        let counts = best_of_layer(&safe, 2 * budget).map(|of_head| of_head.len());
        uneven += usize::from(counts[0] != counts[1]);
        let kept = [0, 1].map(|head| {
            let (scores, norms) = (&scores[head * 16..][..16], &norms[head * 16..][..16]);
            let mut kept = best_first(scores)[..counts[head] / 2].to_vec();
            let written: Vec<f32> = scores.iter().zip(norms).map(|(score, norm)| (score + 1e-4) * norm).collect();
            let others = best_first(&written).into_iter().filter(|token| !kept.contains(token));
            let others: Vec<usize> = others.take(counts[head] - kept.len()).collect();
            kept.extend(others);
            kept.sort_unstable();
            kept.into_iter().map(|token| token as u32).collect::<Vec<u32>>()
        });
        assert_eq!(prompt.kept(&ours, budget), kept, "{budget} tokens");
    }
    assert!(uneven > 3, "heads must differ for this to say something");
}

/// Tokens of the whole model compete, and a head may be left without any.
#[test]
fn a_head_may_keep_nothing() {
    let layers = [Prompt::new(16), Prompt::second_layer(16)];
    let counts = |total| {
        let kvzip = "{ name = 'kvzip', sinks = 0 }\nallocator = { name = 'ada-kv', scope = 'model', floor = 0 }";
        let selection = select(&layers.each_ref(), kvzip, total);
        selection.heads.iter().map(|head| head.len(16)).collect::<Vec<_>>()
    };
    for (total, expected) in
        [(0, [0; 4]), (8, [4, 4, 0, 0]), (16, [9, 7, 0, 0]), (24, [12, 9, 2, 1]), (40, [14, 12, 8, 6]), (64, [16; 4])]
    {
        assert_eq!(counts(total), expected, "{total} tokens");
    }
}

/// Sums over the queries that see a token, divided by their number: the spec's 2.9.
#[test]
fn observed_attention_is_the_mean_over_those_who_see() {
    Prompt::new(16).assert_scores(
        "'observed-attention'",
        0,
        [
            [
                0.1920491, 0.1663739, 0.1362435, 0.1115189, 0.1320398, 0.1044184, 0.1005345, 0.1151674, 0.1087105,
                0.0825462, 0.0479623, 0.030658, 0.0323858, 0.0504987, 0.0382824, 0.0533447,
            ],
            [
                0.1261747, 0.1572766, 0.1391691, 0.1260318, 0.0987328, 0.1792378, 0.1539261, 0.1620729, 0.0841242,
                0.0518955, 0.0413711, 0.0351221, 0.0242827, 0.046131, 0.0763108, 0.0327043,
            ],
        ],
    );
}

/// Head budgets under Ada-KV are those of the base scores.
#[test]
fn critical_kv_leaves_allocators_the_base_scores() {
    let prompt = Prompt::new(16);
    // Its window has scores of its own, which must not get in among the others.
    let base = "{ name = 'h2o', window = 4 }";
    let sorted = |compressor: &str| {
        let mut scores = prompt.score(&method(compressor))[..12].to_vec();
        scores.sort_by(f32::total_cmp);
        scores
    };
    assert_eq!(sorted(&format!("{{ name = 'critical-kv', base = {base} }}")), sorted(base));
}

#[test]
fn expected_attention_follows_its_formula() {
    let prompt = Prompt::new(16);
    let view = prompt.view();
    let (statistics, keys, values) = (view.query_statistics.unwrap(), view.keys.unwrap(), view.values.unwrap());
    let scores = prompt.score(&method("{ name = 'expected-attention', future = 3, epsilon = 0.01 }"));
    // The mean rotation as a matrix, everything dense and in 64 bits.
    let mut rotation = [[0.0f64; 4]; 4];
    for position in 16..19 {
        for (pair, frequency) in [1.0f64, 0.01f32.into()].into_iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (a, b) = (pair, pair + 2);
            for (row, column, value) in [(a, a, cos), (b, b, cos), (a, b, -sin), (b, a, sin)] {
                rotation[row][column] += value / 3.0;
            }
        }
    }
    for kv_head in 0..2 {
        let mut expected = [0.0; 16];
        for query_head in 2 * kv_head..2 * kv_head + 2 {
            let logit = |token: usize| {
                let key = &keys[(kv_head * 16 + token) * 4..][..4];
                let turned: Vec<f64> =
                    (0..4).map(|c| (0..4).map(|r| rotation[r][c] * f64::from(key[r])).sum()).collect();
                let mean: f64 = (0..4).map(|c| f64::from(statistics.mean[query_head * 4 + c]) * turned[c]).sum();
                let spread: f64 = (0..16)
                    .map(|at| f64::from(statistics.covariance[query_head * 16 + at]) * turned[at / 4] * turned[at % 4])
                    .sum();
                mean / 2.0 + spread / 8.0
            };
            let sum: f64 = (4..16).map(|token| logit(token).exp()).sum();
            (4..16).for_each(|token| expected[token] += logit(token).exp() / sum / 2.0);
        }
        for token in 4..16 {
            let value = &values[(kv_head * 16 + token) * 4..][..4];
            let length = value.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
            let (ours, theirs) = (f64::from(scores[kv_head * 16 + token]), (expected[token] + 0.01) * length);
            assert!(
                (ours - theirs).abs() < 1e-5 * theirs.max(1.0),
                "KV head {kv_head}, token {token}: {ours}, {theirs}"
            );
        }
    }
}
