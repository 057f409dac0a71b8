//! Answers as OpenAI's clients read them, whole and in chunks.

use cokv_scheduler::Used;
use serde_json::{Map, Value as Json, json};

use super::documents::state;

/// What stands at the top of every answer and of every chunk of it.
#[derive(Clone, Debug)]
pub struct Head {
    /// Of this answer.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The served model's id.
    pub model: String,
    /// What else an answer depends on.
    pub fingerprint: String,
    /// Whether a conversation is answered, or a text goes on.
    pub style: Style,
}

/// Which of OpenAI's two shapes an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// A token and how likely it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Likely {
    /// Its text; where it is a part of a character, the replacement character.
    pub text: String,
    /// What it stands for, characters or parts of one.
    pub bytes: Vec<u8>,
    /// Logarithm of its probability.
    pub logprob: f64,
}

/// A token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What was chosen.
    pub chosen: Likely,
    /// What was likeliest.
    pub top: Vec<Likely>,
}

/// Some of an answer's text, and the tokens that it is made of, where these are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Whole characters.
    pub text: String,
    /// Its tokens.
    pub lines: Vec<Line>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The model said so, or a stop string.
    Stop,
    /// It is as long as it may become.
    Length,
    /// It calls tools.
    ToolCalls,
}

impl Reason {
    /// As clients read it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Stop => "stop",
            Reason::Length => "length",
            Reason::ToolCalls => "tool_calls",
        }
    }
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// By which its result is known.
    pub id: String,
    /// The function's.
    pub name: String,
    /// JSON as a text.
    pub arguments: String,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// What is said.
    pub piece: Piece,
    /// Tools that are called.
    pub calls: Vec<Call>,
    /// Why it ended.
    pub reason: Reason,
}

/// What an answer took, and how it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Bill {
    /// Of all prompts.
    pub prompt_tokens: usize,
    /// Of all answers.
    pub completion_tokens: usize,
    /// By which the same answers are drawn again.
    pub seed: u64,
    /// Of each job.
    pub used: Vec<Used>,
}

/// No number of JSON is as small as the logarithm of nothing.
const LEAST: f64 = -9999.0;

impl Head {
    fn around(&self, object: &str, choices: Json) -> Map<String, Json> {
        let Self { id, created, model, fingerprint, .. } = self;
        let around = json!({
            "id": id, "object": object, "created": created, "model": model, "system_fingerprint": fingerprint,
            "choices": choices,
        });
        if let Json::Object(around) = around { around } else { Map::new() }
    }

    /// The whole answer.
    pub fn whole(&self, choices: &[Choice], bill: &Bill, wants_logprobs: bool) -> Json {
        let object = if self.style == Style::Chat { "chat.completion" } else { "text_completion" };
        let choices = choices.iter().enumerate().map(|(index, choice)| {
            let logprobs = self.logprobs(&choice.piece, 0, wants_logprobs);
            let reason = choice.reason.name();
            match self.style {
                Style::Chat => {
                    let message = message(choice);
                    json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": reason })
                }
                Style::Text => {
                    json!({ "index": index, "text": choice.piece.text, "logprobs": logprobs, "finish_reason": reason })
                }
            }
        });
        let mut whole = self.around(object, choices.collect());
        whole.insert("usage".into(), bill.usage());
        whole.insert("cokv".into(), bill.extension());
        whole.into()
    }

    /// Chunk of a stream: of one choice. `delta` is what of the message is new.
    fn chunk(&self, choice: Json, with_usage: bool) -> Json {
        let object = if self.style == Style::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = self.around(object, json!([choice]));
        if with_usage {
            chunk.insert("usage".into(), Json::Null);
        }
        chunk.into()
    }

    /// The chunk with which a choice begins; texts have none.
    pub fn opening(&self, index: usize, with_usage: bool) -> Option<Json> {
        let delta = json!({ "role": "assistant", "content": "" });
        let choice = json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
        (self.style == Style::Chat).then(|| self.chunk(choice, with_usage))
    }

