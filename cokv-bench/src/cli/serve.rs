//! `cokv serve`

mod documents;

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use cokv_core::{Budget, Method, Registry};
use cokv_models::memory::free_bytes;
use cokv_models::sampling::Sampling;
use cokv_models::{LanguageModel, NUMERICS, Outline, instructions};
use cokv_scheduler::{Settings as SchedulerSettings, Worker};
use cokv_serve::{Compress, Files, Listener, Logged, Mode, RequestLine, Served, Server, Settings};
use serde_json::json;

use self::documents::preloaded;
use super::load::{load, outline};
use super::method::{MethodArguments, method};
use super::sampling::SamplingArguments;
use crate::document::{check_method, evicting};
use crate::machine::memory::mebibytes;
use crate::model::{Beside, Loaded, ModelSettings, Outlined};
use crate::scores::ModelStamp;
use crate::serving::{Describing, Methods};

/// Where an API key may stand.
const KEY: &str = "COKV_API_KEY";
/// Share of the free memory that caches have where nobody says how much.
const SHARE: f64 = 0.5;

/// Serve a model behind the API that OpenAI's clients speak, with documents that are read and compressed once
///
/// Answers are those of the full cache unless a request, a document or --compress says otherwise, and every answer says what it
/// was had from. Documents are read once, shared by all requests that begin with them, and saved to files that `cokv ask` reads,
/// too. Open http://127.0.0.1:8080 for a page to talk to the model.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv serve                                                    # http://127.0.0.1:8080/v1
  cokv serve --model path:llama.gguf --cache-memory '4 GiB' --cache q8
  cokv serve --document report=report.txt --compress document --method keydiff --budget 30%
  cokv serve --document report=report.cokv --cache-dir caches/  # a cache that `cokv compress` saved
  cokv serve --cache-memory '1 GiB' --compress-idle 25%         # more conversations in the same memory
  COKV_API_KEY=secret cokv serve --host 0.0.0.0 --public-name models.example.org

  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' -d '{
    \"model\": \"cokv\", \"messages\": [{\"role\": \"user\", \"content\": \"Who wrote it?\"}], \"cokv\": {\"document\": \"report\"}}'")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    /// Address to listen on; other machines reach only addresses that are not this machine's loopback
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes one that is free and says which
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// A file to listen at instead, for a proxy on this machine
    #[cfg(unix)]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"])]
    socket: Option<PathBuf>,
    /// The model's name in requests [default: cokv]
    #[arg(long, value_name = "NAME", default_value = "cokv", hide_default_value = true)]
    name: String,
    /// Further names for it
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Answer whatever model a request names
    #[arg(long)]
    any_model: bool,
    /// Memory for all caches together, such as '4 GiB' [default: half of what is free once the model is loaded]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    cache_memory: Option<u64>,
    /// Share of that memory for documents that are not let go
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pin_share: f64,
    /// Answers that are written at the same time
    #[arg(long, value_name = "ANSWERS", default_value_t = 16)]
    parallel: usize,
    /// Requests that may wait; those that come then are told when to come again
    #[arg(long, value_name = "REQUESTS", default_value_t = 64)]
    queue: usize,
    /// How long answers may stand still while a prompt is read beside them, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 100)]
    stall_target: u64,
    /// A document that is there from the start: a text file, or a cache that `cokv compress` or this server saved. A text is compressed
    /// with --compress document
    #[arg(long = "document", value_name = "NAME=FILE")]
    documents: Vec<String>,
    /// What is compressed where a request does not say it: off, question (each prompt, once it is read) or document (what stands before
    /// a breakpoint, and documents)
    #[arg(long, value_name = "MODE", default_value = "off", value_parser = mode)]
    compress: Mode,
    #[command(flatten)]
    method: MethodArguments,
    /// Compress conversations that nobody goes on with before any is dropped for want of memory, to so much of their cache: 25%, tokens per
    /// KV head, or bytes. Whoever goes on with one is told, and may refuse (`exact`)
    #[arg(long, value_name = "BUDGET")]
    compress_idle: Option<Budget>,
    /// The compressor that does this, of those that look at keys and values alone
    #[arg(long, value_name = "METHOD", default_value = "keydiff")]
    idle_method: String,
    /// Folder where documents are saved, and loaded from, by requests
    #[arg(long, value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,
    /// File with API keys, one a line; COKV_API_KEY may hold one, too
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Answer everybody who can reach an address that is not this machine's loopback
    #[arg(long)]
    no_auth: bool,
    /// Let all API keys use what was read for one of them
    #[arg(long)]
    share_cache: bool,
    /// A name by which the server is called from elsewhere; * is every name
    #[arg(long, value_name = "HOST")]
    public_name: Vec<String>,
    /// An origin whose pages may read answers, such as https://example.org
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Tokens of an answer at most, where a request does not say it
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    max_tokens: usize,
    /// Seconds after which a request ends whatever it has; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Seconds for which what runs may go on once the server is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
    /// Encode conversations in one piece, as transformers does: whoever writes the text of a control token sends the token
    #[arg(long)]
    template_compat: bool,
    /// Write a line of JSON for every request
    #[arg(long)]
    json_log: bool,
    #[command(
        flatten,
        next_help_heading = "Where a request does not say how it is drawn [default: as generation_config.json says]"
    )]
    sampling: SamplingArguments,
}

