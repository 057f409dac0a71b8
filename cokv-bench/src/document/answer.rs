//! Questions about a document, each with its answer.

use std::ops::ControlFlow;
use std::sync::Arc;

use cokv_models::batch::{Batch, BatchSettings, Event, Request, SequenceId, Start};
use cokv_models::cache::RaggedCache;
use cokv_models::config::ModelConfig;
use cokv_models::ledger::Ledger;
use cokv_models::{LanguageModel, ModelError, StopRule};

use super::error::DocumentError;

/// What happens to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// So many of its tokens are read.
    Read(usize),
    /// The next token of its answer.
    Token(u32),
}

/// Letters by which a question is known again.
const LETTERS: usize = 40;

/// Refuses a question for which the model has no room behind a document of so many tokens.
pub fn check_question(
    question: &str,
    tokens: &[u32],
    seen: usize,
    max_new_tokens: usize,
    model: &ModelConfig,
) -> Result<(), DocumentError> {
    let (limit, tokens) = (model.max_tokens(), tokens.len());
    let left = limit.saturating_sub(seen);
    if tokens + max_new_tokens <= left {
        return Ok(());
    }
    let mut short: String = question.chars().take(LETTERS).collect();
    if short.len() < question.len() {
        short.push('…');
    }
    let advice = match left.saturating_sub(tokens) {
        0 => "shorten the question, or compress a shorter document".to_owned(),
        room => format!("give --max-new-tokens {room}, or compress a shorter document"),
    };
    Err(DocumentError::NoRoom { question: short, tokens, answer: max_new_tokens, left, limit, advice })
}

/// Answers questions, in their tokens, as one batch of copies of a document's frozen cache, so that they share it. `hear` is told
/// which question something happens to, and may end it all; what was not answered by then has the tokens that it had.
///
/// The answer to a question by itself has the same bits every time. Beside three others or more its numbers are rounded otherwise,
/// and where two tokens are nearly level its answer may differ.
pub fn answer(
    model: &LanguageModel,
    document: &RaggedCache,
    questions: &[Vec<u32>],
    stop: &StopRule,
    mut hear: impl FnMut(usize, Heard) -> ControlFlow<()>,
) -> Result<Vec<Vec<u32>>, ModelError> {
    let settings = BatchSettings { format: model.format(), ..BatchSettings::default() };
    let mut batch = Batch::new(Arc::clone(model.engine()), settings, Ledger::of_free(model.engine().free_bytes(), 1.0));
    for tokens in questions {
        let start = Start::Then { cache: document.fork()?, tokens: tokens.clone() };
        batch.submit(Request::greedy(start, stop.clone()))?;
    }
    let mut answers: Vec<Vec<u32>> = vec![Vec::new(); questions.len()];
    let (mut goes_on, mut failed) = (ControlFlow::Continue(()), None);
    while goes_on.is_continue() && failed.is_none() {
        let more = batch.step(&mut |SequenceId(row), event| {
            let row = row as usize;
            let heard = match event {
                Event::Prefilled { tokens, .. } => Heard::Read(tokens),
                Event::Token { token, .. } => {
                    answers[row].push(token);
                    Heard::Token(token)
                }
                Event::Failed(error) => {
                    failed = Some(error);
                    return;
                }
                Event::Read { .. } | Event::Compressed { .. } | Event::Evicted { .. } | Event::Ended { .. } => return,
            };
            if hear(row, heard).is_break() {
                goes_on = ControlFlow::Break(());
            }
        })?;
        if !more {
            break;
        }
    }
    failed.map_or(Ok(answers), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::config;

    #[test]
    fn questions_that_do_not_fit_say_how_many_tokens_are_left() {
        let model = ModelConfig { context_length: 100, ..config([2, 4, 2, 8], 32, 32, 50) };
        let check = |question: &str, tokens: usize, seen: usize, answer: usize| {
            let checked = check_question(question, &vec![0; tokens], seen, answer, &model);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check("Who?", 10, 60, 30), Ok(()));
        assert_eq!(
            check("Who?", 10, 60, 31).unwrap_err(),
            "`Who?` has 10 tokens, its answer may have 31, and the document leaves 40 of the 100 that this model can attend to: give \
             --max-new-tokens 30, or compress a shorter document"
        );
        let long = check(&"ä".repeat(41), 41, 60, 1).unwrap_err();
        assert!(long.starts_with(&format!("`{}…` has 41 tokens", "ä".repeat(40))), "{long}");
        assert!(long.ends_with("shorten the question, or compress a shorter document"), "{long}");
    }
}
