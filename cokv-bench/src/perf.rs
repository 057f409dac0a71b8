//! How fast this machine runs a model: prefill, decode at every budget, coalitions of the game.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use cokv_core::random::mix;
use cokv_core::{Coalition, Game, GameError, Method, PolicyError, Query};
use cokv_models::cache::RaggedCache;
use cokv_models::game::{GameRecord, GameRules, HeadMaskError, HeadMaskGame, Utility};
use cokv_models::{LanguageModel, ModelError, StopRule};
use serde::Serialize;
use thiserror::Error;

/// Times that short measurements are repeated; the median counts.
const REPEATS: usize = 3;

/// What to measure.
#[derive(Clone, Debug)]
pub struct PerfSettings {
    /// Prompt tokens.
    pub contexts: Vec<usize>,
    /// Tokens of each KV head that decoding is measured with, beside the full cache.
    pub budgets: Vec<usize>,
    /// Tokens that are decoded.
    pub decode_tokens: usize,
    /// Coalitions of one forward pass.
    pub batches: Vec<usize>,
    /// Tokens of the reference answer of a coalition's record.
    pub answer_tokens: usize,
}

/// All that was measured, in the order of the settings.
#[derive(Clone, Debug, Serialize)]
pub struct PerfReport {
    /// What the machine can do.
    pub machine: Machine,
    /// One for each context.
    pub prefill: Vec<PrefillSpeed>,
    /// For each context, one for the full cache and one for each budget below the context.
    pub decode: Vec<DecodeSpeed>,
    /// One for each context and batch.
    pub coalitions: Vec<CoalitionSpeed>,
}

/// What the machine can do with all its threads.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Machine {
    /// Threads.
    pub threads: usize,
    /// Bytes read from memory in a second, in GB.
    pub read_gigabytes_per_second: f64,
    /// Operations of a product of two f32 matrices in a second, in billions.
    pub f32_gigaflops: f64,
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
    /// Operations in a second, over those of a large product of f32 matrices on this machine. Attention has kernels of its
    /// own, which may be faster.
    pub relative_to_product: f64,
}

/// Decoding of one sequence.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DecodeSpeed {
    /// Prompt tokens.
    pub context: usize,
    /// Tokens of each KV head; none for the full cache.
    pub budget: Option<usize>,
    /// Tokens in a second, the median of three runs.
    pub tokens_per_second: f64,
    /// Bytes of the cache before the first token.
    pub cache_bytes: usize,
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
    /// The machine's speed could not be measured.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Measures everything, one after the other; `said` hears what is measured next. `method` keeps what a budget allows.
pub fn measure(
    model: &LanguageModel,
    method: &Method,
    settings: &PerfSettings,
    mut said: impl FnMut(&str),
) -> Result<PerfReport, PerfError> {
    said("memory bandwidth and f32 products");
    let machine = Machine::measure()?;
    let mut report = PerfReport { machine, prefill: vec![], decode: vec![], coalitions: vec![] };
    for &context in &settings.contexts {
        let prompt = tokens(model, context, 1);
        said(&format!("prefill of {context} tokens"));
        let started = Instant::now();
        let prefill = model.prefill(&prompt, method.observations(), |_| ())?;
        let seconds = started.elapsed().as_secs_f64();
        report.prefill.push(PrefillSpeed {
            context,
            seconds,
            tokens_per_second: context as f64 / seconds,
            relative_to_product: prefill_operations(model, context) / seconds / (machine.f32_gigaflops * 1e9),
        });
        let budgets = settings.budgets.iter().copied().filter(|&budget| budget < context).map(Some);
        for budget in std::iter::once(None).chain(budgets) {
            said(&format!(
                "decoding after {context} tokens, {}",
                budget.map_or("full cache".into(), |b| format!("{b} kept"))
            ));
            let cache = || -> Result<RaggedCache, PerfError> {
                let Some(budget) = budget else { return Ok(RaggedCache::full(prefill.cache())) };
                let selection = prefill.select(method, budget * model.config().layout.heads())?;
                Ok(RaggedCache::compressed(prefill.cache(), &selection))
            };
            // A full cache reads the prompt's own slices and holds no row of its own.
            let cache_bytes = match budget {
                None => prefill.cache().bytes(),
                Some(_) => cache()?.bytes(),
            };
            let seconds = median(|| decode(model, cache()?, prefill.logits(), settings.decode_tokens))?;
            report.decode.push(DecodeSpeed { context, budget, tokens_per_second: 1.0 / seconds, cache_bytes });
        }
        drop(prefill);
        said(&format!("coalitions after {context} tokens"));
        report.coalitions.extend(coalitions(model, &prompt, settings)?);
    }
    Ok(report)
}

