//! What a server is made of: whoever starts one says all of it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cokv_core::{Budget, Format, Method};
use cokv_models::Outline;
use cokv_models::cache::file::{Description, Identity};
use cokv_models::sampling::Sampling;
use cokv_scheduler::{Document, Handle};
use serde_json::{Map, Value as Json};

pub use crate::api::extension::{Compress, Mode};

/// A server that does not listen yet.
pub struct Server {
    /// To the thread that computes.
    pub handle: Handle,
    /// The model that it computes.
    pub model: Served,
    /// From what a request says of a method, such as `{"compressor": "keydiff", "budget": "10%"}`, to one; what is not said is a
    /// default. An error says what is wrong with it.
    pub methods: MethodMaker,
    /// Where documents are saved; none where they are not.
    pub files: Option<Files>,
    /// Whom it answers, and how much.
    pub settings: Settings,
    /// Hears what whoever runs the server may want to read. It is called on the thread of all connections: it must not wait.
    pub log: Arc<dyn Fn(&Logged) + Send + Sync>,
}

/// Makes a method of what a request says.
pub type MethodMaker = Arc<dyn Fn(&Map<String, Json>) -> Result<(Method, Budget), String> + Send + Sync>;

/// The model as clients see it.
pub struct Served {
    /// Tokenizer, chat template and shape.
    pub outline: Arc<Outline>,
    /// Its name in requests and answers.
    pub id: String,
    /// Other names for it in requests.
    pub aliases: Vec<String>,
    /// Seconds from 1970 to when it was made or loaded.
    pub created: u64,
    /// Hash of all that an answer depends on beside the request.
    pub fingerprint: String,
    /// How its caches are stored.
    pub format: Format,
    /// How tokens are chosen where a request does not say it.
    pub sampling: Sampling,
    /// What answers are drawn with where a request names no seed; without it, each with another.
    pub seed: Option<u64>,
}

/// Documents in files.
pub struct Files {
    /// Where they lie, and nothing else.
    pub folder: PathBuf,
    /// The model's, which must be a file's.
    pub identity: Identity,
    /// What a file is to say of a document.
    pub describe: Arc<dyn Fn(&Document) -> Description + Send + Sync>,
    /// Writes a file that is whole or absent.
    pub write: FileWriter,
}

/// Writes a file that is whole or absent, and its owner's alone.
pub type FileWriter = Arc<dyn Fn(&Path, &[u8]) -> io::Result<()> + Send + Sync>;

/// Whom a server answers, and how much.
#[derive(Clone, Debug)]
pub struct Settings {
    /// API keys; with none, everybody who can connect is answered.
    pub keys: Vec<String>,
    /// Names by which the server may be called beside those of this machine's loopback; `*` is every name.
    pub hosts: Vec<String>,
    /// Origins whose pages may read answers.
    pub cors_origins: Vec<String>,
    /// Whether a request may name any model.
    pub any_model: bool,
    /// Tokens of an answer at most, where a request does not say it.
    pub max_tokens: usize,
    /// Whether conversations are encoded in one piece, as transformers does it: whoever writes control tokens sends them.
    pub template_compat: bool,
    /// Whether what was read for one key serves all.
    pub share_cache: bool,
    /// What is kept where a request does not say it.
    pub compress: Compress,
    /// Requests of one key that are answered at the same time; none where there is no limit.
    pub requests_per_key: Option<usize>,
    /// When a request ends whatever it has.
    pub timeout: Option<Duration>,
    /// How long what runs may go on once the server is to end.
    pub drain: Duration,
    /// Bytes of a request's body.
    pub body: usize,
    /// Connections at the same time.
    pub connections: usize,
    /// Silence after which a stream says that it is alive.
    pub silence: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            hosts: Vec::new(),
            cors_origins: Vec::new(),
            any_model: false,
            max_tokens: 1024,
            template_compat: false,
            share_cache: false,
            compress: Compress::default(),
            requests_per_key: None,
            timeout: None,
            drain: Duration::from_secs(30),
            body: 16 << 20,
            connections: 256,
            silence: Duration::from_secs(10),
        }
    }
}

/// Something for whoever runs the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Logged {
    /// A request was answered, or its client has gone.
    Request(RequestLine),
    /// Something that is worth knowing once.
    Notice(String),
}

/// What became of a request. What was asked and answered is not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestLine {
    /// The client's own, or drawn.
    pub id: String,
    /// Of HTTP.
    pub method: String,
    /// What was asked for, without what stands behind a `?`.
    pub path: String,
    /// Of HTTP; 499 where the client went before there was one.
    pub status: u16,
    /// OpenAI's code of an error, also of one behind the headers.
    pub error: Option<&'static str>,
    /// Of all prompts.
    pub prompt_tokens: usize,
    /// Of them, those that were read before.
    pub cached_tokens: usize,
    /// Of all answers.
    pub completion_tokens: usize,
    /// In the queue.
    pub queued: Duration,
    /// From there to the first token.
    pub reading: Duration,
    /// From there to the last.
    pub answering: Duration,
    /// Of the cache that was answered from.
    pub cache_bytes: usize,
    /// From the request's head to the answer's end.
    pub taken: Duration,
}

impl fmt::Display for RequestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, method, path, status, .. } = self;
        write!(f, "{id} {method} {path} {status}")?;
        if let Some(error) = self.error {
            write!(f, " {error}")?;
        }
        if self.prompt_tokens > 0 {
            let [queued, reading, answering] = [self.queued, self.reading, self.answering].map(|time| time.as_millis());
            write!(
                f,
                " prompt={} cached={} answer={} queue_ms={queued} prefill_ms={reading} decode_ms={answering} bytes={}",
                self.prompt_tokens, self.cached_tokens, self.completion_tokens, self.cache_bytes
            )?;
        }
        write!(f, " ms={}", self.taken.as_millis())
    }
}

impl Served {
    /// Bytes of a token in all heads.
    pub fn bytes_per_token(&self) -> usize {
        let layout = self.outline.config().layout;
        layout.heads() * self.format.token_bytes(layout.head_dim)
    }
}
