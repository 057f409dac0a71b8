//! Whole tokens out of real shares: the arithmetic that the allocators have in common.
//!
//! Everything here takes one cap per head and gives out exactly `total` tokens, or all caps where they are less.

/// Gives every token to the head that gains most from its next one; `gain(head, count)` is what a head of `count` tokens
/// gains, never more than what it gained before. `floors` come first, whatever they gain.
///
/// The greedy choice is the best one because gains do not grow, and it is house-monotone: a larger total gives every head
/// at least as much. Equal gains are given out in rounds, lowest head first.
///
/// Finds the gain of the last token by bisection instead of counting up to it, so that the total does not matter for
/// speed: `64 · heads · log2(cap)` gains are looked at.
pub fn greedy(total: usize, floors: &[usize], caps: &[usize], gain: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    let counts = |least: u64| -> Vec<usize> {
        let heads = floors.iter().zip(caps).enumerate();
        heads.map(|(head, (&floor, &cap))| first(floor, cap, |count| order(gain(head, count)) < least)).collect()
    };
    let reaches = |least: u64| sum(&counts(least)) >= total;
    if sum(floors) >= total {
        return floors.to_vec();
    }
    if sum(caps) <= total {
        return caps.to_vec();
    }
    // The largest gain that still pays for the whole total, and the tokens above it.
    let (mut last, mut above) = (0, u64::MAX);
    while above - last > 1 {
        let middle = last + (above - last) / 2;
        *(if reaches(middle) { &mut last } else { &mut above }) = middle;
    }
    let better = counts(above);
    let equal: Vec<usize> = counts(last).iter().zip(&better).map(|(all, better)| all - better).collect();
    let rest = even(total - sum(&better), &equal);
    better.iter().zip(rest).map(|(better, rest)| better + rest).collect()
}

/// The same for everyone as far as the caps allow; a remainder goes to the first heads that have room, one token each.
pub fn even(total: usize, caps: &[usize]) -> Vec<usize> {
    let up_to = |level: usize| caps.iter().map(|&cap| cap.min(level)).fold(0, usize::saturating_add);
    let highest = caps.iter().copied().max().unwrap_or(0);
    let level = first(0, highest, |level| up_to(level + 1) > total);
    let mut remainder = total.saturating_sub(up_to(level));
    let share = |&cap: &usize| {
        let extra = usize::from(remainder > 0 && cap > level);
        remainder -= extra;
        cap.min(level) + extra
    };
    caps.iter().map(share).collect()
}

/// In proportion to `weights` (at least 0, finite), rounded by Sainte-Laguë's divisors: the next token goes to the head
/// with the largest `weight / (2 · count + 1)`.
///
/// What a cap cuts off goes to the others in proportion; heads without weight come last, evenly, and so does everything
/// where nobody has any. Unlike the largest remainder, no head loses a token when the total grows.
pub fn sainte_lague(total: usize, weights: &[f64], caps: &[usize]) -> Vec<usize> {
    sainte_lague_from(&vec![0; caps.len()], total, weights, caps)
}

/// [`sainte_lague`] where the heads already have some tokens, which they keep.
pub fn sainte_lague_from(counts: &[usize], total: usize, weights: &[f64], caps: &[usize]) -> Vec<usize> {
    greedy(total, counts, caps, |head, count| weights[head] / (2 * count + 1) as f64)
}

/// In proportion to `weights` (at least 0, finite), rounded down, the tokens that are left to the largest fractions.
///
/// What a cap cuts off goes to the others in proportion. A larger total may take a token from a head (the Alabama
/// paradox): [`sainte_lague`] does not.
pub fn largest_remainder(total: usize, weights: &[f64], caps: &[usize]) -> Vec<usize> {
    let shares = shares(total, weights, caps);
    let whole: Vec<usize> = shares.iter().zip(caps).map(|(&share, &cap)| (share as usize).min(cap)).collect();
    // A head's first gain is its fraction, the next ones are below zero.
    greedy(total, &whole, caps, |head, count| shares[head] - count as f64)
}

