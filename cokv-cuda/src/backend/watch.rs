//! What a prefill records for compressors, on the device until somebody looks.

use std::sync::Arc;

use std::ops::Range;

use cokv_core::{HeadLayout, ObservationRequest, Pairs, Replayed, WindowSum};
use cokv_models::backend::host::Recorder;
use cokv_models::backend::{self, Layer, LayerSummaries, Replaying};
use cokv_models::cache::Store as _;
use cokv_models::kernel::attention::CacheView;

use crate::Result;
use crate::device::{Argument, Buffer, Device, Kind, Launch};
use crate::linear::Linear;
use crate::matrix::{Matrix, by_rows, elementwise, read, table};
use crate::store::DeviceStore;

/// Shared memory of blocks that add up over their threads.
pub const SUM_BYTES: usize = 256;

/// Keys that a block of `column_sums` has, and queries that it looks at together.
const KEYS: usize = 32;
const QUERIES: usize = 8;

/// Collects the observations of one prompt while it is prefilled.
pub struct Watch<D: Device> {
    device: Arc<D>,
    request: ObservationRequest,
    layout: HeadLayout,
    prompt_len: usize,
    seen: usize,
    /// Statistics, norms, blocks and what tokens see that are fed again: the host's work.
    recorder: Recorder,
    layers: Vec<LayerWatch<D::Buffer>>,
}

struct LayerWatch<B> {
    /// Queries after RoPE of the last tokens, `[window, query_heads * head_dim]`, and how many are there.
    window: Option<(Matrix<B>, usize)>,
    /// `[query_heads, prompt_len]`
    column_sums: Option<B>,
}

impl<D: Device> backend::Watch for Watch<D> {}

impl<D: Device> Watch<D> {
    /// Nothing recorded yet.
    pub fn new(device: &Arc<D>, layout: HeadLayout, request: ObservationRequest, prompt_len: usize) -> Self {
        let on_host = ObservationRequest {
            query_statistics: request.query_statistics,
            value_output_norms: request.value_output_norms,
            block_sums: request.block_sums.clone(),
            output_grams: request.output_grams,
            inputs: request.inputs,
            ..ObservationRequest::default()
        };
        let layers = (0..layout.layers).map(|_| LayerWatch { window: None, column_sums: None }).collect();
        let recorder = Recorder::new(on_host, layout, prompt_len);
        Self { device: Arc::clone(device), request, layout, prompt_len, seen: 0, recorder, layers }
    }

    /// Nothing recorded yet of a chunk of a prompt that is fed again.
    pub fn of_replay(device: &Arc<D>, layout: HeadLayout, replaying: Replaying) -> Self {
        let nothing = Self::new(device, layout, ObservationRequest::default(), replaying.prompt_len);
        Self { recorder: Recorder::of_replay(replaying, layout), ..nothing }
    }

    /// Nothing recorded yet of an answer, whose last `count` queries will be.
    pub fn of_answer(device: &Arc<D>, layout: HeadLayout, count: usize) -> Self {
        let nothing = Self::new(device, layout, ObservationRequest::default(), 0);
        Self { recorder: Recorder::of_answer(count, layout), ..nothing }
    }

    /// The last queries of an answer.
    pub fn last_queries(&self, layer: usize) -> Vec<f32> {
        self.recorder.last_queries(layer)
    }

    /// What a layer's chunk got of fed tokens.
    pub fn replayed(&mut self, layer: usize) -> Replayed {
        self.recorder.replayed(layer)
    }

    /// The next chunk begins after this many tokens.
    pub fn begin_chunk(&mut self, seen: usize) {
        self.seen = seen;
        self.recorder.begin_chunk(seen);
    }

    /// Queries and values of the row's tokens before RoPE.
    pub fn observe(
        &mut self,
        layer: usize,
        [inputs, queries, values]: [&Matrix<D::Buffer>; 3],
        output: &Linear<D::Buffer>,
    ) -> Result<()> {
        if self.recorder.wants_inputs() {
            self.recorder.inputs(layer, &inputs.download(self.device.as_ref())?, inputs.width);
        }
        if self.recorder.wants_output_grams(layer) {
            let weight = self.output_weight(output)?;
            self.recorder.output_grams(layer, &weight);
        }
        if self.request.query_statistics {
            self.recorder.queries_before_rope(layer, &queries.download(self.device.as_ref())?);
        }
        if self.request.value_output_norms {
            let norms = self.value_output_norms(values, output)?;
            self.recorder.value_output_norms(layer, &norms);
        }
        Ok(())
    }

