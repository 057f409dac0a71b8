//! `cokv inspect`

mod saved;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

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
use crate::run::{KeptTokens, marked, tail_remark};
use crate::scores::{HeadName, ModelStamp};

/// Stretches of the prompt that a picture distinguishes.
const BINS: usize = 240;
/// Stretches that a line of the terminal distinguishes.
const COLUMNS: usize = 100;

/// Show what a method does to one prompt, or what a saved cache holds
///
/// Prints a map of what every KV head keeps, from the first token to the last, and with --head the text that one head
/// keeps, with what it evicts in brackets. Of a cache that `cokv compress` saved, no weights are read.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv inspect --prompt-file report.txt --method snapkv --budget 64
  cokv inspect --prompt-file report.txt --method snapkv --allocator cokv --scores passkey.scores.json --budget 64 --head 18.2
  cokv inspect --prompt-file report.txt --method snapkv --allocator ada-kv --budget 10% --svg kept.svg --json kept.json
  cokv inspect report.cokv                         # what is in a saved cache
  cokv inspect report.cokv --head 18.2 --json -")]
pub struct Arguments {
    /// A cache that `cokv compress` saved
    #[arg(conflicts_with_all = ["prompt", "prompt_file", "raw", "method", "allocator", "scores", "budget"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    model: ModelSettings,
    #[command(flatten)]
    method: MethodArguments,
    #[command(flatten)]
    prompt: PromptArguments,
    #[command(flatten)]
    show: Show,
}

/// What is shown of heads and the tokens that they keep.
#[derive(clap::Args)]
struct Show {
    /// Print the text that this head (layer.head) keeps
    #[arg(long)]
    head: Option<HeadName>,
    /// Write positions and budgets of all heads to this file, of a prompt with scores and of a saved cache with all that it says of
    /// itself; - prints them and nothing else
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the map to this file
    #[arg(long)]
    svg: Option<PathBuf>,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let Arguments { model, show, .. } = arguments;
    if let Some(file) = &arguments.file {
        return saved::inspect(file, model, show);
    }
    let mut method = arguments.method.build(registry)?;
    let text = arguments.prompt.text()?;
    let outlined = outline(model, false)?;
    let Framed { tokens, frame, .. } = arguments.prompt.framed(text, &outlined.outline)?;
    outlined.outline.config().check_length(tokens.len())?;
    let Loaded { model, fingerprint } = load(&outlined, &Beside::default())?;
    let layout = model.config().layout;
    arguments.method.fit(&mut method, &ModelStamp::of(&arguments.model.source, Some(&fingerprint), layout), layout)?;
    let chosen = show.head.map(|head| head.flat(layout)).transpose()?;
    if let Some(remark) = tail_remark(&[&method], frame) {
        eprintln!("note: {remark}");
    }

    let prefill = model.prefill(&tokens, method.observations(frame), |_| ())?;
    let prefill = replayed(prefill.within(frame), std::slice::from_ref(&method), &model)?;
    let scores = prefill.score(&method, prefill.allowed(&method, arguments.method.budget))?;
    let Compressed { selection, allowed, .. } = prefill.compress_scored(&method, &scores, arguments.method.budget)?;
    let texts = model.tokenizer().pieces(&tokens)?;
    let inspection = Inspection::new(layout, &method, allowed, texts, &scores, &selection);

    let kept = inspection.kept();
    show.pictured(&format!("{} at {}", method.name(), arguments.method.budget), &kept)?;
    show.written(|| Ok(serde_json::to_string(&inspection)?))?;
    show.printed(&kept, chosen.map(|flat| (flat, &inspection.tokens[..])), || {
        let (all, total) = (inspection.kept_tokens, inspection.total.min(layout.heads() * tokens.len()));
        format!("{}\nall heads keep {all} of the {total} tokens that the budget allows", kept.map(COLUMNS))
    })
}

impl Show {
    /// Draws the map where that is asked for.
    fn pictured(&self, title: &str, kept: &KeptTokens<'_>) -> Result<()> {
        let Some(path) = &self.svg else { return Ok(()) };
        let names: Vec<String> = kept.heads.iter().map(|(head, _)| head.to_string()).collect();
        let svg = chart::kept_map(title, &names, &kept.shares(BINS), kept.length)?;
        whole::write(path, svg).with_context(|| path.display().to_string())
    }

    /// Writes all of it for a program where that is asked for.
    fn written(&self, json: impl FnOnce() -> Result<String>) -> Result<()> {
        match &self.json {
            None => Ok(()),
            Some(path) if is_standard(path) => print(&json()?),
            Some(path) => whole::write(path, json()? + "\n").with_context(|| path.display().to_string()),
        }
    }

    /// Prints the text of a head, with the tokens, or what there is of all heads.
    fn printed(
        &self,
        kept: &KeptTokens<'_>,
        of_a_head: Option<(usize, &[String])>,
        of_all: impl FnOnce() -> String,
    ) -> Result<()> {
        if self.json.as_deref().is_some_and(is_standard) {
            return Ok(());
        }
        let Some((flat, tokens)) = of_a_head else { return print(&of_all()) };
        let (head, positions) = kept.heads[flat];
        let dim = std::io::stdout().is_terminal();
        let evicted = |text: &str| if dim { format!("\x1b[2m[{text}]\x1b[0m") } else { format!("[{text}]") };
        let text = marked(tokens, positions, str::to_owned, evicted);
        print(&format!("head {head} keeps {} of {} tokens:\n{text}", positions.len(), kept.length))
    }
}

/// Whether standard output is meant.
fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}
