//! A question whose paragraphs are hidden among those of other questions.
//!
//! RULER's question answering (qa_1 on SQuAD, qa_2 on HotpotQA) over records that users supply. As there, paragraphs are
//! numbered documents, whole ones only, and the prompt is RULER's own. Unlike there, paragraphs of others are drawn from
//! the whole file, those of the same article no sooner than the rest, and questions whose answer is one word are left out.
//!
//! The one generated task that goes through the chat template, as LongBench's question answering does: an answer may be a
//! sentence, in which it is found, while small instruct models that are made to continue the bare prompt say nothing.

use std::sync::Arc;

use rand::seq::SliceRandom;
use rand_pcg::Pcg64;

use crate::data::questions::{Question, Questions};
use crate::data::synthetic::Definition;
use crate::data::synthetic::draft::{Asked, Depth, Draft, Planted};
use crate::metrics::Metric;

pub(in crate::data::synthetic) const DEFINITION: Definition = Definition {
    name: "ruler-qa",
    template: "Answer the question based on the given documents. Only give me the answer and do not output any other \
               words.\n\nThe following are given documents.\n\n{context}\n\nAnswer the question based on the given \
               documents. Only give me the answer and do not output any other words.\n\nQuestion: {input} Answer:",
    max_new_tokens: 32,
    metric: Metric::StringMatchPart,
    chat: true,
    // Models may begin behind a line break of their own, and what follows an answer does no harm to whether it occurs.
    stops_at_newline: false,
    language: "en",
    draft: None,
};

/// One of the question's paragraphs stands at the depth, the others at equal distances, and all in their order.
pub(in crate::data::synthetic) fn draft(
    questions: &Questions,
    question: &Question,
    mut random: Pcg64,
    depth: Depth,
) -> Draft {
    let paragraphs = Arc::clone(questions.paragraphs());
    let mut depths: Vec<Depth> = depth.spread(question.paragraphs.len() as u32).collect();
    depths.sort_unstable();
    let planted = depths.into_iter().zip(&question.paragraphs);
    let planted = planted.map(|(depth, &place)| Planted { depth, text: document(&paragraphs[place]) }).collect();
    let mut others: Vec<usize> = (0..paragraphs.len()).filter(|place| !question.paragraphs.contains(place)).collect();
    others.shuffle(&mut random);
    let mut others = others.into_iter();
    Draft {
        asked: Asked::only(question.text.clone(), question.answers.clone()),
        classes: Vec::new(),
        planted,
        filler: Box::new(move || Some(document(&paragraphs[others.next()?]))),
        arrange: Some(numbered),
    }
}

/// A paragraph with a number as large as most, to be counted as a token or two.
fn document(paragraph: &str) -> String {
    format!("Document 100:\n{paragraph}\n\n")
}

