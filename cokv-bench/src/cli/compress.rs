//! `cokv compress`

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cokv_core::Registry;
use cokv_models::cache::file::{Summary, encode};
use cokv_scheduler::MadeBy;
use cokv_shapley::whole;
use indicatif::ProgressBar;

use super::bar::bar;
use super::load::{load, outline};
use super::method::{MethodArguments, budget_remark};
use super::prompt_source::read_text;
use crate::document::{
    CompressedDocument, Done, Made, Turn, check_document, check_method, compress, describe, prefix_hash, window_remark,
};
use crate::machine::memory::mebibytes;
use crate::model::{Beside, ModelSettings};
use crate::scores::ModelStamp;

/// Read and compress a document once, to ask about it any number of times
///
/// The document is put into the chat template's user turn, up to its end and nothing behind it, so that what is kept does not
/// depend on any question. `cokv ask` answers from the file in a fraction of a second, with the same model. The file holds the
/// document's text and what can be turned back into it: it is readable by its owner alone.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv compress --document report.txt --method keydiff --budget 50% --out report.cokv
  cokv compress --document report.txt --method knorm --allocator ada-kv --budget 25% --out report.cokv --force
  cokv compress --document report.txt --method knorm --allocator cokv --scores passkey.scores.json --budget 10% --out report.cokv
  cokv compress --document report.txt --out report.cokv          # all of it: nothing is lost, and nothing is read twice
  pdftotext report.pdf - | cokv compress --document - --method keydiff --budget '4 MiB' --out report.cokv
  cokv ask report.cokv 'Who wrote it?' 'What does it recommend?'")]
pub struct Arguments {
    /// A text file; - reads standard input
    #[arg(long)]
    document: PathBuf,
    #[command(flatten)]
    method: MethodArguments,
    /// The file for the cache, such as report.cokv
    #[arg(long)]
    out: PathBuf,
    /// Leave the document's text out of the file; its tokens are in it all the same
    #[arg(long)]
    no_text: bool,
    /// Replace a saved cache that is there already
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    model: ModelSettings,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let Arguments { document, out, model: settings, .. } = arguments;
    let budget = arguments.method.budget;
    let mut method = arguments.method.build(registry)?;
    if method.while_decoding().is_some() {
        bail!(
            "--while-decoding is for answers: a document is compressed once, and `cokv ask` keeps what the file holds"
        );
    }
    check_method(&method, registry)?;
    check_place(out, arguments.force)?;
    let text = read_text(document, "--document")?;
    if text.trim().is_empty() {
        bail!("the document is empty");
    }
    let outlined = outline(settings, false)?;
    let (turn, config) = (Turn::of(&outlined.outline)?, outlined.outline.config());
    let open = turn.open(&text)?;
    check_document(&open, config)?;
    let fingerprint = outlined.fingerprint()?;
    let (layout, seen) = (config.layout, open.tokens.len());
    arguments.method.fit(&mut method, &ModelStamp::of(&settings.source, Some(&fingerprint), layout), layout)?;
    if let Some(remark) = window_remark(&method, open.frame, registry) {
        eprintln!("note: {remark}");
    }
    let (token_bytes, whole_tokens) = (settings.cache.token_bytes(layout.head_dim) as u64, layout.heads() * seen);
    let kept_at_most = budget.total_tokens(layout, seen, settings.cache).min(whole_tokens);
    let beside = Beside {
        bytes: (whole_tokens + kept_at_most) as u64 * token_bytes,
        what: format!("the cache of {seen} tokens with what is kept of it"),
        advice: "shorten the document, or take cache = \"f16\"",
    };
    let model = load(&outlined, &beside)?.model;

    let reading = bar(false, "reading {wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left", seen);
    let mut again = None;
    let compressed = compress(&model, &open, &turn.close()?, &method, budget, |done| match done {
        Done::Read(tokens) => reading.set_position(tokens as u64),
        Done::ReadAgain(tokens, of) => {
            reading.finish_and_clear();
            let template = "second pass {wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left";
            again.get_or_insert_with(|| bar(false, template, of)).set_position(tokens as u64);
        }
    });
    again.iter().chain([&reading]).for_each(ProgressBar::finish_and_clear);
    let CompressedDocument { cache, allowed, read_seconds, compress_seconds } = compressed?;

    let started = Instant::now();
    let description = describe(Made {
        by: settings,
        identity: outlined.outline.identity(&fingerprint, model.format())?,
        backend: model.engine().backend(),
        prefix: prefix_hash(&open.text),
        made_by: MadeBy::of(&method, budget),
    });
    let bytes = encode(&description, &open.tokens, Some(text.as_str()).filter(|_| !arguments.no_text), &cache)?;
    whole::write_private(out, &bytes).with_context(|| out.display().to_string())?;
    let write_seconds = started.elapsed().as_secs_f64();

    if let Some(remark) = budget_remark(&method, budget, open.frame, layout, seen, allowed) {
        eprintln!("note: {remark}");
    }
    let kept = cache.total_tokens();
    eprintln!("read      {seen} tokens in {read_seconds:.2} s, {:.0} tokens/s", seen as f64 / read_seconds);
    eprintln!("compress  {} at {budget} in {compress_seconds:.3} s", method.name());
    eprintln!(
        "kept      {kept} of {whole_tokens} tokens in {} heads, {:.1} %: {} of {}",
        layout.heads(),
        100.0 * kept as f64 / whole_tokens as f64,
        mebibytes(cache.bytes() as u64),
        mebibytes(whole_tokens as u64 * token_bytes),
    );
    eprintln!("file      {}, {}, in {write_seconds:.2} s", out.display(), mebibytes(bytes.len() as u64));
    Ok(())
}

/// Refuses a place where something is that must not be lost. What is no file, such as `/dev/stdout`, is written to.
pub fn check_place(path: &Path, force: bool) -> Result<()> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| shown.to_string()),
        Ok(there) if there.is_dir() => bail!("--out {shown} is a folder: name a file in it"),
        Ok(there) if !there.is_file() => Ok(()),
        Ok(_) => match (Summary::read(path), force) {
            (Ok(_), true) => Ok(()),
            (Ok(_), false) => bail!("--out {shown} holds a cache already: --force replaces it"),
            (Err(error), _) => {
                bail!("--out {shown} is there and is not replaced ({error}): name another file, or delete it")
            }
        },
    }
}
