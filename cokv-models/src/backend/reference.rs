//! Plain f64, one loop after the other: the oracle that all other backends are held against. Nobody runs a model on it.

use std::ops::Range;

use cokv_core::{BlockSums, Format, HeadLayout, ObservationRequest, Pairs, QueryStatistics, Replayed};

use super::host::{self, HostStore};
use super::{Backend, Layer, LayerSummaries, Observed, Projected, Replaying, Result, Span, Watch};
use crate::ask::{Answer, Ask};
use crate::cache::Store;
use crate::kernel::attention::CacheView;
use crate::kernel::rows::HeadRows;
use crate::rope::Angles;
use crate::weights::{Stored, WeightType};

/// Plain f64. Caches are stored in their format, so that what is rounded there is rounded here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// `[rows, width]` numbers, row-major.
pub struct Matrix {
    numbers: Vec<f64>,
    width: usize,
}

/// `y = x wᵀ + b`
pub struct Linear {
    /// `[out_features, in_features]`
    weight: Vec<f64>,
    in_features: usize,
    bias: Option<Vec<f64>>,
}

/// All queries of a prompt, from which everything can be computed when it is asked for.
pub struct Record {
    layout: HeadLayout,
    request: ObservationRequest,
    /// Where tokens of a prompt are fed again.
    replaying: Option<Replaying>,
    layers: Vec<LayerRecord>,
}

#[derive(Clone, Default)]
struct LayerRecord {
    /// Before RoPE, `[tokens, query_heads, head_dim]`.
    queries: Vec<f64>,
    /// After RoPE.
    turned: Vec<f64>,
    /// `[tokens, query_heads]`
    value_output_norms: Vec<f64>,
    /// `[query_heads, head_dim, head_dim]`
    output_grams: Vec<f64>,
    /// `[tokens, hidden_size]`
    inputs: Vec<f64>,
    /// Of every fed token, what it gives to the chunk's tokens: `[tokens, query_heads, chunk]`.
    fed: Vec<Vec<f64>>,
}

impl Watch for Record {}

impl Record {
    /// `[queries, query_heads, head_dim]` after RoPE.
    fn last_queries(&self, layer: usize) -> Vec<f32> {
        let turned = &self.layers[layer].turned;
        let numbers = self.request.queries * self.layout.query_heads * self.layout.head_dim;
        narrow(&turned[turned.len().saturating_sub(numbers)..])
    }
}

/// The rows of a pass.
pub struct Pass<'a> {
    layout: HeadLayout,
    spans: Vec<Span<'a, Reference>>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().copied().map(f64::from).collect()
}

fn narrow(numbers: &[f64]) -> Vec<f32> {
    numbers.iter().map(|&x| x as f32).collect()
}

impl Layer {
    /// Whether a token sees another.
    fn sees(self, query: usize, key: usize) -> bool {
        key <= query && self.window.is_none_or(|window| query - key < window)
    }
}

/// Softmax attention of a query to those of a head's keys that are visible: 0 to others.
fn attention(query: &[f64], keys: &[f64], visible: impl Iterator<Item = bool>) -> Vec<f64> {
    biased_attention(query, keys, std::iter::repeat(0.0), visible)
}

