//! What every backend promises, checked against another: the same model and the same rows give the same answers and
//! observations, whatever the layout, the lengths of the heads and what is shared.
//!
//! - A row's answers do not depend on who else is in its pass, up to rounding.
//! - A frozen cache and a copy of it are the same.
//! - Tokens may come one at a time, in chunks or all at once.
//! - Rows whose numbers are not finite say so, and concern nobody else.
//!
//! `tests/backends.rs` holds every backend of this crate against [`Reference`](crate::backend::Reference); a crate with another
//! backend calls [`check`] with its own.

use std::sync::Arc;

use cokv_core::random::mix;
use cokv_core::{
    BlockSums, Coalition, Format, Frame, HeadLayout, HeadSelection, ObservationRequest, Pairs, Replayed, RotaryPairs,
    Selection, WindowSum,
};

use crate::ask::{Against, Along, Answer, Ask};
use crate::backend::{LayerSummaries, Replaying};
use crate::cache::{RaggedCache, Segment};
use crate::config::{Architecture, ModelConfig, RopeScaling};
use crate::engine::{Engine, Row};
use crate::error::ModelError;
use crate::prefill::{Prefill, Prefilling};

/// One comparison.
#[derive(Clone, Debug)]
pub struct Case {
    /// How rows of the cache are stored.
    pub format: Format,
    /// Prompt tokens.
    pub prompt: usize,
    /// Tokens of a chunk of the prompt.
    pub chunk: usize,
    /// Tokens of each row after the prompt.
    pub answer: usize,
    /// Draws tokens, kept tokens and coalitions.
    pub seed: u64,
    /// Whether pairs with biases are tried, which not every backend has.
    pub biases: bool,
    /// Largest difference of a logit or an observation, relative to the largest of its kind.
    pub tolerance: f32,
}

/// A small model to run cases on, whose weights can be drawn ([`Drawn`](crate::weights::Drawn)).
pub fn small_model(architecture: Architecture, layout: HeadLayout, hidden_size: usize) -> ModelConfig {
    ModelConfig {
        architecture,
        layout,
        hidden_size,
        intermediate_size: hidden_size * 3 / 2,
        vocabulary: 300,
        context_length: 4096,
        windows: Vec::new(),
        norm_epsilon: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        rope_attention_factor: 1.0,
        rope_pairs: RotaryPairs::Halves,
        attention_bias: architecture == Architecture::Qwen2,
        tied_embeddings: Some(architecture == Architecture::Qwen3),
        stop_tokens: Vec::new(),
    }
}

/// What a backend made of a case.
struct Outcome {
    logits: Vec<f32>,
    summaries: Vec<LayerSummaries>,
    /// Of a chunk of the prompt that is fed again.
    replayed: Vec<Replayed>,
    /// Of the same rows: all in one pass, and each in a pass of its own.
    along: [Vec<Along>; 2],
    /// Logits after a frozen cache, and after a copy of what it holds.
    frozen: [Vec<f32>; 2],
    /// Logits after caches whose pairs are not the prompt's, alone and frozen.
    rewritten: [Vec<f32>; 2],
    /// Logits after some steps of one token each.
    stepped: Vec<f32>,
    /// The last queries of a watched answer, all layers.
    answered: Vec<f32>,
}

