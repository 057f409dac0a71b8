//! Budgets that papers and their programs give, some of them from published scores.

use cokv_core::{AllocationRequest, HeadLayout, HeadScores, Protected, TokenScores};
use serde_json::Value as Json;

use super::contract::{allocator, plan};

/// Budgets of four heads with the scores 0.1, 0.4, 0.2 and 0.3, 80 tokens for all of them.
fn toy(settings: &str, prompt_len: usize) -> Vec<usize> {
    let layout = HeadLayout::new(1, 4, 4, 4).unwrap();
    let scores = HeadScores::new(layout, vec![0.1, 0.4, 0.2, 0.3]).unwrap();
    plan(&*allocator(settings), &scores, layout, 0, 20, prompt_len).unwrap().kept().to_vec()
}

#[test]
fn cokv_shares_out_what_is_above_the_border() {
    assert_eq!(toy("name = 'cokv', drop_lowest = 1, rounding = 'paper'", 1000), [0, 40, 13, 26]);
    assert_eq!(toy("name = 'cokv', drop_lowest = 2, rounding = 'paper'", 1000), [0, 53, 0, 26]);
    assert_eq!(toy("name = 'cokv', drop_lowest = 3, rounding = 'paper'", 1000), [0, 80, 0, 0]);
    assert_eq!(toy("name = 'cokv', drop_lowest = 1", 1000), [0, 40, 13, 27]);
    assert_eq!(toy("name = 'cokv', drop_lowest = 1", 30), [0, 30, 20, 30]);
    // The published rule loses what a head of a short prompt cannot use, unless it is told to pass it on.
    assert_eq!(toy("name = 'cokv', drop_lowest = 1, rounding = 'paper'", 30), [0, 30, 13, 26]);
    assert_eq!(toy("name = 'cokv', drop_lowest = 1, rounding = 'paper', cap = true", 30), [0, 30, 19, 30]);
}

#[test]
fn proportions_count_from_zero() {
    assert_eq!(toy("name = 'proportional'", 1000), [8, 32, 16, 24]);
    assert_eq!(toy("name = 'proportional'", 25), [10, 25, 20, 25]);
    assert_eq!(toy("name = 'proportional', apportionment = 'largest-remainder'", 1000), [8, 32, 16, 24]);
}

#[test]
fn classes_are_filled_one_after_the_other() {
    let duo = |settings: &str, prompt_len| toy(&format!("name = 'duo-attention', {settings}"), prompt_len);
    // Streaming heads keep 6 tokens, the two retrieval heads the whole prompt.
    assert_eq!(duo("sinks = 2, recent = 4", 34), [6, 34, 6, 34]);
    assert_eq!(duo("sinks = 2, recent = 4", 100), [6, 34, 6, 34]);
    assert_eq!(duo("sinks = 2, recent = 4", 30), [10, 30, 10, 30]);
    assert_eq!(duo("sinks = 2, recent = 4, retrieval_share = 0.25", 62), [6, 62, 6, 6]);
    assert_eq!(duo("sinks = 64, recent = 256", 100), [20, 20, 20, 20]);
}

#[test]
fn water_fills_equal_worth_evenly_and_unequal_worth_unequally() {
    // Gains are 0.1, 0.4, 0.2 and 0.3 times exp(-count / 10): equal after 10 ln of the scores' ratios.
    let counts = toy("name = 'water-filling', tau = 10", 1000);
    assert_eq!(counts.iter().sum::<usize>(), 80);
    assert_eq!(toy("name = 'water-filling', tau = 10, floor = 1", 1000), [8, 32, 16, 24], "all in proportion");
    for (head, ratio) in [(1, 4.0f64), (2, 2.0), (3, 3.0)] {
        let ahead = counts[head] as f64 - counts[0] as f64;
        assert!((ahead - 10.0 * ratio.ln()).abs() <= 1.0, "{counts:?}");
    }
}

/// Budgets of two heads of a layer with these token scores and, where the allocator looks at them, head scores.
fn two_heads(settings: &str, total: usize, token_scores: [&[f32]; 2], head_scores: [f64; 2]) -> Vec<usize> {
    let layout = HeadLayout::new(1, 2, 2, 4).unwrap();
    let prompt_len = token_scores[0].len();
    let mut all = TokenScores::with_capacity(layout, prompt_len);
    all.push_layer(&token_scores.concat());
    let request = AllocationRequest {
        layout,
        prompt_len,
        total,
        protected: Protected::default(),
        token_scores: &all,
        head_scores: Some(&HeadScores::new(layout, head_scores.to_vec()).unwrap()),
    };
    allocator(settings).allocate(&request).unwrap().kept().to_vec()
}

