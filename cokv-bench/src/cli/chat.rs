//! `cokv chat`

mod commands;
mod lines;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cokv_core::Registry;
use cokv_models::cache::file::{SavedCache, Summary};
use cokv_models::tokenizer::Tokenizer;
use cokv_scheduler::{DocumentTold, Handle, Namespace, Settings, Told, Used};

use self::commands::{Command, HELP};
use self::lines::Lines;
use super::bar::bar;
use super::load::{load, outline};
use super::method::MethodArguments;
use super::prompt_source::read_text;
use super::sampling::SamplingArguments;
use crate::document::check_method;
use crate::machine::memory::mebibytes;
use crate::model::{Beside, Loaded, ModelSettings};
use crate::scores::ModelStamp;
use crate::serving::{Answering, Describing, Methods, Reading, Talk};

/// How often it is looked whether Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(50);

/// Talk to a model in the terminal, about a document that is read once if you like
///
/// Nothing is compressed unless --method or /compress says so. Ctrl-C ends an answer and not the program; /help lists what else can be
/// said. Without a terminal each line of standard input is a turn.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv chat
  cokv chat --document report.txt --method keydiff --budget 30%
  cokv chat --document report.cokv                       # a cache that `cokv compress` saved
  cokv chat --temperature 0.7 --top-p 0.9 --system 'Answer in one sentence.'
  printf 'Hello\\nAnd in French?\\n' | cokv chat")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    /// What the conversation is about: a text file, or a cache that `cokv compress` saved
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    #[command(flatten)]
    method: MethodArguments,
    /// What the model is told before all else
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Tokens of an answer at most
    #[arg(long, default_value_t = 1024)]
    max_new_tokens: usize,
}

/// A conversation in a terminal.
struct Chat {
    talk: Talk,
    handle: Handle,
    methods: Methods,
    describing: Describing,
    model: Arc<cokv_models::LanguageModel>,
    /// Whether Ctrl-C was pressed since the answer began.
    interrupted: Arc<AtomicBool>,
    used: Option<Used>,
    /// Of the last answer.
    tokens_per_second: f64,
}

pub fn run(arguments: &Arguments, registry: Registry) -> Result<()> {
    let mut method = arguments.method.build(&registry)?;
    if method.evicts() {
        check_method(&method, &registry)?;
    }
    if method.while_decoding().is_some() {
        bail!("--while-decoding is for `cokv generate` and `cokv bench`");
    }
    let document = arguments.document.as_ref().map(|path| Ok::<_, anyhow::Error>((path, Summary::read(path).ok())));
    let document = document.transpose()?;
    let text = match &document {
        Some((path, None)) => Some(read_text(path, "--document")?),
        _ => None,
    };
    let outlined = outline(&arguments.model, false)?;
    let (layout, fingerprint) = (outlined.outline.config().layout, outlined.fingerprint()?);
    arguments.method.fit(&mut method, &ModelStamp::of(&arguments.model.source, Some(&fingerprint), layout), layout)?;
    let identity = outlined.outline.identity(&fingerprint, arguments.model.cache)?;
    if let Some((path, Some(summary))) = &document {
        summary.description.check(&identity).with_context(|| path.display().to_string())?;
    }
    let sampling = arguments.sampling.sampling(outlined.outline.config().vocabulary)?;
    let beside = Beside { bytes: 64 << 20, what: "the conversation".into(), advice: "take a smaller model" };
    let Loaded { model, .. } = load(&outlined, &beside)?;
    let model = Arc::new(model);
    let settings = Settings { cache_memory: model.engine().free_bytes(), pin_share: 1.0, ..Settings::default() };
    let (handle, worker) = cokv_scheduler::start(Arc::clone(&model), settings)?;
    let outline = Arc::clone(&outlined.outline);
    let talk = Talk::new(outline, handle.clone(), sampling, arguments.max_new_tokens, arguments.system.clone())?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let pressed = Arc::clone(&interrupted);
    ctrlc::set_handler(move || pressed.store(true, Ordering::Relaxed)).context("Ctrl-C cannot be heard")?;
    let backend = model.engine().backend();
    let describing = Describing::new(arguments.model.clone(), identity, backend, &registry)?;
    let budget = arguments.method.budget;
    let compress = method.evicts().then(|| (method.clone(), budget));
    let methods = Methods::new(registry, layout, arguments.method.table()?, method, budget);
    let mut chat = Chat { talk, handle, methods, describing, model, interrupted, used: None, tokens_per_second: 0.0 };
    match (&document, text) {
        (Some((path, Some(_))), _) => chat.restore(path)?,
        (Some(_), Some(text)) => {
            let reading = chat.talk.open(&text, compress)?;
            chat.read(reading)?;
        }
        _ => {}
    }
    let talked = chat.talk();
    chat.handle.stop();
    worker.join();
    talked
}