/// The same documents, numbered from 1.
fn numbered(documents: &[&str]) -> String {
    let paragraphs = documents.iter().filter_map(|document| document.split_once('\n'));
    paragraphs.zip(1..).map(|((_, paragraph), number)| format!("Document {number}:\n{paragraph}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::data::Record;
    use crate::data::synthetic::tests::tokens;
    use crate::data::synthetic::{SyntheticError, Task, generate, generate_asked};

    const TASK: Task = Task::RulerQuestionAnswering;

    /// What the paragraphs of a question say.
    fn facts(at: usize) -> [String; 2] {
        let more = "It was raining that day. ".repeat(1 + at % 7);
        [format!("Person {at} was born in town {at}. {more}"), format!("Town {at} lies on river {at}. {more}")]
    }

    /// Two questions about each of the facts; two paragraphs answer the second.
    fn questions(facts_known: usize) -> Questions {
        let line = |question: String, context: &str, answers: &[String]| {
            serde_json::json!({"input": question, "context": context, "answers": answers}).to_string()
        };
        let mut lines = Vec::new();
        for at in 0..facts_known {
            let both = facts(at).join("\n\n");
            let town = [format!("in town {at}"), format!("town {at}")];
            lines.push(line(format!("Where was person {at} born?"), &facts(at)[0], &town));
            lines.push(line(format!("On which river was person {at} born?"), &both, &[format!("river {at}")]));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("questions.jsonl");
        fs::write(&path, lines.join("\n")).unwrap();
        Questions::read(&path).unwrap()
    }

    fn prompt_tokens(record: &Record) -> usize {
        tokens(&TASK.template().replace("{context}", &record.context).replace("{input}", &record.input))
    }

    fn documents(record: &Record) -> Vec<&str> {
        let mut documents = Vec::new();
        for document in record.context.split("\n\n") {
            let (header, paragraph) = document.split_once('\n').unwrap();
            documents.push(paragraph);
            assert_eq!(header, format!("Document {}:", documents.len()));
        }
        documents
    }

    #[test]
    fn the_paragraphs_that_answer_are_there_once_among_others() {
        let questions = questions(60);
        for record in generate_asked(TASK, &questions, 1000, 40, 0, &tokens).unwrap() {
            let documents = documents(&record);
            assert!(documents.len() > 10, "{}", documents.len());
            assert_eq!(documents.iter().collect::<BTreeSet<_>>().len(), documents.len(), "none twice");
            let at: usize = record.input.split(' ').find_map(|word| word.parse().ok()).unwrap();
            let [born, lies] = facts(at).map(|fact| documents.iter().position(|document| *document == fact.trim_end()));
            assert!(born.is_some());
            if record.input.starts_with("On") {
                assert!(born < lies, "in their order");
                assert_eq!(record.answers, [format!("river {at}")]);
            } else {
                assert_eq!(record.answers, [format!("in town {at}"), format!("town {at}")]);
            }
        }
    }

    #[test]
    fn contexts_are_full_and_keep_what_is_asked() {
        let questions = questions(200);
        let make = |length| generate_asked(TASK, &questions, length, 20, 3, &tokens).unwrap();
        let (short, long) = (make(400), make(4000));
        for (short, long) in short.iter().zip(&long) {
            assert_eq!(
                (&short.input, &short.answers, &short.fingerprint),
                (&long.input, &long.answers, &long.fingerprint)
            );
            for (record, length) in [(short, 400), (long, 4000)] {
                assert_eq!(record.length as usize, prompt_tokens(record));
                assert!((length * 97 / 100..=length).contains(&prompt_tokens(record)), "{} of {length}", record.length);
            }
        }
        assert_eq!(long[7].id, "ruler-qa-4000-3-7");
        assert_eq!(make(400), short);
        assert_eq!(generate_asked(TASK, &questions, 400, 5, 3, &tokens).unwrap(), short[..5]);
    }

    #[test]
    fn answers_are_found_at_all_depths() {
        let questions = questions(200);
        let mut per_quarter = [0; 4];
        for record in generate_asked(TASK, &questions, 2000, 100, 0, &tokens).unwrap() {
            let documents = documents(&record);
            if record.input.starts_with("Where") {
                let at: usize = record.input.split(' ').find_map(|word| word.parse().ok()).unwrap();
                let place = documents.iter().position(|document| *document == facts(at)[0].trim_end()).unwrap();
                per_quarter[place * 4 / documents.len()] += 1;
            }
        }
        assert!(per_quarter.iter().all(|&records| records >= 5), "{per_quarter:?}");
    }

    #[test]
    fn too_few_paragraphs_are_an_error_that_says_how_far_they_reach() {
        let questions = questions(6);
        let error = generate_asked(TASK, &questions, 4000, 2, 0, &tokens).unwrap_err();
        let SyntheticError::NotFilled { tokens: reached, context_tokens: 4000, .. } = error else { panic!("{error}") };
        assert!((300..800).contains(&reached), "{reached}");
        let records = generate_asked(TASK, &questions, reached + 5, 2, 0, &tokens).unwrap();
        assert_eq!(records.len(), 2);
        let error = generate_asked(TASK, &questions, 80, 2, 0, &tokens).unwrap_err();
        assert!(matches!(error, SyntheticError::ContextTooSmall { .. }), "{error}");
        let error = generate(TASK, 1000, 1, 0, None, &tokens).unwrap_err().to_string();
        assert!(error.contains("questions = \"squad.jsonl\""), "{error}");
    }
}