fn ada(settings: &str, base: usize, token_scores: [&[f32]; 2]) -> Vec<usize> {
    two_heads(&format!("name = 'ada-kv', {settings}"), 2 * base, token_scores, [0.0; 2])
}

#[test]
fn shapley_ada_weighs_the_competition() {
    // Of values 3 and 1 the order is 24, 12, 8, 6, 4, 3, 2, 1, of which the third, fifth, seventh and last are the second
    // head's, whatever the unit of its token scores is.
    let (first, second) = ([1.0, 8.0, 4.0, 2.0], [20.0, 10.0, 80.0, 40.0]);
    for (total, expected) in [(1, [1, 0]), (2, [2, 0]), (3, [2, 1]), (4, [3, 1]), (5, [3, 2]), (6, [4, 2])] {
        for form in ["name = 'shapley-ada'", "name = 'water-filling', curve = 'per-head'"] {
            assert_eq!(two_heads(form, total, [&first, &second], [3.0, 1.0]), expected, "{form}, {total} tokens");
        }
    }
    let raw = "name = 'shapley-ada', normalise = 'none'";
    assert_eq!(two_heads(raw, 3, [&first, &second], [3.0, 1.0]), [1, 2], "as they are: 80, 40, 24");
    assert_eq!(two_heads("name = 'shapley-ada'", 3, [&first, &second], [3.0, -1.0]), [3, 0], "below zero is nothing");
    let border = "name = 'shapley-ada', drop_lowest = 1, floor = 0.5";
    assert_eq!(two_heads(border, 4, [&first, &second], [3.0, 1.0]), [4, 0], "at the border is nothing");
    let by_value = "name = 'shapley-ada', normalise = 'none', floor = 1";
    assert_eq!(two_heads(by_value, 3, [&first, &second], [3.0, 1.0]), [2, 1], "a whole floor leaves tokens no say");
}

#[test]
fn ada_kv_mixes_winners_and_floors() {
    let first = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.04, 0.03];
    let second = [0.55, 0.45, 0.35, 0.25, 0.15, 0.14, 0.13, 0.12, 0.11, 0.02, 0.01, 0.005];
    for (settings, base, expected) in [
        ("floor = 0.2, rounding = 'paper'", 6, [7, 4]),
        ("floor = 0.5, rounding = 'paper'", 6, [7, 5]),
        ("floor = 1, rounding = 'paper'", 6, [6, 6]),
        ("floor = 0.2, rounding = 'paper'", 4, [5, 2]),
        ("floor = 0.5, rounding = 'paper'", 5, [6, 4]),
        ("floor = 0, rounding = 'paper'", 6, [8, 4]),
        ("floor = 0, rounding = 'paper'", 4, [6, 2]),
        ("floor = 0, rounding = 'paper'", 5, [7, 3]),
        ("floor = 0.2", 6, [8, 4]),
        ("floor = 0.8", 6, [8, 4]),
        ("floor = 1", 6, [6, 6]),
    ] {
        assert_eq!(ada(settings, base, [&first, &second]), expected, "{settings}, base {base}");
    }
}

#[test]
fn ada_kv_makes_heads_comparable() {
    // By the mass that the best token of each holds: 1 and 1/4 in the first pair, 4/7 and 10/37 in the second.
    let pairs: [[&[f32]; 2]; 2] =
        [[&[4.0, 0.0, 0.0, 0.0], &[4.2, 4.2, 4.2, 4.2]], [&[4.0, 1.0, 1.0, 1.0], &[10.0, 9.0, 9.0, 9.0]]];
    for (normalise, expected) in [("none", [[0, 2], [0, 2]]), ("top-mass", [[1, 1], [0, 2]]), ("sum", [[1, 1], [1, 1]])]
    {
        let settings = format!("floor = 0, rounding = 'paper', normalise = '{normalise}'");
        assert_eq!(pairs.map(|pair| ada(&settings, 1, pair)), expected, "{normalise}");
    }
}

#[test]
fn ada_kv_rounds_half_to_even() {
    // The first head wins as many as it has scores above those of the second.
    let winners = |first: usize, base: usize, prompt_len: usize| {
        let scores = |above: usize| (0..prompt_len).map(|at| if at < above { 2.0 } else { 0.0 }).collect::<Vec<f32>>();
        [scores(first), scores(2 * base - first)]
    };
    for (settings, base, first, expected) in [
        ("floor = 0.5, rounding = 'paper'", 6, 5, [6, 6]),
        ("floor = 0.2, rounding = 'paper'", 120, 200, [184, 56]),
        ("floor = 0.2, rounding = 'paper'", 120, 121, [121, 119]),
        ("floor = 0.2, rounding = 'paper'", 120, 240, [216, 24]),
    ] {
        let [a, b] = winners(first, base, 300);
        assert_eq!(ada(settings, base, [&a, &b]), expected, "{settings}, base {base}");
    }
}

