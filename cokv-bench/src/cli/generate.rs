//! `cokv generate`

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cokv_core::{Budget, Registry};
use cokv_models::StopRule;
use cokv_models::cache::RaggedCache;

use super::bar::bar;
use super::load::load;
use super::method::MethodArguments;
use super::prompt_source::PromptArguments;
use crate::machine::memory::{mebibytes, peak_resident_bytes};
use crate::model::{Loaded, ModelSettings};
use crate::scores::ModelStamp;

/// Answer a prompt with a compressed cache
///
/// The prompt is prefilled with full attention, the method keeps what its budget allows, and the answer streams to
/// standard output. Speed, cache bytes and the kept share follow on standard error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv generate --prompt 'What is a KV cache?'
  cokv generate --prompt-file report.txt --method snapkv --budget 128
  cokv generate --prompt-file report.txt --method '{ name = \"snapkv\", window = 32 }' --budget 10%
  cokv generate --prompt-file report.txt --method snapkv --allocator cokv --scores passkey.scores.json --budget 64
  cat report.txt | cokv generate --prompt-file - --method streaming-llm --budget '4 MiB'")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    #[command(flatten)]
    method: MethodArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    /// Tokens of the answer at most
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let mut method = arguments.method.build(registry)?;
    let text = arguments.prompt.text()?;
    if arguments.max_new_tokens == 0 {
        bail!("--max-new-tokens 0 leaves nothing to generate");
    }
    let Loaded { model, fingerprint } = load(&arguments.model)?;
    let layout = model.config().layout;
    arguments.method.fit(&mut method, &ModelStamp::of(&arguments.model.source, &fingerprint, layout), layout)?;
    let budget = arguments.method.budget;
    let prompt = arguments.prompt.tokens(text, &model)?;
    model.config().check_length(prompt.len() + arguments.max_new_tokens)?;

    let started = Instant::now();
    let bar = bar(false, "prefill {wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left", prompt.len());
    let prefill = model.prefill(&prompt, method.observations(), |tokens| bar.set_position(tokens as u64))?;
    bar.finish_and_clear();
    let prefill_seconds = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let total = budget.total_tokens(layout, prompt.len(), prefill.cache().cache_type().bytes());
    let selection = prefill.select(&method, total)?;
    let mut cache = [RaggedCache::compressed(prefill.cache(), &selection)];
    let compress_seconds = started.elapsed().as_secs_f64();
    let full_bytes = prefill.cache().bytes();
    let (kept, bytes) = (cache[0].total_tokens(), cache[0].allocated_bytes());
    let first = prefill.logits().to_vec();
    // From here on the machine holds what was kept and nothing else of the prompt.
    drop(prefill);

    let started = Instant::now();
    let stop =
        StopRule { tokens: model.stop_tokens().to_vec(), max_new_tokens: arguments.max_new_tokens, min_new_tokens: 0 };
    let mut stream = model.tokenizer().stream();
    let mut written = Ok(());
    let mut out = std::io::stdout().lock();
    let answers = model.greedy(&mut cache, &first, &stop, |_, token| {
        written = stream.push(token).map_err(anyhow::Error::from).and_then(|text| {
            out.write_all(text.as_bytes())?;
            Ok(out.flush()?)
        });
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written.context("the answer could not be written")?;
    writeln!(out)?;
    let decode_seconds = started.elapsed().as_secs_f64();

    let tokens = answers.first().map_or(0, Vec::len);
    let decoded = tokens.saturating_sub(1);
    eprintln!();
    if !method.evicts() && budget != Budget::Share(1.0) {
        eprintln!("note: {} keeps everything, whatever the budget", method.name());
    } else if method.evicts() && total >= layout.heads() * prompt.len() {
        eprintln!("note: the budget is at least the prompt, so that nothing was evicted");
    } else if method.evicts() && total <= layout.heads() * (method.protected().window + method.protected().sinks) {
        eprintln!("note: the budget covers only the tokens that {} always keeps: no score mattered", method.name());
    }
    eprintln!(
        "prefill   {} tokens in {prefill_seconds:.2} s, {:.0} tokens/s",
        prompt.len(),
        prompt.len() as f64 / prefill_seconds
    );
    eprintln!("compress  {} at {} in {compress_seconds:.3} s", method.name(), budget);
    eprintln!("decode    {tokens} tokens in {decode_seconds:.2} s, {:.1} tokens/s", decoded as f64 / decode_seconds);
    let share = 100.0 * kept as f64 / (layout.heads() * prompt.len()) as f64;
    eprintln!(
        "cache     {} of {}, {share:.1} % of the prompt kept",
        mebibytes(bytes as u64),
        mebibytes(full_bytes as u64)
    );
    if let Some(peak) = peak_resident_bytes() {
        eprintln!("memory    {} at its peak", mebibytes(peak));
    }
    Ok(())
}
