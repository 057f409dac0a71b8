//! Which records of a LongBench task may be looked at before the test.

use rand::Rng;
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};

/// Part of a task's records. CoKV's authors shuffle a task's file with seed 42, take 30 records of up to 200 (50 of more)
/// to choose heads and hyper-parameters on, and test on all others (their `process_longbench_split.py`); so do we.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Every record, in the order of the file.
    #[default]
    All,
    /// The records to choose on, in the order of the shuffle.
    Validation,
    /// All others, in the order of the shuffle.
    Test,
}

/// The authors' seed.
const SEED: u32 = 42;

impl Split {
    /// Places of the part's records in a file of `records`. A file with few records, such as a part of LongBench, gives
    /// 15 % of them, at least one, to validation.
    pub fn places(self, records: usize) -> Vec<usize> {
        if self == Self::All {
            return (0..records).collect();
        }
        let validation = match records {
            0..150 => (records * 15).div_ceil(100),
            150..=200 => 30,
            _ => 50,
        };
        let mut order = shuffled(records, SEED);
        let test = order.split_off(validation.min(records));
        if self == Self::Validation { order } else { test }
    }
}

/// `numpy.random.default_rng(seed).permutation(count)`, which Hugging Face's `shuffle(seed)` draws.
fn shuffled(count: usize, seed: u32) -> Vec<usize> {
    let [state, stream] = seed_words(seed);
    let mut numbers = Halves { generator: Pcg64::new(state, stream), half: None };
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, numbers.up_to(last as u32) as usize);
    }
    order
}

/// NumPy uses the two halves of a generated number one after the other.
struct Halves {
    generator: Pcg64,
    half: Option<u32>,
}

impl Halves {
    fn next(&mut self) -> u32 {
        self.half.take().unwrap_or_else(|| {
            let bits = self.generator.next_u64();
            self.half = Some((bits >> 32) as u32);
            bits as u32
        })
    }

    /// A number from 0 to `most`, each as likely: bits that make a larger one are thrown away.
    fn up_to(&mut self, most: u32) -> u32 {
        let mask = u32::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let number = self.next() & mask;
            if number <= most {
                return number;
            }
        }
    }
}

/// NumPy's `SeedSequence(seed).generate_state(4, uint64)` as two numbers of 128 bits.
fn seed_words(seed: u32) -> [u128; 2] {
    let mut multiplier: u32 = 0x43b0_d7e5;
    let mut hash = |value: u32| {
        let value = value ^ multiplier;
        multiplier = multiplier.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(multiplier);
        value ^ value >> 16
    };
    let mut pool = [seed, 0, 0, 0].map(&mut hash);
    for from in 0..4 {
        for to in (0..4).filter(|&to| to != from) {
            let mixed = pool[to].wrapping_mul(0xca01_f9dd).wrapping_sub(hash(pool[from]).wrapping_mul(0x4973_f715));
            pool[to] = mixed ^ mixed >> 16;
        }
    }
    let mut multiplier: u32 = 0x8b51_f9dd;
    let words: Vec<u32> = (0..8)
        .map(|place| {
            let value = pool[place % 4] ^ multiplier;
            multiplier = multiplier.wrapping_mul(0x58f3_8ded);
            let value = value.wrapping_mul(multiplier);
            value ^ value >> 16
        })
        .collect();
    let double = |at: usize| u128::from(words[at]) | u128::from(words[at + 1]) << 32;
    [double(0) << 64 | double(2), double(4) << 64 | double(6)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shuffles_are_numpy_s() {
        assert_eq!(shuffled(10, 42), [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]);
        assert_eq!(shuffled(10, 7), [8, 0, 7, 1, 3, 6, 2, 4, 5, 9]);
        for (count, first, checksum) in [
            (150, [70, 79, 134, 3], 829_131),
            (200, [152, 26, 115, 46], 1_968_725),
            (500, [473, 132, 472, 46], 30_243_589),
        ] {
            let order = shuffled(count, 42);
            assert_eq!(order[..4], first);
            assert_eq!(order.iter().enumerate().map(|(place, record)| place * record).sum::<usize>(), checksum);
        }
    }

    #[test]
    fn the_authors_take_30_or_50_records() {
        for (records, validation) in [(150, 30), (200, 30), (500, 50), (8, 2), (1, 1), (0, 0)] {
            assert_eq!(Split::Validation.places(records).len(), validation, "{records}");
        }
    }

    proptest! {
        #[test]
        fn every_record_is_in_one_part(records in 0usize..600) {
            let mut both = [Split::Validation.places(records), Split::Test.places(records)].concat();
            both.sort_unstable();
            prop_assert_eq!(both, Split::All.places(records));
        }
    }
}