/// Runs a case on both engines, which hold the same model, and says where they differ first.
///
/// # Errors
/// What differs and by how much, or what failed.
pub fn check(ours: &Arc<dyn Engine>, theirs: &Arc<dyn Engine>, case: &Case) -> Result<(), String> {
    let run =
        |engine: &Arc<dyn Engine>| outcome(engine, case).map_err(|error| format!("{}: {error}", engine.backend()));
    let (ours, theirs) = (run(ours)?, run(theirs)?);
    let near = |what: &str, a: &[f32], b: &[f32]| near(what, a, b, case.tolerance);
    near("logits after the prompt", &ours.logits, &theirs.logits)?;
    for (layer, (a, b)) in ours.summaries.iter().zip(&theirs.summaries).enumerate() {
        let what = |what: &str| format!("{what} of layer {layer}");
        near(&what("window attention"), &a.window_attention, &b.window_attention)?;
        for ((sum, a), (other, b)) in a.window_sums.iter().zip(&b.window_sums) {
            if sum != other {
                return Err(format!("{}: {sum:?} and {other:?}", what("window sums")));
            }
            near(&what(&format!("{sum:?}")), a, b)?;
        }
        if a.window_sums.len() != b.window_sums.len() {
            return Err(format!("only one backend has all {}", what("window sums")));
        }
        near(&what("column sums"), &a.column_sums, &b.column_sums)?;
        near(&what("keys"), &a.keys, &b.keys)?;
        near(&what("values"), &a.values, &b.values)?;
        near(&what("norms of values"), &a.value_output_norms, &b.value_output_norms)?;
        for ((sums, a), (_, b)) in a.block_sums.iter().zip(&b.block_sums) {
            near(&what(&format!("{sums:?}")), a, b)?;
        }
        near(&what("output grams"), &a.output_grams, &b.output_grams)?;
        near(&what("inputs"), &a.inputs, &b.inputs)?;
        near(&what("last queries"), &a.queries, &b.queries)?;
        match (&a.query_statistics, &b.query_statistics) {
            (Some(a), Some(b)) => {
                near(&what("means of queries"), &a.mean, &b.mean)?;
                near(&what("covariances of queries"), &a.covariance, &b.covariance)?;
            }
            (None, None) => {}
            _ => return Err(format!("only one backend has {}", what("query statistics"))),
        }
    }
    for (layer, (a, b)) in ours.replayed.iter().zip(&theirs.replayed).enumerate() {
        let what = |what: &str| format!("{what} of layer {layer} in a second pass");
        near(&what("weights"), &a.weights, &b.weights)?;
        near(&what("weights by input"), &a.weights_by_input, &b.weights_by_input)?;
        near(&what("queries"), &a.queries, &b.queries)?;
    }
    let numbers = |along: &[Along], of: fn(&Along) -> &[f64]| -> Vec<f32> {
        along.iter().flat_map(of).map(|&number| number as f32).collect()
    };
    for (what, of) in [
        ("log-likelihoods", (|along| &along.log_likelihoods) as fn(&Along) -> &[f64]),
        ("divergences", |along| &along.divergences),
    ] {
        let [together, alone] = &ours.along;
        near(&format!("{what} of rows in one pass"), &numbers(together, of), &numbers(&theirs.along[0], of))?;
        near(&format!("{what} of rows together and alone"), &numbers(together, of), &numbers(alone, of))?;
    }
    near("logits after a frozen cache", &ours.frozen[0], &theirs.frozen[0])?;
    near("logits after a frozen cache and a copy", &ours.frozen[0], &ours.frozen[1])?;
    near("logits after rewritten pairs", &ours.rewritten[0], &theirs.rewritten[0])?;
    near("logits after rewritten pairs and after frozen ones", &ours.rewritten[0], &ours.rewritten[1])?;
    near("logits of single steps", &ours.stepped, &theirs.stepped)?;
    near("last queries of an answer", &ours.answered, &theirs.answered)
}

fn near(what: &str, a: &[f32], b: &[f32], tolerance: f32) -> Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("{what}: {} numbers and {}", a.len(), b.len()));
    }
    let scale = b.iter().fold(1e-3f32, |scale, x| scale.max(x.abs()));
    let difference = |(a, b): (&f32, &f32)| (a - b).abs() / scale;
    let worst = a.iter().zip(b).map(difference).enumerate().max_by(|x, y| x.1.total_cmp(&y.1));
    match worst {
        Some((at, difference)) if difference.is_nan() || difference > tolerance => Err(format!(
            "{what}: number {at} of {} is {} and {}, {difference:.1e} of {scale:.1e}",
            a.len(),
            a[at],
            b[at]
        )),
        _ => Ok(()),
    }
}

