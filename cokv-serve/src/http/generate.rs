//! Answers of a request whose jobs run: at once when all are there, or as they come.

use std::sync::Arc;
use std::time::Instant;

use cokv_models::Outline;
use cokv_scheduler::{Told, Used};
use serde_json::Value as Json;

use super::notes::Notes;
use super::running::Running;
use super::shared::{OfKey, Shared};
use super::sse::{Events, Gone};
use crate::api::answer::{Bill, Choice, Head, Piece, Reason};
use crate::api::error::ApiError;
use crate::text::calls::ParseCalls;
use crate::text::choices::{Choices, Said};

/// What is known of a request when its jobs are handed in.
pub struct Request {
    /// What all requests share.
    pub shared: Arc<Shared>,
    /// Its line in the log.
    pub notes: Notes,
    /// Of its answer.
    pub head: Head,
    /// Answers to each prompt.
    pub choices: usize,
    /// Texts that end them.
    pub stops: Vec<String>,
    /// What finds calls of tools, where these are wanted.
    pub calls: Option<ParseCalls>,
    /// Whether log-probabilities are wanted.
    pub logprobs: bool,
    /// Whether the last chunk says what it took.
    pub include_usage: bool,
    /// Of all prompts.
    pub prompt_tokens: usize,
    /// By which tokens are drawn.
    pub seed: u64,
    /// Its place among the requests of its key.
    pub _of_key: OfKey,
}

/// A request whose jobs run.
pub struct Generation {
    request: Request,
    running: Running,
    jobs: usize,
    completion_tokens: usize,
    used: Vec<Used>,
    /// When each answer had its last token.
    last: Vec<Option<Instant>>,
    /// Prompt tokens that are read, and how many there are.
    read: Option<(usize, usize)>,
}

/// What one answer says.
type Heard = (usize, Said);

impl Generation {
    /// Of jobs that were taken.
    pub fn new(request: Request, running: Running, jobs: usize) -> Self {
        let (used, last) = (vec![Used::default(); jobs], vec![None; jobs * request.choices]);
        Self { request, running, jobs, completion_tokens: 0, used, last, read: None }
    }

    /// The whole answer.
    pub async fn whole(mut self) -> Result<Json, ApiError> {
        let outline = Arc::clone(&self.request.shared.server.model.outline);
        let mut choices = self.choices(&outline);
        let nothing = Choice { piece: Piece::default(), calls: Vec::new(), reason: Reason::Stop };
        let mut answers = vec![nothing; self.last.len()];
        while let Some(heard) = self.next(&mut choices).await? {
            for (index, said) in heard {
                let answer = &mut answers[index];
                match said {
                    Said::Text(Piece { text, lines }) => {
                        answer.piece.text.push_str(&text);
                        answer.piece.lines.extend(lines);
                    }
                    Said::Calls(calls) => answer.calls = calls,
                    Said::End(reason) => answer.reason = reason,
                }
            }
        }
        Ok(self.request.head.whole(&answers, &self.bill(), self.request.logprobs))
    }

    /// The answer as it comes. Where its client goes, the jobs end.
    pub async fn stream(mut self, mut events: Events) {
        let told = match self.tell(&mut events).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.request.notes.failed(&error);
                events.data(&error.body_json()).await
            }
            Err(Gone) => return,
        };
        if told.is_ok() {
            let _ = events.done().await;
        }
    }

    async fn tell(&mut self, events: &mut Events) -> Result<Result<(), ApiError>, Gone> {
        let outline = Arc::clone(&self.request.shared.server.model.outline);
        let mut choices = self.choices(&outline);
        // Of each answer, the characters that were told; none before it has begun.
        let mut told: Vec<Option<usize>> = vec![None; self.last.len()];
        loop {
            let comment = self.comment();
            let next = events.while_waiting(self.next(&mut choices), &comment).await?;
            let heard = match next {
                Ok(Some(heard)) => heard,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            };
            for (index, said) in heard {
                if told[index].is_none() {
                    told[index] = Some(0);
                    if let Some(opening) = self.request.head.opening(index, self.request.include_usage) {
                        events.data(&opening).await?;
                    }
                }
                let offset = told[index].get_or_insert(0);
                events.data(&self.chunk(index, &said, *offset)).await?;
                if let Said::Text(piece) = said {
                    *offset += piece.text.chars().count();
                }
            }
        }
        if self.request.include_usage {
            events.data(&self.request.head.bill(&self.bill())).await?;
        }
        Ok(Ok(()))
    }

    fn chunk(&self, index: usize, said: &Said, offset: usize) -> Json {
        let Request { head, include_usage, logprobs, .. } = &self.request;
        match said {
            Said::Text(piece) => head.text(index, piece, offset, *logprobs, *include_usage),
            Said::Calls(calls) => head.calls(index, calls, *include_usage),
            Said::End(reason) => head.ending(index, *reason, *include_usage),
        }
    }

    /// What a client that hears nothing else is told.
    fn comment(&self) -> String {
        match self.read {
            None => "queued".into(),
            Some((tokens, of)) if tokens < of => format!("prefill {tokens}/{of}"),
            Some(_) => "decoding".into(),
        }
    }

    fn choices<'a>(&self, outline: &'a Outline) -> Choices<'a> {
        let Request { choices, stops, calls, .. } = &self.request;
        Choices::new(outline.tokenizer(), self.jobs, *choices, stops, calls.as_ref())
    }

    /// What is said next; none once all is.
    async fn next(&mut self, choices: &mut Choices<'_>) -> Result<Option<Vec<Heard>>, ApiError> {
        let Some((job, told)) = self.running.next().await? else { return Ok(None) };
        let said = match told {
            Told::Queued { .. } => Vec::new(),
            Told::Read { tokens, of } => {
                self.read = Some((tokens, of));
                Vec::new()
            }
            Told::Token { choice, token, logprobs } => {
                let index = choices.index(job, choice);
                self.count(index, choices.has_ended(index));
                let said = choices.token(index, token, logprobs.as_ref())?;
                if matches!(said.last(), Some(Said::End(_))) {
                    self.running.enough(job, choice);
                }
                said.into_iter().map(|said| (index, said)).collect()
            }
            Told::Ended { choice, why } => {
                let index = choices.index(job, choice);
                choices.ended(index, why)?.into_iter().map(|said| (index, said)).collect()
            }
            Told::Done(used) => {
                self.request.notes.used(&used);
                self.used[job] = used;
                Vec::new()
            }
            Told::Refused(refusal) => return Err(refusal.into()),
        };
        for (_, said) in &said {
            if let Said::End(reason) = said {
                self.request.shared.metrics.finish(reason.name());
            }
        }
        Ok(Some(said))
    }

    /// Counts a token, unless it came behind the end of its answer.
    fn count(&mut self, index: usize, ended: bool) {
        let Some(last) = self.last.get_mut(index).filter(|_| !ended) else { return };
        let (now, metrics) = (Instant::now(), &self.request.shared.metrics);
        match last.replace(now) {
            Some(before) => metrics.between_tokens.observe(now - before),
            None => metrics.first_token.observe(now - self.request.notes.since()),
        }
        self.completion_tokens += 1;
        self.request.notes.token();
    }

    fn bill(&self) -> Bill {
        let Request { prompt_tokens, seed, .. } = self.request;
        Bill { prompt_tokens, completion_tokens: self.completion_tokens, seed, used: self.used.clone() }
    }
}
