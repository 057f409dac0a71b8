//! From a record to the token ids that the model sees.

use cokv_models::chat::ChatTemplate;
use cokv_models::tokenizer::Tokenizer;
use cokv_models::{LanguageModel, ModelError, StopRule};

use super::{ChatUse, Record, TaskProtocol};

/// A record as the model is asked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What is prefilled.
    pub tokens: Vec<u32>,
    /// The reference answer as it would follow the prompt; empty where the record has none.
    pub answer: Vec<u32>,
    /// Tokens before the middle was cut out, where it was.
    pub shortened_from: Option<usize>,
}

/// Fills the template, truncates in the middle, applies the chat template and tokenises, in the order of LongBench's
/// `pred.py`.
pub fn build(
    model: &LanguageModel,
    protocol: &TaskProtocol,
    record: &Record,
    max_prompt_tokens: usize,
    chat_use: ChatUse,
) -> Result<Prompt, ModelError> {
    let tokenizer = model.tokenizer();
    let (mut text, shortened_from) = truncate_middle(tokenizer, protocol.prompt(record), max_prompt_tokens)?;
    let template = chat_template(model, protocol, chat_use);
    if let Some(template) = template {
        text = template.render(&text)?;
    }
    let tokens = tokenizer.encode(&text, true)?;
    let answer = match record.answers.first() {
        Some(answer) => tokenizer.encode(&as_continuation(&text, answer, template.is_some()), false)?,
        None => Vec::new(),
    };
    Ok(Prompt { tokens, answer, shortened_from })
}

/// Tokens left free for what a chat template adds around a prompt.
const CHAT_MARGIN: usize = 64;

/// Tokens that a prompt may have, by default, before its middle is cut out: what the model can attend to, less the answer.
pub fn room(model: &LanguageModel, answer_tokens: usize) -> usize {
    model.config().max_tokens().saturating_sub(answer_tokens + CHAT_MARGIN)
}

/// Counts the tokens of a text as a prompt of a task, with the chat template where it goes through one, for prompts that are
/// generated to a length; a text that cannot be tokenised fits nowhere.
pub fn token_counter(model: &LanguageModel, chat_use: ChatUse) -> impl Fn(&TaskProtocol, &str) -> usize {
    move |protocol, text| {
        let encode = |text: &str| model.tokenizer().encode(text, true);
        let ids = match chat_template(model, protocol, chat_use) {
            Some(template) => template.render(text).and_then(|text| encode(&text)),
            None => encode(text),
        };
        ids.map_or(usize::MAX, |ids| ids.len())
    }
}

/// What a task's prompts go through.
fn chat_template<'a>(model: &'a LanguageModel, protocol: &TaskProtocol, chat_use: ChatUse) -> Option<&'a ChatTemplate> {
    model.chat_template().filter(|_| protocol.chat && chat_use == ChatUse::Auto)
}

/// When a generated answer of the task ends.
pub fn stop_rule(model: &LanguageModel, protocol: &TaskProtocol) -> Result<StopRule, ModelError> {
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
pub fn prediction(model: &LanguageModel, protocol: &TaskProtocol, answer: &[u32]) -> Result<String, ModelError> {
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

    #[test]
    fn answers_continue_their_prompts() {
        assert_eq!(as_continuation("The pass key is", "123", false), " 123");
        assert_eq!(as_continuation("Answer:\n", "yes", false), "yes");
        assert_eq!(as_continuation("回答：", "是", false), "是");
        assert_eq!(as_continuation("assistant", "yes", true), "yes");
    }
}
