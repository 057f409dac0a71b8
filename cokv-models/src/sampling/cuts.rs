//! What temperature, top-k, top-p and min-p leave of a distribution.

use std::cmp::Ordering;

use super::Sampling;
use crate::kernel::exponential::exponentials;

/// Logits that are looked at together for their largest.
const BLOCK: usize = 64;
/// Tokens that are sorted first for top-p; as a rule they are enough.
const FIRST: usize = 64;
/// Sums whose addends are too many to be added one after the other.
const LANES: usize = 8;

/// Tokens that are left, by ascending id.
#[derive(Debug, PartialEq)]
pub(super) struct Survivors {
    tokens: Vec<u32>,
    /// Proportional to their probabilities: that of the likeliest is 1.
    weights: Vec<f64>,
}

impl Survivors {
    /// Of logits `[vocabulary]`, whose largest is a number.
    pub(super) fn of(logits: &[f32], max: f32, sampling: &Sampling) -> Self {
        let scale = sampling.temperature.recip();
        let mut left = match (1..logits.len()).contains(&sampling.top_k) {
            true => Self::weighed(top_k(logits, sampling.top_k), logits, max, scale),
            false => {
                let mut weights = vec![0.0; logits.len()];
                exponentials(logits, max, scale, &mut weights);
                Self { tokens: (0..logits.len() as u32).collect(), weights }
            }
        };
        if sampling.top_p < 1.0 {
            left = left.top_p(sampling.top_p);
        }
        if sampling.min_p > 0.0 {
            left = left.retain(|weight| weight >= sampling.min_p);
        }
        left
    }

    fn weighed(tokens: Vec<u32>, logits: &[f32], max: f32, scale: f64) -> Self {
        let logits: Vec<f32> = tokens.iter().map(|&token| logits[token as usize]).collect();
        let mut weights = vec![0.0; tokens.len()];
        exponentials(&logits, max, scale, &mut weights);
        Self { tokens, weights }
    }

    /// The shortest run of the likeliest that have this probability together; lower ids first among equals.
    fn top_p(self, p: f64) -> Self {
        let total = sum(&self.weights);
        // All that are less likely than this have less than 1 - p together, so that the run ends before them.
        let least = (1.0 - p) * total / self.weights.len() as f64 * (1.0 - 1e-9);
        let mut run = self.retain(|weight| weight >= least).into_pairs();
        let (mut sorted, mut sum) = (0, 0.0);
        while sorted < run.len() {
            let end = (4 * sorted).clamp(FIRST, run.len().max(FIRST)).min(run.len());
            let rest = &mut run[sorted..];
            if end - sorted < rest.len() {
                rest.select_nth_unstable_by(end - sorted, likelier);
            }
            rest[..end - sorted].sort_unstable_by(likelier);
            for place in sorted..end {
                sum += run[place].1;
                if sum >= p * total {
                    run.truncate(place + 1);
                    break;
                }
            }
            sorted = end;
        }
        run.sort_unstable_by_key(|&(token, _)| token);
        let (tokens, weights) = run.into_iter().unzip();
        Self { tokens, weights }
    }

    fn retain(self, stays: impl Fn(f64) -> bool) -> Self {
        let (tokens, weights) = self.into_iter().filter(|&(_, weight)| stays(weight)).unzip();
        Self { tokens, weights }
    }

    fn into_iter(self) -> impl Iterator<Item = (u32, f64)> {
        self.tokens.into_iter().zip(self.weights)
    }

    fn into_pairs(self) -> Vec<(u32, f64)> {
        self.into_iter().collect()
    }

    /// The first token up to which there is more than this share of the weight; `share` is below 1.
    pub(super) fn at(&self, share: f64) -> Option<u32> {
        let aim = share * sum(&self.weights);
        let mut reached = 0.0;
        let passes = |&weight: &f64| {
            reached += weight;
            reached > aim
        };
        let place = self.weights.iter().position(passes);
        // Where rounding leaves a gap behind the last.
        let place = place.or_else(|| self.weights.iter().rposition(|&weight| weight > 0.0));
        place.map(|place| self.tokens[place])
    }

