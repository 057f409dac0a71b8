//! How fast this machine runs a model: prefill, compression, decode at every budget, coalitions of the game.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use cokv_core::random::mix;
use cokv_core::{Budget, Coalition, Frame, Game, GameError, HeadSelection, Method, PolicyError, Query, Selection};
use cokv_models::ask::Top;
use cokv_models::cache::{RaggedCache, Segment};
use cokv_models::game::{GameRecord, GameRules, HeadMaskError, HeadMaskGame};
use cokv_models::{LanguageModel, ModelError, StopRule};
use serde::Serialize;
use thiserror::Error;

use crate::machine::memory::{forget_peak_resident_bytes, peak_resident_bytes};
use crate::machine::{Machine, prefill_operations};

/// Times that short measurements are repeated; the median counts.
const REPEATS: usize = 3;

/// What to measure.
#[derive(Clone, Debug)]
pub struct PerfSettings {
    /// Prompt tokens.
    pub contexts: Vec<usize>,
    /// Tokens of each KV head that decoding is measured with, beside the full cache.
    pub budgets: Vec<usize>,
    /// Tokens that are decoded of each sequence.
    pub decode_tokens: usize,
    /// Sequences that are decoded together.
    pub sequences: Vec<usize>,
    /// Coalitions of one forward pass.
    pub batches: Vec<usize>,
    /// Tokens of the reference answer of a coalition's record.
    pub answer_tokens: usize,
}

/// All that was measured of one model, in the order of the settings.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PerfReport {
    /// Bytes of the weights that a decode step reads.
    pub weight_bytes: usize,
    /// One for each context.
    pub prefill: Vec<PrefillSpeed>,
    /// For each context, one for the full cache and one for each budget below the context, for each number of sequences.
    pub decode: Vec<DecodeSpeed>,
    /// One for each context and batch.
    pub coalitions: Vec<CoalitionSpeed>,
}

/// Prefill of one prompt.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PrefillSpeed {
    /// Prompt tokens.
    pub context: usize,
    /// Time of the prefill.
    pub seconds: f64,
    /// Prompt tokens in a second.
    pub tokens_per_second: f64,
    /// Operations in a second, over those of a large product of matrices on this machine: of f32 on a processor, where
    /// products of 8 bits may be faster than that.
    pub relative_to_product: f64,
    /// Memory of the device, or else of the process, at its peak meanwhile, where the system tells.
    pub peak_resident_bytes: Option<u64>,
}

/// Decoding of some sequences together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DecodeSpeed {
    /// Prompt tokens.
    pub context: usize,
    /// Tokens of each KV head; none for the full cache.
    pub budget: Option<usize>,
    /// Sequences decoded together, each with a cache of its own.
    pub sequences: usize,
    /// Tokens of all sequences in a second, the median of three runs.
    pub tokens_per_second: f64,
    /// Bytes of all caches before the first token.
    pub cache_bytes: usize,
    /// Bytes of weights and caches that were read in a second, over those that the machine reads from memory. What
    /// stays in the processor's caches can make it more than 1.
    pub relative_to_bandwidth: f64,
    /// Time of scoring, allocating, selecting and copying what is kept of one prompt; none for the full cache.
    pub compression_seconds: Option<f64>,
    /// The same, over the time of the prefill.
    pub compression_share_of_prefill: Option<f64>,
    /// Memory of the device, or else of the process, at its peak meanwhile, where the system tells.
    pub peak_resident_bytes: Option<u64>,
}

/// Coalitions on one record that is prefilled already.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CoalitionSpeed {
    /// Prompt tokens.
    pub context: usize,
    /// Coalitions of one forward pass.
    pub batch: usize,
    /// Time of one coalition, the median of three batches.
    pub seconds: f64,
    /// Coalitions in a second.
    pub evaluations_per_second: f64,
    /// Prefills of the same record, timed in the same run, that take as long as one coalition.
    pub share_of_prefill: f64,
}

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum PerfError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The budget cannot be kept.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The record cannot be played.
    #[error(transparent)]
    Game(#[from] HeadMaskError),
    /// A coalition could not be evaluated.
    #[error(transparent)]
    Evaluation(GameError),
}

