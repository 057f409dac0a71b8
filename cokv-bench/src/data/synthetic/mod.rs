//! Long-context tasks made up on the spot, so that a benchmark needs no data set.
//!
//! Every record is a function of its seed, task and index alone: the record at index `i` is the same
//! however many are asked for. A longer context only adds filler; what the record asks, and the
//! answer, stay. One task, [`Task::RulerQuestionAnswering`], makes nothing up: it hides supplied
//! paragraphs among one another.
//!
//! Answers have several tokens. The first token of an answer comes from the prefill, which no
//! eviction policy changes, so an answer of one token would measure nothing. Of supplied questions,
//! those whose answer is one word are not asked for that reason.
//!
//! Every prompt that is made up ends in the beginning of its answer, and the model continues it. Behind a chat template
//! small instruct models first repeat the question as a sentence, whatever they are told: F1 then gives
//! 0.4 to a passkey that is right, and the repetition shares the cache with what is measured. What is
//! hidden is followed by a line break, so that a model that copies it ends its answer there.

mod code_completion;
mod copied_list;
mod definition;
mod draft;
mod few_shot_classification;
mod filler;
mod haystack;
mod instruction_guard;
mod key_value;
mod multi_key_needle;
mod needle;
mod passkey;
mod ruler;
mod running_sums;
mod task;
mod variable_tracking;
mod words;

use std::collections::BTreeMap;

use cokv_core::random::mix;
use rand::SeedableRng;
use rand_pcg::Pcg64;

use self::definition::Definition;
use self::draft::{Asked, Depth, Draft, Fitted};
pub use self::haystack::Haystack;
pub use self::needle::MOST_DEPTHS;
pub use self::task::Task;
use super::record::{asked, fill};
use super::{Place, Questions, Record, SyntheticError};
use crate::fingerprint::fingerprint;

/// Makes the first `count` records of a task and seed. Of tasks that ask several questions about a context, those about the same stand
/// one after the other and say so (`text`).
///
/// `tokens_of` counts the model's tokens of a text. A record's whole prompt (the task's template with
/// the record put in) has at most `context_tokens` of them, and nearly as many. To reserve room for a
/// chat template, let `tokens_of` add its tokens: what it says of the empty text is not taken for
/// filler. A record's `length` is what `tokens_of` says of its prompt. Tasks that hide something in prose hide it in the
/// `haystack`, where there is one.
///
/// # Errors
///
/// [`SyntheticError::ContextTooSmall`] when a record does not fit even without filler, [`SyntheticError::NoQuestions`] for a
/// task whose questions are supplied.
pub fn generate(
    task: Task,
    context_tokens: usize,
    count: usize,
    seed: u64,
    haystack: Option<&Haystack>,
    tokens_of: &dyn Fn(&str) -> usize,
) -> Result<Vec<Record>, SyntheticError> {
    let draft = task.definition().draft.ok_or(SyntheticError::NoQuestions(task.name()))?;
    let mut sketches: Vec<Sketch> = Vec::new();
    let mut questions = 0;
    for index in 0.. {
        if questions >= count {
            break;
        }
        let draft = draft(random_of(task, seed, index), Depth::of_record(index));
        questions += draft.asked.len();
        let (name, fingerprint) = (index.to_string(), made_up(task, seed, index));
        sketches.push(Sketch { index, name, fingerprint, place: None, draft });
    }
    let mut records = fit(task, context_tokens, seed, hidden_in(haystack, task, seed, sketches), tokens_of)?;
    records.truncate(count);
    Ok(records)
}

/// Makes `count` records of a task that asks supplied questions, as [`generate`] does: which of them a record asks follows
/// from the seed and its index, and so does the order of the paragraphs of others around it. No more records than questions
/// have one each.
///
/// # Errors
///
/// [`SyntheticError::ContextTooSmall`] when a record does not fit even without paragraphs of others, and
/// [`SyntheticError::NotFilled`] when all of them, or as many as fit, leave a tenth of the context empty.
pub fn generate_asked(
    task: Task,
    questions: &Questions,
    context_tokens: usize,
    count: usize,
    seed: u64,
    tokens_of: &dyn Fn(&str) -> usize,
) -> Result<Vec<Record>, SyntheticError> {
    let asked = (0..count as u64).filter_map(|index| Some((index, questions.of_record(seed, index)?)));
    let sketches = asked.map(|(index, question)| Sketch {
        index,
        name: index.to_string(),
        fingerprint: questions.fingerprint(task.name(), question),
        place: None,
        draft: ruler::question_answering::draft(
            questions,
            question,
            random_of(task, seed, index),
            Depth::of_record(index),
        ),
    });
    let records = fit(task, context_tokens, seed, sketches.collect(), tokens_of)?;
    match records.iter().map(|record| record.length as usize).min() {
        Some(tokens) if tokens * 10 < context_tokens * 9 => {
            Err(SyntheticError::NotFilled { task: task.name(), tokens, context_tokens })
        }
        _ => Ok(records),
    }
}

