//! Names and numbers that records ask for.
//!
//! The prose of [`super::filler`] has no digits and none of these names, so a needle is there once.

use rand::RngExt;
use rand_pcg::Pcg64;

const ADJECTIVES: [&str; 48] = [
    "amber", "ancient", "arctic", "bitter", "blazing", "bronze", "calm", "copper", "coral", "cosmic", "crimson",
    "crystal", "daring", "eager", "emerald", "fearless", "frozen", "gentle", "golden", "hidden", "hollow", "humble",
    "indigo", "ivory", "jade", "lively", "lunar", "marble", "mellow", "misty", "noble", "orange", "polar", "proud",
    "purple", "rapid", "royal", "rustic", "scarlet", "secret", "silent", "silver", "solar", "steady", "sunny",
    "velvet", "violet", "wild",
];

const NOUNS: [&str; 48] = [
    "anchor", "arrow", "badger", "beacon", "bison", "canyon", "castle", "cedar", "comet", "condor", "dolphin",
    "dragon", "eagle", "falcon", "forest", "fountain", "galaxy", "glacier", "harvest", "island", "jaguar", "kettle",
    "lantern", "leopard", "lotus", "magnet", "maple", "meteor", "mirror", "nebula", "orchid", "otter", "panther",
    "pearl", "pepper", "planet", "prairie", "quartz", "rocket", "saddle", "shadow", "spider", "temple", "tiger",
    "tunnel", "turtle", "volcano", "walnut",
];

/// A random element; the slice must not be empty.
pub(super) fn pick<'a, T: ?Sized>(random: &mut Pcg64, choices: &[&'a T]) -> &'a T {
    choices[random.random_range(0..choices.len())]
}

/// One word.
pub(super) fn word(random: &mut Pcg64) -> &'static str {
    let list = pick(random, &[&ADJECTIVES, &NOUNS]);
    pick(random, list)
}

/// An adjective and a noun with `separator` between them, such as "amber falcon".
pub(super) fn codename(random: &mut Pcg64, separator: &str) -> String {
    let adjective = pick(random, &ADJECTIVES);
    let noun = pick(random, &NOUNS);
    format!("{adjective}{separator}{noun}")
}

/// A number of exactly this many digits (1 to 9), the first of them not zero.
pub(super) fn number(random: &mut Pcg64, digits: u32) -> u32 {
    let smallest = 10_u32.pow(digits - 1);
    random.random_range(smallest..=smallest * 9 + (smallest - 1))
}

/// A result of `make` that is not `other`.
pub(super) fn distinct_from(random: &mut Pcg64, other: &str, make: impl Fn(&mut Pcg64) -> String) -> String {
    loop {
        let next = make(random);
        if next != other {
            return next;
        }
    }
}

/// `count` different results of `make`, in the order drawn.
pub(super) fn distinct<T: PartialEq>(random: &mut Pcg64, count: usize, make: impl Fn(&mut Pcg64) -> T) -> Vec<T> {
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        let next = make(random);
        if !drawn.contains(&next) {
            drawn.push(next);
        }
    }
    drawn
}

const CONSONANTS: [char; 14] = ['b', 'd', 'f', 'g', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'v', 'z'];
const VOWELS: [char; 5] = ['a', 'e', 'i', 'o', 'u'];
/// How many coded words there are.
const CODED: u32 = 14 * 5 * 14 * 5 * 14;

/// Words that can be pronounced but mean nothing, such as "bakot", without end; no two of the first 68,600 are equal.
///
/// All have five letters, so that none is a part of another.
pub(super) fn coded(random: &mut Pcg64) -> impl Iterator<Item = String> + use<> {
    let mut at = random.random_range(0..CODED);
    let mut step = random.random_range(1..CODED);
    // A step without a factor of 14 * 5 * 14 * 5 * 14 comes to every word before it comes back.
    while [2, 5, 7].iter().any(|factor| step % factor == 0) {
        step += 1;
    }
    std::iter::from_fn(move || {
        at = (at + step) % CODED;
        Some(coded_word(at))
    })
}

fn coded_word(mut number: u32) -> String {
    let letters: [&[char]; 5] = [&CONSONANTS, &VOWELS, &CONSONANTS, &VOWELS, &CONSONANTS];
    let digit = |letters: &[char]| {
        let count = letters.len() as u32;
        let letter = letters[(number % count) as usize];
        number /= count;
        letter
    };
    letters.map(digit).iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn numbers_have_the_digits_asked_for() {
        let mut random = Pcg64::seed_from_u64(1);
        for digits in 1..=9 {
            for _ in 0..100 {
                assert_eq!(number(&mut random, digits).to_string().len(), digits as usize);
            }
        }
    }

    #[test]
    fn no_word_is_listed_twice() {
        for words in [ADJECTIVES, NOUNS] {
            let mut sorted = words.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), words.len());
        }
    }

    #[test]
    fn coded_words_do_not_come_again() {
        for seed in 0..3 {
            let words: BTreeSet<String> = coded(&mut Pcg64::seed_from_u64(seed)).take(CODED as usize).collect();
            assert_eq!(words.len(), CODED as usize);
            assert!(words.iter().all(|word| word.len() == 5));
        }
    }

    #[test]
    fn distinct_results_differ() {
        let mut random = Pcg64::seed_from_u64(2);
        let mut digits = distinct(&mut random, 9, |random| number(random, 1));
        digits.sort_unstable();
        assert_eq!(digits, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
