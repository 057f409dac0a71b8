//! One pass over rows whose caches lie in the host's memory.

use candle_core::{D, Device, Tensor};
use cokv_core::HeadLayout;

use super::{HostStore, Recorder};
use crate::backend::{Backend, Layer, Result, Span};
use crate::kernel::attention::{self, Attention, CacheView, SliceView, attend_into};
use crate::rope::Angles;

/// The rows of a pass and the buffers that its layers share.
pub struct Pass<'a, B: Backend> {
    layout: HeadLayout,
    spans: Vec<Span<'a, B>>,
    attention: Attention,
    /// Of each row, the tokens before its sliding windows, as [`attention::Row`] has them.
    hidden: Vec<Vec<usize>>,
}

impl<'a, B: Backend<Store = HostStore, Watch = Recorder>> Pass<'a, B> {
    pub(crate) fn new(layout: HeadLayout, mut spans: Vec<Span<'a, B>>) -> Self {
        for Span { seen, watches, .. } in &mut spans {
            watches.iter_mut().for_each(|watch| watch.begin_chunk(*seen));
        }
        let hidden = vec![Vec::new(); spans.len()];
        Self { layout, spans, attention: Attention::default(), hidden }
    }

    /// Whether any row is recorded.
    pub(crate) fn is_watched(&self) -> bool {
        self.spans.iter().any(|span| !span.watches.is_empty())
    }

    /// `output` is the output projection, `[hidden_size, query_heads * head_dim]`, with its width.
    pub(crate) fn observe(
        &mut self,
        layer: usize,
        [inputs, queries, values]: [&[f32]; 3],
        output: impl Fn() -> Result<(Vec<f32>, usize)>,
    ) -> Result<()> {
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = self.layout;
        let hidden_size = inputs.len() * query_heads * head_dim / queries.len();
        let mut start = 0;
        for Span { tokens, watches, .. } in &mut self.spans {
            let end = start + *tokens;
            for watch in watches {
                let width = query_heads * head_dim;
                watch.queries_before_rope(layer, &queries[start * width..end * width]);
                if watch.wants_inputs() {
                    watch.inputs(layer, &inputs[start * hidden_size..end * hidden_size], hidden_size);
                }
                if watch.wants_output_grams(layer) {
                    watch.output_grams(layer, &output()?.0);
                }
                if watch.wants_value_output_norms() {
                    let width = kv_heads * head_dim;
                    let norms = value_output_norms(self.layout, &values[start * width..end * width], output()?)?;
                    watch.value_output_norms(layer, &norms);
                }
            }
            start = end;
        }
        Ok(())
    }

    /// Queries, keys and values are `[tokens, heads, head_dim]` of all rows, before RoPE; the result is as wide as the queries.
    pub(crate) fn attend(
        &mut self,
        layer: Layer,
        angles: &Angles,
        queries: &mut [f32],
        keys: &mut [f32],
        values: &[f32],
    ) -> Vec<f32> {
        let Layer { index: layer, window } = layer;
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = self.layout;
        angles.rotate(queries, self.layout, query_heads);
        angles.rotate(keys, self.layout, kv_heads);
        let (queries, keys) = (&*queries, &*keys);
        let mut start = 0;
        for Span { tokens, own, .. } in &mut self.spans {
            let end = start + *tokens * kv_heads * head_dim;
            own.push(layer, &keys[start..end], &values[start..end]);
            start = end;
        }
        let mut rest = queries;
        let mut rows = Vec::with_capacity(self.spans.len());
        for (span, hidden) in self.spans.iter().zip(&mut self.hidden) {
            span.hide(self.layout, layer, window, hidden);
            let (queries, others) = rest.split_at(span.tokens * query_heads * head_dim);
            rest = others;
            rows.push(attention::Row { queries, cache: span.view(kv_heads), hidden });
        }
        attend_into(self.layout, layer, &rows, &mut self.attention);
        drop(rows);
        let (mut first, mut rest) = (0, queries);
        for (span, hidden) in self.spans.iter_mut().zip(&self.hidden) {
            let (queries, others) = rest.split_at(span.tokens * query_heads * head_dim);
            rest = others;
            let last = first + span.tokens * query_heads;
            let mut watches = std::mem::take(&mut span.watches);
            for watch in &mut watches {
                let row = attention::Row { queries, cache: span.view(kv_heads), hidden };
                watch.attention(layer, &row, &self.attention.log_sum_exp[first..last]);
            }
            span.watches = watches;
            first = last;
        }
        std::mem::take(&mut self.attention.output)
    }
}

impl<B: Backend<Store = HostStore>> Span<'_, B> {
    /// Its cache as the kernels read it.
    pub(crate) fn view(&self, kv_heads: usize) -> CacheView<'_> {
        let slices = self.slices.map(|slice| slice.map(|(store, rows)| SliceView { heads: store.heads(), rows }));
        CacheView { kv_heads, slices, own: self.own.heads() }
    }

    /// How many tokens of each KV head lie before the window of each new token: `[kv_heads, tokens]`. Nothing where none does.
    fn hide(&self, layout: HeadLayout, layer: usize, window: Option<usize>, hidden: &mut Vec<usize>) {
        hidden.clear();
        for kv_head in 0..layout.kv_heads {
            hidden.extend(self.hidden(layout.flat(layer, kv_head), window).into_iter().flatten());
        }
    }
}

/// 1-norms of values `[tokens, kv_heads, head_dim]` behind the columns of the output projection that belong to each query
/// head: `[query_heads, tokens]`.
fn value_output_norms(layout: HeadLayout, values: &[f32], (output, width): (Vec<f32>, usize)) -> Result<Vec<f32>> {
    let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
    let tokens = values.len() / (kv_heads * head_dim);
    let values = Tensor::from_slice(values, (tokens, kv_heads, head_dim), &Device::Cpu)?;
    let rows = output.len() / width;
    let output = Tensor::from_vec(output, (rows, width), &Device::Cpu)?;
    let mut norms = Vec::with_capacity(query_heads * tokens);
    for query_head in 0..query_heads {
        let of_head = output.narrow(1, query_head * head_dim, head_dim)?;
        let values = values.narrow(1, query_head / layout.group(), 1)?.squeeze(1)?.contiguous()?;
        let written = values.matmul(&of_head.t()?.contiguous()?)?;
        norms.extend(written.abs()?.sum(D::Minus1)?.to_vec1::<f32>()?);
    }
    Ok(norms)
}
