//! What is wanted of the model.

use std::time::Duration;

use cokv_core::{Budget, Frame, Method};
use cokv_models::StopRule;
use cokv_models::sampling::{Constraint, Sampling};

use crate::told::{DocumentTold, Told};

/// Who may use what was read for whom: prefixes and documents are found again by the same namespace alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(pub String);

/// Answers to one prompt.
pub struct Job {
    /// Whose it is.
    pub namespace: Namespace,
    /// The whole prompt, that of its document included.
    pub tokens: Vec<u32>,
    /// The document with whose tokens the prompt begins, by its name.
    pub document: Option<String>,
    /// What is kept of what is read.
    pub compression: Compression,
    /// Refuses to answer from a cache of which something was left out.
    pub exact: bool,
    /// Whether what is read may be kept for later prompts.
    pub store: bool,
    /// Answers that are wanted, at least one; each draws its own tokens.
    pub choices: usize,
    /// How they choose.
    pub sampling: Sampling,
    /// What each has to follow; they are free where there is nothing.
    pub constraint: Option<Box<dyn Constraint>>,
    /// When they end.
    pub stop: StopRule,
    /// When the job ends whatever it has; none where it has all the time.
    pub deadline: Option<Duration>,
    /// Hears what becomes of it, on the thread that computes: it must not wait.
    pub hear: Box<dyn FnMut(Told) + Send>,
}

/// What is kept of a prompt that is read for a job.
#[derive(Clone, Default)]
pub enum Compression {
    /// Everything.
    #[default]
    Off,
    /// What a method keeps of the whole prompt, once it is read: for this job alone.
    Question {
        /// What chooses.
        method: Method,
        /// How much is kept.
        budget: Budget,
        /// Where the prompt's parts lie.
        frame: Frame,
    },
    /// What a method keeps of the first tokens, before the rest is seen. Later jobs with the same tokens find it.
    Document {
        /// What chooses; it needs no question.
        method: Method,
        /// How much is kept.
        budget: Budget,
        /// Tokens of the prompt that are the document.
        tokens: usize,
        /// Where the document's parts lie.
        frame: Frame,
        /// What a chat template puts behind a user's text: methods that read twice want it.
        close: Vec<u32>,
    },
}

/// A document to be read once and asked about by any number of jobs.
pub struct NewDocument {
    /// Whose it is.
    pub namespace: Namespace,
    /// Whether every namespace may use it.
    pub shared: bool,
    /// Its name; drawn from its tokens where there is none.
    pub name: Option<String>,
    /// Its tokens with all that a chat template puts before it.
    pub tokens: Vec<u32>,
    /// What a later request is rendered with: messages as JSON. It is handed out again and never looked at.
    pub text: String,
    /// What keeps how much of it; none keeps everything.
    pub compress: Option<(Method, Budget)>,
    /// Where its parts lie.
    pub frame: Frame,
    /// As of [`Compression::Document`].
    pub close: Vec<u32>,
    /// Keeps it whatever else wants memory.
    pub pin: bool,
    /// How long it is kept after its last use.
    pub time_to_live: Option<Duration>,
    /// Hears what becomes of it, on the thread that computes: it must not wait.
    pub hear: Box<dyn FnMut(DocumentTold) + Send>,
}
