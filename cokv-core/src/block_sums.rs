//! Attention inside blocks of a prompt, where every token sees every other.

use std::ops::Range;

/// What every token of a block receives from the queries of its block, those before it too: sums over queries of
/// `softmax(q·k)` over the block's keys, without the usual 1/√head_dim (Compactor, arXiv 2507.08143).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSums {
    /// Tokens of a block, at least 1; the last may have fewer.
    pub block: usize,
    /// Tokens at the start of the prompt that belong to no block.
    pub first: usize,
    /// Tokens at its end that belong to no block.
    pub last: usize,
    /// Whether a last block with fewer tokens is filled up as kvpress does: with keys whose logits are 0 and queries that look at
    /// all keys alike.
    pub padded: bool,
}

impl BlockSums {
    /// The blocks of a prompt.
    pub fn blocks(self, prompt_len: usize) -> impl Iterator<Item = Range<usize>> {
        let end = prompt_len.saturating_sub(self.last);
        (self.first..end).step_by(self.block.max(1)).map(move |start| start..end.min(start + self.block.max(1)))
    }

    /// Sums of a block from the logits of its queries, `[queries, keys]`, the queries of one query head.
    pub fn of(self, logits: &mut [f32], keys: usize) -> Vec<f32> {
        // kvpress's padding takes part in the softmax, and adds rows that are the same everywhere.
        let padding = if self.padded { self.block - keys } else { 0 };
        let floor = if padding > 0 { 0.0 } else { f32::NEG_INFINITY };
        let mut sums = vec![padding as f32 / self.block.max(1) as f32; keys];
        for row in logits.chunks_exact_mut(keys.max(1)) {
            let max = row.iter().copied().fold(floor, f32::max);
            row.iter_mut().for_each(|logit| *logit = (*logit - max).exp());
            // Without padding the largest logit may be so far below 0 that its inverse is infinite.
            let padded = if padding > 0 { padding as f32 * (-max).exp() } else { 0.0 };
            let normaliser = row.iter().sum::<f32>() + padded;
            sums.iter_mut().zip(&*row).for_each(|(sum, weight)| *sum += weight / normaliser);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_between_what_is_left_out() {
        let blocks = |first, last, prompt_len| -> Vec<Range<usize>> {
            BlockSums { block: 4, first, last, padded: false }.blocks(prompt_len).collect()
        };
        assert_eq!(blocks(1, 2, 12), [1..5, 5..9, 9..10]);
        assert_eq!(blocks(0, 0, 8), [0..4, 4..8]);
        assert_eq!(blocks(8, 4, 12), []);
        assert_eq!(blocks(8, 4, 3), []);
    }

    /// Regression: where all logits of a query are below -88, its sums were NaN.
    #[test]
    fn logits_may_lie_far_below_0() {
        let sums = BlockSums { block: 2, ..BlockSums::default() }.of(&mut [-200.0, -200.0, -90.0, -90.0], 2);
        assert_eq!(sums, [1.0, 1.0]);
    }

    #[test]
    fn every_query_gives_away_one_in_all() {
        let sums = BlockSums { block: 4, ..BlockSums::default() };
        let logits = [0.3f32, 80.0, -2.0, 1.0, 0.0, 5.0];
        let total: f32 = sums.of(&mut logits.clone(), 3).iter().sum();
        assert!((total - 2.0).abs() < 1e-6);
        // With a key of logit 0 and two queries that see four keys alike.
        let padded = BlockSums { padded: true, ..sums }.of(&mut [0.0; 6], 3);
        assert_eq!(padded, [2.0 * 0.25 + 0.25; 3]);
    }
}
