//! From a record to the token ids that the model sees.

use cokv_core::Frame;
use cokv_models::chat::ChatTemplate;
use cokv_models::tokenizer::Tokenizer;
use cokv_models::{ModelError, Outline, StopRule};

use super::{ChatUse, Protocol, Record, TaskProtocol};

/// A record as the model is asked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Context, question, and what a chat template adds.
    pub tokens: Vec<u32>,
    /// Where these lie.
    pub frame: Frame,
    /// The reference answer as it would follow the prompt; empty where the record has none.
    pub answer: Vec<u32>,
    /// Tokens before the middle was cut out, where it was.
    pub shortened_from: Option<usize>,
}

impl Prompt {
    /// Tokens before the question: what is compressed before anybody asks.
    pub fn context_tokens(&self) -> usize {
        self.tokens.len() - self.frame.question - self.frame.tail
    }

    /// Tokens that are prefilled and compressed.
    pub fn compressed_tokens(&self, protocol: Protocol) -> usize {
        match protocol {
            Protocol::QuestionSeen => self.tokens.len(),
            Protocol::ContextOnly => self.context_tokens(),
        }
    }

    /// What a compressor may know of it.
    pub fn frame(&self, protocol: Protocol) -> Frame {
        match protocol {
            Protocol::QuestionSeen => self.frame,
            Protocol::ContextOnly => Frame { question: 0, tail: 0, ..self.frame },
        }
    }

    /// What a chat template puts behind the user's text.
    pub fn close(&self) -> &[u32] {
        &self.tokens[self.tokens.len() - self.frame.tail..]
    }
}

/// Fills the template, truncates in the middle, applies the chat template and tokenises, in the order of LongBench's
/// `pred.py`.
///
/// It differs from `pred.py` in one way: texts that were tokens are as they were. Where a model's files say
/// `clean_up_tokenization_spaces` (those of Llama 3 did), `pred.py` joins words and the marks behind them, in the ends of a
/// shortened prompt (code included) and in predictions.
pub fn build(
    model: &Outline,
    task: &TaskProtocol,
    record: &Record,
    max_prompt_tokens: usize,
    chat_use: ChatUse,
    protocol: Protocol,
) -> Result<Prompt, ModelError> {
    if max_prompt_tokens < 2 {
        return Err(ModelError::TooLong {
            tokens: task.max_new_tokens + CHAT_MARGIN + 2,
            limit: model.config().max_tokens(),
            reason: ", and the answer alone takes that many",
        });
    }
    let tokenizer = model.tokenizer();
    let (text, shortened_from) = truncate_middle(tokenizer, task.prompt(record), max_prompt_tokens)?;
    let template = chat_template(model, task, chat_use);
    let question = task.question(record);
    // Where the middle was cut out, the question may be a part of it.
    let question = question.trim_end();
    let asks = !question.is_empty() && text.trim_end().ends_with(question);
    let Framed { text, mut tokens, mut frame } = framed(tokenizer, template, text)?;
    // Behind the question stands nothing but what a template adds.
    let before = text.rfind(question).filter(|_| asks).map(|at| text.split_at(at));
    match (protocol, before) {
        (Protocol::ContextOnly, None) => return Err(no_question(task, shortened_from)),
        (Protocol::ContextOnly, Some((context, asked))) => {
            // A context's tokens never depend on what is asked about it.
            tokens = encode(tokenizer, template, context)?;
            let asked = tokenizer.encode(asked, false)?;
            frame.question = asked.len().saturating_sub(frame.tail);
            tokens.extend(asked);
        }
        (Protocol::QuestionSeen, Some((context, _))) => {
            let context = encode(tokenizer, template, context)?;
            let shared = context.iter().zip(&tokens).take_while(|(context, whole)| context == whole).count();
            frame.question = tokens.len().saturating_sub(shared + frame.tail);
        }
        (Protocol::QuestionSeen, None) => {}
    }
    let answer = match record.answers.first() {
        Some(answer) => tokenizer.encode(&as_continuation(&text, answer, template.is_some()), false)?,
        None => Vec::new(),
    };
    Ok(Prompt { tokens, frame, answer, shortened_from })
}

fn no_question(task: &TaskProtocol, shortened_from: Option<usize>) -> ModelError {
    let name = &task.name;
    ModelError::Prompt(match shortened_from {
        Some(_) => format!(
            "protocol = \"context-only\": of this prompt of `{name}` the question was cut out with the middle: raise max_prompt_tokens"
        ),
        None => format!(
            "protocol = \"context-only\" compresses what stands before the question, and the template of `{name}` has nothing behind \
             {{context}}: write it as `{{context}} … {{input}}`, or leave the task to protocol = \"question-seen\""
        ),
    })
}