/// Measures everything, one after the other; `said` hears what is measured next. `method` keeps what a budget allows.
pub fn measure(
    model: &LanguageModel,
    method: &Method,
    settings: &PerfSettings,
    machine: &Machine,
    mut said: impl FnMut(&str),
) -> Result<PerfReport, PerfError> {
    let mut report = PerfReport { weight_bytes: model.engine().weight_bytes(), ..PerfReport::default() };
    for &context in &settings.contexts {
        let prompt = tokens(model, context, 1);
        said(&format!("prefill of {context} tokens"));
        if model.engine().take_peak_bytes().is_some() {
            // Libraries of accelerators choose their kernels when they first see a shape.
            drop(model.prefill(&prompt, method.observations(Frame::default()), |_| ())?);
        }
        forget_peak(model);
        let started = Instant::now();
        let prefill = model.prefill(&prompt, method.observations(Frame::default()), |_| ())?;
        let seconds = started.elapsed().as_secs_f64();
        report.prefill.push(PrefillSpeed {
            context,
            seconds,
            tokens_per_second: context as f64 / seconds,
            relative_to_product: prefill_operations(model.config(), context)
                / seconds
                / (machine.product_gigaflops * 1e9),
            peak_resident_bytes: peak(model),
        });

        said(&format!("compression of {context} tokens"));
        let mut caches = vec![(None, RaggedCache::full(prefill.prompt()), None)];
        for budget in settings.budgets.iter().copied().filter(|&budget| budget < context) {
            let compress =
                || -> Result<RaggedCache, PerfError> { Ok(prefill.compress(method, Budget::Tokens(budget))?.cache) };
            let seconds = median(|| timed(compress).map(|(_, seconds)| seconds))?;
            caches.push((Some(budget), compress()?, Some(seconds)));
        }
        let (first, mut whole) = (prefill.first(&endless(settings.decode_tokens)), Some(Arc::clone(prefill.prompt())));
        drop(prefill);
        for (budget, cache, compression_seconds) in caches {
            // The first, which is the full cache, is the last that needs the prompt.
            let prompt = whole.take();
            let mut together = vec![cache];
            for &sequences in &settings.sequences {
                let kept = budget.map_or("full cache".into(), |budget| format!("{budget} kept"));
                said(&format!("decoding {sequences} after {context} tokens, {kept}"));
                together.truncate(sequences);
                while together.len() < sequences {
                    together.push(prompt.as_ref().map_or_else(|| together[0].fork(), copied)?);
                }
                let cache_bytes = together.iter().map(RaggedCache::bytes).sum();
                forget_peak(model);
                let step = median(|| decode(model, &mut together, &first, settings.decode_tokens))?;
                let read = (report.weight_bytes + cache_bytes) as f64 / step;
                report.decode.push(DecodeSpeed {
                    context,
                    budget,
                    sequences,
                    tokens_per_second: sequences as f64 / step,
                    cache_bytes,
                    relative_to_bandwidth: read / (machine.read_gigabytes_per_second * 1e9),
                    compression_seconds,
                    compression_share_of_prefill: compression_seconds.map(|compression| compression / seconds),
                    peak_resident_bytes: peak(model),
                });
            }
        }
        if !settings.batches.is_empty() {
            said(&format!("coalitions after {context} tokens"));
            report.coalitions.extend(coalitions(model, &prompt, settings)?);
        }
    }
    Ok(report)
}

/// All of a prompt, as a sequence of its own has it: slices of one prompt would be read once for all sequences.
fn copied(prompt: &Arc<Segment>) -> Result<RaggedCache, ModelError> {
    let everything = HeadSelection::Tokens((0..prompt.seen() as u32).collect());
    RaggedCache::compressed(prompt, &Selection { heads: vec![everything; prompt.layout().heads()] })
}

/// Memory at its peak since [`forget_peak`]: of the device where there is one, else of the process.
fn peak(model: &LanguageModel) -> Option<u64> {
    model.engine().take_peak_bytes().or_else(peak_resident_bytes)
}

fn forget_peak(model: &LanguageModel) {
    model.engine().take_peak_bytes();
    forget_peak_resident_bytes();
}

fn timed<T>(work: impl FnOnce() -> Result<T, PerfError>) -> Result<(T, f64), PerfError> {
    let started = Instant::now();
    let result = work()?;
    Ok((result, started.elapsed().as_secs_f64()))
}

/// So many steps, whatever is said. The first token comes from the prefill.
fn endless(steps: usize) -> StopRule {
    StopRule { tokens: vec![], max_new_tokens: steps + 1, min_new_tokens: 0 }
}

/// Seconds of one step; the caches are as before afterwards.
fn decode(model: &LanguageModel, caches: &mut [RaggedCache], first: &Top, steps: usize) -> Result<f64, PerfError> {
    let first = std::slice::from_ref(first);
    let go_on = |_, _| ControlFlow::Continue(());
    let (_, seconds) = timed(|| Ok(model.greedy(caches, first, &endless(steps), go_on)?))?;
    caches.iter_mut().for_each(|cache| cache.rewind(steps));
    Ok(seconds / steps as f64)
}

fn coalitions(
    model: &LanguageModel,
    prompt: &[u32],
    settings: &PerfSettings,
) -> Result<Vec<CoalitionSpeed>, PerfError> {
    let record = GameRecord {
        name: "perf".into(),
        prompt: prompt.to_vec(),
        answer: tokens(model, settings.answer_tokens, 2),
        stop: StopRule { tokens: vec![], max_new_tokens: settings.answer_tokens, min_new_tokens: 0 },
    };
    let started = Instant::now();
    let mut game = HeadMaskGame::prepare(model, vec![record], GameRules::default(), None, |_| ())?;
    let prefill = started.elapsed().as_secs_f64();
    let players = game.players();
    let member = |coalition: usize, head: usize| mix((coalition * players + head) as u64) >> 63 == 1;
    let mut speeds = Vec::new();
    for &batch in &settings.batches {
        let drawn: Vec<Coalition> = (0..batch)
            .map(|draw| Coalition::from_members(players, (0..players).filter(|&head| member(draw, head))))
            .collect();
        let queries: Vec<Query<'_>> = drawn.iter().map(|coalition| Query { coalition, instance: 0 }).collect();
        let seconds = median(|| {
            let started = Instant::now();
            game.evaluate(&queries, &mut vec![0.0; batch]).map_err(PerfError::Evaluation)?;
            Ok(started.elapsed().as_secs_f64() / batch as f64)
        })?;
        speeds.push(CoalitionSpeed {
            context: prompt.len(),
            batch,
            seconds,
            evaluations_per_second: 1.0 / seconds,
            share_of_prefill: seconds / prefill,
        });
    }
    Ok(speeds)
}

/// Token ids that differ from each other and are the same on every machine.
fn tokens(model: &LanguageModel, count: usize, seed: u64) -> Vec<u32> {
    let vocabulary = model.config().vocabulary as u64;
    (0..count as u64).map(|place| (mix(seed << 32 | place) % vocabulary) as u32).collect()
}

fn median(mut measure: impl FnMut() -> Result<f64, PerfError>) -> Result<f64, PerfError> {
    let mut seconds = (0..REPEATS).map(|_| measure()).collect::<Result<Vec<f64>, _>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[REPEATS / 2])
}
