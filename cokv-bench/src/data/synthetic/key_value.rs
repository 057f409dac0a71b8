//! A long list of keys with their values; one value is asked for.
//!
//! All of the context looks alike, so only the key tells which line matters.

use rand::RngExt;
use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, Planted, QUESTIONS, endless};
use super::words;
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "key-value",
    template: "Below is a list of keys with their values. Remember them. \
               You will be asked for one of them afterwards.\n\n{context}\n\n{input}",
    max_new_tokens: 16,
    metric: Metric::QaF1,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(|random, depth| asking(random, depth, 1)),
};

/// Several keys are asked for, one by one.
pub(super) const SHARED: Definition = Definition {
    name: "shared-key-value",
    template: "Below is a list of keys with their values. Remember them. \
               You will be asked for some of them afterwards.\n\n{context}\n\n{input}",
    draft: Some(|random, depth| asking(random, depth, QUESTIONS)),
    ..DEFINITION
};

fn asking(mut random: Pcg64, depth: Depth, questions: usize) -> Draft {
    let wanted = words::distinct(&mut random, questions, key);
    let values: Vec<u32> = wanted.iter().map(|_| words::number(&mut random, 8)).collect();
    let asked = |(key, value): (&String, &u32)| Asked {
        input: format!("What is the value of {key}?\n{key}:"),
        answers: vec![value.to_string()],
    };
    let planted = depth.spread(questions as u32).zip(wanted.iter().zip(&values));
    Draft {
        asked: wanted.iter().zip(&values).map(asked).collect(),
        classes: Vec::new(),
        arrange: None,
        planted: planted.map(|(depth, (key, &value))| Planted { depth, text: line(key, value) }).collect(),
        filler: endless(move || {
            let mut other = key(&mut random);
            while wanted.contains(&other) {
                other = key(&mut random);
            }
            line(&other, words::number(&mut random, 8))
        }),
    }
}

fn key(random: &mut Pcg64) -> String {
    let name = words::codename(random, "-");
    // Lines of different lengths fill a context better.
    let digits = random.random_range(1..=5);
    format!("{name}-{}", words::number(random, digits))
}

fn line(key: &str, value: u32) -> String {
    format!("{key}: {value}\n")
}

#[cfg(test)]
mod tests {
    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn the_key_has_one_line_and_its_value_answers() {
        for record in records(Task::KeyValue) {
            let pairs = record.context.lines().filter_map(|line| line.split_once(": "));
            let values: Vec<&str> =
                pairs.filter(|(key, _)| record.input.contains(&format!("of {key}?"))).map(|(_, value)| value).collect();
            assert_eq!(values, record.answers);
            assert_eq!(record.answers[0].len(), 8);
        }
    }
}
