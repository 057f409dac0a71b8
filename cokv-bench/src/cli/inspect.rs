//! `cokv inspect`

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result};
use cokv_core::Registry;
use cokv_models::Compressed;
use cokv_shapley::whole;

use super::load::{load, outline};
use super::method::MethodArguments;
use super::output::print;
use super::prompt_source::PromptArguments;
use super::replayed::replayed;
use crate::chart;
use crate::data::prompt::Framed;
use crate::model::{Beside, Loaded, ModelSettings};
use crate::run::inspect::Inspection;
use crate::run::tail_remark;
use crate::scores::{HeadName, ModelStamp};

/// Stretches of the prompt that a picture distinguishes.
const BINS: usize = 240;

/// Show what a method does to one prompt
///
/// Prints a map of what every KV head keeps, from the first token to the last, and with --head the text that one head
/// keeps, with what it evicts in brackets.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv inspect --prompt-file report.txt --method snapkv --budget 64
  cokv inspect --prompt-file report.txt --method snapkv --allocator cokv --scores passkey.scores.json --budget 64 --head 18.2
  cokv inspect --prompt-file report.txt --method snapkv --allocator ada-kv --budget 10% --svg kept.svg --json kept.json")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    #[command(flatten)]
    method: MethodArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    /// Print the text that this head (layer.head) keeps
    #[arg(long)]
    head: Option<HeadName>,
    /// Write positions, scores and budgets of all heads to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the map to this file
    #[arg(long)]
    svg: Option<PathBuf>,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let mut method = arguments.method.build(registry)?;
    let text = arguments.prompt.text()?;
    let outlined = outline(&arguments.model, false)?;
    let Framed { tokens, frame, .. } = arguments.prompt.framed(text, &outlined.outline)?;
    outlined.outline.config().check_length(tokens.len())?;
    let Loaded { model, fingerprint } = load(&outlined, &Beside::default())?;
    let layout = model.config().layout;
    arguments.method.fit(&mut method, &ModelStamp::of(&arguments.model.source, Some(&fingerprint), layout), layout)?;
    let chosen = arguments.head.map(|head| head.flat(layout)).transpose()?;
    if let Some(remark) = tail_remark(&[&method], frame) {
        eprintln!("note: {remark}");
    }

    let prefill = model.prefill(&tokens, method.observations(frame), |_| ())?;
    let prefill = replayed(prefill.within(frame), std::slice::from_ref(&method), &model)?;
    let scores = prefill.score(&method, prefill.allowed(&method, arguments.method.budget))?;
    let Compressed { selection, allowed, .. } = prefill.compress_scored(&method, &scores, arguments.method.budget)?;
    let texts = model.tokenizer().pieces(&tokens)?;
    let inspection = Inspection::new(layout, &method, allowed, texts, &scores, &selection);

    if let Some(path) = &arguments.json {
        let json = serde_json::to_string(&inspection)?;
        whole::write(path, json + "\n").with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &arguments.svg {
        let title = format!("{} at {}", method.name(), arguments.method.budget);
        let names: Vec<String> = inspection.heads.iter().map(|head| head.head.to_string()).collect();
        let svg = chart::kept_map(&title, &names, &inspection.shares(BINS), tokens.len())?;
        whole::write(path, svg).with_context(|| path.display().to_string())?;
    }
    let of_a_head = chosen.map(|flat| {
        let head = &inspection.heads[flat];
        let dim = std::io::stdout().is_terminal();
        let evicted = |text: &str| if dim { format!("\x1b[2m[{text}]\x1b[0m") } else { format!("[{text}]") };
        let text = inspection.text(head, str::to_owned, evicted);
        format!("head {} keeps {} of {} tokens:\n{text}", head.head, head.budget, tokens.len())
    });
    let width = 100;
    let of_all = || {
        let (kept, total) = (inspection.kept_tokens, inspection.total.min(layout.heads() * tokens.len()));
        format!("{}\nall heads keep {kept} of the {total} tokens that the budget allows", inspection.map(width))
    };
    print(&of_a_head.unwrap_or_else(of_all))
}