/// A user's text as a model reads it.
pub struct Framed {
    /// The text, in the chat template where there is one.
    pub text: String,
    /// All of it.
    pub tokens: Vec<u32>,
    /// What of them the template added; a question is not known.
    pub frame: Frame,
}

/// Puts a text into a chat template, if there is one, and tokenises it.
///
/// Head and tail are what begins and ends alike where the user's text does not. A token that the text and the template share is
/// the text's.
pub fn framed(tokenizer: &Tokenizer, template: Option<&ChatTemplate>, text: String) -> Result<Framed, ModelError> {
    let Some(template) = template else {
        return Ok(Framed { tokens: tokenizer.encode(&text, true)?, text, frame: Frame::default() });
    };
    let rendered = template.render(&text)?;
    let tokens = tokenizer.encode_conversation(&rendered)?;
    let of_other = |other: &str| tokenizer.encode_conversation(&template.render(other)?);
    // Templates may trim what they are given.
    let other = of_other(if text.trim_end().ends_with('a') { "b" } else { "a" })?;
    let tail = tokens.iter().rev().zip(other.iter().rev()).take_while(|(ours, others)| ours == others).count();
    let other = of_other(if text.trim_start().starts_with('a') { "b" } else { "a" })?;
    let head = tokens.iter().zip(&other).take_while(|(ours, others)| ours == others).count();
    let head = head.min(tokens.len() - tail);
    Ok(Framed { text: rendered, tokens, frame: Frame { head, question: 0, tail } })
}

/// A text that a template may have been put around, or its beginning.
fn encode(tokenizer: &Tokenizer, template: Option<&ChatTemplate>, text: &str) -> Result<Vec<u32>, ModelError> {
    match template {
        Some(_) => tokenizer.encode_conversation(text),
        None => tokenizer.encode(text, true),
    }
}

/// Tokens left free for what a chat template adds around a prompt.
const CHAT_MARGIN: usize = 64;

/// Tokens that a prompt may have before its middle is cut out: those that are asked for (`max_prompt_tokens`), and no more
/// than are left of what the model `holds` beside the answer.
pub fn limit(holds: usize, asked: Option<usize>, answer_tokens: usize) -> usize {
    asked.unwrap_or(usize::MAX).min(holds.saturating_sub(answer_tokens + CHAT_MARGIN))
}

/// Says which tasks, with the tokens of their answers, leave fewer tokens to a prompt than are asked for.
pub fn capped<'a>(
    holds: usize,
    asked: Option<usize>,
    tasks: impl IntoIterator<Item = (&'a str, usize)>,
) -> Option<String> {
    let asked = asked?;
    let limits = tasks.into_iter().map(|(task, answer)| (task, limit(holds, Some(asked), answer)));
    let fewer: Vec<String> =
        limits.filter(|&(_, limit)| limit < asked).map(|(task, limit)| format!("{task} {limit}")).collect();
    (!fewer.is_empty()).then(|| {
        format!(
            "max_prompt_tokens is {asked}, and the {holds} tokens that the model can attend to leave fewer beside the \
             answers of some tasks: {}",
            fewer.join(", ")
        )
    })
}

/// Counts the tokens of a text as a prompt of a task, with the chat template where it goes through one, for prompts that are
/// generated to a length; a text that cannot be tokenised fits nowhere.
pub fn token_counter(model: &Outline, chat_use: ChatUse) -> impl Fn(&TaskProtocol, &str) -> usize {
    move |protocol, text| {
        let tokenizer = model.tokenizer();
        let template = chat_template(model, protocol, chat_use);
        let rendered = template.map_or(Ok(text.to_owned()), |template| template.render(text));
        let ids = rendered.and_then(|text| encode(tokenizer, template, &text));
        ids.map_or(usize::MAX, |ids| ids.len())
    }
}

/// What a task's prompts go through.
fn chat_template<'a>(model: &'a Outline, protocol: &TaskProtocol, chat_use: ChatUse) -> Option<&'a ChatTemplate> {
    model.chat_template().filter(|_| protocol.chat && chat_use == ChatUse::Auto)
}

/// When a generated answer of the task ends.
pub fn stop_rule(model: &Outline, protocol: &TaskProtocol) -> Result<StopRule, ModelError> {
    let mut tokens = model.stop_tokens().to_vec();
    let mut min_new_tokens = 0;
    for text in &protocol.stop {
        let token = match &model.tokenizer().encode(text, false)?[..] {
            // As LongBench's pred.py, because some tokenizers put a space before everything.
            [.., last] if text == "\n" => *last,
            [token] => *token,
            // Several tokens end an answer once it is decoded, where the prediction is cut.
            _ => continue,
        };
        tokens.push(token);
        // As LongBench's pred.py: an answer that would begin with its end is not taken.
        min_new_tokens = 1;
    }
    Ok(StopRule { tokens, max_new_tokens: protocol.max_new_tokens, min_new_tokens })
}

