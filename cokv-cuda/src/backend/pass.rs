//! One pass over rows whose caches lie on a device: new keys and values are appended, every token attends to its own cache.

use std::ops::Range;

use cokv_core::HeadLayout;
use cokv_models::backend::{Layer, Projected, SharedRows, Span};
use cokv_models::cache::Store as _;

use super::watch::scale;
use super::{Angles, Cuda};
use crate::device::{Argument, Buffer, Device, Kind, Launch};
use crate::kernels;
use crate::matrix::{Matrix, by_rows, table};
use crate::plan::tables::{Append, Item};
use crate::plan::{Head, Kernel, Plan, Shape};
use crate::store::DeviceStore;
use crate::{CudaError, Result};

/// The rows of a pass.
pub struct Pass<'a, D: Device> {
    layout: HeadLayout,
    spans: Vec<Span<'a, Cuda<D>>>,
    kind: Kind,
    shape: Shape,
    plan: Plan,
    /// Of each token, its row, then tokens of its row before it.
    rows: D::Buffer,
    /// Of the layer that attends: log-sum-exp in base 2, `[tokens, query_heads]`.
    log_sums: D::Buffer,
}

/// What a layer will do, on the device. It is planned while the card works on what comes before.
struct Tables<B> {
    /// All of them, one after the other.
    _buffer: B,
    items: u64,
    joins: u64,
    tokens: u64,
    hidden: u64,
    /// `[rows, kv_heads]`
    appends: u64,
    /// Partial results, `[…, head_dim + 2]`.
    partials: B,
}

impl<'a, D: Device> Pass<'a, D> {
    /// Makes room for the new tokens.
    pub fn new(device: &D, layout: HeadLayout, mut spans: Vec<Span<'a, Cuda<D>>>) -> Result<Self> {
        let kind = spans.first().map_or(Kind::F32, |span| span.own.kind());
        for span in &mut spans {
            if span.own.kind() != kind {
                return Err(CudaError::Unsupported(
                    "caches of several formats are in one pass: give all the same".into(),
                ));
            }
            span.own.make_room(span.tokens)?;
            let seen = span.seen;
            span.watches.iter_mut().for_each(|watch| watch.begin_chunk(seen));
        }
        let shape = Shape {
            group: layout.group(),
            kv_heads: layout.kv_heads,
            enough_items: device.blocks_at_once(),
            fast: kind != Kind::F32 && kernels::is_fast(layout.head_dim),
        };
        let plan = Plan::new(spans.iter().map(|span| span.tokens).collect());
        let of_tokens = |row: usize, tokens: usize| (0..tokens).map(move |place| (row as u32, place as u32));
        let of_tokens = plan.rows().iter().enumerate().flat_map(|(row, &tokens)| of_tokens(row, tokens));
        let (rows, places): (Vec<u32>, Vec<u32>) = of_tokens.unzip();
        let log_sums = device.allocate(rows.len() * layout.query_heads * 4)?;
        let rows = table(device, &[rows, places].concat())?;
        Ok(Self { layout, spans, kind, shape, plan, rows, log_sums })
    }

    /// Plans a layer.
    fn tables(&mut self, device: &D, layer: Layer) -> Result<Tables<D::Buffer>> {
        let Self { layout, spans, kind, shape, plan, .. } = self;
        let bytes = (layout.head_dim * kind.bytes()) as u64;
        let (mut heads, mut appends) = (Vec::new(), Vec::new());
        plan.hidden.clear();
        for span in spans.iter() {
            for kv_head in 0..layout.kv_heads {
                let flat = layout.flat(layer.index, kv_head);
                let hidden = span.hidden(flat, layer.window).map(|hidden| {
                    let place = plan.hidden.len() as u32;
                    plan.hidden.extend(hidden.map(|tokens| tokens as u32));
                    place
                });
                heads.push(Head { hidden, ..head(span, flat, bytes) });
                let [keys, values] =
                    span.own.addresses(flat).map(|address| address + span.own.rows(flat) as u64 * bytes);
                appends.push(Append { keys, values });
            }
        }
        plan.layer(shape, &heads);
        let tables: [&[u8]; 5] = [
            bytemuck::cast_slice(&plan.items),
            bytemuck::cast_slice(&plan.joins),
            bytemuck::cast_slice(&plan.tokens),
            bytemuck::cast_slice(&plan.hidden),
            bytemuck::cast_slice(&appends),
        ];
        let mut all = Vec::with_capacity(tables.iter().map(|table| table.len() + 16).sum());
        let starts = tables.map(|table| {
            all.resize(all.len().next_multiple_of(16), 0);
            all.extend_from_slice(table);
            (all.len() - table.len()) as u64
        });
        let buffer = table(device, &all)?;
        let [items, joins, tokens, hidden, appends] = starts.map(|start| buffer.address() + start);
        let partials = device.allocate(plan.partials * (layout.head_dim + 2) * 4)?;
        Ok(Tables { _buffer: buffer, items, joins, tokens, hidden, appends, partials })
    }

