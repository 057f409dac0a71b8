//! A long list of keys with their values; one value is asked for.
//!
//! All of the context looks alike, so only the key tells which line matters.

use rand::RngExt;
use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Depth, Draft, Planted, endless};
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
    draft: Some(draft),
};

fn draft(mut random: Pcg64, depth: Depth) -> Draft {
    let wanted = key(&mut random);
    let value = words::number(&mut random, 8);
    Draft {
        input: format!("What is the value of {wanted}?\n{wanted}:"),
        answers: vec![value.to_string()],
        classes: Vec::new(),
        arrange: None,
        planted: vec![Planted { depth, text: line(&wanted, value) }],
        filler: endless(move || {
            let mut other = key(&mut random);
            while other == wanted {
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
