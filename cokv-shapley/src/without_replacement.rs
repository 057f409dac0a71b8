//! Pairs in the sizes of KernelSHAP, none of them twice.

use cokv_core::Coalition;
use cokv_core::random::mix;

use crate::random::{Purpose, Stream};

/// Beyond so many coalitions of a size, none would come twice anyway.
const COUNTED: u64 = 1 << 40;

/// A pair among all pairs of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    /// Members of the smaller side.
    pub size: usize,
    /// Which pair of this size, in an order that the seed decides.
    pub place: u64,
    /// How often all pairs of this size came before.
    pub round: u64,
}

/// The size of the smaller side of a pair, with how often it comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SizeClass {
    pub size: usize,
    /// Pairs of this size; at most [`COUNTED`].
    pub pairs: u64,
    /// Weight of all of them together: the Shapley kernel's, up to a factor.
    pub weight: f64,
}

/// All sizes that a pair's smaller side has, the border first.
pub(crate) fn size_classes(players: usize) -> Vec<SizeClass> {
    let class = |size: usize| {
        let sides = if 2 * size == players { 1 } else { 2 };
        let pairs = binomial(players, size) / (3 - sides);
        SizeClass { size, pairs: pairs.max(1), weight: sides as f64 / (size * (players - size)) as f64 }
    };
    (1..=players / 2).map(class).collect()
}

/// What sample `k` visits, where every pair is visited `rounds` times at most.
///
/// A size takes its share of the samples at equal distances, until all of its pairs were there; then the other sizes share out
/// what would have been its samples. So border sizes are enumerated first, and whoever asks for sample k need not know any other.
pub(crate) fn visit(k: u64, players: usize, rounds: u64, seed: u64) -> Visit {
    let classes = size_classes(players);
    let mut left: f64 = classes.iter().map(|class| class.weight).sum();
    let mut time = k;
    for (place, class) in classes.iter().enumerate() {
        let share = class.weight / left;
        left -= class.weight;
        let offset = Stream::new(seed, Purpose::Sizes, class.size as u64).unit();
        let most = class.pairs.saturating_mul(rounds);
        let before = |time: u64| ((time as f64 * share + offset) as u64).min(most);
        let (visits, later) = match place + 1 == classes.len() {
            true => (time, time + 1),
            false => (before(time), before(time + 1)),
        };
        if later > visits {
            return Visit { size: class.size, place: visits % class.pairs, round: visits / class.pairs };
        }
        time -= visits;
    }
    Visit { size: 1, place: 0, round: 0 }
}

/// The smaller side of a visited pair. Of sizes of more than [`COUNTED`] pairs it is drawn.
pub(crate) fn coalition(visit: Visit, players: usize, seed: u64) -> Coalition {
    let Visit { size, place, .. } = visit;
    let pairs = size_classes(players).get(size - 1).map_or(1, |class| class.pairs);
    if pairs >= COUNTED {
        let drawn = Stream::new(seed, Purpose::Members, mix(size as u64) ^ place).choose(size, players);
        return Coalition::from_members(players, drawn);
    }
    // With as many members as others, the first player is always a member: the other side is the same pair.
    Coalition::from_members(players, combination(players, size, shuffled(place, pairs, mix(seed) ^ size as u64)))
}

/// The combination of a rank in lexicographic order.
fn combination(players: usize, size: usize, mut rank: u64) -> Vec<usize> {
    let mut members = Vec::with_capacity(size);
    for player in 0..players {
        let wanted = size - members.len();
        if wanted == 0 {
            break;
        }
        let with_it = binomial(players - player - 1, wanted - 1);
        if rank < with_it { members.push(player) } else { rank -= with_it }
    }
    members
}

/// Place `place` of a permutation of `0..count` that a key decides: a Feistel network over the next power of four, walked until
/// it is back among the numbers that count (Black, Rogaway 2002, "Ciphers with arbitrary finite domains").
fn shuffled(place: u64, count: u64, key: u64) -> u64 {
    let half = (64 - (count - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut number = place;
    loop {
        let (mut left, mut right) = (number >> half, number & mask);
        for round in 0..4u64 {
            (left, right) = (right, left ^ mix(mix(key ^ round) ^ right) & mask);
        }
        number = left << half | right;
        if number < count {
            return number;
        }
    }
}

/// Up to [`COUNTED`].
fn binomial(items: usize, chosen: usize) -> u64 {
    if chosen > items {
        return 0;
    }
    let mut product = 1u128;
    for place in 0..chosen.min(items - chosen) {
        product = product * (items - place) as u128 / (place + 1) as u128;
        if product >= u128::from(COUNTED) {
            return COUNTED;
        }
    }
    product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_pair_comes_once_before_any_comes_again() {
        for players in 2..9usize {
            let pairs = (1u64 << (players - 1)) - 1;
            let mut seen = BTreeMap::new();
            for k in 0..2 * pairs {
                let visit = visit(k, players, 2, 5);
                let coalition = coalition(visit, players, 5);
                assert_eq!(coalition.size(), visit.size);
                let other = coalition.complement();
                *seen.entry(coalition.to_string().min(other.to_string())).or_insert(0) += 1;
            }
            assert_eq!(seen.len() as u64, pairs, "{players}");
            assert!(seen.values().all(|&times| times == 2), "{players}: {seen:?}");
        }
    }

    #[test]
    fn sizes_have_their_shares_and_the_border_is_enumerated_first() {
        let of_size = |samples: u64| -> Vec<u64> {
            let mut counts = vec![0; 46];
            (0..samples).for_each(|k| counts[visit(k, 90, 1, 3).size] += 1);
            counts
        };
        let classes = size_classes(90);
        let all: f64 = classes.iter().map(|class| class.weight).sum();
        for (class, &found) in classes.iter().zip(&of_size(300)[1..]) {
            let share = 300.0 * class.weight / all;
            assert!((found as f64 - share).abs() <= 2.0, "{}: {found} of {share}", class.size);
        }
        let many = of_size(40_000);
        assert_eq!(many[1..3], [90, 4005]);
        assert_eq!(many.iter().sum::<u64>(), 40_000);
    }

    proptest! {
        #[test]
        fn shuffling_is_a_permutation(count in 1u64..300, key: u64) {
            let all: BTreeSet<u64> = (0..count).map(|place| shuffled(place, count, key)).collect();
            prop_assert!(all.into_iter().eq(0..count));
        }

        #[test]
        fn ranks_are_combinations(players in 1usize..9) {
            for size in 0..=players {
                let count = binomial(players, size);
                let all: Vec<Vec<usize>> = (0..count).map(|rank| combination(players, size, rank)).collect();
                prop_assert!(all.is_sorted() && all.iter().all(|members| members.len() == size));
                prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len() as u64, count);
            }
        }

        #[test]
        fn any_number_of_players_and_samples_is_drawn(players in 2usize..400, k in 0u64..1 << 50, seed: u64) {
            let visit = visit(k, players, 3, seed);
            prop_assert_eq!(coalition(visit, players, seed).size(), visit.size);
        }
    }
}
