//! Sums over the tokens of all texts.

use cokv_core::{HeadLayout, LayerView, Learned, LearnedLayer, PolicyError, QueryStatistics};
use cokv_models::{for_each_chunk, in_parallel, multiply_transposed};
use serde::{Deserialize, Serialize};

use super::direction::main_direction;
use super::ridge::ridge;

/// Of a model's layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Texts that are in them.
    pub texts: usize,
    query_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    layers: Vec<LayerSums>,
}

/// Of one layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LayerSums {
    /// Tokens, and those from [`QueryStatistics::FIRST_POSITION`] on.
    tokens: f64,
    counted: f64,
    /// Of queries before RoPE that are counted: `[query_heads, head_dim]`.
    first: Vec<f64>,
    /// `[query_heads, head_dim, head_dim]`
    second: Vec<f64>,
    /// Lengths of pairs of all tokens: `[query_heads, head_dim / 2]`.
    lengths: Vec<f64>,
    /// Of all queries after RoPE.
    turned_first: Vec<f64>,
    turned_second: Vec<f64>,
    /// Of inputs with a 1 behind them, of tokens that have a score: `[width + 1, width + 1]`; and with logarithms of scores,
    /// `[kv_heads, width + 1]`.
    inputs: Vec<f64>,
    scored: Vec<f64>,
}

/// Part of the mean square of an input that is added to the diagonal: as good as none, but for inputs that say the same.
const RIDGE: f64 = 1e-4;

impl Sums {
    /// Of nothing yet.
    pub fn new(layout: HeadLayout) -> Self {
        let HeadLayout { layers, query_heads, kv_heads, head_dim } = layout;
        Self { texts: 0, query_heads, kv_heads, head_dim, layers: vec![LayerSums::default(); layers] }
    }

    /// Adds the queries of a layer of a text, all of which are in the view.
    ///
    /// # Errors
    /// Where they are not.
    pub fn add_queries(&mut self, view: &LayerView<'_>) -> Result<(), PolicyError> {
        let (heads, dim) = (self.query_heads, self.head_dim);
        let queries = view.last_queries(view.prompt_len)?;
        let rotary = view.recorded("the model's rotation", view.rotary)?;
        let of_heads = in_parallel(heads, |head| {
            let mut of_head = HeadSums::new(dim);
            for (token, query) in queries.chunks_exact(dim).skip(head).step_by(heads).enumerate() {
                let mut before = query.to_vec();
                rotary.turn_back(&mut before, view.position(token));
                of_head.turned.add(query);
                for (pair, length) in of_head.lengths.iter_mut().enumerate() {
                    let [x, y] = rotary.pairs.elements(pair, dim).map(|at| f64::from(before[at]));
                    *length += x.hypot(y);
                }
                if view.position(token) >= QueryStatistics::FIRST_POSITION {
                    of_head.before.add(&before);
                }
            }
            of_head
        });
        let sums = &mut self.layers[view.layer];
        sums.tokens += view.prompt_len as f64;
        sums.counted += view.prompt_len.saturating_sub(QueryStatistics::FIRST_POSITION) as f64;
        let joined = |of: fn(&HeadSums) -> &[f64]| of_heads.iter().flat_map(move |head| of(head).iter().copied());
        add(&mut sums.first, joined(|head| &head.before.first));
        add(&mut sums.second, joined(|head| &head.before.second));
        add(&mut sums.lengths, joined(|head| &head.lengths));
        add(&mut sums.turned_first, joined(|head| &head.turned.first));
        add(&mut sums.turned_second, joined(|head| &head.turned.second));
        Ok(())
    }

    /// Adds what scores of a layer, `[kv_heads, tokens]`, have to do with the tokens' inputs. Tokens that nothing was fed for have none.
    ///
    /// # Errors
    /// Where the inputs are not in the view.
    pub fn add_scores(&mut self, view: &LayerView<'_>, scores: &[f32]) -> Result<(), PolicyError> {
        let inputs = view.recorded("inputs of layers", view.inputs)?;
        let (tokens, width) = (view.prompt_len, inputs.len() / view.prompt_len.max(1));
        let scored: Vec<usize> =
            (0..tokens).filter(|&token| scores.chunks_exact(tokens).all(|head| head[token] > 0.0)).collect();
        // [width + 1, scored]
        let mut columns = vec![1.0f32; (width + 1) * scored.len()];
        for (channel, column) in columns.chunks_exact_mut(scored.len().max(1)).take(width).enumerate() {
            column.iter_mut().zip(&scored).for_each(|(x, &token)| *x = inputs[token * width + channel]);
        }
        let sums = &mut self.layers[view.layer];
        let order = width + 1;
        let mut product = vec![0.0; order * order];
        if !scored.is_empty() {
            for_each_chunk(&mut product, order * ROWS, |block, rows| {
                let first = block * ROWS;
                let of_rows = &columns[first * scored.len()..(first + rows.len() / order) * scored.len()];
                multiply_transposed(of_rows, &columns, scored.len(), rows);
            });
        }
        add(&mut sums.inputs, product.into_iter().map(f64::from));
        let target = |head: &[f32], column: &[f32]| -> f64 {
            let logarithm = |token: usize| f64::from(head[token]).ln();
            column.iter().zip(&scored).map(|(x, &token)| f64::from(*x) * logarithm(token)).sum()
        };
        let heads = scores.chunks_exact(tokens.max(1));
        let of_scores: Vec<f64> = heads
            .flat_map(|head| columns.chunks_exact(scored.len().max(1)).map(move |column| (head, column)))
            .map(|(head, column)| target(head, column))
            .collect();
        add(&mut sums.scored, of_scores.into_iter());
        Ok(())
    }

