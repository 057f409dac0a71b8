//! Attention inside blocks of a prompt, computed when the last query of a block is there.

use std::ops::Range;

use cokv_core::{BlockSums, HeadLayout};

use crate::kernel::attention::stack_scaled;
use crate::kernel::matmul::multiply_transposed;
use crate::kernel::pool;

/// Sums of one layer, and the queries of blocks that are not there yet.
#[derive(Clone, Debug, Default)]
pub struct PendingBlocks {
    /// Each `[query_heads, prompt_len]` from the first block on.
    sums: Vec<(BlockSums, Vec<f32>)>,
    /// Queries after RoPE from a position on: `[tokens, query_heads, head_dim]`.
    queries: Vec<f32>,
    first: usize,
}

impl PendingBlocks {
    /// No query yet.
    pub fn new(asked: &[BlockSums]) -> Self {
        Self { sums: asked.iter().map(|&sums| (sums, Vec::new())).collect(), ..Self::default() }
    }

    /// The queries of the tokens behind `seen` others; `keys` puts those of a range of a KV head's tokens behind others.
    pub fn add(
        &mut self,
        layout: HeadLayout,
        prompt_len: usize,
        seen: usize,
        queries: &[f32],
        keys: impl Fn(usize, Range<usize>, &mut Vec<f32>) + Sync,
    ) {
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
        let (width, group) = (query_heads * head_dim, layout.group());
        self.queries.extend_from_slice(queries);
        let done = seen + queries.len() / width;
        let mut open = done;
        for (asked, all) in &mut self.sums {
            let asked = *asked;
            all.resize(query_heads * prompt_len, 0.0);
            let blocks: Vec<Range<usize>> = asked.blocks(prompt_len).filter(|block| block.end > seen).collect();
            open = blocks.iter().filter(|block| block.end > done).fold(open, |open, block| open.min(block.start));
            let complete: Vec<_> = blocks.into_iter().filter(|block| block.end <= done).collect();
            let (first, queries) = (self.first, &self.queries);
            let of_pieces = pool::map(kv_heads * complete.len(), |piece| {
                let (kv_head, block) = (piece % kv_heads, &complete[piece / kv_heads]);
                let (mut stacked, mut of_block) = (Vec::new(), Vec::new());
                stack_scaled(layout, queries, block.start - first..block.end - first, kv_head, 1.0, &mut stacked);
                keys(kv_head, block.clone(), &mut of_block);
                let columns = block.len();
                let mut logits = vec![0.0; columns * group * columns];
                multiply_transposed(&stacked, &of_block, head_dim, &mut logits);
                // Rows are `[queries, group]`.
                let of_member = |member: usize| -> Vec<f32> {
                    let rows = logits.chunks_exact(columns).skip(member).step_by(group);
                    asked.of(&mut rows.flatten().copied().collect::<Vec<f32>>(), columns)
                };
                (0..group).map(of_member).collect::<Vec<_>>()
            });
            for (piece, of_group) in of_pieces.into_iter().enumerate() {
                let (kv_head, block) = (piece % kv_heads, &complete[piece / kv_heads]);
                for (member, sums) in of_group.into_iter().enumerate() {
                    let head = &mut all[(kv_head * group + member) * prompt_len..][..prompt_len];
                    head[block.clone()].copy_from_slice(&sums);
                }
            }
        }
        self.queries.drain(..(open - self.first) * width);
        self.first = open;
    }

    /// What was found, `[query_heads, prompt_len]` each.
    pub fn sums(&self, layout: HeadLayout, prompt_len: usize) -> Vec<(BlockSums, Vec<f32>)> {
        let mut sums = self.sums.clone();
        sums.iter_mut().for_each(|(_, sums)| sums.resize(layout.query_heads * prompt_len, 0.0));
        sums
    }
}