/// The text of an answer, up to what ends it.
pub fn prediction(model: &Outline, protocol: &TaskProtocol, answer: &[u32]) -> Result<String, ModelError> {
    let text = model.tokenizer().decode(answer, true)?;
    Ok(protocol.until_stop(&text).to_owned())
}

/// Keeps the first and the last half of `limit` tokens, and tells how many there were where that is fewer. Halves are
/// rounded down, so that an odd limit loses a token more.
fn truncate_middle(tokenizer: &Tokenizer, text: String, limit: usize) -> Result<(String, Option<usize>), ModelError> {
    let ids = tokenizer.encode(&text, true)?;
    if ids.len() <= limit {
        return Ok((text, None));
    }
    let half = limit / 2;
    let ends = tokenizer.decode(&ids[..half], true)? + &tokenizer.decode(&ids[ids.len() - half..], true)?;
    Ok((ends, Some(ids.len())))
}

/// Words are tokens that begin with a space, which is missing between a prompt that ends in a word and its answer.
fn as_continuation(prompt: &str, answer: &str, chat: bool) -> String {
    let breaks = prompt.ends_with(char::is_whitespace) || answer.starts_with(char::is_whitespace);
    let spaced_script = prompt.ends_with(|last: char| last.is_ascii());
    if chat || breaks || !spaced_script { answer.to_owned() } else { format!(" {answer}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Llama 3 with the paper's 8,000 tokens: summaries have answers of 512.
    #[test]
    fn prompts_leave_room_for_their_answers() {
        assert_eq!(limit(8192, Some(8000), 512), 7616);
        assert_eq!(limit(8192, Some(8000), 128), 8000);
        assert_eq!(limit(8192, None, 128), 8000);
        assert_eq!(limit(512, Some(400), 512), 0);
        let tasks = [("qasper", 128), ("gov_report", 512), ("qmsum", 512)];
        let notice = capped(8192, Some(8000), tasks).unwrap();
        assert!(
            notice.contains("max_prompt_tokens is 8000") && notice.ends_with(": gov_report 7616, qmsum 7616"),
            "{notice}"
        );
        assert_eq!(capped(8192, Some(7616), tasks), None);
        assert_eq!(capped(8192, None, tasks), None);
    }

    const VOCABULARY: &str = r#"{
        "version": "1.0",
        "added_tokens": [
            {"id": 0, "content": "<end>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
            {"id": 1, "content": "<start>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "unk_token": "?",
            "vocab": {"<end>": 0, "<start>": 1, "?": 2, "user": 3, "assistant": 4, "a": 5, "b": 6, "banana": 7}}
    }"#;

    /// The tail of a text in a template.
    fn tail(template: &str, text: &str) -> usize {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), VOCABULARY).unwrap();
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let tokenizer = Tokenizer::from_file(&folder.path().join("tokenizer.json")).unwrap();
        let template = ChatTemplate::from_folder(folder.path()).unwrap();
        assert_eq!(framed(&tokenizer, None, text.into()).unwrap().frame.tail, 0);
        framed(&tokenizer, template.as_ref(), text.into()).unwrap().frame.tail
    }

    #[test]
    fn the_tail_is_what_the_template_puts_behind_the_text() {
        let chat = "<start>user {{ messages[0]['content'] }}<end> <start>assistant ";
        // Also where the text ends as the other text does that it is compared with, or as the tail.
        for text in ["b a", "a b", "a", "b", "banana", "a a a a ", "banana\n", "<start> assistant", "", "  "] {
            assert_eq!(tail(chat, text), 3, "{text:?}");
            assert_eq!(tail(&chat.replace("'] }}", "'].strip() }}"), text), 3, "{text:?}, trimmed");
        }
        assert_eq!(tail("{{ messages[0]['content'] }}", "a b"), 0, "nothing behind the text");
        assert_eq!(tail("<start>user {{ messages[0]['content'] }}", "a b"), 0);
    }

    #[test]
    fn answers_continue_their_prompts() {
        assert_eq!(as_continuation("The pass key is", "123", false), " 123");
        assert_eq!(as_continuation("Answer:\n", "yes", false), "yes");
        assert_eq!(as_continuation("回答：", "是", false), "是");
        assert_eq!(as_continuation("assistant", "yes", true), "yes");
    }
}
