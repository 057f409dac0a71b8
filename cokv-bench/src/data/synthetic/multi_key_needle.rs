//! Several codes hidden in prose, each with its own key; one is asked for.
//!
//! Codes are words apart from one another, so that an answer with one word wrong earns part of the F1.

use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, Planted, QUESTIONS, endless};
use super::{filler, words};
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "multi-key-needle",
    template: "Some secret codes are hidden in the text below. Remember them. \
               You will be asked for one of them afterwards.\n\n{context}\n\n{input}",
    max_new_tokens: 24,
    metric: Metric::QaF1,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(|random, depth| asking(random, depth, 1)),
};

/// Several of the codes are asked for, one by one.
pub(super) const SHARED: Definition = Definition {
    name: "shared-needles",
    template: "Some secret codes are hidden in the text below. Remember them. \
               You will be asked for some of them afterwards.\n\n{context}\n\n{input}",
    draft: Some(|random, depth| asking(random, depth, QUESTIONS)),
    ..DEFINITION
};

const NEEDLES: u32 = 8;

fn asking(mut random: Pcg64, depth: Depth, questions: usize) -> Draft {
    let keys = words::distinct(&mut random, NEEDLES as usize, |random| words::codename(random, " "));
    let codes: Vec<String> = keys.iter().map(|_| code(&mut random)).collect();
    let asked = |(key, code): (&String, &String)| Asked {
        input: format!("What is the secret code for the {key}? The secret code for the {key} is"),
        answers: vec![code.clone()],
    };
    // The first needle is asked for first: it is the one at the record's own depth.
    let planted = depth
        .spread(NEEDLES)
        .zip(keys.iter().zip(&codes))
        .map(|(depth, (key, code))| Planted { depth, text: format!("The secret code for the {key} is {code}.\n\n") });
    Draft {
        asked: keys.iter().zip(&codes).take(questions).map(asked).collect(),
        classes: Vec::new(),
        arrange: None,
        planted: planted.collect(),
        filler: endless(move || filler::prose(&mut random)),
    }
}

fn code(random: &mut Pcg64) -> String {
    let name = words::codename(random, " ");
    format!("{name} {}", words::number(random, 3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn every_needle_is_there_once_and_one_answers() {
        for record in records(Task::MultiKeyNeedle) {
            let needles: Vec<(&str, &str)> = record
                .context
                .split("The secret code for the ")
                .skip(1)
                .filter_map(|rest| rest.split_once('.')?.0.split_once(" is "))
                .collect();
            let keys: BTreeSet<&str> = needles.iter().map(|needle| needle.0).collect();
            assert_eq!((needles.len(), keys.len()), (8, 8));

            let asked = |key: &str| record.input.contains(&format!("for the {key}?"));
            let answers: Vec<&str> = needles.iter().filter(|needle| asked(needle.0)).map(|needle| needle.1).collect();
            assert_eq!(answers, record.answers);
            assert_eq!(record.answers[0].split(' ').count(), 3);
        }
    }
}