fn outcome(engine: &Arc<dyn Engine>, case: &Case) -> Result<Outcome, ModelError> {
    let vocabulary = engine.config().vocabulary as u64;
    let layout = engine.config().layout;
    let draw = |at: u64| mix(case.seed << 20 ^ at);
    let tokens = |from: u64, count: usize| -> Vec<u32> {
        (0..count as u64).map(|at| (draw(from + at) % vocabulary) as u32).collect()
    };
    let everything = ObservationRequest {
        window: 8,
        window_sums: vec![
            WindowSum { rows: 3, tail: 0 },
            WindowSum { rows: 5, tail: 12 },
            // Of a prompt that is no longer, there is nothing but the tail.
            WindowSum { rows: 2, tail: 40 },
        ],
        column_sums: true,
        block_sums: vec![
            BlockSums { block: 16, ..BlockSums::default() },
            BlockSums { block: 10, first: 3, last: 2, padded: true },
        ],
        query_statistics: true,
        keys: true,
        values: true,
        value_output_norms: true,
        output_grams: true,
        inputs: true,
        queries: 6,
    };
    let mut prefilling = Prefilling::new(engine, tokens(0, case.prompt), case.format, everything.clone())?;
    if case.prompt > 2 {
        prefilling = prefilling.with_document(case.prompt * 2 / 3, everything, Frame::default())?;
    }
    while prefilling.left() > 0 {
        let answer = engine.step(&mut [prefilling.row(case.chunk)])?.pop().unwrap_or(Answer::Nothing);
        prefilling.take(answer)?;
    }
    let texts = prefilling.finish_all()?;
    let of_layers = |text: &Prefill| (0..layout.layers).map(|layer| text.summaries(layer)).collect::<Vec<_>>();
    let summaries = texts.iter().flat_map(of_layers).collect::<Result<_, _>>()?;
    let Some(prefill) = texts.last() else { return Err(ModelError::EmptyPrompt) };
    let prompt = prefill.prompt();

    let chunk = case.prompt / 4..case.prompt;
    let (sinks, kept) = (2.min(chunk.start), vec![1, 2 + case.prompt / 8]);
    let mut watch = engine.watch_replay(Replaying { prompt_len: case.prompt, sinks, keys: chunk.clone(), kept });
    let mut cache = RaggedCache::full(prompt);
    for piece in tokens(1 << 20, case.prompt / 4 + 3).chunks(case.chunk) {
        let (watches, ask) = (vec![watch.as_mut()], Ask::Nothing);
        engine.step(&mut [Row { tokens: piece, cache: &mut cache, watches, ask, within: 0 }])?;
    }
    let replayed = (0..layout.layers).map(|layer| engine.replayed(watch.as_mut(), layer)).collect::<Result<_, _>>()?;

    // Ragged: from nothing to everything, with coalitions of the same prompt beside.
    let kept = |row: u64| -> Selection {
        let head = |head: u64| match draw(1 << 16 | row << 8 | head) % 5 {
            0 => HeadSelection::Everything,
            1 => HeadSelection::Tokens(Vec::new()),
            _ => HeadSelection::Tokens(
                (0..case.prompt as u32)
                    .filter(|&at| draw(1 << 17 ^ u64::from(at) << 9 ^ row << 5 ^ head) % 3 == 0)
                    .collect(),
            ),
        };
        Selection { heads: (0..layout.heads() as u64).map(head).collect() }
    };
    let caches = || -> Result<Vec<RaggedCache>, ModelError> {
        let mut caches = vec![RaggedCache::full(prompt)];
        for row in 0..3 {
            caches.push(RaggedCache::compressed(prompt, &kept(row))?);
        }
        for row in 0..5 {
            let members = (0..layout.heads()).filter(|&head| draw(1 << 18 | row << 8 | head as u64) % 2 == 0);
            caches.push(RaggedCache::masked(prompt, &Coalition::from_members(layout.heads(), members), 8));
        }
        Ok(caches)
    };
    let answer = tokens(1 << 19, case.answer);
    let ask = |row: usize| Ask::Along {
        skip: usize::from(case.answer > 2),
        targets: &answer[1 + usize::from(case.answer > 2)..],
        against: if row == 0 { Against::Nobody } else { Against::Row(0) },
        keep: row == 0,
    };
    let mut together = caches()?;
    let mut rows: Vec<Row<'_>> =
        together.iter_mut().enumerate().map(|(row, cache)| Row::new(&answer, cache, ask(row))).collect();
    let along = |answers: Vec<Answer>| {
        answers.into_iter().map(|answer| answer.along(String::new)).collect::<Result<Vec<_>, _>>()
    };
    let of_all = along(engine.step(&mut rows)?)?;
    let mut alone: Vec<Along> = Vec::new();
    for (row, mut cache) in caches()?.into_iter().enumerate() {
        let Ask::Along { skip, targets, keep, .. } = ask(row) else { continue };
        let first = alone.first().and_then(|first| first.kept.as_ref());
        let against = first.map_or(Against::Nobody, Against::Kept);
        let ask = Ask::Along { skip, targets, against, keep };
        let of_row = along(engine.step(&mut [Row::new(&answer, &mut cache, ask)])?)?;
        alone.extend(of_row);
    }

    let mut document = RaggedCache::compressed(prompt, &kept(0))?;
    let mut copy = document.fork()?;
    document.freeze()?;
    let mut questions: Vec<RaggedCache> = (0..5).map(|_| document.fork()).collect::<Result<_, _>>()?;
    let logits = |caches: &mut [RaggedCache], tokens: &[u32]| -> Result<Vec<f32>, ModelError> {
        let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::new(tokens, cache, Ask::Logits)).collect();
        let answers = engine.step(&mut rows)?;
        answers.into_iter().next().unwrap_or(Answer::Nothing).logits(String::new)
    };
    let frozen = [logits(&mut questions, &answer)?, logits(std::slice::from_mut(&mut copy), &answer)?];
    let mut rewritten = rewritten(prompt, &kept(1), case.biases)?;
    let mut shared = rewritten.fork()?;
    shared.freeze()?;
    let mut shared: Vec<RaggedCache> = (0..5).map(|_| shared.fork()).collect::<Result<_, _>>()?;
    let rewritten = [logits(std::slice::from_mut(&mut rewritten), &answer)?, logits(&mut shared, &answer)?];
    let mut stepped = Vec::new();
    for token in &answer {
        stepped.extend(logits(std::slice::from_mut(&mut copy), std::slice::from_ref(token))?);
    }
    let mut watch = engine.watch_queries(3);
    for tokens in answer.chunks(2) {
        let (cache, watches) = (&mut copy, vec![watch.as_mut()]);
        engine.step(&mut [Row { tokens, cache, watches, ask: Ask::Nothing, within: 0 }])?;
    }
    let of_layers = (0..layout.layers).map(|layer| engine.last_queries(watch.as_ref(), layer));
    let answered = of_layers.collect::<Result<Vec<_>, _>>()?.concat();
    Ok(Outcome {
        logits: prefill.logits().to_vec(),
        summaries,
        replayed,
        along: [of_all, alone],
        frozen,
        rewritten,
        stepped,
        answered,
    })
}

