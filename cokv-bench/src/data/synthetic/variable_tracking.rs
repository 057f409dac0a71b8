//! Variables assigned to one another, hidden in prose; all those that hold a given value are asked for.
//!
//! RULER's form of the task: the answer lists the names, and its F1 gives a small model its due for
//! those that it finds. The first is found by the value alone, each further one only by the one before.
//! A second chain with another value tells a model that follows the chain from one that lists all names.

use rand::RngExt;
use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, Planted, QUESTIONS, endless};
use super::{filler, words};
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "variable-tracking",
    template: "Some variables are assigned in the text below. Remember which variable has which value. \
               For example:\nVAR ONE = 12345. VAR TWO = VAR ONE.\nVariables with the value 12345: ONE, TWO\
               \n\n{context}\n\n{input}",
    max_new_tokens: 32,
    metric: Metric::QaF1,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(|random, depth| asking(random, depth, CHAINS, LENGTH, 1)),
};

/// Several values are asked for, one by one.
pub(super) const SHARED: Definition = Definition {
    name: "shared-variables",
    draft: Some(|random, depth| asking(random, depth, SHARED_CHAINS, SHARED_LENGTH, QUESTIONS)),
    ..DEFINITION
};

const CHAINS: usize = 2;
/// Variables of one chain.
const LENGTH: usize = 4;
/// The same where several values are asked for, one of which nobody asks for.
const SHARED_CHAINS: usize = QUESTIONS + 1;
const SHARED_LENGTH: usize = 2;

fn asking(mut random: Pcg64, depth: Depth, chains: usize, length: usize, questions: usize) -> Draft {
    let names = words::distinct(&mut random, length * chains, variable);
    let values = words::distinct(&mut random, chains, |random| words::number(random, 5));
    let planted = depth.spread(chains as u32).zip(names.chunks(length).zip(&values));
    let planted = planted.flat_map(|(depth, (chain, value))| assignments(depth, chain, *value)).collect();
    let asked = |(chain, value): (&[String], &u32)| Asked {
        input: format!("Variables with the value {value}:"),
        answers: vec![chain.join(", ")],
    };
    Draft {
        asked: names.chunks(length).zip(&values).take(questions).map(asked).collect(),
        classes: Vec::new(),
        arrange: None,
        planted,
        filler: endless(move || filler::prose(&mut random)),
    }
}

/// A chain spread over the whole context. Where it begins depends on the depth; its order never does.
fn assignments(depth: Depth, chain: &[String], value: u32) -> Vec<Planted> {
    let mut depths: Vec<Depth> = depth.spread(chain.len() as u32).collect();
    depths.sort_unstable();
    let sources = std::iter::once(value.to_string()).chain(chain.iter().map(|name| format!("VAR {name}")));
    let statements = chain.iter().zip(sources).map(|(name, source)| format!("VAR {name} = {source}. "));
    depths.into_iter().zip(statements).map(|(depth, text)| Planted { depth, text }).collect()
}

/// A name that can be pronounced but is no word: "BAKOT".
fn variable(random: &mut Pcg64) -> String {
    const CONSONANTS: &[u8] = b"BDFGKLMNPRSTVZ";
    const VOWELS: &[u8] = b"AEIOU";
    [CONSONANTS, VOWELS, CONSONANTS, VOWELS, CONSONANTS]
        .map(|letters| char::from(letters[random.random_range(0..letters.len())]))
        .iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn running_the_assignments_gives_the_answer() {
        for record in records(Task::VariableTracking) {
            let mut values: BTreeMap<&str, &str> = BTreeMap::new();
            let mut holders = Vec::new();
            for (name, source) in statements(&record.context) {
                let value = source.strip_prefix("VAR ").map_or(source, |other| values[other]);
                values.insert(name, value);
                if record.input.contains(&format!("the value {value}:")) {
                    holders.push(name);
                }
            }
            assert_eq!(values.len(), 8);
            assert_eq!(record.answers, [holders.join(", ")]);
        }
    }

    /// The names and right-hand sides of all assignments, in order.
    fn statements(context: &str) -> impl Iterator<Item = (&str, &str)> {
        context.split('.').filter_map(|sentence| sentence.trim().strip_prefix("VAR ")?.split_once(" = "))
    }
}