/// The same where something is added to the logit of each key.
fn biased_attention(
    query: &[f64],
    keys: &[f64],
    biases: impl Iterator<Item = f32>,
    visible: impl Iterator<Item = bool>,
) -> Vec<f64> {
    let dim = query.len();
    let score = |((key, bias), visible)| match visible {
        true => dot(query, key) / (dim as f64).sqrt() + f64::from(bias),
        false => f64::NEG_INFINITY,
    };
    let scores: Vec<f64> = keys.chunks_exact(dim).zip(biases).zip(visible).map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// Keys and values that a head holds.
fn held(cache: CacheView<'_>, layer: usize, kv_head: usize, head_dim: usize) -> [Vec<f64>; 2] {
    let head = cache.head(layer, kv_head);
    [HeadRows::keys, HeadRows::values].map(|part| wide(head.load(part, 0..head.tokens(), head_dim, &mut Vec::new())))
}

/// Turns `[tokens, heads * head_dim]` by the tokens' positions.
fn turn(x: &mut Matrix, angles: &Angles, layout: HeadLayout) {
    for (token, vectors) in x.numbers.chunks_exact_mut(x.width).enumerate() {
        for head in vectors.chunks_exact_mut(layout.head_dim) {
            for pair in 0..layout.head_dim / 2 {
                let ((first, second), (cos, sin)) = (angles.elements(pair), angles.of(token, pair));
                let (a, b, cos, sin) = (head[first], head[second], f64::from(cos), f64::from(sin));
                (head[first], head[second]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    }
}

impl Linear {
    fn forward(&self, x: &Matrix) -> Matrix {
        let row = |x: &[f64]| -> Vec<f64> {
            let products = self.weight.chunks_exact(self.in_features).map(|weight| dot(x, weight));
            match &self.bias {
                None => products.collect(),
                Some(bias) => products.zip(bias).map(|(y, bias)| y + bias).collect(),
            }
        };
        let numbers = x.numbers.chunks_exact(x.width).flat_map(row).collect();
        Matrix { numbers, width: self.weight.len() / self.in_features }
    }
}

impl Backend for Reference {
    type Matrix = Matrix;
    type Linear = Linear;
    type Store = HostStore;
    type Watch = Record;
    type Pass<'a> = Pass<'a>;
    type Angles = Angles;

    fn name(&self) -> &'static str {
        "reference"
    }

    fn free_bytes(&self) -> Option<u64> {
        host::free_bytes()
    }

    fn matrix(&self, numbers: Vec<f32>, width: usize) -> Result<Matrix> {
        Ok(Matrix { numbers: wide(&numbers), width })
    }

    fn numbers(&self, x: &Matrix) -> Result<Vec<f32>> {
        Ok(narrow(&x.numbers))
    }

    fn load(&self, weight: Stored, bias: Option<Vec<f32>>, _held: WeightType) -> Result<Linear> {
        let (_, in_features) = weight.matrix()?;
        Ok(Linear { weight: wide(&weight.dense()?), in_features, bias: bias.map(|bias| wide(&bias)) })
    }

    fn bytes(&self, linear: &Linear) -> usize {
        size_of_val(linear.weight.as_slice())
    }

    fn embed(&self, table: &Linear, tokens: &[u32]) -> Result<Matrix> {
        let width = table.in_features;
        let row = |&token: &u32| &table.weight[token as usize * width..(token as usize + 1) * width];
        Ok(Matrix { numbers: tokens.iter().flat_map(row).copied().collect(), width })
    }

    fn linear<const N: usize>(&self, layers: [&Linear; N], x: &Matrix) -> Result<[Matrix; N]> {
        Ok(layers.map(|layer| layer.forward(x)))
    }

    fn rms_norm(&self, x: &Matrix, weight: &Matrix, epsilon: f32) -> Result<Matrix> {
        let length = weight.numbers.len();
        let norm = |x: &[f64]| -> Vec<f64> {
            let scale = (dot(x, x) / length as f64 + f64::from(epsilon)).sqrt();
            x.iter().zip(&weight.numbers).map(|(x, weight)| x / scale * weight).collect()
        };
        Ok(Matrix { numbers: x.numbers.chunks_exact(length).flat_map(norm).collect(), width: x.width })
    }

    fn silu_times(&self, gate: &Matrix, up: &Matrix) -> Result<Matrix> {
        let numbers = gate.numbers.iter().zip(&up.numbers).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up);
        Ok(Matrix { numbers: numbers.collect(), width: gate.width })
    }

    fn add_linear(&self, a: Matrix, layer: &Linear, x: &Matrix) -> Result<Matrix> {
        let y = layer.forward(x);
        Ok(Matrix { numbers: a.numbers.iter().zip(&y.numbers).map(|(a, b)| a + b).collect(), width: a.width })
    }

    fn angles(&self, angles: Angles) -> Result<Angles> {
        Ok(angles)
    }

    fn rows(&self, x: &Matrix, rows: &[usize]) -> Result<Matrix> {
        let row = |&row: &usize| &x.numbers[row * x.width..(row + 1) * x.width];
        Ok(Matrix { numbers: rows.iter().flat_map(row).copied().collect(), width: x.width })
    }

    fn store(&self, layout: HeadLayout, format: Format, tokens: usize) -> Result<HostStore> {
        Ok(HostStore::with_capacity(layout, format, tokens))
    }

    fn watch(&self, layout: HeadLayout, request: ObservationRequest, _prompt_len: usize) -> Record {
        Record { layout, request, replaying: None, layers: vec![LayerRecord::default(); layout.layers] }
    }

    fn watch_replay(&self, layout: HeadLayout, replaying: Replaying) -> Record {
        Record { replaying: Some(replaying), ..self.watch(layout, ObservationRequest::default(), 0) }
    }

    fn watch_queries(&self, layout: HeadLayout, count: usize) -> Record {
        self.watch(layout, ObservationRequest { queries: count, ..Default::default() }, 0)
    }

    fn last_queries(&self, watch: &Record, layer: usize) -> Vec<f32> {
        watch.last_queries(layer)
    }

    fn pass<'a>(&self, layout: HeadLayout, spans: Vec<Span<'a, Self>>) -> Result<Pass<'a>> {
        Ok(Pass { layout, spans })
    }

    fn observe(&self, pass: &mut Pass<'_>, layer: usize, observed: Observed<'_, Self>) -> Result<()> {
        let Observed { inputs, queries, values, output } = observed;
        let HeadLayout { query_heads, head_dim, .. } = pass.layout;
        let mut token = 0;
        for Span { tokens, watches, .. } in &mut pass.spans {
            let of_row = token..token + *tokens;
            for (watch, token) in (0..watches.len()).flat_map(|watch| of_row.clone().map(move |token| (watch, token))) {
                let record = &mut watches[watch].layers[layer];
                record.inputs.extend(&inputs.numbers[token * inputs.width..(token + 1) * inputs.width]);
                if record.output_grams.is_empty() {
                    let product = |head: usize, a: usize, b: usize| -> f64 {
                        let rows = output.weight.chunks_exact(output.in_features);
                        rows.map(|row| row[head * head_dim + a] * row[head * head_dim + b]).sum()
                    };
                    let places = (0..query_heads).flat_map(|head| (0..head_dim * head_dim).map(move |at| (head, at)));
                    record.output_grams.extend(places.map(|(head, at)| product(head, at / head_dim, at % head_dim)));
                }
                record.queries.extend(&queries.numbers[token * queries.width..(token + 1) * queries.width]);
                for query_head in 0..query_heads {
                    let value = token * values.width + query_head / pass.layout.group() * head_dim;
                    let value = &values.numbers[value..value + head_dim];
                    let written = output.weight.chunks_exact(output.in_features);
                    let columns = query_head * head_dim..(query_head + 1) * head_dim;
                    record.value_output_norms.push(written.map(|row| dot(&row[columns.clone()], value).abs()).sum());
                }
            }
            token += *tokens;
        }
        Ok(())
    }

    fn attend(&self, pass: &mut Pass<'_>, layer: Layer, projected: Projected<Self>, angles: &Angles) -> Result<Matrix> {
        let Projected { mut queries, mut keys, values } = projected;
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = pass.layout;
        turn(&mut queries, angles, pass.layout);
        turn(&mut keys, angles, pass.layout);
        let group = pass.layout.group();
        let (keys, values) = (narrow(&keys.numbers), narrow(&values.numbers));
        let mut attended = vec![0.0; queries.numbers.len()];
        let mut first = 0;
        for span in &mut pass.spans {
            let numbers = first * kv_heads * head_dim..(first + span.tokens) * kv_heads * head_dim;
            span.own.push(layer.index, &keys[numbers.clone()], &values[numbers]);
            let turned = &queries.numbers[first * queries.width..(first + span.tokens) * queries.width];
            let mut watches = std::mem::take(&mut span.watches);
            for watch in &mut watches {
                watch.layers[layer.index].turned.extend(turned);
                if let Record { replaying: Some(replaying), layers, .. } = &mut *watch {
                    for (token, queries) in turned.chunks_exact(queries.width).enumerate() {
                        let seen = span.seen + token + 1;
                        let head = |query_head: usize| {
                            let kv_head = query_head / group;
                            let [keys, _] = held(span.view(kv_heads), layer.index, kv_head, head_dim);
                            let query = &queries[query_head * head_dim..(query_head + 1) * head_dim];
                            replaying.weights(query, &keys, seen)
                        };
                        layers[layer.index].fed.push((0..query_heads).flat_map(head).collect());
                    }
                }
            }
            span.watches = watches;
            for kv_head in 0..kv_heads {
                let [keys, values] = held(span.view(kv_heads), layer.index, kv_head, head_dim);
                let flat = pass.layout.flat(layer.index, kv_head);
                let head = span.view(kv_heads).head(layer.index, kv_head);
                let mut biases = vec![0.0; head.tokens()];
                head.add_biases(0..head.tokens(), &mut biases);
                for (token, query_head) in (0..span.tokens)
                    .flat_map(|token| (kv_head * group..(kv_head + 1) * group).map(move |head| (token, head)))
                {
                    let at = ((first + token) * query_heads + query_head) * head_dim;
                    let visible = span.places.positions(flat).map(|key| layer.sees(span.seen + token, key as usize));
                    let query = &queries.numbers[at..at + head_dim];
                    let weights = biased_attention(query, &keys, biases.iter().copied(), visible);
                    for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
                        attended[at..at + head_dim]
                            .iter_mut()
                            .zip(value)
                            .for_each(|(sum, value)| *sum += weight * value);
                    }
                }
            }
            first += span.tokens;
        }
        Ok(Matrix { numbers: attended, width: queries.width })
    }

    fn summaries(
        &self,
        layout: HeadLayout,
        watch: &Record,
        prompt: &HostStore,
        layer: Layer,
    ) -> Result<LayerSummaries> {
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
        let Record { request, layers, .. } = watch;
        let record = &layers[layer.index];
        let tokens = record.turned.len() / (query_heads * head_dim);
        let window = request.window.min(tokens);
        let window_sums = request.window_sums.iter().map(|&sum| (sum, Vec::new())).collect();
        let block_sums = request.block_sums.iter().map(|&sums| (sums, Vec::new())).collect();
        let mut summaries = LayerSummaries { window, window_sums, block_sums, ..LayerSummaries::default() };
        if request.output_grams {
            summaries.output_grams = narrow(&record.output_grams);
        }
        summaries.queries = watch.last_queries(layer.index);
        if request.inputs {
            summaries.inputs = narrow(&record.inputs);
        }
        for query_head in 0..query_heads {
            let flat = layout.flat(layer.index, query_head / layout.group());
            let keys = wide(&prompt.read(flat)?.keys);
            let row = |token: usize| {
                let at = (token * query_heads + query_head) * head_dim;
                attention(&record.turned[at..at + head_dim], &keys, (0..tokens).map(|key| layer.sees(token, key)))
            };
            let summed = |queries: Range<usize>| {
                let mut sums = vec![0.0; tokens];
                queries.for_each(|token| sums.iter_mut().zip(row(token)).for_each(|(sum, weight)| *sum += weight));
                narrow(&sums)
            };
            (tokens - window..tokens).for_each(|token| summaries.window_attention.extend(narrow(&row(token))));
            for (sum, of_heads) in &mut summaries.window_sums {
                of_heads.extend(summed(sum.queries(tokens)));
            }
            for (sums, of_heads) in &mut summaries.block_sums {
                let of_token =
                    |token: usize| &record.turned[(token * query_heads + query_head) * head_dim..][..head_dim];
                of_heads.extend(sums_of_blocks(*sums, of_token, &keys, tokens));
            }
            if request.column_sums {
                summaries.column_sums.extend(summed(0..tokens));
            }
            if request.value_output_norms {
                let norms = record.value_output_norms.iter().skip(query_head).step_by(query_heads);
                summaries.value_output_norms.extend(norms.map(|&norm| norm as f32));
            }
        }
        if request.query_statistics && tokens > QueryStatistics::FIRST_POSITION {
            summaries.query_statistics = Some(record.query_statistics(layout));
        }
        for kv_head in 0..kv_heads {
            let Pairs { mut keys, mut values, .. } = prompt.read(layout.flat(layer.index, kv_head))?;
            keys.truncate(tokens * head_dim);
            values.truncate(tokens * head_dim);
            summaries.keys.extend(keys.iter().filter(|_| request.keys));
            summaries.values.extend(values.iter().filter(|_| request.values));
        }
        Ok(summaries)
    }

    fn replayed(&self, watch: &mut Record, layer: usize) -> Result<Replayed> {
        let LayerRecord { fed, inputs, turned, .. } = &watch.layers[layer];
        let Some(Replaying { kept, .. }) = &watch.replaying else { return Ok(Replayed::default()) };
        let places = fed.first().map_or(0, Vec::len);
        let norm = |input: &[f64]| dot(input, input).sqrt();
        let norms: Vec<f64> = inputs.chunks_exact(inputs.len() / fed.len()).map(norm).collect();
        let largest = |scale: &dyn Fn(usize) -> f64| -> Vec<f32> {
            let most = |at: usize| (0..fed.len()).map(|token| fed[token][at] * scale(token)).fold(0.0, f64::max);
            narrow(&(0..places).map(most).collect::<Vec<f64>>())
        };
        let width = turned.len() / fed.len();
        let queries = kept.iter().flat_map(|token| narrow(&turned[token * width..(token + 1) * width])).collect();
        Ok(Replayed { weights: largest(&|_| 1.0), weights_by_input: largest(&|token| norms[token].recip()), queries })
    }

    fn answer(
        &self,
        hidden: &Matrix,
        logits: &Matrix,
        asks: &[(Ask<'_>, usize)],
        answers: &mut Vec<Answer>,
    ) -> Result<()> {
        let [of_hidden, of_logits] = [hidden, logits].map(|matrix| narrow(&matrix.numbers));
        host::answer((&of_hidden, hidden.width), (&of_logits, logits.width), asks, answers)
    }
}

impl Replaying {
    /// What a query gives to each of the chunk's tokens; of `keys`, `seen` come before the query or are its own.
    fn weights(&self, query: &[f64], keys: &[f64], seen: usize) -> Vec<f64> {
        let sees = |key: usize| key < self.sinks || self.keys.contains(&key) || (self.prompt_len..seen).contains(&key);
        let mut weights = attention(query, keys, (0..keys.len() / query.len()).map(sees));
        weights.truncate(self.keys.end);
        weights.split_off(self.keys.start)
    }
}

/// Sums of the blocks of one query head.
fn sums_of_blocks<'a>(sums: BlockSums, query: impl Fn(usize) -> &'a [f64], keys: &[f64], tokens: usize) -> Vec<f32> {
    let mut all = vec![0.0; tokens];
    for block in sums.blocks(tokens) {
        let dim = query(block.start).len();
        let logit = |(a, b): (usize, usize)| dot(query(a), &keys[b * dim..(b + 1) * dim]) as f32;
        let pairs = block.clone().flat_map(|a| block.clone().map(move |b| (a, b)));
        all[block.clone()].copy_from_slice(&sums.of(&mut pairs.map(logit).collect::<Vec<f32>>(), block.len()));
    }
    all
}

impl LayerRecord {
    fn query_statistics(&self, layout: HeadLayout) -> QueryStatistics {
        let HeadLayout { query_heads, head_dim, .. } = layout;
        let (mut means, mut covariances) = (Vec::new(), Vec::new());
        for query_head in 0..query_heads {
            let counted: Vec<&[f64]> = self
                .queries
                .chunks_exact(head_dim)
                .skip(query_head)
                .step_by(query_heads)
                .skip(QueryStatistics::FIRST_POSITION)
                .collect();
            let over_tokens =
                |of: &dyn Fn(&[f64]) -> f64| counted.iter().map(|q| of(q)).sum::<f64>() / counted.len() as f64;
            let mean: Vec<f64> = (0..head_dim).map(|at| over_tokens(&|q| q[at])).collect();
            for (row, column) in (0..head_dim).flat_map(|row| (0..head_dim).map(move |column| (row, column))) {
                covariances.push(over_tokens(&|q| (q[row] - mean[row]) * (q[column] - mean[column])) as f32);
            }
            means.extend(narrow(&mean));
        }
        QueryStatistics { mean: means, covariance: covariances }
    }
}