/// Tokens of a head of each layer of a long prompt, where the compressor said this of them.
fn of_layers(settings: &str, preferences: &[f64], base: usize) -> Vec<usize> {
    let layout = HeadLayout::new(preferences.len(), 2, 2, 4).unwrap();
    let mut token_scores = TokenScores::with_capacity(layout, 0);
    preferences.iter().for_each(|&preference| token_scores.push_preference(preference));
    let request = AllocationRequest {
        layout,
        prompt_len: 1_000_000,
        total: base * layout.heads(),
        protected: Protected { sinks: 0, window: 4 },
        token_scores: &token_scores,
        head_scores: None,
    };
    let plan = allocator(settings).allocate(&request).unwrap();
    plan.kept().chunks(2).map(|heads| heads[0]).collect()
}

#[test]
fn layers_get_what_they_need_of_others() {
    // CAKE's, of the closed form: 6.406055909655929 and 1.5939440903440707 of 8.
    let cake = [9.194347442432507, 2.28772211437389];
    assert_eq!(of_layers("name = 'layer-preferences'", &cake, 40_004), [64_065, 15_943]);
    assert_eq!(of_layers("name = 'layer-preferences'", &[0.0, 0.0], 40_004), [40_004; 2]);
    assert_eq!(of_layers("name = 'layer-preferences'", &[1.0, 0.0], 40_004), [80_004, 4]);
    assert_eq!(of_layers("name = 'layer-preferences'", &[1.0, 0.0], 600_004), [1_000_000, 200_008], "no room for more");
    assert_eq!(of_layers("name = 'per-layer', shares = [2, 1]", &[0.0; 4], 50_004), [80_004, 40_004, 40_004, 40_004]);
    assert_eq!(of_layers("name = 'per-layer', shares = [0, 3, 1]", &[0.0; 3], 40_004), [4, 90_004, 30_004]);
    assert_eq!(of_layers("name = 'lazy-layers', threshold = 0.8", &[0.1, 0.3, 0.19], 10), [4, 1_000_000, 4]);
}

#[test]
fn the_exact_pyramid_spends_what_it_has() {
    for (layers, base, prompt_len) in [(32, 128, 4000), (32, 64, 4000), (4, 64, 90), (1, 64, 90)] {
        let layout = HeadLayout::new(layers, 8, 8, 4).unwrap();
        let scores = HeadScores::new(layout, vec![0.0; layout.heads()]).unwrap();
        let exact = allocator("name = 'pyramidkv'");
        let kept = plan(&*exact, &scores, layout, 8, base, prompt_len).unwrap();
        assert_eq!(kept.total(), base * layout.heads());
        assert!(kept.kept().is_sorted_by(|low, high| low >= high), "{kept:?}");
    }
    let layout = HeadLayout::new(4, 1, 1, 4).unwrap();
    let scores = HeadScores::new(layout, vec![0.0; 4]).unwrap();
    let kept = |settings: &str, prompt_len| {
        plan(&*allocator(settings), &scores, layout, 8, 64, prompt_len).unwrap().kept().to_vec()
    };
    assert_eq!(kept("name = 'pyramidkv', rounding = 'paper'", 200), [118, 82, 46, 10]);
    assert_eq!(kept("name = 'pyramidkv', rounding = 'paper'", 90), [64; 4], "short prompts are uniform");
    assert_eq!(kept("name = 'pyramidkv', rounding = 'paper'", 60), [60; 4], "shorter ones untouched");
    assert_eq!(kept("name = 'pyramidkv'", 200), [117, 82, 46, 11]);
}

/// HeadKV's scores: the mean over the samples of each query head, `[32, 32]`.
fn headkv_scores(file: &str) -> Option<Vec<f64>> {
    let text = std::fs::read_to_string(cokv_golden::find(&format!("scores/headkv/{file}_heads.json"))?).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap();
    let mean = |head: usize| {
        let samples = json[format!("{}-{}", head / 32, head % 32)].as_array().unwrap();
        samples.iter().map(|sample| sample.as_f64().unwrap()).sum::<f64>() / samples.len() as f64
    };
    Some((0..1024).map(mean).collect())
}

/// Budgets of 128 tokens per head, the window of 8 left out, for a model of so many KV heads per layer.
fn headkv(beta: f64, gqa: &str, kv_heads: usize, scores: &[f64]) -> Vec<usize> {
    let layout = HeadLayout::new(32, 32, kv_heads, 128).unwrap();
    let scores = HeadScores::per_query_head(layout, scores.to_vec()).unwrap();
    let headkv = allocator(&format!("name = 'headkv', rounding = 'paper', beta = {beta:?}, gqa = '{gqa}'"));
    let plan = plan(&*headkv, &scores, layout, 8, 128, 1_000_000).unwrap();
    plan.kept().iter().map(|kept| kept - 8).collect()
}