/// What a selection keeps, values changed and perhaps some keys made more or less likely.
fn rewritten(prompt: &Arc<Segment>, kept: &Selection, biases: bool) -> Result<RaggedCache, ModelError> {
    let dim = prompt.layout().head_dim;
    let mut pairs = Vec::with_capacity(kept.heads.len());
    for (head, kept) in kept.heads.iter().enumerate() {
        let HeadSelection::Tokens(rows) = kept else {
            pairs.push(Pairs::default());
            continue;
        };
        let Pairs { keys, values, .. } = prompt.read(head)?;
        let of_rows = |numbers: &[f32]| -> Vec<f32> {
            rows.iter().flat_map(|&row| &numbers[row as usize * dim..(row as usize + 1) * dim]).copied().collect()
        };
        let values = of_rows(&values).iter().map(|value| 0.5 - value).collect();
        // Of every other head, and of the lower half of its rows none.
        let bias = |row: usize| if 2 * row < rows.len() { 0.0 } else { 1.5 - row as f32 / 3.0 };
        let biases = if biases && head % 2 == 0 { (0..rows.len()).map(bias).collect() } else { Vec::new() };
        pairs.push(Pairs { keys: of_rows(&keys), values, biases });
    }
    RaggedCache::rewritten(prompt, kept, &pairs)
}
