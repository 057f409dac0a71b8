//! A server whose scheduler is a script, and a client that sees every byte.
#![allow(dead_code, reason = "every test uses a part")]

#[path = "../../src/testing.rs"]
pub mod model;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cokv_core::{Budget, Format, Method};
use cokv_models::Outline;
use cokv_models::batch::Why;
use cokv_models::sampling::Sampling;
use cokv_scheduler::{Command, Flags, Handle, Job, Told, Used, UsedCache};
use cokv_serve::{Listener, Logged, Served, Server, Settings, Shutdown};
use serde_json::{Map, Value as Json};
use tokio::sync::watch;

/// A server that runs.
pub struct Running {
    pub address: SocketAddr,
    pub logged: Arc<Mutex<Vec<Logged>>>,
    pub shutdown: watch::Sender<Shutdown>,
    pub thread: Option<JoinHandle<()>>,
}

/// Methods are made of cokv's own, with budgets as they are written.
pub fn method(said: &Map<String, Json>) -> Result<(Method, Budget), String> {
    let compressor = said.get("compressor").and_then(Json::as_str).unwrap_or("keydiff");
    let line = format!("compressor = '{compressor}'");
    let table = cokv_core::ConfigTable::parse("request", &line).map_err(|error| error.to_string())?;
    let method = cokv_policies::registry().method(table).map_err(|error| error.to_string())?;
    let budget = said.get("budget").and_then(Json::as_str).unwrap_or("50%");
    Ok((method, budget.parse().map_err(|error| format!("{error}"))?))
}

/// Starts one whose commands `script` obeys.
pub fn start(script: impl FnMut(Command) + Send + 'static) -> Running {
    start_with(script, |_| ())
}

/// The same, of changed settings.
pub fn start_with(mut script: impl FnMut(Command) + Send + 'static, change: impl FnOnce(&mut Server)) -> Running {
    let (handle, commands): (Handle, Receiver<Command>) = Handle::scripted();
    std::thread::spawn(move || commands.into_iter().for_each(&mut script));
    serve(handle, model::outline(), change)
}

/// Starts one in front of a handle.
pub fn serve(handle: Handle, outline: Outline, change: impl FnOnce(&mut Server)) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = serve_at(listener, handle, outline, change);
    running.address = address;
    running
}

/// Starts one that listens somewhere.
pub fn serve_at(
    listener: impl Into<Listener>,
    handle: Handle,
    outline: Outline,
    change: impl FnOnce(&mut Server),
) -> Running {
    let logged = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&logged);
    let mut server = Server {
        handle,
        model: Served {
            outline: Arc::new(outline),
            id: "tiny".into(),
            aliases: vec!["org/other".into()],
            created: 1_700_000_000,
            fingerprint: "fp_test".into(),
            format: Format::F16,
            sampling: Sampling::default(),
            seed: None,
        },
        methods: Arc::new(method),
        files: None,
        settings: Settings { max_tokens: 32, ..Settings::default() },
        log: Arc::new(move |line: &Logged| log.lock().unwrap().push(line.clone())),
    };
    change(&mut server);
    let listener = listener.into();
    let (shutdown, ends) = watch::channel(Shutdown::Not);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            cokv_serve::serve(listener, server, ends).await.unwrap();
        });
    });
    Running { address: SocketAddr::from(([127, 0, 0, 1], 0)), logged, shutdown, thread: Some(thread) }
}