    /// The output projection, `[hidden_size, query_heads * head_dim]`: what it makes of each unit vector.
    fn output_weight(&self, output: &Linear<D::Buffer>) -> Result<Vec<f32>> {
        let device = self.device.as_ref();
        let HeadLayout { query_heads, head_dim, .. } = self.layout;
        let unit = (0..head_dim * head_dim).map(|at| if at % (head_dim + 1) == 0 { 1.0 } else { 0.0 });
        let units = Matrix::upload(device, &unit.collect::<Vec<f32>>(), head_dim)?;
        let units = units.contiguous(device, output.operand().kind)?;
        let written = Matrix::new(device, head_dim, output.out_features(), Kind::F32)?;
        let width = query_heads * head_dim;
        let mut weight = vec![0.0; output.out_features() * width];
        for query_head in 0..query_heads {
            output.columns_times(device, query_head * head_dim, &units, &written)?;
            for (channel, column) in written.download(device)?.chunks_exact(output.out_features()).enumerate() {
                let place = query_head * head_dim + channel;
                column.iter().enumerate().for_each(|(row, number)| weight[row * width + place] = *number);
            }
        }
        Ok(weight)
    }

    /// Whether [`Watch::chunk_queries`] should be called.
    pub fn wants_chunk_queries(&self) -> bool {
        self.recorder.wants_chunk_queries()
    }

    /// The chunk's queries after RoPE, and the keys that each KV head then has.
    pub fn chunk_queries(&mut self, layer: usize, queries: &Matrix<D::Buffer>, keys: &[Vec<f32>]) -> Result<()> {
        let (queries, head_dim) = (queries.download(self.device.as_ref())?, self.layout.head_dim);
        self.recorder.chunk_queries(layer, &queries, |kv_head, Range { start, end }, behind: &mut Vec<f32>| {
            behind.extend_from_slice(&keys[kv_head][start * head_dim..end * head_dim]);
        });
        Ok(())
    }

    /// 1-norms of values behind the columns of the output projection that belong to each query head: `[query_heads, tokens]`.
    fn value_output_norms(&self, values: &Matrix<D::Buffer>, output: &Linear<D::Buffer>) -> Result<Vec<f32>> {
        let device = self.device.as_ref();
        let HeadLayout { query_heads, head_dim, .. } = self.layout;
        let values = values.contiguous(device, output.operand().kind)?;
        let written = Matrix::new(device, values.rows, output.out_features(), Kind::F32)?;
        let norms = Matrix::new(device, query_heads, values.rows, Kind::F32)?;
        for query_head in 0..query_heads {
            let of_head = values.columns(query_head / self.layout.group() * head_dim, head_dim);
            output.columns_times(device, query_head * head_dim, &of_head, &written)?;
            let launch = Launch { shared_bytes: SUM_BYTES, ..by_rows("absolute_sums", values.rows) };
            let arguments = [written.address().into(), written.width.into(), norms.row(query_head).into()];
            device.launch(launch, &arguments)?;
        }
        norms.download(device)
    }

    /// The row's queries after RoPE, `[tokens, query_heads * head_dim]` in f32, where the prompt's keys lie, and log-sum-exp of
    /// its attention.
    pub fn attention(
        &mut self,
        layer: Layer,
        queries: &Matrix<D::Buffer>,
        keys: &[u64],
        kind: Kind,
        log_sums: u64,
    ) -> Result<()> {
        let device = self.device.as_ref();
        if self.recorder.wants_answer_queries() {
            self.recorder.answer_queries(layer.index, &queries.download(device)?);
            return Ok(());
        }
        let HeadLayout { query_heads, head_dim, .. } = self.layout;
        let observed = &mut self.layers[layer.index];
        let window = self.request.last_queries().min(self.prompt_len);
        let from = (self.prompt_len - window).saturating_sub(self.seen).min(queries.rows);
        if window > 0 && from < queries.rows {
            let (recorded, filled) = match &mut observed.window {
                Some(window) => window,
                none => none.insert((Matrix::new(device, window, queries.width, Kind::F32)?, 0)),
            };
            let rows = queries.rows - from;
            device.copy(queries.row(from), recorded.row(*filled), rows * queries.width * 4)?;
            *filled += rows;
        }
        if !self.request.column_sums {
            return Ok(());
        }
        let sums = match &mut observed.column_sums {
            Some(sums) => sums,
            none => {
                let sums = none.insert(device.allocate(query_heads * self.prompt_len * 4)?);
                device.clear(sums.address(), sums.bytes())?;
                sums
            }
        };
        let keys_at = table(device, keys)?;
        let kernel = &kind.kernel("column_sums");
        let shared_bytes = ((KEYS + QUERIES) * (head_dim + 1) + QUERIES * KEYS) * 4;
        let blocks = [(self.seen + queries.rows).div_ceil(KEYS), query_heads];
        let arguments: [Argument; 12] = [
            keys_at.address().into(),
            queries.address().into(),
            log_sums.into(),
            sums.address().into(),
            queries.rows.into(),
            self.seen.into(),
            self.prompt_len.into(),
            layer.window.unwrap_or(0).into(),
            self.layout.group().into(),
            query_heads.into(),
            head_dim.into(),
            scale(head_dim).into(),
        ];
        device.launch(Launch { kernel, blocks, threads: 256, shared_bytes }, &arguments)
    }