    /// Tokens with their probabilities, by ascending id.
    pub(super) fn probabilities(self) -> Vec<(u32, f64)> {
        let total = sum(&self.weights);
        self.into_iter().filter(|&(_, weight)| weight > 0.0).map(|(token, weight)| (token, weight / total)).collect()
    }
}

/// The largest logits with their ids, largest first; lower ids first among equals.
pub(super) fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f64)> {
    let tokens = if count == 0 { Vec::new() } else { top_k(logits, count) };
    let mut best: Vec<(u32, f64)> = tokens.into_iter().map(|token| (token, logits[token as usize].into())).collect();
    best.sort_unstable_by(likelier);
    best
}

/// The ids of the largest logits, ascending; lower ids before equals. At least one is wanted.
fn top_k(logits: &[f32], k: usize) -> Vec<u32> {
    let least = reached_by(logits, k);
    let reaching = (0..).zip(logits).filter(|&(_, &logit)| logit >= least);
    let mut tokens: Vec<u32> = reaching.map(|(token, _)| token).collect();
    if tokens.len() > k {
        let logit = |token: u32| f64::from(logits[token as usize]);
        tokens.select_nth_unstable_by(k - 1, |&a, &b| likelier(&(a, logit(a)), &(b, logit(b))));
        tokens.truncate(k);
        tokens.sort_unstable();
    }
    tokens
}

/// A number that at least so many logits reach, and few more: as many blocks have such a largest one.
fn reached_by(logits: &[f32], count: usize) -> f32 {
    let mut largest: Vec<f32> = logits.chunks(BLOCK).map(max).collect();
    if count > largest.len() {
        return f32::NEG_INFINITY;
    }
    *largest.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1
}

/// The largest of them that is a number.
pub(super) fn max(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

pub(super) fn sum(weights: &[f64]) -> f64 {
    let (blocks, rest) = weights.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(sum, weight)| *sum += weight);
    }
    sums.iter().chain(rest).sum()
}