pub fn run(arguments: &Arguments, registry: Registry) -> Result<()> {
    let keys = keys(arguments)?;
    if !arguments.host.is_loopback() && keys.is_empty() && !arguments.no_auth {
        bail!(
            "--host {}: everybody who reaches this machine would be answered: give {KEY} or --api-key-file, or --no-auth if that is meant",
            arguments.host
        );
    }
    if !(0.0..=1.0).contains(&arguments.pin_share) || arguments.parallel == 0 || arguments.queue == 0 {
        bail!("--pin-share is between 0 and 1, and --parallel and --queue are at least 1");
    }
    let budget = arguments.method.budget;
    let mut method = arguments.method.build(&registry)?;
    if arguments.compress != Mode::Off && !method.evicts() {
        bail!("--compress: say what is kept, such as --method keydiff --budget 30%; `cokv methods` lists them");
    }
    if arguments.compress == Mode::Document {
        check_method(&method, &registry)?;
    }
    let compress_idle = compress_idle(arguments, &registry)?;
    let documents = preloaded(&arguments.documents)?;
    if arguments.compress == Mode::Off && method.evicts() {
        eprintln!(
            "note: nothing is compressed without --compress: --method is for requests that ask for it and name none"
        );
    }
    if let Some(folder) = &arguments.cache_dir {
        std::fs::create_dir_all(folder).with_context(|| format!("--cache-dir {}", folder.display()))?;
    }
    let (listener, address) = listen(arguments)?;

    let outlined = outline(&arguments.model, false)?;
    let (layout, fingerprint) = (outlined.outline.config().layout, outlined.fingerprint()?);
    let stamp = ModelStamp::of(&arguments.model.source, Some(&fingerprint), layout);
    arguments.method.fit(&mut method, &stamp, layout)?;
    let identity = outlined.outline.identity(&fingerprint, arguments.model.cache)?;
    documents::check(&documents, &outlined, &identity)?;
    let sampling = arguments.sampling.over(outlined.outline.sampling(), outlined.outline.config().vocabulary)?;
    let Loaded { model, fingerprint } = load(&outlined, &beside(arguments))?;
    let model = Arc::new(model);
    let limit = arguments.cache_memory.or_else(|| cache_memory(&model));
    let (handle, worker) = cokv_scheduler::start(Arc::clone(&model), scheduling(arguments, limit, compress_idle))?;
    let watched = watch(worker);

    let compress = (arguments.compress == Mode::Document).then(|| (method.clone(), budget));
    documents::preload(documents, &handle, &outlined, &identity, compress)?;
    let describing = Describing::new(arguments.model.clone(), identity, model.engine().backend(), &registry)?;
    let methods = Arc::new(Methods::new(registry, layout, arguments.method.table()?, method, budget));
    let json_log = arguments.json_log;
    let server = Server {
        handle,
        model: served(arguments, &outlined, &model, &fingerprint, sampling),
        methods: Arc::new(move |said| methods.make(said)),
        files: arguments.cache_dir.clone().map(|folder| files(folder, describing, &model)),
        settings: settings(arguments, keys),
        log: Arc::new(move |logged| eprintln!("{}", line(logged, json_log))),
    };
    say_hello(arguments, &address, limit);
    cokv_serve::run(listener, server)?;
    // It was told to stop, and has at most one pass before it.
    let _ = watched.join();
    Ok(())
}