/// Real shares in proportion to `weights`, each within its cap.
fn shares(total: usize, weights: &[f64], caps: &[usize]) -> Vec<f64> {
    let mut heads: Vec<usize> = (0..caps.len()).filter(|&head| weights[head] > 0.0).collect();
    // Those that reach their cap first, so that all that they cannot use is known when the others' turn comes.
    let relative_cap = |head: usize| caps[head] as f64 / weights[head];
    heads.sort_by(|&a, &b| relative_cap(a).total_cmp(&relative_cap(b)));
    let mut weight_left: f64 = heads.iter().map(|&head| weights[head]).sum();
    let mut left = total as f64;
    let mut shares = vec![0.0; caps.len()];
    for head in heads {
        shares[head] = (left * (weights[head] / weight_left).min(1.0)).min(caps[head] as f64);
        left -= shares[head];
        weight_left -= weights[head];
    }
    shares
}

/// The first number from `start` on, below `end`, for which `found` holds, or `end`. `found` must hold from there on.
fn first(start: usize, end: usize, found: impl Fn(usize) -> bool) -> usize {
    let (mut start, mut end) = (start, end.max(start));
    while start < end {
        let middle = start + (end - start) / 2;
        if found(middle) { end = middle } else { start = middle + 1 }
    }
    start
}