const LLAMA_R2: &str = "Meta-Llama-3-8B-Instruct_retrieval_reasoning";
const LLAMA_R: &str = "Meta-Llama-3-8B-Instruct_retrieval";
const MISTRAL_R2: &str = "Mistral-7B-Instruct-v0.2_retrieval_reasoning";

#[test]
fn headkv_gives_query_heads_the_published_budgets() {
    for (file, beta, total, highest) in [
        (LLAMA_R2, 1.01, Some(122_864), Some(1821)),
        (LLAMA_R2, 1.2, Some(122_855), None),
        (MISTRAL_R2, 1.01, Some(122_870), Some(1940)),
    ] {
        let Some(scores) = headkv_scores(file) else { return };
        let budgets = headkv(beta, "per-query-head", 32, &scores);
        assert_eq!(budgets.iter().sum::<usize>(), total.unwrap_or(budgets.iter().sum()), "{file}, beta {beta}");
        assert_eq!(budgets.iter().max(), highest.as_ref().or(budgets.iter().max()), "{file}, beta {beta}");
        // A KV head keeps what its group of four would keep, and one window.
        let groups: Vec<usize> =
            budgets.chunks(4).map(|group| group.iter().map(|b| b + 8).sum::<usize>() - 8).collect();
        assert_eq!(headkv(beta, "per-query-head", 8, &scores), groups, "{file}, beta {beta}");
    }
}

#[test]
fn headkv_gives_kv_heads_the_published_budgets() {
    for (file, beta, total, highest, layer_0) in [
        (LLAMA_R2, 1.01, Some(30_594), Some(727), [5, 3, 17, 17, 13, 29, 3, 5]),
        (LLAMA_R2, 1.2, None, None, [22, 21, 33, 33, 29, 43, 21, 22]),
        (LLAMA_R2, 2.0, None, None, [61, 60, 67, 67, 65, 74, 60, 61]),
        (MISTRAL_R2, 1.01, None, None, [12, 5, 6, 6, 81, 13, 48, 4]),
        (LLAMA_R, 1.01, Some(30_658), Some(2064), [2; 8]),
    ] {
        let Some(scores) = headkv_scores(file) else { return };
        let budgets = headkv(beta, "per-kv-head", 8, &scores);
        assert_eq!(budgets.iter().sum::<usize>(), total.unwrap_or(budgets.iter().sum()), "{file}, beta {beta}");
        assert_eq!(budgets.iter().max(), highest.as_ref().or(budgets.iter().max()), "{file}, beta {beta}");
        assert_eq!(budgets[..8], layer_0, "{file}, beta {beta}");
    }
}

/// kvpress has the exact form. Its floor of a fifth counts window tokens first and decides nothing here, so that ours,
/// which begins behind the window, is off.
#[test]
fn exact_ada_kv_gives_the_budgets_of_kvpress() {
    let Some(path) = cokv_golden::find("golden/policies.safetensors") else { return };
    let file = std::fs::read(path).unwrap();
    let header_len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Json = serde_json::from_slice(&file[8..8 + header_len]).unwrap();
    let words = |name: &str| -> Vec<[u8; 4]> {
        let offset = |at: usize| 8 + header_len + header[name]["data_offsets"][at].as_u64().unwrap() as usize;
        file[offset(0)..offset(1)].chunks_exact(4).map(|word| word.try_into().unwrap()).collect()
    };
    let (layout, prompt_len) = (HeadLayout::new(30, 9, 3, 64).unwrap(), 618);
    for (run, window) in [("adakv_snapkv", 64), ("adakv_snapkv_w32", 32)] {
        let mut token_scores = TokenScores::with_capacity(layout, prompt_len);
        let published = words(&format!("A/{}/scores", run.replace("adakv_", "")));
        token_scores.push_layer(&published.into_iter().map(f32::from_le_bytes).collect::<Vec<_>>());
        for (removed, base) in [("0.5", 309), ("0.8", 123)] {
            let request = AllocationRequest {
                layout,
                prompt_len,
                total: base * layout.heads(),
                protected: Protected { sinks: 0, window },
                token_scores: &token_scores,
                head_scores: None,
            };
            let ada = allocator("name = 'ada-kv', floor = 0");
            let ours = ada.allocate(&request).unwrap();
            let theirs = words(&format!("A/{run}@{removed}/counts")).into_iter().map(u32::from_le_bytes);
            let theirs: Vec<usize> = theirs.map(|count| count as usize).collect();
            assert_eq!(ours.kept(), theirs, "{run}, {removed} removed");
        }
    }
}
