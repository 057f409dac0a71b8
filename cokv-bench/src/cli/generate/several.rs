//! Several answers to one prompt, side by side.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;
use cokv_core::{Budget, Method, ObservationRequest};
use cokv_models::cache::RaggedCache;
use cokv_models::{LanguageModel, StopRule};
use serde_json::json;

use crate::cli::bar::bar;
use crate::cli::output::print;
use crate::cli::replayed::replayed;
use crate::data::prompt::Framed;
use crate::machine::memory::mebibytes;
use crate::run::CellBudget;

/// An answer, and the cache that it came from.
struct Answer<'a> {
    method: &'a Method,
    budget: CellBudget,
    kept_tokens: usize,
    cache_bytes: usize,
}

/// Answers a prompt with every method at every budget, from one prefill and as one batch. A method that evicts nothing
/// answers once.
pub fn answer(
    methods: &[Method],
    budgets: &[Budget],
    prompt: Framed,
    stop: &StopRule,
    model: &LanguageModel,
    as_json: bool,
) -> Result<()> {
    let Framed { tokens, frame, .. } = prompt;
    let request =
        methods.iter().fold(ObservationRequest::default(), |all, method| all.union(method.observations(frame)));
    let started = Instant::now();
    let bar = bar(false, "prefill {wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left", tokens.len());
    let prefill = model.prefill(&tokens, request, |done| bar.set_position(done as u64))?;
    let prefill = replayed(prefill.within(frame), methods, model)?;
    bar.finish_and_clear();
    let prefill_seconds = started.elapsed().as_secs_f64();

    let (mut caches, mut answers) = (Vec::new(), Vec::new());
    let mut asked: Vec<(&Method, Budget)> = Vec::new();
    for method in methods {
        // What evicts nothing is the same at every budget.
        let budgets = &budgets[..if method.evicts() { budgets.len() } else { 1 }];
        asked.extend(budgets.iter().map(|&budget| (method, budget)));
    }
    let totals: Vec<(&Method, usize)> =
        asked.iter().map(|&(method, budget)| (method, prefill.allowed(method, budget))).collect();
    for ((method, budget), scores) in asked.into_iter().zip(prefill.score_all(&totals)?) {
        let (cache, budget) = match method.evicts() {
            true => (prefill.compress_scored(method, &scores, budget)?.cache, CellBudget(Some(budget))),
            false => (RaggedCache::full(prefill.prompt()), CellBudget(None)),
        };
        let (kept_tokens, cache_bytes) = (cache.total_tokens(), cache.allocated_bytes());
        answers.push(Answer { method, budget, kept_tokens, cache_bytes });
        caches.push(cache);
    }
    let started = Instant::now();
    let said = model.greedy(&mut caches, &[prefill.first(stop)], stop, |_, _| ControlFlow::Continue(()))?;
    let decode_seconds = started.elapsed().as_secs_f64();

    let whole = model.config().layout.heads() * tokens.len();
    let mut as_objects = Vec::new();
    for (Answer { method, budget, kept_tokens, cache_bytes }, said) in answers.iter().zip(&said) {
        let text = model.tokenizer().decode(said, true)?;
        let share = *kept_tokens as f64 / whole as f64;
        if as_json {
            as_objects.push(json!({
                "method": method.name(), "budget": budget, "kept_tokens": kept_tokens, "kept_share": share,
                "cache_bytes": cache_bytes, "new_tokens": said.len(), "text": text,
            }));
        } else {
            let cache = mebibytes(*cache_bytes as u64);
            print(&format!(
                "── {} at {budget}: {:.1} % kept, {cache}\n{}\n",
                method.name(),
                100.0 * share,
                text.trim()
            ))?;
        }
    }
    if as_json {
        return print(&serde_json::to_string(&json!({
            "prompt_tokens": tokens.len(), "prefill_seconds": prefill_seconds, "decode_seconds": decode_seconds,
            "answers": as_objects,
        }))?);
    }
    eprintln!(
        "{} answers from one prefill of {} tokens in {prefill_seconds:.2} s, decoded as one batch in {decode_seconds:.2} s",
        answers.len(),
        tokens.len(),
    );
    Ok(())
}
