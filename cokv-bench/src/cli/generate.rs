//! `cokv generate`

mod several;

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cokv_core::{Budget, Method, Registry, WhileDecoding};
use cokv_models::batch::{Batch, BatchSettings, Event, Request, Start};
use cokv_models::ledger::Ledger;
use cokv_models::sampling::{Sampler, Sampling};
use cokv_models::{LanguageModel, StopRule};

use super::bar::bar;
use super::load::{load, outline};
use super::method::{SeveralArguments, budget_remark};
use super::prompt_source::PromptArguments;
use super::sampling::SamplingArguments;
use crate::data::prompt::Framed;
use crate::machine::memory::{mebibytes, peak_resident_bytes};
use crate::model::{Beside, Loaded, ModelSettings};
use crate::run::tail_remark;
use crate::scores::ModelStamp;

/// Answer a prompt with a compressed cache
///
/// The prompt is prefilled with full attention, the method keeps what its budget allows, and the answer streams to
/// standard output. Speed, cache bytes and the kept share follow on standard error. Several methods or budgets answer side by
/// side, from one prefill and as one batch.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv generate --prompt 'What is a KV cache?'
  cokv generate --prompt 'Tell me a story.' --temperature 0.8 --top-p 0.95 --seed 7
  cokv generate --prompt-file report.txt --method snapkv --budget 128
  cokv generate --prompt-file report.txt --method full --method snapkv --method tova --budget 64,128
  cokv generate --prompt-file report.txt --method '{ name = \"snapkv\", window = 32 }' --budget 10%
  cokv generate --prompt-file report.txt --method snapkv --allocator cokv --scores passkey.scores.json --budget 64
  cokv generate --prompt 'Count to a thousand.' --method knorm --while-decoding knorm --budget 64 --max-new-tokens 2000
  cat report.txt | cokv generate --prompt-file - --method streaming-llm --budget '4 MiB'")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    #[command(flatten)]
    methods: SeveralArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Tokens of the answer at most
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// Print all answers with their figures as one JSON object, once all are there
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let mut methods = arguments.methods.build(registry)?;
    let text = arguments.prompt.text()?;
    if arguments.max_new_tokens == 0 {
        bail!("--max-new-tokens 0 leaves nothing to generate");
    }
    let outlined = outline(&arguments.model, false)?;
    let layout = outlined.outline.config().layout;
    let sampling = arguments.sampling.sampling(outlined.outline.config().vocabulary)?;
    // A batch has no text to feed a prompt again.
    let streams =
        matches!((&methods[..], &arguments.methods.budgets[..]), ([method], [_]) if method.replay().is_none());
    if !sampling.is_greedy_alone() && (arguments.json || !streams) {
        bail!(
            "tokens are drawn or penalised where one method answers at one budget, without --json, and reads its prompt once"
        );
    }
    let framed = arguments.prompt.framed(text, &outlined.outline)?;
    outlined.outline.config().check_length(framed.tokens.len() + arguments.max_new_tokens)?;
    let cached = layout.heads() * (framed.tokens.len() + arguments.max_new_tokens);
    let beside = Beside {
        bytes: (cached * arguments.model.cache.token_bytes(layout.head_dim)) as u64,
        what: format!("the cache of {} tokens", framed.tokens.len()),
        advice: "shorten the prompt, or take cache = \"f16\"",
    };
    let Loaded { model, fingerprint } = load(&outlined, &beside)?;
    let stamp = ModelStamp::of(&arguments.model.source, Some(&fingerprint), layout);
    methods.iter_mut().try_for_each(|method| arguments.methods.fit(method, &stamp, layout))?;
    if let Some(remark) = tail_remark(&methods.iter().collect::<Vec<_>>(), framed.frame) {
        eprintln!("note: {remark}");
    }
    let stop =
        StopRule { tokens: model.stop_tokens().to_vec(), max_new_tokens: arguments.max_new_tokens, min_new_tokens: 0 };
    match (&methods[..], &arguments.methods.budgets[..]) {
        ([method], &[budget]) if streams && !arguments.json => one(method, budget, framed, stop, sampling, &model),
        (methods, budgets) => several::answer(methods, budgets, framed, &stop, &model, arguments.json),
    }
}

