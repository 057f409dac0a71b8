//! What a batch is asked, and what it tells.

use cokv_core::{Budget, Format, Frame, HeadLayout, Method, Spending};

use crate::ask::Top;
use crate::cache::{RaggedCache, SLICES};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::eviction::Eviction;
use crate::ledger::Promise;
use crate::sampling::{Constraint, Sampler, TokenLogprobs};
use crate::stop::StopRule;

/// Names a sequence of a batch: one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// Answers that are wanted to one prompt.
pub struct Request {
    /// What comes before them.
    pub start: Start,
    /// When they end.
    pub stop: StopRule,
    /// What draws the tokens of each answer; where there is nobody, one answer has the likeliest.
    pub samplers: Vec<Sampler>,
    /// What each answer has to follow; they are free where there is nothing.
    pub constraint: Option<Box<dyn Constraint>>,
}

/// What comes before an answer.
pub enum Start {
    /// A prompt that nobody has seen.
    Prompt {
        /// Its tokens.
        tokens: Vec<u32>,
        /// Where its parts lie.
        frame: Frame,
        /// What keeps how much of it before it is answered; all is kept where there is none.
        compress: Option<(Method, Budget)>,
    },
    /// A cache that has seen everything.
    Cache {
        /// The cache.
        cache: RaggedCache,
        /// The answer to [`StopRule`]'s question about what comes next.
        first: Top,
        /// What keeps it small while it is answered from.
        eviction: Option<Box<Eviction>>,
    },
    /// A cache, such as that of a compressed document, and what is said after it.
    Then {
        /// The cache.
        cache: RaggedCache,
        /// Tokens that it has not seen; at least one.
        tokens: Vec<u32>,
    },
}

/// What happens to a sequence.
#[derive(Debug)]
pub enum Event {
    /// So many tokens of those before the answer are done.
    Prefilled {
        /// Done.
        tokens: usize,
        /// Of how many.
        of: usize,
    },
    /// The prompt is compressed.
    Compressed {
        /// Tokens that all heads together keep.
        tokens: usize,
        /// Bytes of their buffers.
        bytes: usize,
        /// Tokens that they were allowed to keep.
        allowed: usize,
    },
    /// What comes before the answer is read, and all of it is kept.
    Read {
        /// Frozen; it shares its memory with the sequence.
        cache: RaggedCache,
    },
    /// The next token of the answer.
    Token {
        /// The token.
        token: u32,
        /// How likely it and others were, where its sampler wants to know.
        logprobs: Option<TokenLogprobs>,
    },
    /// What the cache holds was looked at again.
    Evicted {
        /// Tokens that all heads together kept.
        tokens: usize,
    },
    /// The answer is complete. Its last event.
    Ended {
        /// Why.
        why: Why,
        /// All its tokens.
        answer: Vec<u32>,
        /// What the sequence holds; of all tokens of the answer but the last, what was kept.
        cache: RaggedCache,
        /// Tokens that all heads together held at most while it was answered from.
        most_held: usize,
        /// What is promised for the rows that are the cache's own.
        promise: Promise,
    },
    /// There will be no answer; other sequences are not concerned. Its last event.
    Failed(ModelError),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The model said so, or what the answer has to follow allows nothing more.
    Stop,
    /// It is as long as it may become.
    Length,
}

impl Request {
    /// One answer of the likeliest tokens.
    pub fn greedy(start: Start, stop: StopRule) -> Self {
        Self { start, stop, samplers: Vec::new(), constraint: None }
    }

    /// Answers that are wanted.
    pub(super) fn answers(&self) -> usize {
        self.samplers.len().max(1)
    }

    /// What the first token is chosen from, where that is known before anything is run.
    pub(super) fn take_first(&mut self) -> Option<Top> {
        match &mut self.start {
            Start::Cache { first, .. } => Some(std::mem::take(first)),
            _ => None,
        }
    }

    /// Refuses what can never be run.
    pub fn check(&self, config: &ModelConfig) -> Result<(), ModelError> {
        let before = match &self.start {
            Start::Prompt { tokens, .. } if tokens.is_empty() => return Err(ModelError::EmptyPrompt),
            Start::Then { tokens, .. } if tokens.is_empty() => return Err(ModelError::EmptyPrompt),
            Start::Prompt { tokens, .. } => tokens.len(),
            Start::Cache { .. } if !self.samplers.is_empty() || self.constraint.is_some() => {
                let message =
                    "tokens are drawn from all logits, of which a cache by itself has none: leave it a token to read";
                return Err(ModelError::Backend(message.into()));
            }
            Start::Cache { cache, .. } => cache.next_position(),
            Start::Then { cache, tokens } => cache.next_position() + tokens.len(),
        };
        if let Start::Prompt { compress: Some((method, _)), .. } = &self.start
            && method.while_decoding().is_some()
            && self.answers() > 1
        {
            let message = "what evicts while the model answers is told of one answer: ask for one at a time";
            return Err(ModelError::Backend(message.into()));
        }
        config.check_length(before + self.stop.max_new_tokens)
    }

    /// The most bytes that its buffers will ever hold together. What its cache shares with others is theirs.
    pub fn bytes(&self, layout: HeadLayout, format: Format) -> u64 {
        let per_head = format.token_bytes(layout.head_dim);
        let per_token = layout.heads() * per_head;
        let most = self.stop.max_new_tokens;
        let answer = self.answers() * most * per_token;
        // Of what is evicted again and again: what is kept is copied before the rest goes.
        let evicted = |first: usize, allowed: usize, every: usize| match most < every {
            true => answer,
            false => first.max(allowed * per_head) - first + allowed * per_head + every * per_token,
        };
        let bytes = match &self.start {
            Start::Prompt { tokens, compress: None, .. } => tokens.len() * per_token + answer,
            Start::Prompt { tokens, compress: Some((method, budget)), .. } => {
                let whole = tokens.len() * layout.heads();
                let kept = match method.spending() {
                    Spending::MayExceed(_) => whole,
                    _ => budget.total_tokens(layout, tokens.len(), format).min(whole),
                };
                let answer = method.while_decoding().map_or(answer, |again| {
                    let seen = tokens.len() + most;
                    let allowed = method.allowed(*budget, layout, seen, format).min(layout.heads() * seen);
                    evicted(kept * per_head, allowed, again.most_growth())
                });
                // The prompt goes once what is kept of it is copied.
                kept * per_head + answer.max(whole * per_head)
            }
            Start::Cache { cache, eviction: Some(eviction), .. } => {
                let seen = cache.next_position() + most;
                let allowed = eviction.allowed(cache, seen).min(layout.heads() * seen);
                cache.own_bytes() + evicted(cache.own_bytes(), allowed, eviction.most_growth())
            }
            Start::Cache { cache, eviction: None, .. } => cache.own_bytes() + answer,
            Start::Then { cache, tokens } => {
                // What follows two segments is no third one that answers could share: each has a copy.
                let copies = if cache.segments().count() < SLICES { 1 } else { self.answers() };
                cache.own_bytes() + copies * tokens.len() * per_token + answer
            }
        };
        bytes as u64
    }
}