    /// Rows that are recorded, with the first of their tokens in the pass.
    pub fn watched(&mut self) -> impl Iterator<Item = (usize, &mut Span<'a, Cuda<D>>)> {
        let mut first = 0;
        let with_first = self.spans.iter_mut().map(move |span| {
            first += span.tokens;
            (first - span.tokens, span)
        });
        with_first.filter(|(_, span)| !span.watches.is_empty())
    }

    /// Turns, appends, attends, and lets watches see. The result is of the kind that the next product takes.
    pub fn attend(
        &mut self,
        device: &D,
        layer: Layer,
        projected: Projected<Cuda<D>>,
        angles: &Angles<D::Buffer>,
        operand: Kind,
    ) -> Result<Matrix<D::Buffer>> {
        let query_heads = self.layout.query_heads;
        let tables = self.tables(device, layer)?;
        let (rows, width) = (projected.queries.rows, query_heads * self.layout.head_dim);
        let [fast @ .., plain] = self.plan.of_kernels.clone();
        let watched = self.spans.iter().any(|span| !span.watches.is_empty());
        let matrix = |wanted: bool, kind| wanted.then(|| Matrix::new(device, rows, width, kind)).transpose();
        let wide = matrix(watched || !plain.is_empty(), Kind::F32)?;
        let narrow = matrix(fast.iter().any(|items| !items.is_empty()), self.kind)?;
        self.turn_append(device, &tables, &projected, angles, [&narrow, &wide])?;
        let output = Matrix::new(device, rows, width, operand)?;
        for (kernel, items) in Kernel::ALL.into_iter().zip(&self.plan.of_kernels) {
            let queries = if kernel == Kernel::Plain { &wide } else { &narrow };
            if let Some(queries) = queries.as_ref().filter(|_| !items.is_empty()) {
                self.run(device, kernel, items, &tables, queries, &output)?;
            }
        }
        self.join(device, &tables, &output)?;
        for span in &mut self.spans {
            span.own.appended(layer.index, span.tokens);
        }
        if let Some(wide) = wide.filter(|_| watched) {
            let (log_sums, layout) = (self.log_sums.address(), self.layout);
            for (first, span) in self.watched() {
                let queries = wide.some_rows(first, span.tokens);
                let log_sums = log_sums + (first * query_heads * 4) as u64;
                let own: Vec<u64> = (0..layout.kv_heads)
                    .map(|kv_head| span.own.addresses(layout.flat(layer.index, kv_head))[0])
                    .collect();
                let kind = span.own.kind();
                let mut watches = std::mem::take(&mut span.watches);
                for watch in &mut watches {
                    watch.attention(layer, &queries, &own, kind, log_sums)?;
                    if !watch.wants_chunk_queries() {
                        continue;
                    }
                    let heads = (0..layout.kv_heads).map(|kv_head| keys_of(span, layout.flat(layer.index, kv_head)));
                    watch.chunk_queries(layer.index, &queries, &heads.collect::<Result<Vec<_>>>()?)?;
                }
                span.watches = watches;
            }
        }
        Ok(output)
    }