/// Keys of the file and of the environment.
fn keys(arguments: &Arguments) -> Result<Vec<String>> {
    let mut keys: Vec<String> = std::env::var(KEY).into_iter().filter(|key| !key.is_empty()).collect();
    if let Some(path) = &arguments.api_key_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("--api-key-file {}", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let before = keys.len();
        keys.extend(lines.map(str::to_owned));
        if keys.len() == before {
            bail!("--api-key-file {}: there is no key in it", path.display());
        }
    }
    Ok(keys)
}

fn beside(arguments: &Arguments) -> Beside {
    Beside {
        bytes: arguments.cache_memory.unwrap_or(64 << 20),
        what: "the caches".into(),
        advice: "give --cache-memory less, or take a smaller model",
    }
}

/// Half of what is free now.
fn cache_memory(model: &LanguageModel) -> Option<u64> {
    model.engine().free_bytes().or_else(free_bytes).map(|bytes| (bytes as f64 * SHARE) as u64)
}

/// What is kept of idle conversations, where that is not all.
fn compress_idle(arguments: &Arguments, registry: &Registry) -> Result<Option<(Method, Budget)>> {
    let Some(budget) = arguments.compress_idle else { return Ok(None) };
    let method = method(registry, &arguments.idle_method, None, None)?;
    let name = method.name();
    if !method.evicts() || budget == Budget::Share(1.0) {
        bail!("--compress-idle {budget}: `{name}` would keep everything of it; take 25%, and keydiff, say");
    }
    match method.lacks_at_rest() {
        Some(lacks) => bail!(
            "--idle-method {name}: it looks at {lacks}, which is gone once a prompt was read; keys and values are enough for {}",
            evicting(registry, |method| method.lacks_at_rest().is_none())
        ),
        None => Ok(Some((method, budget))),
    }
}

fn scheduling(
    arguments: &Arguments,
    cache_memory: Option<u64>,
    compress_idle: Option<(Method, Budget)>,
) -> SchedulerSettings {
    SchedulerSettings {
        cache_memory,
        compress_idle,
        rows: arguments.parallel,
        queue: arguments.queue,
        stall_target: Duration::from_millis(arguments.stall_target),
        pin_share: arguments.pin_share,
        ..SchedulerSettings::default()
    }
}

/// Ends the process where the thread that computes breaks: nobody would be answered any more.
fn watch(worker: Worker) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        if !worker.join() {
            eprintln!("cokv: the thread that computes has broken; start the server again");
            std::process::exit(1);
        }
    })
}

fn served(
    arguments: &Arguments,
    outlined: &Outlined,
    model: &LanguageModel,
    fingerprint: &str,
    sampling: Sampling,
) -> Served {
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let held = arguments.model.held_as();
    let all = format!("{fingerprint} {held} {} {NUMERICS} {:?}", model.engine().backend(), instructions());
    Served {
        outline: Arc::clone(&outlined.outline),
        id: arguments.name.clone(),
        aliases: [arguments.model.source.clone()].into_iter().chain(arguments.alias.clone()).collect(),
        created,
        fingerprint: format!("cokv-{}", &crate::document::prefix_hash(&all)[..16]),
        format: model.format(),
        sampling,
        seed: arguments.sampling.seed,
    }
}

