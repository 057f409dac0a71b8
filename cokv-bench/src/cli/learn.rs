//! `cokv learn`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cokv_core::Registry;
use cokv_models::tokenizer::Tokenizer;

use super::bar::bar;
use super::load::{load, outline};
use super::output::print;
use crate::learned::{LearnedFile, Sums, fingerprint_of, guessed, keep, learn};
use crate::model::{Beside, Loaded, ModelSettings};
use crate::scores::ModelStamp;

/// Find out once what a model's queries look like, for compressors that need it
///
/// q-filter, tri-attention and expected-attention with statistics = "learned" score tokens by what queries to come are likely to look
/// like, kvzap by a guess at what a second reading of the prompt would say (--guess). All of that is a property of the model: it is
/// learned once from a few thousand tokens of any text, best of the kind that the model will read. A stopped or killed run goes on where
/// it was when the same command is run again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv learn --text book.txt --out smollm2.learned
  cokv learn --text book.txt --text manual.txt --texts 40 --tokens 1000 --guess --out smollm2.learned
  cokv generate --prompt-file report.txt --method q-filter --learned smollm2.learned --budget 10%")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    /// Plain text to read; several are read in turn
    #[arg(long = "text", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Pieces of the text that are read, evenly spread over all of it
    #[arg(long, default_value_t = 20)]
    texts: usize,
    /// Tokens of a piece
    #[arg(long, default_value_t = 1000)]
    tokens: usize,
    /// Also fit the guess that kvzap makes; every piece is read twice
    #[arg(long)]
    guess: bool,
    /// The file to write; what is learned so far lies beside it
    #[arg(long)]
    out: PathBuf,
}

/// Seconds after which what is learned so far is written down.
const KEEP_EVERY: Duration = Duration::from_secs(30);

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let Arguments { texts, tokens, guess, out, .. } = arguments;
    if *texts == 0 || *tokens < 16 {
        bail!("--texts {texts} --tokens {tokens}: at least one piece of 16 tokens is needed");
    }
    let mut read = String::new();
    for file in &arguments.files {
        read += &std::fs::read_to_string(file).with_context(|| format!("--text {}", file.display()))?;
    }
    let outlined = outline(&arguments.model, false)?;
    let config = outlined.outline.config();
    config.check_length(if *guess { 2 * tokens } else { *tokens })?;
    let pieces = pieces(outlined.outline.tokenizer(), &read, *texts, *tokens)?;
    let layout = config.layout;
    let beside = Beside {
        bytes: (layout.heads() * tokens * arguments.model.cache.token_bytes(layout.head_dim)) as u64,
        what: format!("the cache of {tokens} tokens"),
        advice: "give --tokens fewer",
    };
    let Loaded { model, fingerprint } = load(&outlined, &beside)?;
    let method = guessed(registry, *guess)?;
    let of = fingerprint_of(&fingerprint, &arguments.model, &pieces, *guess);
    let part = beside_out(out);
    let known = std::fs::read(&part).ok().and_then(|bytes| Sums::read(&bytes, &of));
    let mut sums = known.unwrap_or_else(|| Sums::new(layout));
    let passes = if *guess { 2 } else { 1 };
    let bar =
        bar(false, "learning {wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left", pieces.len() * tokens * passes);
    let mut kept = Instant::now();
    for (at, piece) in pieces.iter().enumerate().skip(sums.texts) {
        let before = at * tokens * passes;
        learn(&model, piece, method.as_ref(), &mut sums, |done| bar.set_position((before + done) as u64))?;
        if kept.elapsed() >= KEEP_EVERY && at + 1 < pieces.len() {
            keep(&part, &sums, &of)?;
            kept = Instant::now();
        }
    }
    bar.finish_and_clear();
    let stamp = ModelStamp::of(&arguments.model.source, Some(&fingerprint), layout);
    let file = LearnedFile { model: stamp, texts: sums.texts, learned: sums.learned(of) };
    if *guess && file.learned.layers.iter().any(|layer| layer.guess.is_empty()) {
        bail!("the guess has no solution on so little text: give more --texts");
    }
    file.write(out)?;
    // It may not be there.
    let _ = std::fs::remove_file(&part);
    let guess = if *guess { " and a guess at KVzip+" } else { "" };
    print(&format!(
        "{}: what queries look like{guess}, from {} pieces of {tokens} tokens, of {}",
        out.display(),
        file.texts,
        file.model
    ))
}

/// Where what is learned so far lies.
fn beside_out(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    out.with_file_name(name)
}

/// Pieces of a text, evenly spread over it, each of so many tokens with what the model puts before any text.
fn pieces(tokenizer: &Tokenizer, text: &str, count: usize, tokens: usize) -> Result<Vec<Vec<u32>>> {
    let first = tokenizer.encode("", true)?;
    let all = tokenizer.encode(text, false)?;
    let length = tokens.saturating_sub(first.len());
    let there = all.len() / length.max(1);
    if there == 0 {
        bail!(
            "the text has {} tokens, fewer than one piece of {tokens}: give more --text, or --tokens fewer",
            all.len()
        );
    }
    let count = count.min(there);
    let piece = |at: usize| {
        let start = at * there / count * length;
        [first.as_slice(), &all[start..start + length]].concat()
    };
    Ok((0..count).map(piece).collect())
}
