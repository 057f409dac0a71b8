//! What tokens that are fed again see of a prompt, on the host.

use std::ops::Range;

use cokv_core::{HeadLayout, Replayed};

use crate::backend::Replaying;
use crate::kernel::attention::{max_row, stack_scaled};
use crate::kernel::matmul::multiply_transposed;
use crate::kernel::pool;
use crate::kernel::simd::exp_row;

/// Fed tokens of one piece of work.
const QUERIES: usize = 64;

/// Collects what the fed tokens of one chunk give to the prompt's.
pub struct ReplayRecorder {
    layout: HeadLayout,
    replaying: Replaying,
    /// Tokens fed before those of the current pass.
    fed: usize,
    /// Norms of the inputs of the pass' tokens, of the layer at hand.
    norms: Vec<f32>,
    /// Of every layer; of the chunk's tokens alone.
    layers: Vec<Replayed>,
}

impl ReplayRecorder {
    /// Nothing recorded yet.
    pub fn new(replaying: Replaying, layout: HeadLayout) -> Self {
        let nothing = || {
            let weights = vec![0.0; layout.query_heads * replaying.keys.len()];
            Replayed { weights_by_input: weights.clone(), weights, queries: Vec::new() }
        };
        let layers = (0..layout.layers).map(|_| nothing()).collect();
        Self { layout, replaying, fed: 0, norms: Vec::new(), layers }
    }

    /// The next tokens are behind so many, the prompt's among them.
    pub fn begin_pass(&mut self, seen: usize) {
        self.fed = seen - self.replaying.prompt_len;
    }

    /// Inputs of a layer's projections, `[tokens, width]`.
    pub fn inputs(&mut self, inputs: &[f32], width: usize) {
        let norm = |input: &[f32]| input.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
        self.norms = inputs.chunks_exact(width).map(norm).collect();
    }

    /// Queries of the pass' tokens after RoPE, `[tokens, query_heads, head_dim]`; `keys` puts those of a range of a KV head's
    /// tokens, the fed ones included, behind others.
    pub fn attention(
        &mut self,
        layer: usize,
        queries: &[f32],
        keys: impl Fn(usize, Range<usize>, &mut Vec<f32>) + Sync,
    ) {
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = self.layout;
        let (group, width) = (self.layout.group(), query_heads * head_dim);
        let tokens = queries.len() / width;
        let Replaying { prompt_len, sinks, keys: chunk, kept } = &self.replaying;
        let blocks = tokens.div_ceil(QUERIES);
        let (fed, layout, norms) = (self.fed, self.layout, &self.norms);
        // Of each piece, the largest weight of each chunk token: `[group, chunk]`, plain and by input.
        let of_pieces = pool::map(kv_heads * blocks, |piece| {
            let (kv_head, block) = (piece / blocks, piece % blocks);
            let ours = block * QUERIES..tokens.min((block + 1) * QUERIES);
            let mut seen = Vec::new();
            for range in [0..*sinks, chunk.clone(), *prompt_len..prompt_len + fed + ours.end] {
                keys(kv_head, range, &mut seen);
            }
            let columns = seen.len() / head_dim;
            let mut stacked = Vec::new();
            stack_scaled(layout, queries, ours.clone(), kv_head, (head_dim as f32).sqrt().recip(), &mut stacked);
            let mut logits = vec![0.0; ours.len() * group * columns];
            multiply_transposed(&stacked, &seen, head_dim, &mut logits);
            let mut largest = [(); 2].map(|()| vec![0.0f32; group * chunk.len()]);
            for (index, row) in logits.chunks_exact_mut(columns).enumerate() {
                let (token, member) = (ours.start + index / group, index % group);
                let row = &mut row[..columns - (ours.end - 1 - token)];
                let sum = exp_row(row, max_row(row));
                for (largest, scale) in largest.iter_mut().zip([1.0, norms[token].recip()]) {
                    let scale = if scale.is_finite() { scale / sum } else { 0.0 };
                    let largest = &mut largest[member * chunk.len()..][..chunk.len()];
                    largest.iter_mut().zip(&row[*sinks..]).for_each(|(most, weight)| *most = most.max(weight * scale));
                }
            }
            largest
        });
        let Replayed { weights, weights_by_input, queries: reference } = &mut self.layers[layer];
        for (piece, [plain, by_input]) in of_pieces.iter().enumerate() {
            let first = piece / blocks * group * chunk.len();
            for (all, of_piece) in [(&mut *weights, plain), (&mut *weights_by_input, by_input)] {
                let all = &mut all[first..first + of_piece.len()];
                all.iter_mut().zip(of_piece).for_each(|(most, weight)| *most = most.max(*weight));
            }
        }
        let ours = kept.iter().filter(|&&token| (fed..fed + tokens).contains(&token)).map(|token| token - fed);
        ours.for_each(|token| reference.extend_from_slice(&queries[token * width..(token + 1) * width]));
    }

    /// What a layer's chunk got, `[query_heads, chunk]`, and the queries that were kept, `[queries, query_heads, head_dim]`.
    pub fn of_layer(&mut self, layer: usize) -> Replayed {
        std::mem::take(&mut self.layers[layer])
    }
}