/// Makes the first `count` records of a task and seed at each of `depths` evenly spaced depths, as [`generate`] does.
///
/// Ids are TASK-TOKENS-SEED-dPERCENT-INDEX, as in `needle-2000-0-d25-1`; records say the same in their `place`.
/// What they ask, the answer and the fingerprint depend on the index alone.
///
/// # Errors
///
/// As those of [`generate`].
pub fn generate_grid(
    task: Task,
    context_tokens: usize,
    depths: usize,
    count: usize,
    seed: u64,
    haystack: Option<&Haystack>,
    tokens_of: &dyn Fn(&str) -> usize,
) -> Result<Vec<Record>, SyntheticError> {
    let places =
        needle::depths(depths).into_iter().flat_map(|depth| (0..count as u64).map(move |index| (depth, index)));
    let draft = task.definition().draft.ok_or(SyntheticError::NoQuestions(task.name()))?;
    let sketches = places.map(|(depth_percent, index)| Sketch {
        index,
        name: format!("d{depth_percent}-{index}"),
        fingerprint: made_up(task, seed, index),
        place: Some(Place { context_tokens, depth_percent }),
        draft: draft(random_of(task, seed, index), Depth::percent(depth_percent)),
    });
    fit(task, context_tokens, seed, hidden_in(haystack, task, seed, sketches.collect()), tokens_of)
}

/// The sketches with a text of the user's for their filler, where there is one and the task hides things in prose.
fn hidden_in(haystack: Option<&Haystack>, task: Task, seed: u64, mut sketches: Vec<Sketch>) -> Vec<Sketch> {
    if let Some(haystack) = haystack.filter(|_| task.hides_in_prose()) {
        for sketch in &mut sketches {
            // The same at every place of a record in a grid, and in every length.
            sketch.draft.filler = haystack.from(seed << 32 | sketch.index);
        }
    }
    sketches
}

/// A record without its filler.
struct Sketch {
    /// The record's number among those of its task and seed.
    index: u64,
    /// The end of its id.
    name: String,
    fingerprint: String,
    place: Option<Place>,
    draft: Draft,
}

fn fit(
    task: Task,
    context_tokens: usize,
    seed: u64,
    sketches: Vec<Sketch>,
    tokens_of: &dyn Fn(&str) -> usize,
) -> Result<Vec<Record>, SyntheticError> {
    let definition = task.definition();
    let prompt_tokens = |context: &str, input: &str| tokens_of(&prompt(definition.template, context, input));
    // The context is the same for all questions about it, and has room for the longest.
    let longest = |asked: &[Asked], context: &str| {
        asked.iter().map(|asked| prompt_tokens(context, &asked.input)).max().unwrap_or(0)
    };
    // All drafts are looked at first, so that the minimum reported is enough for every record.
    let minimum = sketches.iter().map(|Sketch { draft, .. }| longest(&draft.asked, &draft.bare())).max().unwrap_or(0);
    if minimum > context_tokens {
        return Err(SyntheticError::ContextTooSmall { task: task.name(), context_tokens, minimum });
    }

    let overhead = tokens_of("");
    let mut records = Vec::with_capacity(sketches.len());
    for Sketch { name, fingerprint, place, mut draft, index: _ } in sketches {
        let asked = std::mem::take(&mut draft.asked);
        let Fitted { context, tokens } = draft.fit(context_tokens, &|context| longest(&asked, context), &|piece| {
            tokens_of(piece).saturating_sub(overhead)
        });
        let several = asked.len() > 1;
        for (number, Asked { input, answers }) in asked.into_iter().enumerate() {
            let question = if several { format!("-q{}", number + 1) } else { String::new() };
            records.push(Record {
                id: format!("{task}-{context_tokens}-{seed}-{name}{question}"),
                task: task.to_string(),
                length: if several { prompt_tokens(&context, &input) } else { tokens } as u64,
                input,
                context: context.clone(),
                answers,
                all_classes: draft.classes.clone(),
                language: definition.language.to_owned(),
                fingerprint: if several { of_question(&fingerprint, number) } else { fingerprint.clone() },
                place,
                text: several.then(|| fingerprint.clone()),
                fields: BTreeMap::new(),
            });
        }
    }
    Ok(records)
}

fn prompt(template: &str, context: &str, input: &str) -> String {
    fill(template, |name| asked(name, context, input))
}

/// What tells a record that is made up from all others, whatever its length.
fn made_up(task: Task, seed: u64, index: u64) -> String {
    fingerprint([format!("synthetic {task} {seed} {index}")])
}

/// The same of one of several questions about a context.
fn of_question(context: &str, number: usize) -> String {
    fingerprint([format!("{context} {number}")])
}

/// The random numbers of one record, independent of those of every other.
fn random_of(task: Task, seed: u64, index: u64) -> Pcg64 {
    // The name and not the position in the enum, so that a new task leaves the old ones as they are.
    let name = task.name().bytes().map(u64::from);
    let state = [seed, index].into_iter().chain(name).fold(0, |state, word| mix(state ^ word));
    Pcg64::seed_from_u64(state)
}

#[cfg(test)]
mod tests;