/// An integer that orders like the number.
fn order(number: f64) -> u64 {
    // Without the sign of a zero.
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn sum(counts: &[usize]) -> usize {
    counts.iter().copied().fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_alabama_paradox_is_the_largest_remainders_own() {
        let (weights, caps) = ([6.0, 6.0, 2.0], [100; 3]);
        assert_eq!(largest_remainder(10, &weights, &caps), [4, 4, 2]);
        assert_eq!(largest_remainder(11, &weights, &caps), [5, 5, 1]);
        assert_eq!(sainte_lague(10, &weights, &caps), [5, 4, 1]);
        assert_eq!(sainte_lague(11, &weights, &caps), [5, 5, 1]);
        assert_eq!(sainte_lague(12, &weights, &caps), [5, 5, 2]);
    }

    #[test]
    fn published_remainders() {
        assert_eq!(largest_remainder(8, &[1.4, 2.6, 3.3, 0.7], &[8; 4]), [1, 3, 3, 1]);
        assert_eq!(largest_remainder(80, &[0.0, 0.3, 0.1, 0.2], &[80; 4]), [0, 40, 13, 27]);
        assert_eq!(largest_remainder(80, &[0.0, 0.3, 0.1, 0.2], &[30; 4]), [0, 30, 20, 30]);
        assert_eq!(sainte_lague(80, &[0.0, 0.3, 0.1, 0.2], &[80; 4]), [0, 40, 13, 27]);
        assert_eq!(sainte_lague(80, &[0.0, 0.3, 0.1, 0.2], &[30; 4]), [0, 30, 20, 30]);
    }

    #[test]
    fn heads_without_weight_come_last_and_evenly() {
        assert_eq!(sainte_lague(11, &[1.0, 0.0, 0.0], &[4; 3]), [4, 4, 3]);
        assert_eq!(largest_remainder(11, &[1.0, 0.0, 0.0], &[4; 3]), [4, 4, 3]);
        assert_eq!(sainte_lague(7, &[0.0; 3], &[10; 3]), [3, 2, 2]);
        assert_eq!(even(7, &[1, 10, 10]), [1, 3, 3]);
        assert_eq!(even(9, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(even(3, &[]), [0usize; 0]);
    }

    #[test]
    fn huge_totals_cost_no_more_than_small_ones() {
        let (weights, caps) = ([3.0, 1.0], [1 << 48; 2]);
        assert_eq!(sainte_lague(1 << 48, &weights, &caps), [3 << 46, 1 << 46]);
    }

    /// Floors, caps of at least the floors, and gains that never grow, of up to four heads.
    fn problem() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, Vec<Vec<f64>>)> {
        let head = (0usize..3, vec(-3i8..6, 0..5)).prop_map(|(floor, mut gains)| {
            gains.sort_by_key(|&gain| std::cmp::Reverse(gain));
            (floor.min(gains.len()), gains.len(), gains.into_iter().map(f64::from).collect())
        });
        vec(head, 1..5).prop_map(|heads: Vec<(usize, usize, Vec<f64>)>| {
            let caps = heads.iter().map(|head| head.1).collect();
            (heads.iter().map(|head| head.0).collect(), caps, heads.into_iter().map(|head| head.2).collect())
        })
    }

    /// The best worth of `total` tokens by trying everything.
    fn oracle(total: usize, floors: &[usize], gains: &[Vec<f64>]) -> f64 {
        let Some((own, others)) = gains.split_first() else {
            return if total == 0 { 0.0 } else { f64::NEG_INFINITY };
        };
        let counts = floors[0]..=own.len().min(total);
        let worth = |count: usize| own[..count].iter().sum::<f64>() + oracle(total - count, &floors[1..], others);
        counts.map(worth).fold(f64::NEG_INFINITY, f64::max)
    }

    proptest! {
        #[test]
        fn greedy_is_the_best_there_is((floors, caps, gains) in problem(), total in 0usize..20) {
            let total = total.clamp(sum(&floors), sum(&caps));
            let counts = greedy(total, &floors, &caps, |head, count| gains[head][count]);
            prop_assert_eq!(sum(&counts), total);
            for head in 0..caps.len() {
                prop_assert!(floors[head] <= counts[head] && counts[head] <= caps[head]);
            }
            let worth: f64 = counts.iter().zip(&gains).map(|(&count, gains)| gains[..count].iter().sum::<f64>()).sum();
            prop_assert_eq!(worth, oracle(total, &floors, &gains));
        }

        #[test]
        fn a_larger_total_takes_from_nobody((floors, caps, gains) in problem(), total in 0usize..20) {
            let total = total.clamp(sum(&floors), sum(&caps));
            let counts = |total: usize| greedy(total, &floors, &caps, |head, count| gains[head][count]);
            prop_assert!(counts(total).iter().zip(counts(total + 1)).all(|(less, more)| *less <= more));
            prop_assert!(even(total, &caps).iter().zip(even(total + 1, &caps)).all(|(less, more)| *less <= more));
        }

        #[test]
        fn a_head_that_gains_weight_takes_from_the_others(
            weights in vec(0u8..8, 1..8), at in any::<prop::sample::Index>(), more in 1u8..8, total in 0usize..120,
        ) {
            let at = at.index(weights.len());
            let shares = |raised: u8| {
                let mut weights: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
                weights[at] += f64::from(raised);
                sainte_lague(total, &weights, &vec![20; weights.len()])
            };
            let (before, after) = (shares(0), shares(more));
            for (head, (before, after)) in before.iter().zip(&after).enumerate() {
                prop_assert!(if head == at { before <= after } else { before >= after }, "head {}", head);
            }
        }

        #[test]
        fn remainders_stay_within_a_token_of_the_share(
            weights in vec(0.0f64..1.0, 1..12), total in 0usize..500, cap in 1usize..60,
        ) {
            let caps = vec![cap; weights.len()];
            let counts = largest_remainder(total, &weights, &caps);
            prop_assert_eq!(sum(&counts), total.min(sum(&caps)));
            let shares = shares(total, &weights, &caps);
            for (head, (&count, &share)) in counts.iter().zip(&shares).enumerate() {
                prop_assert!(count <= cap);
                prop_assert!(weights[head] == 0.0 || (count as f64 - share).abs() < 1.0 + 1e-9, "{}", head);
            }
        }
    }
}
