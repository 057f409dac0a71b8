//! `cokv ask`

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cokv_models::cache::RaggedCache;
use cokv_models::cache::file::{Description, SavedCache, Summary};
use cokv_models::{LanguageModel, StopRule};
use serde_json::json;

use super::bar::bar;
use super::load::{load, outline};
use super::output::print;
use super::prompt_source::read_text;
use crate::device::DeviceSetting;
use crate::document::{Heard, Turn, answer, check_question, model_settings, prefix_hash};
use crate::machine::memory::mebibytes;
use crate::model::Beside;
use crate::names::by_name;

/// Ask about a document that was compressed before
///
/// The cache goes on with the model that made it, which the file names. One answer streams to standard output; several
/// questions are answered together, each by itself, from one cache that they share.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv compress --document report.txt --method keydiff --budget 50% --out report.cokv
  cokv ask report.cokv 'Who wrote it?'
  cokv ask report.cokv 'Who wrote it?' 'What does it recommend?' --max-new-tokens 64
  cokv ask report.cokv --questions questions.txt --json > answers.json
  cokv ask report.cokv 'Who wrote it?' --model path:/models/smollm2.gguf     # the same model at another place")]
pub struct Arguments {
    /// A cache that `cokv compress` saved
    file: PathBuf,
    /// Questions, each answered by itself
    questions: Vec<String>,
    /// A file of questions, one a line; - reads standard input
    #[arg(long = "questions", value_name = "FILE")]
    questions_file: Option<PathBuf>,
    /// Tokens of an answer at most
    #[arg(long, default_value_t = 256)]
    max_new_tokens: usize,
    /// Print all answers with their figures as one JSON object, once all are there
    #[arg(long)]
    json: bool,
    /// Where the model is now, as for other commands; it must be the one that made the cache [default: where it was]
    #[arg(long)]
    model: Option<String>,
    /// Where it computes: auto (a GPU where there is one), cpu, cuda or cuda:1
    #[arg(long, default_value = "auto", value_parser = by_name::<DeviceSetting>)]
    device: DeviceSetting,
}

/// A question on its way.
struct Asked {
    text: String,
    tokens: Vec<u32>,
}

/// What an answer was had from.
struct Document {
    summary: Summary,
    cache: RaggedCache,
    load_seconds: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let texts = questions(arguments)?;
    if arguments.max_new_tokens == 0 {
        bail!("--max-new-tokens 0 leaves nothing to answer");
    }
    let at = || arguments.file.display().to_string();
    let summary = Summary::read(&arguments.file).with_context(at)?;
    let settings = model_settings(&summary.description, arguments.model.as_deref(), arguments.device);
    let outlined = outline(&settings.with_context(at)?, false)?;
    let outline = &outlined.outline;
    let identity = outline.identity(&outlined.fingerprint()?, summary.description.identity.format)?;
    summary.description.check(&identity).with_context(at)?;
    let turn = Turn::of(outline)?;
    let mut asked = Vec::with_capacity(texts.len());
    for text in texts {
        let tokens = turn.ask(&text)?;
        check_question(&text, &tokens, summary.seen, arguments.max_new_tokens, outline.config())?;
        asked.push(Asked { text, tokens });
    }
    let model = load(&outlined, &beside(&summary, &asked, arguments.max_new_tokens))?.model;
    if summary.description.backend != model.engine().backend() {
        let (theirs, ours) = (&summary.description.backend, model.engine().backend());
        eprintln!(
            "note: the cache was computed by {theirs}, and {ours} rounds otherwise: answers may differ from its own"
        );
    }

    let started = Instant::now();
    let saved = SavedCache::read(&arguments.file).with_context(at)?;
    check_text(&saved, &turn).with_context(at)?;
    let cache = model.restore(saved, &identity).with_context(at)?;
    let document = Document { summary, cache, load_seconds: started.elapsed().as_secs_f64() };
    let stop =
        StopRule { tokens: model.stop_tokens().to_vec(), max_new_tokens: arguments.max_new_tokens, min_new_tokens: 0 };
    match &asked[..] {
        [one] if !arguments.json => stream(&document, one, &stop, &model),
        several => together(&document, several, &stop, &model, arguments.json),
    }
}

/// Those of the command line, then those of the file.
fn questions(arguments: &Arguments) -> Result<Vec<String>> {
    let mut all = arguments.questions.clone();
    if let Some(path) = &arguments.questions_file {
        all.extend(read_text(path, "--questions")?.lines().map(str::to_owned));
    }
    all.retain(|question| !question.trim().is_empty());
    match all.is_empty() {
        true => bail!("no question: cokv ask {} 'Who wrote it?'", arguments.file.display()),
        false => Ok(all),
    }
}

