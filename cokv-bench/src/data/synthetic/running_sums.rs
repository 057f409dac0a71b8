//! Numbers to be added one after the other: an answer that is much longer than its question, and in which each line rests on the
//! one before.

use std::fmt::Write;

use rand::RngExt;
use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, endless};
use super::filler;
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "running-sums",
    template: "{context}\n\n{input}",
    max_new_tokens: 512,
    metric: Metric::EditSimilarity,
    chat: false,
    stops_at_newline: false,
    language: "en",
    draft: Some(draft),
};

/// Numbers to be added.
const NUMBERS: usize = 30;

fn draft(mut random: Pcg64, _: Depth) -> Draft {
    let numbers: Vec<u32> = (0..NUMBERS).map(|_| random.random_range(1..=20)).collect();
    let written = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let mut sum = numbers[0];
    let mut lines = String::new();
    for number in &numbers[1..] {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{sum} + {number} = {}", sum + number);
        sum += number;
    }
    let begun = format!("{} + {} =", numbers[0], numbers[1]);
    Draft {
        asked: Asked::only(
            format!("Add these numbers one after the other, and write every sum: {written}.\n\n{begun}"),
            vec![lines[begun.len()..].trim().to_owned()],
        ),
        classes: Vec::new(),
        arrange: None,
        planted: Vec::new(),
        filler: endless(move || filler::prose(&mut random)),
    }
}

#[cfg(test)]
mod tests {
    use super::NUMBERS;
    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn every_line_adds_the_next_number() {
        for record in records(Task::RunningSums) {
            let begun = record.input.lines().last().unwrap();
            let lines = format!("{begun} {}", record.answers[0]);
            let numbers = record.input.split(": ").nth(1).unwrap().split(".\n").next().unwrap();
            let numbers: Vec<u32> = numbers.split(", ").map(|number| number.parse().unwrap()).collect();
            let mut sum = numbers[0];
            assert_eq!((lines.lines().count(), numbers.len()), (NUMBERS - 1, NUMBERS));
            for (line, number) in lines.lines().zip(&numbers[1..]) {
                assert_eq!(line, format!("{sum} + {number} = {}", sum + number));
                sum += number;
            }
        }
    }
}