    /// Turns queries and keys, and appends keys and values.
    fn turn_append(
        &self,
        device: &D,
        tables: &Tables<D::Buffer>,
        projected: &Projected<Cuda<D>>,
        angles: &Angles<D::Buffer>,
        to: [&Option<Matrix<D::Buffer>>; 2],
    ) -> Result<()> {
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = self.layout;
        let Projected { queries, keys, values } = projected;
        let places = self.rows.address() + 4 * self.plan.total() as u64;
        let [narrow, wide] = to.map(|to| to.as_ref().map_or(0, Matrix::address));
        let arguments: [Argument; 17] = [
            queries.address().into(),
            keys.address().into(),
            values.address().into(),
            queries.stride.into(),
            keys.stride.into(),
            values.stride.into(),
            angles.cosines.address().into(),
            angles.sines.address().into(),
            angles.neighbours.into(),
            tables.appends.into(),
            self.rows.address().into(),
            places.into(),
            narrow.into(),
            wide.into(),
            query_heads.into(),
            kv_heads.into(),
            head_dim.into(),
        ];
        device.launch(by_rows(&self.kind.kernel("turn_append"), queries.rows), &arguments)
    }

    /// Runs the items of one kernel.
    fn run(
        &self,
        device: &D,
        kernel: Kernel,
        items: &Range<usize>,
        tables: &Tables<D::Buffer>,
        queries: &Matrix<D::Buffer>,
        output: &Matrix<D::Buffer>,
    ) -> Result<()> {
        let head_dim = self.layout.head_dim;
        let first = tables.items + (items.start * size_of::<Item>()) as u64;
        let mut arguments: Vec<Argument> = vec![first.into(), tables.tokens.into()];
        if kernel == Kernel::Plain {
            arguments.push(tables.hidden.into());
        }
        arguments.push(queries.address().into());
        arguments.extend(self.results(tables, output));
        if kernel == Kernel::Plain {
            arguments.push(head_dim.into());
        }
        arguments.push(scale(head_dim).into());
        // `attend_plain` has a block for each query.
        let rows = if kernel == Kernel::Plain { kernel.queries() } else { 1 };
        let (name, shared_bytes) = (kernel.name(self.kind, head_dim), kernel.shared_bytes(head_dim));
        device.launch(Launch { kernel: &name, blocks: [items.len(), rows], threads: 128, shared_bytes }, &arguments)
    }

    /// Where partial and whole results go, and whose they are: arguments of all kernels of attention.
    fn results(&self, tables: &Tables<D::Buffer>, output: &Matrix<D::Buffer>) -> [Argument; 6] {
        [
            tables.partials.address().into(),
            output.address().into(),
            self.log_sums.address().into(),
            output.kind.into(),
            self.layout.group().into(),
            self.layout.query_heads.into(),
        ]
    }

    /// Joins what items of parts of keys made.
    fn join(&self, device: &D, tables: &Tables<D::Buffer>, output: &Matrix<D::Buffer>) -> Result<()> {
        if self.plan.joins.is_empty() {
            return Ok(());
        }
        let mut arguments: Vec<Argument> = vec![tables.joins.into(), tables.tokens.into()];
        arguments.extend(self.results(tables, output));
        arguments.push(self.layout.head_dim.into());
        let launch = Launch { kernel: "join", blocks: [self.plan.joins.len(), 1], threads: 128, shared_bytes: 0 };
        device.launch(launch, &arguments)
    }
}

/// Where a head of a row's cache lies.
fn head<D: Device>(span: &Span<'_, Cuda<D>>, flat: usize, bytes: u64) -> Head {
    let mut head = Head::default();
    let mut before = 0;
    for (part, slice) in span.slices.iter().enumerate() {
        if let Some((store, rows)) = slice {
            let (store, rows): SharedRows<'_, DeviceStore<D>> = (store, rows);
            let first = store.addresses(flat).map(|address| address + rows[flat].start as u64 * bytes);
            [head.keys[part], head.values[part]] = first.map(|address| address.wrapping_sub(before * bytes));
            before += rows[flat].len() as u64;
        }
        head.until[part] = before as u32;
    }
    let own = span.own.addresses(flat).map(|address| address.wrapping_sub(before * bytes));
    [head.keys[2], head.values[2]] = own;
    head.keys_before = before as u32 + span.own.rows(flat) as u32;
    head
}

/// Keys that a KV head holds, on the host: what its row shares, then its own.
fn keys_of<D: Device>(span: &Span<'_, Cuda<D>>, flat: usize) -> Result<Vec<f32>> {
    let mut keys = Vec::new();
    for (store, rows) in span.slices.iter().flatten() {
        keys.extend(store.some_keys(flat, rows[flat].clone())?);
    }
    keys.extend(span.own.some_keys(flat, 0..span.own.rows(flat))?);
    Ok(keys)
}