/// One answer, as it comes.
fn one(
    method: &Method,
    budget: Budget,
    prompt: Framed,
    stop: StopRule,
    sampling: Sampling,
    model: &LanguageModel,
) -> Result<()> {
    let layout = model.config().layout;
    let Framed { tokens: prompt, frame, .. } = prompt;
    let full_bytes = layout.heads() * prompt.len() * model.format().token_bytes(layout.head_dim);
    let prompt_len = prompt.len();
    let settings = BatchSettings { format: model.format(), ..BatchSettings::default() };
    let mut batch = Batch::new(Arc::clone(model.engine()), settings, Ledger::of_free(model.engine().free_bytes(), 1.0));
    let compress = Some((method.clone(), budget));
    let samplers = vec![Sampler::new(sampling, 0, &prompt)];
    let sequence = batch.submit(Request {
        start: Start::Prompt { tokens: prompt, frame, compress },
        stop,
        samplers,
        constraint: None,
    })?;

    let bar = bar(false, "prefill {wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left", prompt_len);
    let (mut stream, mut out) = (model.tokenizer().stream(), std::io::stdout().lock());
    let mut written: Result<()> = Ok(());
    let mut told = Told { allowed: layout.heads() * prompt_len, ..Told::default() };
    let mut started = Instant::now();
    while batch.step(&mut |_, event| match event {
        Event::Prefilled { tokens, .. } => {
            bar.set_position(tokens as u64);
            told.prefill_seconds = started.elapsed().as_secs_f64();
        }
        Event::Compressed { tokens, bytes, allowed } => {
            told.compress_seconds = started.elapsed().as_secs_f64() - told.prefill_seconds;
            (told.kept, told.bytes, told.allowed) = (tokens, bytes, allowed);
        }
        Event::Token { token, .. } => {
            if told.tokens == 0 {
                bar.finish_and_clear();
                started = Instant::now();
            }
            told.tokens += 1;
            written = stream.push(token).map_err(anyhow::Error::from).and_then(|text| {
                out.write_all(text.as_bytes())?;
                Ok(out.flush()?)
            });
        }
        Event::Read { .. } => {}
        Event::Evicted { .. } => told.evictions += 1,
        Event::Ended { most_held, .. } => told.most_held = most_held,
        Event::Failed(error) => written = Err(error.into()),
    })? {
        if written.is_err() {
            batch.cancel(sequence);
        }
    }
    bar.finish_and_clear();
    written.context("the answer could not be written")?;
    writeln!(out, "{}", stream.finish()?)?;
    let decode_seconds = started.elapsed().as_secs_f64();
    let Told { tokens, kept, bytes, allowed, evictions, most_held, prefill_seconds, compress_seconds } = told;
    let (kept, bytes) = if method.evicts() { (kept, bytes) } else { (layout.heads() * prompt_len, full_bytes) };
    let decoded = tokens.saturating_sub(1);
    eprintln!();
    if let Some(remark) = budget_remark(method, budget, frame, layout, prompt_len, allowed) {
        eprintln!("note: {remark}");
    }
    eprintln!(
        "prefill   {} tokens in {prefill_seconds:.2} s, {:.0} tokens/s",
        prompt_len,
        prompt_len as f64 / prefill_seconds
    );
    eprintln!("compress  {} at {} in {compress_seconds:.3} s", method.name(), budget);
    eprintln!("decode    {tokens} tokens in {decode_seconds:.2} s, {:.1} tokens/s", decoded as f64 / decode_seconds);
    let share = 100.0 * kept as f64 / (layout.heads() * prompt_len) as f64;
    eprintln!(
        "cache     {} of {}, {share:.1} % of the prompt kept",
        mebibytes(bytes as u64),
        mebibytes(full_bytes as u64)
    );
    if let Some(WhileDecoding { every, .. }) = method.while_decoding() {
        eprintln!(
            "evicted   {evictions} times while answering, every {every} tokens; at most {} were held",
            mebibytes((most_held * model.format().token_bytes(layout.head_dim)) as u64)
        );
    }
    if let Some(peak) = peak_resident_bytes() {
        eprintln!("memory    {} at its peak", mebibytes(peak));
    }
    Ok(())
}

/// What the batch told of the sequence.
#[derive(Default)]
struct Told {
    /// Of the answer.
    tokens: usize,
    kept: usize,
    bytes: usize,
    allowed: usize,
    evictions: usize,
    /// Tokens that all heads together held at most.
    most_held: usize,
    prefill_seconds: f64,
    compress_seconds: f64,
}