/// Seconds of one token.
fn decode(model: &LanguageModel, cache: RaggedCache, logits: &[f32], tokens: usize) -> Result<f64, PerfError> {
    let stop = StopRule { tokens: vec![], max_new_tokens: tokens + 1, min_new_tokens: 0 };
    let started = Instant::now();
    // The first token comes from the prefill.
    model.greedy(&mut [cache], logits, &stop, |_, _| ControlFlow::Continue(()))?;
    Ok(started.elapsed().as_secs_f64() / tokens as f64)
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
    let mut game =
        HeadMaskGame::prepare(model, vec![record], Utility::AnswerProbability, GameRules::default(), |_| ())?;
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

/// Multiplications and additions of a prefill: two for every weight of a linear layer and token, two for every
/// number of each key and value that a query head attends to. The output layer sees the last token alone.
fn prefill_operations(model: &LanguageModel, tokens: usize) -> f64 {
    let config = model.config();
    let layout = config.layout;
    let query_width = layout.query_heads * layout.head_dim;
    let key_width = layout.kv_heads * layout.head_dim;
    let weights = config.hidden_size * (2 * query_width + 2 * key_width + 3 * config.intermediate_size);
    let attended = tokens as f64 * (tokens as f64 + 1.0) / 2.0;
    let layer = 2.0 * weights as f64 * tokens as f64 + 4.0 * query_width as f64 * attended;
    layer * layout.layers as f64 + 2.0 * (config.hidden_size * config.vocabulary) as f64
}

fn median(mut measure: impl FnMut() -> Result<f64, PerfError>) -> Result<f64, PerfError> {
    let mut seconds = (0..REPEATS).map(|_| measure()).collect::<Result<Vec<f64>, _>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[REPEATS / 2])
}

impl Machine {
    fn measure() -> Result<Self, PerfError> {
        let threads = candle_core::utils::get_num_threads();
        Ok(Self { threads, read_gigabytes_per_second: bandwidth(threads), f32_gigaflops: gigaflops()? })
    }
}

/// Every thread sums numbers that fit into no cache; the best of three counts.
fn bandwidth(threads: usize) -> f64 {
    const NUMBERS: usize = 1 << 25;
    let numbers = vec![1u64; NUMBERS];
    let pass = || {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in numbers.chunks(NUMBERS.div_ceil(threads)) {
                scope.spawn(move || {
                    std::hint::black_box(part.iter().fold(0u64, |sum, number| sum.wrapping_add(*number)))
                });
            }
        });
        started.elapsed()
    };
    let best = (0..REPEATS).map(|_| pass()).min().unwrap_or(Duration::MAX);
    size_of_val(&numbers[..]) as f64 / best.as_secs_f64() / 1e9
}

fn gigaflops() -> Result<f64, PerfError> {
    const SIDE: usize = 1536;
    const PRODUCTS: usize = 8;
    let square = Tensor::ones((SIDE, SIDE), candle_core::DType::F32, &Device::Cpu)?;
    let mut best = f64::INFINITY;
    for _ in 0..PRODUCTS {
        let started = Instant::now();
        std::hint::black_box(square.matmul(&square)?);
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(2.0 * (SIDE as f64).powi(3) / best / 1e9)
}
