//! How other threads talk to the one that computes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use cokv_models::cache::file::{Identity, SavedCache};

use crate::figures::Figures;
use crate::job::{Job, Namespace, NewDocument};
use crate::refusal::Refusal;
use crate::told::Document;

/// Gets a reply, on the thread that computes: it must not wait.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// What the computing thread is asked.
#[doc(hidden)]
pub enum Command {
    Run(Job, Arc<Flags>),
    Read(NewDocument, Arc<Flags>),
    Restore {
        saved: Box<SavedCache>,
        of: Restored,
        reply: Reply<Result<Document, Refusal>>,
    },
    Find {
        namespace: Namespace,
        name: String,
        reply: Reply<Option<Document>>,
    },
    List {
        namespace: Namespace,
        reply: Reply<Vec<Document>>,
    },
    Forget {
        namespace: Namespace,
        name: String,
        reply: Reply<Option<Document>>,
    },
    Show {
        namespace: Namespace,
        reply: Reply<State>,
    },
    /// Takes nobody any more, and refuses who waits.
    Drain,
    /// Ends all, now.
    Stop,
    /// Somebody has gone.
    Wake,
}

/// How a document comes back from a file.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Whose it is.
    pub namespace: Namespace,
    /// Whether every namespace may use it.
    pub shared: bool,
    /// Its name.
    pub name: String,
    /// Whether it stays whatever else wants memory.
    pub pin: bool,
    /// That of the model, which must be the file's.
    pub identity: Identity,
}

/// What is in memory, and who runs.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Jobs in the queue.
    pub waiting: usize,
    /// Answers that are written, or prompts that are read.
    pub running: usize,
    /// Bytes that all caches may have; none where nobody knows.
    pub limit: Option<u64>,
    /// Bytes promised.
    pub promised: u64,
    /// Bytes of all buffers.
    pub held: u64,
    /// What is kept of what was read.
    pub entries: Vec<EntryState>,
}

/// Something that is kept.
#[derive(Clone, Debug)]
pub struct EntryState {
    /// The document's name; none of what is kept of a conversation.
    pub document: Option<String>,
    /// Tokens of the text.
    pub tokens: usize,
    /// Of them, averaged over all heads, those that are kept.
    pub kept_tokens: f64,
    /// Bytes that it refers to; some may be others' too.
    pub bytes: usize,
    /// Whether it stays whatever else wants memory.
    pub pinned: bool,
    /// Whether something was left out.
    pub compressed: bool,
    /// Jobs that used it.
    pub hits: u64,
    /// Seconds since the last.
    pub idle_seconds: f64,
    /// Tokens that each KV head keeps, flat.
    pub kept_by_head: Vec<usize>,
}

/// What its owner has to say to the computing thread while it runs.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Flags {
    gone: AtomicBool,
    /// A bit for every answer that is wanted no more.
    enough: AtomicU64,
}

impl Flags {
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub fn has_enough(&self, choice: usize) -> bool {
        self.enough.load(Ordering::Acquire) >> choice.min(63) & 1 == 1
    }
}

/// Stands for a job or a document on its way: it ends when this is dropped.
#[must_use = "what is dropped is not run"]
pub struct Ticket {
    flags: Arc<Flags>,
    commands: Sender<Command>,
}

impl Ticket {
    /// Ends one answer: it has said enough. It is told as ended for [`Why::Stop`](cokv_models::batch::Why::Stop).
    pub fn enough(&self, choice: usize) {
        self.flags.enough.fetch_or(1 << choice.min(63), Ordering::AcqRel);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.flags.gone.store(true, Ordering::Release);
        // Where nobody listens any more there is nothing to end.
        let _ = self.commands.send(Command::Wake);
    }
}

/// Talks to the thread that computes.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    figures: Arc<Figures>,
}

impl Handle {
    pub(crate) fn new(commands: Sender<Command>, figures: Arc<Figures>) -> Self {
        Self { commands, figures }
    }

    /// One whose commands somebody else obeys: for tests of what talks to a scheduler.
    #[doc(hidden)]
    pub fn scripted() -> (Self, Receiver<Command>) {
        let (commands, asked) = channel();
        (Self::new(commands, Arc::default()), asked)
    }

    /// What has been counted since the start.
    pub fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// Puts a job into the queue. Its first event says whether it is taken.
    ///
    /// # Errors
    /// Where the computing thread has ended.
    pub fn run(&self, job: Job) -> Result<Ticket, Refusal> {
        self.ticket(|flags| Command::Run(job, flags))
    }

    /// Reads a document. Its first event says whether it is taken.
    ///
    /// # Errors
    /// Where the computing thread has ended.
    pub fn read(&self, document: NewDocument) -> Result<Ticket, Refusal> {
        self.ticket(|flags| Command::Read(document, flags))
    }

    /// Takes a document that was read from a file.
    ///
    /// # Errors
    /// Where the computing thread has ended.
    pub fn restore(
        &self,
        saved: SavedCache,
        of: Restored,
        reply: Reply<Result<Document, Refusal>>,
    ) -> Result<(), Refusal> {
        self.send(Command::Restore { saved: Box::new(saved), of, reply })
    }

    /// A document that a namespace may use.
    ///
    /// # Errors
    /// Where the computing thread has ended.
    pub fn find(&self, namespace: Namespace, name: String, reply: Reply<Option<Document>>) -> Result<(), Refusal> {
        self.send(Command::Find { namespace, name, reply })
    }

    /// All documents that a namespace may use.
    ///
    /// # Errors
    /// Where the computing thread has ended.
    pub fn list(&self, namespace: Namespace, reply: Reply<Vec<Document>>) -> Result<(), Refusal> {
        self.send(Command::List { namespace, reply })
    }

    /// Forgets a document of a namespace's own. Its memory goes with the last job that reads it.
    ///
    /// # Errors
    /// Where the computing thread has ended.
    pub fn forget(&self, namespace: Namespace, name: String, reply: Reply<Option<Document>>) -> Result<(), Refusal> {
        self.send(Command::Forget { namespace, name, reply })
    }

    /// What is in memory, and who runs; of what is kept, that which a namespace may use.
    ///
    /// # Errors
    /// Where the computing thread has ended.
    pub fn show(&self, namespace: Namespace, reply: Reply<State>) -> Result<(), Refusal> {
        self.send(Command::Show { namespace, reply })
    }

    /// Takes nobody any more and refuses who waits; what runs goes on.
    pub fn drain(&self) {
        let _ = self.send(Command::Drain);
    }

    /// Ends all that runs, and the thread.
    pub fn stop(&self) {
        let _ = self.send(Command::Stop);
    }

    fn ticket(&self, command: impl FnOnce(Arc<Flags>) -> Command) -> Result<Ticket, Refusal> {
        let flags = Arc::new(Flags::default());
        self.send(command(Arc::clone(&flags)))?;
        Ok(Ticket { flags, commands: self.commands.clone() })
    }

    fn send(&self, command: Command) -> Result<(), Refusal> {
        self.commands.send(command).map_err(|_| Refusal::Draining)
    }
}
