//! One number hidden in prose: the easiest of the tasks.

use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, Planted, endless};
use super::{filler, words};
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "passkey",
    template: "There is a pass key hidden in the text below. Find it and remember it.\n\n{context}\n\n{input}",
    max_new_tokens: 16,
    metric: Metric::QaF1,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(draft),
};

fn draft(mut random: Pcg64, depth: Depth) -> Draft {
    let passkey = words::number(&mut random, 7);
    Draft {
        asked: Asked::only("What is the pass key? The pass key is".to_owned(), vec![passkey.to_string()]),
        classes: Vec::new(),
        arrange: None,
        planted: vec![Planted { depth, text: format!("The pass key is {passkey}.\n\n") }],
        filler: endless(move || filler::prose(&mut random)),
    }
}

#[cfg(test)]
mod tests {
    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn the_passkey_is_there_once() {
        for record in records(Task::Passkey) {
            let needle = format!("The pass key is {}.", record.answers[0]);
            assert_eq!(record.context.matches(&needle).count(), 1);
            assert_eq!(record.context.matches("pass key").count(), 1);
            assert_eq!(record.answers[0].len(), 7);
        }
    }

    #[test]
    fn passkeys_are_spread_over_the_depth() {
        let mut per_quarter = [0; 4];
        for record in records(Task::Passkey) {
            let position = record.context.find("The pass key").unwrap();
            per_quarter[position * 4 / record.context.len()] += 1;
        }
        assert!(per_quarter.iter().all(|&records| records >= 3), "{per_quarter:?}");
    }
}