    /// What the sums say; `fingerprint` names what they are of.
    pub fn learned(&self, fingerprint: String) -> Learned {
        let layers = in_parallel(self.layers.len(), |layer| self.layer(&self.layers[layer]));
        Learned { fingerprint, layers }
    }

    fn layer(&self, sums: &LayerSums) -> LearnedLayer {
        let (dim, group) = (self.head_dim, self.query_heads / self.kv_heads);
        let single = |numbers: Vec<f64>| numbers.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        let count = sums.counted.max(1.0);
        let mean: Vec<f64> = sums.first.iter().map(|sum| sum / count).collect();
        // Divided by one less, as published statistics are.
        let central = |(at, sum): (usize, &f64)| {
            let (head, row, column) = (at / (dim * dim), at / dim % dim, at % dim);
            (sum - count * mean[head * dim + row] * mean[head * dim + column]) / (count - 1.0).max(1.0)
        };
        let covariance = single(sums.second.iter().enumerate().map(central).collect());
        let of_heads = sums.turned_second.chunks_exact(dim * dim).zip(sums.turned_first.chunks_exact(dim));
        let of_heads: Vec<Vec<f64>> = of_heads.map(|(products, sum)| main_direction(products, sum)).collect();
        let of_groups = of_heads.chunks_exact(group).flat_map(|heads| {
            (0..dim).map(move |channel| heads.iter().map(|head| head[channel]).sum::<f64>() / group as f64)
        });
        let order = sums.scored.len() / self.kv_heads.max(1);
        let guess = ridge(&sums.inputs, &sums.scored, order, RIDGE).unwrap_or_default();
        LearnedLayer {
            queries: QueryStatistics { mean: single(mean), covariance },
            lengths: single(sums.lengths.iter().map(|sum| sum / sums.tokens.max(1.0)).collect()),
            directions: single(of_groups.collect()),
            guess: single(guess),
        }
    }

    /// As bytes, for [`read`](Self::read).
    pub fn written(&self, fingerprint: &str) -> Vec<u8> {
        serde_json::to_vec(&(fingerprint, self)).unwrap_or_default()
    }

    /// The sums of an earlier run of the same; none where the bytes are of another or of none.
    pub fn read(bytes: &[u8], fingerprint: &str) -> Option<Self> {
        let (of, sums): (String, Self) = serde_json::from_slice(bytes).ok()?;
        (of == fingerprint).then_some(sums)
    }
}

/// Rows of a product that are one piece of work.
const ROWS: usize = 64;

/// Sums over a head's vectors and their outer products.
struct Moments {
    first: Vec<f64>,
    second: Vec<f64>,
}

struct HeadSums {
    before: Moments,
    turned: Moments,
    lengths: Vec<f64>,
}

impl HeadSums {
    fn new(dim: usize) -> Self {
        let nothing = || Moments { first: vec![0.0; dim], second: vec![0.0; dim * dim] };
        Self { before: nothing(), turned: nothing(), lengths: vec![0.0; dim / 2] }
    }
}

impl Moments {
    fn add(&mut self, vector: &[f32]) {
        self.first.iter_mut().zip(vector).for_each(|(sum, &x)| *sum += f64::from(x));
        for (row, &a) in self.second.chunks_exact_mut(vector.len()).zip(vector) {
            row.iter_mut().zip(vector).for_each(|(sum, &b)| *sum += f64::from(a) * f64::from(b));
        }
    }
}

/// Adds numbers to sums, which may be of nothing yet.
fn add(sums: &mut Vec<f64>, numbers: impl Iterator<Item = f64>) {
    if sums.is_empty() {
        sums.extend(numbers);
    } else {
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }
}
