//! Coded words whose counts fall off by Zipf's law; the three most frequent are asked for.
//!
//! RULER's frequent-words extraction: the word of rank r occurs in proportion to r^-2, and in place of the first stands
//! noise. Filler comes in blocks of the words of ranks 1 to k, each once, where k is at least r with probability r^-2.
//! So the law holds on average and the order of the counts always does, whatever filler a context has room for.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;

use crate::data::synthetic::draft::{Asked, Depth, Draft, Planted, endless};
use crate::data::synthetic::{Definition, words};
use crate::metrics::{Metric, SEPARATOR};

pub(in crate::data::synthetic) const DEFINITION: Definition = Definition {
    name: "ruler-frequent-words",
    template: "Below is a coded text. Track how often each coded word appears in it and ignore the dots.\n\n\
               {context}\n\n{input}",
    max_new_tokens: 32,
    metric: Metric::StringMatchAll,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(draft),
};

/// Words asked for.
const ASKED: usize = 3;
/// Coded words with the noise; rarer ones would hardly ever be drawn.
const RANKS: usize = 40;
const NOISE: &str = "...";

/// The record has no depth: what is asked for is everywhere.
fn draft(mut random: Pcg64, _: Depth) -> Draft {
    let coded = words::coded(&mut random);
    let ranked: Vec<String> = std::iter::once(NOISE.to_owned()).chain(coded.take(RANKS - 1)).collect();
    let asked = &ranked[1..=ASKED];
    let mut planted = Vec::new();
    // Where blocks have them equally often, these make each more frequent than the next.
    for (word, more) in asked.iter().zip((1..=ASKED).rev()) {
        let once = || Planted { depth: Depth::random(&mut random), text: format!("{word} ") };
        planted.extend(std::iter::repeat_with(once).take(more));
    }
    Draft {
        asked: Asked::only(
            format!(
                "What are the {ASKED} coded words that appear most often? The {ASKED} coded words that appear most often are:"
            ),
            vec![asked.join(SEPARATOR)],
        ),
        classes: Vec::new(),
        arrange: None,
        planted,
        filler: endless(move || block(&mut random, &ranked)),
    }
}

fn block(random: &mut Pcg64, ranked: &[String]) -> String {
    // k >= r exactly when the number drawn is at most 2^32 / r^2.
    let last = ((1_u64 << 32) / random.random_range(1..=1_u64 << 32)).isqrt() as usize;
    let mut words: Vec<&str> = ranked.iter().take(last).map(String::as_str).collect();
    words.shuffle(random);
    words.join(" ") + " "
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;

    use super::*;
    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    fn counts(text: &str) -> Vec<(usize, &str)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for word in text.split_whitespace() {
            *counts.entry(word).or_default() += 1;
        }
        let mut counts: Vec<(usize, &str)> = counts.into_iter().map(|(word, count)| (count, word)).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn counting_the_words_gives_the_answer() {
        for record in records(Task::RulerFrequentWords) {
            let counts = counts(&record.context);
            assert!(counts.len() > 6, "{counts:?}");
            assert_eq!(counts[0].1, "...");
            assert!(counts[1..5].is_sorted_by(|more, less| more.0 > less.0), "{counts:?}");
            let most: Vec<&str> = counts[1..4].iter().map(|&(_, word)| word).collect();
            assert_eq!([most.join(", ")], record.answers[..]);
        }
    }

    #[test]
    fn counts_follow_the_law() {
        let mut random = Pcg64::seed_from_u64(5);
        let ranked: Vec<String> = (1..=RANKS).map(|rank| rank.to_string()).collect();
        let text: String = (0..36_000).map(|_| block(&mut random, &ranked)).collect();
        for (count, rank) in counts(&text).into_iter().take(6) {
            let rank: usize = rank.parse().unwrap();
            let expected = 36_000 / (rank * rank);
            assert!(count.abs_diff(expected) * 20 < expected * 2, "rank {rank}: {count}, expected {expected}");
        }
    }
}