fn files(folder: PathBuf, describing: Describing, model: &LanguageModel) -> Files {
    let outline: Arc<Outline> = Arc::clone(model.outline());
    Files {
        folder,
        identity: describing.identity.clone(),
        describe: Arc::new(move |document| describing.describe(document, &outline)),
        write: Arc::new(|path, bytes| cokv_shapley::whole::write_private(path, bytes)),
    }
}

fn settings(arguments: &Arguments, keys: Vec<String>) -> Settings {
    Settings {
        keys,
        hosts: arguments.public_name.clone(),
        cors_origins: arguments.cors_origin.clone(),
        any_model: arguments.any_model,
        max_tokens: arguments.max_tokens,
        template_compat: arguments.template_compat,
        share_cache: arguments.share_cache,
        compress: Compress { mode: arguments.compress, ..Compress::default() },
        timeout: (arguments.timeout > 0).then(|| Duration::from_secs(arguments.timeout)),
        drain: Duration::from_secs(arguments.drain),
        ..Settings::default()
    }
}

fn say_hello(arguments: &Arguments, address: &str, limit: Option<u64>) {
    let caches = limit.map_or(String::new(), |limit| format!(", {} for caches", mebibytes(limit)));
    eprintln!("serving {} at {address}{caches}", arguments.model.source);
}

/// Where it listens, and what that is called.
fn listen(arguments: &Arguments) -> Result<(Listener, String)> {
    #[cfg(unix)]
    if let Some(path) = &arguments.socket {
        let at = || format!("cannot listen at {}", path.display());
        // One that nobody listens at was left by a server that was killed.
        if std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        {
            std::fs::remove_file(path).with_context(at)?;
        }
        let listener = std::os::unix::net::UnixListener::bind(path).with_context(at)?;
        return Ok((listener.into(), path.display().to_string()));
    }
    let listener = TcpListener::bind((arguments.host, arguments.port))
        .with_context(|| format!("cannot listen on {}:{}", arguments.host, arguments.port))?;
    let address = format!("http://{}/v1", listener.local_addr()?);
    Ok((listener.into(), address))
}

/// As it is written to standard error.
fn line(logged: &Logged, as_json: bool) -> String {
    let seconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
    match logged {
        Logged::Request(line) if as_json => {
            let RequestLine {
                id, method, path, status, error, prompt_tokens, cached_tokens, completion_tokens, ..
            } = line;
            json!({
                "id": id, "method": method, "path": path, "status": status, "error": error, "prompt_tokens": prompt_tokens,
                "cached_tokens": cached_tokens, "completion_tokens": completion_tokens, "queued_seconds": seconds(line.queued),
                "prefill_seconds": seconds(line.reading), "decode_seconds": seconds(line.answering),
                "cache_bytes": line.cache_bytes, "seconds": seconds(line.taken),
            })
            .to_string()
        }
        Logged::Request(line) => line.to_string(),
        Logged::Notice(notice) if as_json => json!({ "note": notice }).to_string(),
        Logged::Notice(notice) => format!("note: {notice}"),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(Budget::Bytes(bytes)) if bytes > 0 => Ok(bytes),
        _ => Err("write bytes, such as '512 MiB' or '4 GiB'".into()),
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "off" => Ok(Mode::Off),
        "question" => Ok(Mode::Question),
        "document" => Ok(Mode::Document),
        _ => Err("off, question and document are".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_logged_as_text_or_as_json() {
        let line_of = RequestLine {
            id: "a".into(),
            method: "GET".into(),
            path: "/health".into(),
            status: 200,
            ..Default::default()
        };
        let logged = Logged::Request(line_of);
        assert_eq!(line(&logged, false), "a GET /health 200 ms=0");
        let read: serde_json::Value = serde_json::from_str(&line(&logged, true)).unwrap();
        assert_eq!((read["status"].as_u64(), read["error"].is_null()), (Some(200), true));
        assert_eq!(line(&Logged::Notice("x".into()), false), "note: x");
    }

    #[test]
    fn memory_is_said_in_bytes() {
        assert_eq!(bytes("2 GiB"), Ok(2 << 30));
        assert!(bytes("10%").is_err() && bytes("0 B").is_err() && bytes("128").is_err());
    }
}
