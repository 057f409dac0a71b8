//! A numbered list of words; those that occur most often are asked for.
//!
//! RULER's common-words extraction, with its figures for contexts of fewer than 4,096 tokens: ten words occur six times
//! each, all others once. A longer context has more of the others. RULER's example with its answer is left out, because
//! it is as long as a short context.

use rand::seq::SliceRandom;
use rand_pcg::Pcg64;

use crate::data::synthetic::draft::{Asked, Depth, Draft, Planted};
use crate::data::synthetic::{Definition, words};
use crate::metrics::{Metric, SEPARATOR};

pub(in crate::data::synthetic) const DEFINITION: Definition = Definition {
    name: "ruler-common-words",
    template: "Below is a numbered list of words. Some of them appear more often than the others. \
               Remember those that appear most often.\n\n{context}\n\n{input}",
    max_new_tokens: 80,
    metric: Metric::StringMatchAll,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(draft),
};

/// Words asked for.
const COMMON: usize = 10;
/// How often each of them occurs.
const TIMES: usize = 6;

/// The record has no depth: what is asked for is everywhere.
fn draft(mut random: Pcg64, _: Depth) -> Draft {
    let mut coded = words::coded(&mut random);
    let mut occurrences: Vec<String> = Vec::with_capacity(COMMON * TIMES);
    for word in coded.by_ref().take(COMMON) {
        occurrences.extend(std::iter::repeat_n(word, TIMES));
    }
    occurrences.shuffle(&mut random);
    let mut depths: Vec<Depth> = occurrences.iter().map(|_| Depth::random(&mut random)).collect();
    depths.sort_unstable();
    let mut common: Vec<&str> = Vec::with_capacity(COMMON);
    for word in &occurrences {
        if !common.contains(&word.as_str()) {
            common.push(word);
        }
    }
    Draft {
        asked: Asked::only(
            format!(
                "What are the {COMMON} words that appear most often in the list? \
             The {COMMON} words that appear most often in the list are:"
            ),
            vec![common.join(SEPARATOR)],
        ),
        classes: Vec::new(),
        planted: depths
            .into_iter()
            .zip(&occurrences)
            .map(|(depth, word)| Planted { depth, text: item(word) })
            .collect(),
        filler: Box::new(move || coded.next().as_deref().map(item)),
        arrange: Some(numbered),
    }
}

/// A word with a number as large as most, to be counted as a token or two.
fn item(word: &str) -> String {
    format!("100. {word} ")
}

/// The same items, numbered from 1.
fn numbered(items: &[&str]) -> String {
    let words = items.iter().filter_map(|item| item.split_once(". "));
    words.zip(1..).map(|((_, word), number)| format!("{number}. {word}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn counting_the_list_gives_the_answer() {
        for record in records(Task::RulerCommonWords) {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            let items: Vec<&str> = record.context.split(' ').collect();
            for (at, item) in items.chunks(2).enumerate() {
                assert_eq!(item[0], format!("{}.", at + 1));
                *counts.entry(item[1]).or_default() += 1;
            }
            let answer: Vec<&str> = record.answers[0].split(", ").collect();
            assert_eq!(answer.len(), 10);
            assert!(answer.iter().all(|word| counts.remove(word) == Some(6)));
            assert!(counts.len() > 20 && counts.values().all(|&count| count == 1));
            assert!(answer.is_sorted_by_key(|word| record.context.find(word)), "in the order of the list");
        }
    }
}
