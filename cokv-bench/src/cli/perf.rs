//! `cokv perf`

use anyhow::{Result, bail};
use cokv_core::{ConfigTable, Registry};
use indicatif::ProgressBar;
use serde_json::json;

use super::load::{Loaded, load};
use super::output::print;
use crate::config::ModelSettings;
use crate::markdown;
use crate::perf::{PerfReport, PerfSettings, measure};
use crate::run::memory::{mebibytes, peak_resident_bytes};

/// Measure how fast this machine runs a model: prefill, decode and coalitions
///
/// Everything is timed in one run, so that ratios mean something on a noisy machine; leave it alone meanwhile.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv perf
  cokv perf --model qwen2.5-coder-0.5b-instruct --contexts 512,2000 --json
  cokv perf --weights f32 --cache f32 --contexts 4000 --batches 1,8,32,64      # what a coalition costs")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    /// Prompt tokens
    #[arg(long, value_delimiter = ',', default_values_t = [512, 2048, 4096])]
    contexts: Vec<usize>,
    /// Tokens of each KV head that are kept, beside the full cache
    #[arg(long, value_delimiter = ',', default_values_t = [128])]
    budgets: Vec<usize>,
    /// Compressor that keeps them
    #[arg(long, default_value = "snapkv")]
    method: String,
    /// Tokens decoded
    #[arg(long, default_value_t = 32)]
    decode_tokens: usize,
    /// Coalitions of one forward pass
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32, 64])]
    batches: Vec<usize>,
    /// Tokens of the answer that a coalition is judged by
    #[arg(long, default_value_t = 16)]
    answer_tokens: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let toml = format!("compressor = {:?}", arguments.method);
    let method = registry.method(ConfigTable::parse("--method", &toml)?)?;
    let settings = PerfSettings {
        contexts: arguments.contexts.clone(),
        budgets: arguments.budgets.clone(),
        decode_tokens: arguments.decode_tokens,
        batches: arguments.batches.clone(),
        answer_tokens: arguments.answer_tokens,
    };
    let counts = [&settings.contexts, &settings.budgets, &settings.batches].into_iter().flatten();
    if counts.chain([&settings.decode_tokens]).any(|&count| count == 0) {
        bail!("0 of anything takes no time: give numbers of at least 1");
    }
    if settings.answer_tokens < 2 {
        bail!("--answer-tokens {}: the first one comes from the prefill, so that it takes two", settings.answer_tokens);
    }
    let Loaded { model, .. } = load(&arguments.model)?;
    let longest = settings.contexts.iter().max().copied().unwrap_or(0);
    model.config().check_length(longest + settings.decode_tokens.max(settings.answer_tokens) + 1)?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let report = measure(&model, &method, &settings, |what| bar.set_message(what.to_owned()))?;
    bar.finish_and_clear();
    if arguments.json {
        let held = json!({ "model": arguments.model, "method": arguments.method,
            "answer_tokens": arguments.answer_tokens, "decode_tokens": arguments.decode_tokens });
        return print(&serde_json::to_string_pretty(
            &json!({ "settings": held, "measured": report, "peak_resident_bytes": peak_resident_bytes() }),
        )?);
    }
    print(&text(&report, arguments))
}

fn text(report: &PerfReport, arguments: &Arguments) -> String {
    let machine = &report.machine;
    let mut prefill = markdown::table(["prompt tokens", "prefill s", "tokens/s", "FLOP/s, of an f32 product's"], 0);
    for speed in &report.prefill {
        prefill.add_row([
            speed.context.to_string(),
            format!("{:.2}", speed.seconds),
            format!("{:.0}", speed.tokens_per_second),
            format!("{:.0} %", 100.0 * speed.relative_to_product),
        ]);
    }
    let mut decode = markdown::table(["prompt tokens", "kept of each head", "decode tokens/s", "cache"], 0);
    for speed in &report.decode {
        decode.add_row([
            speed.context.to_string(),
            speed.budget.map_or("all".into(), |budget| budget.to_string()),
            format!("{:.1}", speed.tokens_per_second),
            mebibytes(speed.cache_bytes as u64),
        ]);
    }
    let mut coalitions =
        markdown::table(["prompt tokens", "coalitions a pass", "ms each", "evaluations/s", "of a prefill"], 0);
    for speed in &report.coalitions {
        coalitions.add_row([
            speed.context.to_string(),
            speed.batch.to_string(),
            format!("{:.1}", 1000.0 * speed.seconds),
            format!("{:.1}", speed.evaluations_per_second),
            format!("{:.2} %", 100.0 * speed.share_of_prefill),
        ]);
    }
    let peak = peak_resident_bytes().map(|bytes| format!("; {} of memory at the peak", mebibytes(bytes)));
    format!(
        "{}, weights {:?}, cache {:?}; {} threads that read {:.1} GB/s and do {:.0} GFLOP/s in a product of f32 matrices{}\n\n{}\n\n{}\n\n\
         One coalition, judged by an answer of {} tokens, on a record that is prefilled:\n\n{}",
        arguments.model.source,
        arguments.model.weights,
        arguments.model.cache,
        machine.threads,
        machine.read_gigabytes_per_second,
        machine.f32_gigaflops,
        peak.unwrap_or_default(),
        markdown::text(&prefill),
        markdown::text(&decode),
        arguments.answer_tokens,
        markdown::text(&coalitions)
    )
}