impl Chat {
    fn talk(&mut self) -> Result<()> {
        let mut lines = Lines::open()?;
        while let Some(line) = lines.next()? {
            let done = match Command::parse(&line) {
                Ok(None) => Ok(()),
                Ok(Some(Command::Quit)) => return Ok(()),
                Ok(Some(command)) => self.obey(command),
                Err(error) => Err(error),
            };
            // What cannot be done is said, and the conversation goes on; piped input ends with it.
            match done {
                Err(error) if lines.is_terminal() => eprintln!("{error:#}"),
                done => done?,
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Say(text) => {
                let answering = self.talk.say(&text)?;
                self.listen(answering)
            }
            Command::Regenerate => {
                if self.talk.sampling.is_greedy() {
                    eprintln!("note: the likeliest tokens are the same again; --temperature 0.7 draws others");
                }
                self.talk.sampling.seed = self.talk.sampling.seed.wrapping_add(1);
                let answering = self.talk.again()?;
                self.listen(answering)
            }
            Command::Document(path) => match Summary::read(&path) {
                Ok(_) => self.restore(&path),
                Err(_) => {
                    let text = read_text(&path, "/document")?;
                    let (method, budget) = self.methods.default();
                    let compress = method.evicts().then_some((method, budget));
                    let reading = self.talk.open(&text, compress)?;
                    self.read(reading)
                }
            },
            Command::Compress(said) => {
                let (method, budget) = self.methods.make(&said).map_err(anyhow::Error::msg)?;
                if !method.evicts() {
                    bail!("say what is kept, such as /compress keydiff 30%");
                }
                let reading = self.talk.compress(method, budget)?;
                self.read(reading)
            }
            Command::Save(path) => self.save(&path),
            Command::Seed(seed) => {
                self.talk.sampling.seed = seed;
                Ok(())
            }
            Command::Status => self.status(),
            Command::Clear => {
                self.talk.clear();
                Ok(())
            }
            Command::Help => {
                eprintln!("{HELP}");
                Ok(())
            }
            Command::Quit => Ok(()),
        }
    }

    /// Shows an answer as it comes.
    fn listen(&mut self, answering: Answering) -> Result<()> {
        self.interrupted.store(false, Ordering::Relaxed);
        let model = Arc::clone(&self.model);
        let tokenizer: &Tokenizer = model.tokenizer();
        let (mut stream, mut out) = (tokenizer.stream(), std::io::stdout());
        let (mut said, mut tokens, mut first) = (String::new(), 0, None);
        let bar = bar(!std::io::stderr().is_terminal(), "reading {wide_bar} {pos}/{len} tokens, {eta} left", 0);
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                break;
            }
            let text = match answering.told.recv_timeout(LOOK) {
                Ok(Told::Token { token, .. }) => {
                    tokens += 1;
                    first.get_or_insert_with(|| {
                        bar.finish_and_clear();
                        Instant::now()
                    });
                    stream.push(token)?
                }
                Ok(Told::Read { tokens, of }) => {
                    bar.set_length(of as u64);
                    bar.set_position(tokens as u64);
                    continue;
                }
                Ok(Told::Done(used)) => {
                    let seconds = used.answering.as_secs_f64();
                    self.tokens_per_second = (tokens as f64 - 1.0).max(0.0) / seconds.max(1e-9);
                    self.used = Some(used);
                    break;
                }
                Ok(Told::Refused(refusal)) => {
                    bar.finish_and_clear();
                    self.talk.take_back();
                    return Err(refusal.into());
                }
                Ok(Told::Queued { .. } | Told::Ended { .. }) | Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => bail!("the thread that computes has ended"),
            };
            said += &text;
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
        bar.finish_and_clear();
        let rest = stream.finish()?;
        said += &rest;
        writeln!(out, "{rest}")?;
        // What was said before Ctrl-C was said.
        match tokens {
            0 => self.talk.take_back(),
            _ => self.talk.heard(&said),
        }
        Ok(())
    }

