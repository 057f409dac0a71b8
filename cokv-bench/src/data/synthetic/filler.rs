//! Prose that says nothing anyone will ask about.
//!
//! A grammar small enough to read in one go, with millions of sentences. Lengths vary much, so that a
//! context can be filled almost to the token.

use rand::RngExt;
use rand_pcg::Pcg64;

use super::words::pick;

const PEOPLE: [&str; 32] = [
    "the baker",
    "an old sailor",
    "the young teacher",
    "our neighbour",
    "the gardener",
    "a tired traveller",
    "the postman",
    "her grandmother",
    "the librarian",
    "a group of students",
    "the mayor",
    "the new doctor",
    "two brothers",
    "the carpenter",
    "a quiet child",
    "the farmer",
    "his cousin",
    "the shopkeeper",
    "a retired judge",
    "the fisherman",
    "the choir",
    "a visiting painter",
    "the night watchman",
    "the bus driver",
    "the twins from the corner house",
    "a woman in a green coat",
    "the boy next door",
    "the head cook",
    "the clockmaker",
    "an absent-minded professor",
    "the whole family",
    "the last guest",
];

const DEEDS: [&str; 36] = [
    "carried a basket of apples",
    "repaired the wooden fence",
    "read a long letter",
    "painted the kitchen door",
    "waited for the ferry",
    "told a story about the sea",
    "lost a pair of gloves",
    "bought some warm bread",
    "counted the passing wagons",
    "played an old tune",
    "watched the swans",
    "swept the stone steps",
    "wrote a few lines in a notebook",
    "looked for a missing cat",
    "planted a row of beans",
    "lit a small fire",
    "forgot an umbrella",
    "sang while washing the dishes",
    "drew a map of the village",
    "sold honey and candles",
    "cleaned the tall windows",
    "made soup for everyone",
    "spoke about the price of wool",
    "fed the chickens",
    "mended a torn sail",
    "asked for directions",
    "laughed at an old joke",
    "packed a heavy suitcase",
    "polished the brass bell",
    "found a blue button",
    "listened to the radio",
    "slept",
    "waited",
    "went home early",
    "smiled",
    "took a slow walk",
];

const PLACES: [&str; 28] = [
    "near the harbour",
    "in the market square",
    "behind the church",
    "at the edge of the wood",
    "by the river",
    "on the hill above the town",
    "in the garden",
    "under the chestnut tree",
    "beside the railway line",
    "in front of the bakery",
    "along the narrow street",
    "at the kitchen table",
    "on the wooden bridge",
    "in the school yard",
    "next to the mill",
    "inside the old barn",
    "at the end of the pier",
    "in a corner of the hall",
    "on the way to the station",
    "outside the theatre",
    "between the two houses",
    "on the sandy beach",
    "in the reading room",
    "by the open window",
    "across the meadow",
    "at the crossroads",
    "upstairs",
    "nearby",
];

const TIMES: [&str; 24] = [
    "in the morning",
    "after lunch",
    "late in the evening",
    "before sunrise",
    "on a rainy afternoon",
    "during the holidays",
    "at the end of the summer",
    "on the first day of the month",
    "once a week",
    "at noon",
    "when the bells rang",
    "on Sunday",
    "just before dinner",
    "in early spring",
    "that winter",
    "for most of the day",
    "at the usual hour",
    "shortly after the concert",
    "while the shops were closed",
    "every other Friday",
    "last year",
    "again",
    "as always",
    "at dusk",
];

const CLAUSES: [&str; 24] = [
    "because the weather was fine",
    "although nobody had asked",
    "and the dog followed",
    "while the children played outside",
    "and no one said a word",
    "since there was nothing else to do",
    "but the road was still wet",
    "and the lamps were lit one after another",
    "so the others had to wait",
    "because the train was late again",
    "and everyone agreed that it was a good idea",
    "even though the wind was cold",
    "and then it began to snow",
    "as if it were the most natural thing in the world",
    "but hardly anybody noticed",
    "until the church clock struck",
    "and the tea grew cold",
    "which surprised the whole street",
    "so that the house was quiet for a while",
    "and the river kept rising",
    "but it did not matter much",
    "and the smell of fresh paint filled the air",
    "because it had always been so",
    "and the day passed slowly",
];

const THINGS: [&str; 24] = [
    "the sky",
    "the garden wall",
    "the road to the village",
    "the house with the red roof",
    "the soup",
    "the water",
    "the path through the woods",
    "the kitchen",
    "the little shop",
    "the train",
    "the morning air",
    "the field",
    "the music",
    "the staircase",
    "the old map",
    "the harbour",
    "the bread",
    "the orchard",
    "the attic",
    "the conversation",
    "the waiting room",
    "the lake",
    "the wind",
    "the moon",
];

const STATES: [&str; 24] = [
    "grey",
    "quiet",
    "almost empty",
    "brighter than before",
    "longer than it looked",
    "warm and dry",
    "full of people",
    "hard to find",
    "covered with leaves",
    "not quite ready",
    "much the same as ever",
    "too cold for most visitors",
    "pleasant enough",
    "as still as a picture",
    "a little strange",
    "known to everyone",
    "better than expected",
    "in need of repair",
    "smaller than people remembered",
    "free of dust",
    "open to all",
    "late",
    "calm",
    "dark",
];

/// A sentence of prose, with a full stop and no white space around it.
pub(super) fn sentence(random: &mut Pcg64) -> String {
    let words = match random.random_range(0..8_u32) {
        0 | 1 => event(random, true, false),
        2 => event(random, false, true),
        3 => event(random, true, true),
        4 => format!("{}, {}", pick(random, &TIMES), event(random, true, false)),
        5 => format!("{} {}", event(random, true, false), pick(random, &CLAUSES)),
        6 => {
            let state = description(random);
            format!("{state} {}", pick(random, &CLAUSES))
        }
        _ => description(random),
    };
    capitalised(&words) + "."
}

/// A sentence of prose and the space or, now and then, the end of paragraph after it.
pub(super) fn prose(random: &mut Pcg64) -> String {
    let separator = if random.random_range(0..7_u32) == 0 { "\n\n" } else { " " };
    sentence(random) + separator
}

fn event(random: &mut Pcg64, with_place: bool, with_time: bool) -> String {
    let mut words = format!("{} {}", pick(random, &PEOPLE), pick(random, &DEEDS));
    if with_place {
        words = format!("{words} {}", pick(random, &PLACES));
    }
    if with_time {
        words = format!("{words} {}", pick(random, &TIMES));
    }
    words
}

fn description(random: &mut Pcg64) -> String {
    format!("{} was {}", pick(random, &THINGS), pick(random, &STATES))
}

fn capitalised(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;
    use crate::data::synthetic::words;

    #[test]
    fn sentences_are_varied_and_well_formed() {
        let mut random = Pcg64::seed_from_u64(3);
        let sentences: BTreeSet<String> = (0..1000).map(|_| sentence(&mut random)).collect();
        assert!(sentences.len() > 800, "{} of 1000", sentences.len());
        for sentence in &sentences {
            assert!(sentence.starts_with(char::is_uppercase) && sentence.ends_with('.'), "{sentence}");
            assert!(!sentence.contains(|letter: char| letter.is_ascii_digit()), "{sentence}");
        }
    }

    #[test]
    fn prose_has_no_codename() {
        let mut random = Pcg64::seed_from_u64(4);
        let text: String = (0..2000).map(|_| prose(&mut random)).collect();
        let text = text.to_lowercase();
        for _ in 0..2000 {
            let name = words::codename(&mut random, " ");
            assert!(!text.contains(&name), "{name}");
        }
    }
}