/// What a client got.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    /// Status, code and param of an error, whose four keys are there.
    pub fn error(&self) -> (u16, Json, Json) {
        let error = &self.json()["error"];
        for key in ["message", "type", "param", "code"] {
            assert!(error.get(key).is_some(), "{key}: {}", self.body);
        }
        (self.status, error["code"].clone(), error["param"].clone())
    }

    /// Events of a stream as JSON, without comments; the last is `[DONE]`.
    pub fn events(&self) -> Vec<Json> {
        let blocks: Vec<&str> = self.body.split("\n\n").filter(|block| !block.is_empty()).collect();
        let mut data: Vec<&str> = blocks
            .iter()
            .filter(|block| !block.starts_with(':'))
            .map(|block| block.strip_prefix("data: ").unwrap())
            .collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{}", self.body);
        data.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Running {
    /// Sends bytes and reads all that comes back.
    pub fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut all = Vec::new();
        // A server that refuses may close while it is written to.
        let _ = stream.read_to_end(&mut all);
        parse(&all)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Reply {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.raw(format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
    }

    pub fn post(&self, path: &str, body: &Json) -> Reply {
        self.post_with(path, "", body.to_string().as_bytes())
    }

    pub fn post_with(&self, path: &str, headers: &str, body: &[u8]) -> Reply {
        self.raw(&posted(path, headers, body))
    }

    /// Begins to post, and hands the connection out once the response's head and first chunk are there.
    pub fn begin(&self, path: &str, body: &Json) -> BufReader<TcpStream> {
        let mut stream = self.connect();
        stream.write_all(&posted(path, "", body.to_string().as_bytes())).unwrap();
        BufReader::new(stream)
    }

    pub fn chat(&self, more: Json) -> Reply {
        self.post("/v1/chat/completions", &chat(more))
    }

    /// Lines of requests in the log, once there are so many.
    pub fn lines(&self, count: usize) -> Vec<cokv_serve::RequestLine> {
        eventually(|| {
            let logged = self.logged.lock().unwrap();
            let lines = logged.iter().filter_map(|logged| match logged {
                Logged::Request(line) => Some(line.clone()),
                Logged::Notice(_) => None,
            });
            Some(lines.collect::<Vec<_>>()).filter(|lines| lines.len() >= count)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.shutdown.send(Shutdown::Now);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A chat with one question and more fields.
pub fn chat(more: Json) -> Json {
    let mut body = serde_json::json!({ "model": "tiny", "messages": [{ "role": "user", "content": "hi" }] });
    if let (Json::Object(body), Json::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

pub fn posted(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let kind =
        if headers.to_ascii_lowercase().contains("content-type") { "" } else { "Content-Type: application/json\r\n" };
    let host = if headers.to_ascii_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
    let head = format!(
        "POST {path} HTTP/1.1\r\n{host}Connection: close\r\n{kind}{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub fn parse(bytes: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunked(body.as_bytes()) } else { body.to_owned() };
    Reply { status, head: head.to_owned(), body }
}

fn dechunked(mut rest: &[u8]) -> String {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        if rest.read_line(&mut line).unwrap() == 0 {
            break;
        }
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let take = size.min(rest.len());
        body.extend(&rest[..take]);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    String::from_utf8(body).unwrap()
}

/// Reads lines until one contains a text.
pub fn read_until(stream: &mut BufReader<TcpStream>, text: &str) -> String {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended before {text:?}: {all}");
        all.push_str(&line);
        if line.contains(text) {
            return all;
        }
    }
}

/// Waits for something for a while.
pub fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..400 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen");
}

/// What a job took.
pub fn used() -> Used {
    Used {
        cached_tokens: 3,
        written_tokens: 4,
        queued: Duration::from_millis(1),
        reading: Duration::from_millis(2),
        answering: Duration::from_millis(3),
        cache: UsedCache { kept_share: 1.0, bytes: 100, ..UsedCache::default() },
    }
}

/// Answers every choice of a job with a text, token by token, one choice after the other.
pub fn say(job: &mut Job, flags: &Flags, text: &str, why: Why) {
    (job.hear)(Told::Queued { before: 0 });
    (job.hear)(Told::Read { tokens: job.tokens.len(), of: job.tokens.len() });
    let logprobs = job.sampling.top_logprobs.map(|count| cokv_models::sampling::TokenLogprobs {
        logprob: -0.5,
        top: (0..count as u32).map(|id| (65 + id, -1.0 - f64::from(id))).collect(),
    });
    for choice in 0..job.choices {
        for token in model::outline().tokenizer().encode(text, false).unwrap() {
            if !flags.has_enough(choice) {
                (job.hear)(Told::Token { choice, token, logprobs: logprobs.clone() });
            }
        }
        (job.hear)(Told::Ended { choice, why });
    }
    (job.hear)(Told::Done(used()));
}

/// A script that says the same to everybody.
pub fn saying(text: &'static str) -> impl FnMut(Command) + Send + 'static {
    move |command| match command {
        Command::Run(mut job, flags) => say(&mut job, &flags, text, Why::Stop),
        Command::Find { reply, .. } | Command::Forget { reply, .. } => reply(None),
        Command::List { reply, .. } => reply(Vec::new()),
        Command::Show { reply, .. } => reply(Default::default()),
        _ => {}
    }
}