/// Both zeros are one.
fn likelier(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    (b.1 + 0.0).total_cmp(&(a.1 + 0.0)).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn left(logits: &[f32], sampling: &Sampling) -> Vec<(u32, f64)> {
        Survivors::of(logits, max(logits), sampling).into_pairs()
    }

    /// As it is defined: everything is sorted.
    fn by_sorting(logits: &[f32], sampling: &Sampling) -> Vec<(u32, f64)> {
        let weight = |logit: f32| ((f64::from(logit) - f64::from(max(logits))) / sampling.temperature).exp();
        let mut all: Vec<(u32, f64)> = (0..).zip(logits).map(|(token, &logit)| (token, weight(logit))).collect();
        all.sort_by(|a, b| logits[b.0 as usize].partial_cmp(&logits[a.0 as usize]).unwrap().then(a.0.cmp(&b.0)));
        if sampling.top_k > 0 {
            all.truncate(sampling.top_k);
        }
        if sampling.top_p < 1.0 {
            let total: f64 = all.iter().map(|pair| pair.1).sum();
            let mut before = 0.0;
            all.retain(|pair| {
                let stays = before < sampling.top_p * total;
                before += pair.1;
                stays
            });
        }
        all.retain(|pair| pair.1 >= sampling.min_p);
        all.sort_by_key(|pair| pair.0);
        all
    }

    prop_compose! {
        /// Logits with many that are equal, the more the larger the step.
        fn logits()(
            count in prop_oneof![1usize..9, 60usize..70, 1usize..3000], step in prop_oneof![Just(0.5f32), Just(1e-3)], seed: u32
        ) -> Vec<f32> {
            let hashed = |i: u32| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32;
            let spread = |i: u32| (hashed(i) * 20.0 / step).floor() * step - 7.0;
            (0..count as u32).map(|i| if hashed(i ^ 0x5555) < 0.1 { f32::NEG_INFINITY } else { spread(i) }).collect()
        }
    }

    proptest! {
        #[test]
        fn cuts_are_those_of_a_sorted_distribution(
            logits in logits().prop_filter("one is left", |logits| max(logits).is_finite()),
            top_k in prop_oneof![Just(0), 2usize..12, 12usize..4000],
            top_p in prop_oneof![Just(1.0), 0.01..1.0],
            min_p in prop_oneof![Just(0.0), 0.0..1.0],
            temperature in 0.1..2.0,
        ) {
            let sampling = Sampling { temperature, top_k, top_p, min_p, ..Sampling::default() };
            let (ours, exact) = (left(&logits, &sampling), by_sorting(&logits, &sampling));
            let tokens = |pairs: &[(u32, f64)]| pairs.iter().map(|pair| pair.0).collect::<Vec<_>>();
            prop_assert_eq!(tokens(&ours), tokens(&exact));
            prop_assert!(ours.iter().zip(&exact).all(|(ours, exact)| (ours.1 - exact.1).abs() <= 1e-13 * exact.1));
        }
    }

    fn tokens(logits: &[f32], sampling: Sampling) -> Vec<u32> {
        left(logits, &sampling).into_iter().map(|pair| pair.0).collect()
    }

    #[test]
    fn equals_are_cut_by_their_ids() {
        let (even, base) = ([1.0f32; 4], Sampling::default);
        assert_eq!(tokens(&even, Sampling { top_k: 3, ..base() }), [0, 1, 2]);
        assert_eq!(tokens(&even, Sampling { top_p: 0.5, ..base() }), [0, 1]);
        assert_eq!(tokens(&even, Sampling { top_p: 0.51, ..base() }), [0, 1, 2]);
        assert_eq!(tokens(&[-0.0, 0.0, -0.0], Sampling { top_k: 2, ..base() }), [0, 1]);
        assert_eq!(tokens(&even, Sampling { min_p: 1.0, ..base() }), [0, 1, 2, 3]);
    }

    /// Probabilities 1/2, 1/4, 1/8, 1/8.
    #[test]
    fn closed_forms() {
        let (logits, base) = ([4.0f32.ln(), 0.0, 2.0f32.ln(), 0.0], Sampling::default);
        assert_eq!(tokens(&logits, Sampling { top_p: 0.49, ..base() }), [0]);
        assert_eq!(tokens(&logits, Sampling { top_p: 0.74, ..base() }), [0, 2]);
        assert_eq!(tokens(&logits, Sampling { top_p: 0.76, ..base() }), [0, 1, 2]);
        assert_eq!(tokens(&logits, Sampling { min_p: 0.49, ..base() }), [0, 2]);
        // What top-k leaves is a distribution: 4/7, 2/7, 1/7.
        assert_eq!(tokens(&logits, Sampling { top_k: 3, top_p: 0.56, ..base() }), [0]);
        let flat = Survivors::of(&logits, max(&logits), &Sampling { temperature: 2.0, ..base() }).probabilities();
        assert!((flat[0].1 / flat[2].1 - 2f64.sqrt()).abs() < 1e-6, "{flat:?}");
    }

    #[test]
    fn shares_are_walked_by_ascending_id() {
        let survivors = Survivors { tokens: vec![3, 5, 8, 9], weights: vec![0.5, 0.0, 1.0, 0.0] };
        let at = |share| survivors.at(share).unwrap();
        assert_eq!([at(0.0), at(0.33), at(0.34), at(1.0 - 1e-16)], [3, 3, 8, 8]);
        assert_eq!(Survivors { tokens: vec![1], weights: vec![0.0] }.at(0.5), None);
    }
}