/// What lies beside the weights: the cache, a question with its answer for each copy of it.
fn beside(summary: &Summary, asked: &[Asked], max_new_tokens: usize) -> Beside {
    let Description { identity, .. } = &summary.description;
    let tokens: usize = asked.iter().map(|asked| asked.tokens.len() + max_new_tokens).sum();
    let tokens = summary.kept + identity.layout.heads() * tokens;
    Beside {
        bytes: (tokens * identity.format.token_bytes(identity.layout.head_dim)) as u64,
        what: format!("the saved cache with {} questions", asked.len()),
        advice: "ask fewer questions at once, or for shorter answers",
    }
}

/// Refuses a cache whose document this cokv, or this model's chat template, would put to the model otherwise.
fn check_text(saved: &SavedCache, turn: &Turn<'_>) -> Result<()> {
    let Some(text) = saved.text.as_ref().filter(|_| !turn.is_dated()) else { return Ok(()) };
    if prefix_hash(&turn.open(text)?.text) != saved.description.prefix {
        bail!(
            "the document would be put to the model in other words now than when it was compressed: compress it again"
        );
    }
    Ok(())
}

/// One answer, as it comes.
fn stream(document: &Document, asked: &Asked, stop: &StopRule, model: &LanguageModel) -> Result<()> {
    let (mut stream, mut out) = (model.tokenizer().stream(), std::io::stdout().lock());
    let (started, mut read_seconds, mut written) = (Instant::now(), 0.0, Ok(()));
    let answers = answer(model, &document.cache, std::slice::from_ref(&asked.tokens), stop, |_, heard| {
        let Heard::Token(token) = heard else {
            read_seconds = started.elapsed().as_secs_f64();
            return ControlFlow::Continue(());
        };
        written = stream.push(token).map_err(anyhow::Error::from).and_then(|text| {
            out.write_all(text.as_bytes())?;
            Ok(out.flush()?)
        });
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written.context("the answer could not be written")?;
    writeln!(out, "{}", stream.finish()?)?;
    let seconds = started.elapsed().as_secs_f64() - read_seconds;
    let tokens = answers.iter().map(Vec::len).sum::<usize>();
    eprintln!();
    say_document(document);
    eprintln!("question  {} tokens in {read_seconds:.2} s", asked.tokens.len());
    eprintln!("answer    {tokens} tokens in {seconds:.2} s, {:.1} tokens/s", tokens.saturating_sub(1) as f64 / seconds);
    Ok(())
}

/// Several answers from one cache.
fn together(document: &Document, asked: &[Asked], stop: &StopRule, model: &LanguageModel, as_json: bool) -> Result<()> {
    let tokens: Vec<Vec<u32>> = asked.iter().map(|asked| asked.tokens.clone()).collect();
    let most = asked.len() * stop.max_new_tokens;
    let bar = bar(false, "answers {wide_bar} {pos} tokens of {len} at most, {per_sec}, {eta} left", most);
    let (started, mut read_seconds, mut read) = (Instant::now(), 0.0, 0);
    let answers = answer(model, &document.cache, &tokens, stop, |_, heard| {
        match heard {
            Heard::Token(_) => bar.inc(1),
            // Questions are read one after the other, while the answers to those before go on.
            Heard::Read(_) => (read, read_seconds) = (read + 1, started.elapsed().as_secs_f64()),
        }
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let (answers, seconds) = (answers?, started.elapsed().as_secs_f64());
    let mut objects = Vec::new();
    for (Asked { text, tokens }, answer) in asked.iter().zip(&answers) {
        let said = model.tokenizer().decode(answer, true)?;
        if as_json {
            objects.push(json!({
                "question": text, "question_tokens": tokens.len(), "new_tokens": answer.len(), "text": said,
            }));
        } else {
            print(&format!("── {text}\n{}\n", said.trim()))?;
        }
    }
    let [question_tokens, new_tokens] = [&tokens, &answers].map(|all| all.iter().map(Vec::len).sum::<usize>());
    if as_json {
        let Summary { seen, kept, bytes, .. } = &document.summary;
        return print(&serde_json::to_string(&json!({
            "document_tokens": seen, "kept_tokens": kept, "file_bytes": bytes, "load_seconds": document.load_seconds,
            "read_seconds": read_seconds, "seconds": seconds, "answers": objects,
        }))?);
    }
    say_document(document);
    eprintln!("questions {} of {question_tokens} tokens, the last read after {read_seconds:.2} s", asked.len());
    eprintln!("answers   {new_tokens} tokens in {seconds:.2} s, {:.1} tokens/s", new_tokens as f64 / seconds);
    Ok(())
}

fn say_document(Document { summary, cache, load_seconds }: &Document) {
    let (kept, whole) = (summary.kept, summary.seen * cache.layout().heads());
    eprintln!(
        "document  {} tokens, {:.1} % of them kept, {}, loaded in {load_seconds:.2} s",
        summary.seen,
        100.0 * kept as f64 / whole as f64,
        mebibytes(cache.bytes() as u64),
    );
}