    /// What compressors see of a layer; `prompt` holds the whole prompt in every head, and perhaps what follows it.
    pub fn summaries(&self, layer: Layer, prompt: &DeviceStore<D>) -> backend::Result<LayerSummaries> {
        let HeadLayout { query_heads, kv_heads, .. } = self.layout;
        let observed = &self.layers[layer.index];
        // What the host recorded needs no cache.
        let nothing = CacheView { kv_heads, slices: [None; cokv_models::cache::SLICES], own: &[] };
        let mut summaries = self.recorder.summaries(layer, nothing);
        if let Some((queries, recorded)) = &observed.window {
            let attention = self.window_attention(layer, queries, *recorded, prompt)?;
            for &sum in &self.request.window_sums {
                summaries.window_sums.push((sum, self.window_sum(sum, &attention)?));
            }
            summaries.window = self.request.window.min(*recorded);
            let (wanted, device) = (self.request.queries.min(*recorded), self.device.as_ref());
            if wanted > 0 {
                summaries.queries = queries.some_rows(recorded - wanted, wanted).download(device)?;
            }
            if summaries.window > 0 {
                summaries.window_attention = self.last_rows(attention, summaries.window)?;
            }
        }
        if let Some(sums) = &observed.column_sums {
            summaries.column_sums = read(self.device.as_ref(), sums.address(), query_heads * self.prompt_len)?;
        }
        if self.request.keys || self.request.values {
            for kv_head in 0..kv_heads {
                let Pairs { mut keys, mut values, .. } = prompt.read(self.layout.flat(layer.index, kv_head))?;
                keys.truncate(self.prompt_len * self.layout.head_dim);
                values.truncate(self.prompt_len * self.layout.head_dim);
                if self.request.keys {
                    summaries.keys.extend(keys);
                }
                if self.request.values {
                    summaries.values.extend(values);
                }
            }
        }
        Ok(summaries)
    }

    /// `[query_heads, window, prompt_len]`, which stays on the device.
    fn window_attention(
        &self,
        layer: Layer,
        queries: &Matrix<D::Buffer>,
        window: usize,
        prompt: &DeviceStore<D>,
    ) -> Result<Matrix<D::Buffer>> {
        let device = self.device.as_ref();
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = self.layout;
        let keys: Vec<u64> =
            (0..kv_heads).map(|kv_head| prompt.addresses(self.layout.flat(layer.index, kv_head))[0]).collect();
        let keys = table(device, &keys)?;
        let attention = Matrix::new(device, query_heads * window, self.prompt_len, Kind::F32)?;
        let kernel = &prompt.kind().kernel("window_attention");
        let arguments: [Argument; 10] = [
            keys.address().into(),
            queries.address().into(),
            attention.address().into(),
            window.into(),
            self.prompt_len.into(),
            layer.window.unwrap_or(0).into(),
            self.layout.group().into(),
            query_heads.into(),
            head_dim.into(),
            scale(head_dim).into(),
        ];
        let launch = Launch { kernel, blocks: [query_heads, window], threads: 256, shared_bytes: SUM_BYTES };
        device.launch(launch, &arguments)?;
        Ok(attention)
    }

    /// `[query_heads, prompt_len]` of window attention: a row where that has one for every query.
    fn window_sum(&self, sum: WindowSum, attention: &Matrix<D::Buffer>) -> Result<Vec<f32>> {
        let device = self.device.as_ref();
        let query_heads = self.layout.query_heads;
        let window = attention.rows / query_heads;
        let queries = sum.queries(self.prompt_len);
        let sums = Matrix::new(device, query_heads, self.prompt_len, Kind::F32)?;
        let arguments: [Argument; 6] = [
            attention.address().into(),
            sums.address().into(),
            window.into(),
            self.prompt_len.into(),
            (queries.start - (self.prompt_len - window)).into(),
            queries.len().into(),
        ];
        device.launch(elementwise("window_sums", query_heads, self.prompt_len), &arguments)?;
        sums.download(device)
    }

    /// The last rows of window attention of each query head, on the host: `[query_heads, window, prompt_len]`.
    fn last_rows(&self, attention: Matrix<D::Buffer>, window: usize) -> Result<Vec<f32>> {
        let device = self.device.as_ref();
        let query_heads = self.layout.query_heads;
        let recorded = attention.rows / query_heads;
        if window == recorded {
            return attention.download(device);
        }
        // Sums look further back.
        let last = Matrix::new(device, query_heads * window, self.prompt_len, Kind::F32)?;
        for query_head in 0..query_heads {
            let from = attention.row((query_head + 1) * recorded - window);
            device.copy(from, last.row(query_head * window), window * self.prompt_len * 4)?;
        }
        last.download(device)
    }
}

/// What scores are multiplied with: softmax is in base 2.
pub fn scale(head_dim: usize) -> f32 {
    std::f32::consts::LOG2_E / (head_dim as f32).sqrt()
}