    /// Waits for a document.
    fn read(&mut self, reading: Reading) -> Result<()> {
        self.interrupted.store(false, Ordering::Relaxed);
        let bar = bar(false, "reading {wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left", 0);
        let document = loop {
            if self.interrupted.load(Ordering::Relaxed) {
                bar.finish_and_clear();
                bail!("the document was not read");
            }
            match reading.told.recv_timeout(LOOK) {
                Ok(DocumentTold::Read { tokens, of }) => {
                    bar.set_length(of as u64);
                    bar.set_position(tokens as u64);
                }
                Ok(DocumentTold::Done { document, .. }) => break document,
                Ok(DocumentTold::Refused(refusal)) => return Err(refusal.into()),
                Ok(DocumentTold::Queued) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the thread that computes has ended"),
            }
        };
        bar.finish_and_clear();
        self.talk.take(reading, document);
        self.say_document();
        Ok(())
    }

    fn restore(&mut self, path: &std::path::Path) -> Result<()> {
        let at = || path.display().to_string();
        let saved = SavedCache::read(path).with_context(at)?;
        self.talk.restore(saved, self.describing.identity.clone()).with_context(at)?;
        self.say_document();
        Ok(())
    }

    fn save(&self, path: &std::path::Path) -> Result<()> {
        let Some(document) = self.talk.document() else {
            bail!("there is no document to save: /document FILE reads one, and /compress makes one of what was said");
        };
        let description = self.describing.describe(document, self.model.outline());
        let text = Some(document.text.as_str()).filter(|text| !text.is_empty());
        let bytes = cokv_models::cache::file::encode(&description, &document.tokens, text, &document.cache)?;
        super::compress::check_place(path, false)?;
        cokv_shapley::whole::write_private(path, &bytes).with_context(|| path.display().to_string())?;
        eprintln!("saved {} to {}", mebibytes(bytes.len() as u64), path.display());
        Ok(())
    }

    fn say_document(&self) {
        let Some(document) = self.talk.document() else { return };
        let share = 100.0 * document.kept_tokens() / document.tokens.len() as f64;
        let (tokens, bytes) = (document.tokens.len(), mebibytes(document.cache.bytes() as u64));
        eprintln!("document  {tokens} tokens, {share:.1} % of them kept, {bytes}");
    }

    fn status(&self) -> Result<()> {
        self.say_document();
        if let Some(used) = &self.used {
            let (cached, cache) = (used.cached_tokens, &used.cache);
            eprintln!(
                "answer    {cached} tokens of the prompt were there, read in {:.2} s, {:.1} tokens/s",
                used.reading.as_secs_f64(),
                self.tokens_per_second
            );
            let (share, bytes) = (100.0 * cache.kept_share, mebibytes(cache.bytes as u64));
            eprintln!("cache     {share:.1} % of the prompt kept, {bytes}");
        }
        let (send, shown) = std::sync::mpsc::channel();
        self.handle.show(Namespace::default(), Box::new(move |state| drop(send.send(state))))?;
        let state = shown.recv().context("the thread that computes has ended")?;
        let limit = state.limit.map_or(String::new(), |limit| format!(" of {}", mebibytes(limit)));
        eprintln!("memory    {}{limit} for all caches", mebibytes(state.held));
        Ok(())
    }
}