    /// A chunk with text; `offset` is where it begins in the answer, in characters.
    pub fn text(&self, index: usize, piece: &Piece, offset: usize, wants_logprobs: bool, with_usage: bool) -> Json {
        let logprobs = self.logprobs(piece, offset, wants_logprobs);
        let choice = match self.style {
            Style::Chat => {
                let delta = json!({ "content": piece.text });
                json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null })
            }
            Style::Text => json!({ "index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": null }),
        };
        self.chunk(choice, with_usage)
    }

    /// A chunk with calls of tools.
    pub fn calls(&self, index: usize, calls: &[Call], with_usage: bool) -> Json {
        let calls = calls.iter().enumerate().map(|(at, call)| {
            let mut call = call.json();
            call["index"] = at.into();
            call
        });
        let delta = json!({ "tool_calls": calls.collect::<Json>() });
        self.chunk(json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null }), with_usage)
    }

    /// The chunk with which a choice ends.
    pub fn ending(&self, index: usize, reason: Reason, with_usage: bool) -> Json {
        let reason = reason.name();
        let choice = match self.style {
            Style::Chat => json!({ "index": index, "delta": {}, "logprobs": null, "finish_reason": reason }),
            Style::Text => json!({ "index": index, "text": "", "logprobs": null, "finish_reason": reason }),
        };
        self.chunk(choice, with_usage)
    }

    /// The last chunk, which says what all of it took.
    pub fn bill(&self, bill: &Bill) -> Json {
        let object = if self.style == Style::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = self.around(object, json!([]));
        chunk.insert("usage".into(), bill.usage());
        chunk.insert("cokv".into(), bill.extension());
        chunk.into()
    }

    fn logprobs(&self, piece: &Piece, offset: usize, wanted: bool) -> Json {
        match (wanted, self.style) {
            (false, _) => Json::Null,
            (true, Style::Chat) => {
                json!({ "content": piece.lines.iter().map(chat_line).collect::<Json>(), "refusal": null })
            }
            (true, Style::Text) => text_lines(&piece.lines, offset),
        }
    }
}

fn message(choice: &Choice) -> Json {
    // Of what only calls tools nothing is said.
    let content = match choice.piece.text.as_str() {
        "" if !choice.calls.is_empty() => Json::Null,
        text => text.into(),
    };
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null, "annotations": [] });
    if !choice.calls.is_empty() {
        message["tool_calls"] = choice.calls.iter().map(Call::json).collect();
    }
    message
}

impl Call {
    fn json(&self) -> Json {
        let function = json!({ "name": self.name, "arguments": self.arguments });
        json!({ "id": self.id, "type": "function", "function": function })
    }
}

impl Likely {
    fn json(&self) -> Json {
        json!({ "token": self.text, "logprob": self.logprob.max(LEAST), "bytes": self.bytes })
    }
}

fn chat_line(line: &Line) -> Json {
    let mut json = line.chosen.json();
    json["top_logprobs"] = line.top.iter().map(Likely::json).collect();
    json
}

fn text_lines(lines: &[Line], offset: usize) -> Json {
    let mut at = offset;
    let offsets = lines.iter().map(|line| {
        let here = at;
        at += line.chosen.text.chars().count();
        here
    });
    let offsets: Vec<usize> = offsets.collect();
    let top = |line: &Line| {
        let likely = |likely: &Likely| (likely.text.clone(), Json::from(likely.logprob.max(LEAST)));
        line.top.iter().chain([&line.chosen]).map(likely).collect::<Map<_, _>>()
    };
    json!({
        "tokens": lines.iter().map(|line| line.chosen.text.as_str()).collect::<Vec<_>>(),
        "token_logprobs": lines.iter().map(|line| line.chosen.logprob.max(LEAST)).collect::<Vec<_>>(),
        "top_logprobs": lines.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}

impl Bill {
    /// `usage`. Tokens count whether they are kept or not.
    pub fn usage(&self) -> Json {
        let sum = |of: fn(&Used) -> usize| self.used.iter().map(of).sum::<usize>();
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": sum(|used| used.cached_tokens),
                "cache_write_tokens": sum(|used| used.written_tokens),
            },
        })
    }

    /// `cokv`: of several prompts the longest waits, and the cache of the first.
    pub fn extension(&self) -> Json {
        let longest = |of: fn(&Used) -> std::time::Duration| {
            self.used.iter().map(of).max().unwrap_or_default().as_millis() as u64
        };
        let mut extension = json!({
            // Two's complement, as it was taken.
            "seed": self.seed as i64,
            "queue_ms": longest(|used| used.queued),
            "prefill_ms": longest(|used| used.reading),
            "decode_ms": longest(|used| used.answering),
        });
        if let Some(Used { cache, .. }) = self.used.first() {
            let mut json =
                json!({ "state": state(cache.compressed), "kept_share": cache.kept_share, "bytes": cache.bytes });
            for (key, name) in [("document", &cache.document), ("method", &cache.method)] {
                if let Some(name) = name {
                    json[key] = name.as_str().into();
                }
            }
            extension["cache"] = json;
        }
        extension
    }
}
