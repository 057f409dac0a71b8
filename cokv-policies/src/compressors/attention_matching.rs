//! Attention matching (Zweiger et al., "Fast KV compaction", arXiv 2602.16284): fewer pairs that attract and say together what all did.

use std::num::NonZeroUsize;

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, HeadSelection, LayerView, ObservationRequest, Pairs, PolicyError,
    Protected, Replay,
};
use ndarray::{Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use super::kvzip::KvZip;
use super::least_squares::{bounded, ridge};
use super::rewriting::kept_pairs;

/// Rows of attention that are looked at together.
const ROWS: usize = 256;
/// What a key's mass may be multiplied with: e⁻³ to e³, as published.
const BOUNDS: [f32; 2] = [0.049_787_068, 20.085_537];

/// Keeps the keys that reference queries attend to most, and gives each a bias and another value, so that the queries find the same mass
/// and the same output as among all keys. The reference queries are those of the prompt fed again, as KVzip feeds it.
///
/// A key's score is the root of its mean squared weight over the queries of its group. Biases `β = ln B` minimise
/// `‖E_C B − E 1‖²`, where `E` are exponentials of logits below each row's largest and `C` the kept keys; values minimise
/// `‖softmax(S_C + β) V' − softmax(S) V‖²`, drawn a little toward the values that the keys had.
///
/// The ladder of ablations: `biases = false, values = false` evicts, `values = false` adds biases, `biases = false` fits values alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttentionMatching {
    /// Fed tokens whose queries are matched, evenly spread. As many as a head keeps leave nothing undetermined.
    pub queries: NonZeroUsize,
    /// Whether every kept key gets a bias, which takes four bytes.
    pub biases: bool,
    /// Whether values are fitted.
    pub values: bool,
    /// How strongly fitted values are drawn toward what they were, as a part of the mean diagonal of the normal equations.
    pub ridge: f64,
    /// Tokens at the start that are kept.
    pub sinks: usize,
    /// Tokens that are fed again at a time.
    pub chunk: NonZeroUsize,
}

impl Default for AttentionMatching {
    fn default() -> Self {
        let KvZip { chunk, sinks, .. } = KvZip::default();
        let queries = NonZeroUsize::new(1024).unwrap_or(NonZeroUsize::MIN);
        Self { queries, biases: true, values: true, ridge: 1e-3, sinks, chunk }
    }
}

impl AttentionMatching {
    /// Refuses a ridge that leads nowhere.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        match self.ridge.is_finite() && self.ridge >= 0.0 {
            true => Ok(self),
            false => Err(settings
                .error_at("ridge", format!("ridge is a number of 0 or more, such as 0.001; got {}", self.ridge))),
        }
    }

    fn pass(&self) -> Replay {
        let kvzip = KvZip { chunk: self.chunk, sinks: self.sinks, protect_template: false };
        Replay { queries: self.queries.get(), ..kvzip.pass() }
    }

    /// Biases and values of a head that keeps some of its keys.
    fn fit(&self, head: &Head<'_>, kept: &[usize], pairs: &mut Pairs) {
        if kept.len() == head.tokens() || kept.is_empty() || head.queries.nrows() == 0 {
            pairs.biases = if self.biases { vec![0.0; kept.len()] } else { Vec::new() };
            return;
        }
        let mut of_kept = Array2::zeros((head.queries.nrows(), kept.len()));
        let mut outputs = Array2::zeros((head.queries.nrows(), head.values.ncols()));
        let mut masses = Vec::with_capacity(head.queries.nrows());
        head.each_block(|first, exponentials| {
            let rows = first..first + exponentials.nrows();
            outputs.slice_mut(ndarray::s![rows.clone(), ..]).assign(&exponentials.dot(&head.values));
            for (row, exponentials) in rows.zip(exponentials.outer_iter()) {
                let mass = exponentials.sum();
                outputs.row_mut(row).iter_mut().for_each(|x| *x /= mass);
                of_kept.row_mut(row).iter_mut().zip(kept).for_each(|(x, &key)| *x = exponentials[key]);
                masses.push(mass);
            }
        });
        if self.biases {
            let target = of_kept.t().dot(&ndarray::aview1(&masses));
            let factors = bounded(of_kept.t().dot(&of_kept).view(), &target.to_vec(), BOUNDS);
            pairs.biases = factors.iter().map(|factor| factor.ln()).collect();
            of_kept *= &ndarray::aview1(&factors);
        }
        if self.values {
            // What is left of the kept keys' weights where no other key is.
            for mut row in of_kept.outer_iter_mut() {
                let mass = row.sum().max(f32::MIN_POSITIVE);
                row.iter_mut().for_each(|weight| *weight /= mass);
            }
            let dim = head.values.ncols();
            let were = head.values.select(Axis(0), kept);
            outputs -= &of_kept.dot(&were);
            let change = ridge(&of_kept.t().dot(&of_kept), of_kept.t().dot(&outputs), self.ridge as f32);
            if let Some(change) = change.filter(|change| change.iter().all(|x| x.is_finite())) {
                pairs.values =
                    (were + change).into_shape_with_order(kept.len() * dim).map(|all| all.to_vec()).unwrap_or_default();
            }
        }
    }
}

/// A KV head with the reference queries of its group.
struct Head<'a> {
    /// Divided by √head_dim: `[queries of the group, head_dim]`.
    queries: Array2<f32>,
    /// `[tokens, head_dim]`
    keys: ArrayView2<'a, f32>,
    /// `[tokens, head_dim]`
    values: ArrayView2<'a, f32>,
}

impl<'a> Head<'a> {
    fn of(layer: &LayerView<'a>, pass: &Replay, head: usize) -> Result<Self, PolicyError> {
        let (tokens, dim, group) = (layer.prompt_len, layer.layout.head_dim, layer.layout.group());
        let of_head = head * tokens * dim..(head + 1) * tokens * dim;
        let view = |what, numbers: Option<&'a [f32]>| -> Result<ArrayView2<'a, f32>, PolicyError> {
            let numbers = &layer.recorded(what, numbers)?[of_head.clone()];
            layer.recorded(what, ArrayView2::from_shape((tokens, dim), numbers).ok())
        };
        let all = &layer.replayed(pass)?.queries;
        let of_group = all.len() / layer.layout.kv_heads;
        let scale = (dim as f32).sqrt().recip();
        let numbers: Vec<f32> = all[head * of_group..(head + 1) * of_group].iter().map(|x| x * scale).collect();
        debug_assert!(numbers.len().is_multiple_of(group * dim));
        let queries =
            layer.recorded("reference queries", Array2::from_shape_vec((numbers.len() / dim, dim), numbers).ok())?;
        Ok(Self { queries, keys: view("keys", layer.keys)?, values: view("values", layer.values)? })
    }

    fn tokens(&self) -> usize {
        self.keys.nrows()
    }

    /// Some queries at a time, exponentials of their logits below each row's largest: `[queries, tokens]`, and the first query.
    fn each_block(&self, mut work: impl FnMut(usize, &Array2<f32>)) {
        for (block, queries) in self.queries.axis_chunks_iter(Axis(0), ROWS).enumerate() {
            let mut logits = queries.dot(&self.keys.t());
            for mut row in logits.outer_iter_mut() {
                let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter_mut().for_each(|logit| *logit = (*logit - most).exp());
            }
            work(block * ROWS, &logits);
        }
    }

    /// Root of the mean squared weight of each key: `[tokens]`.
    fn root_mean_squares(&self) -> Vec<f32> {
        let mut squares = vec![0f32; self.tokens()];
        self.each_block(|_, exponentials| {
            for row in exponentials.outer_iter() {
                let mass = row.sum();
                squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += (x / mass) * (x / mass));
            }
        });
        let count = self.queries.nrows().max(1) as f32;
        squares.into_iter().map(|sum| (sum / count).sqrt()).collect()
    }
}

impl CacheCompressor for AttentionMatching {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { keys: true, values: true, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: 0 }
    }

    fn replay(&self) -> Option<Replay> {
        Some(self.pass())
    }

    fn rewrites(&self) -> bool {
        self.biases || self.values
    }

    fn adds_biases(&self) -> bool {
        self.biases
    }

    fn rewrite(&self, layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
        let mut pairs = kept_pairs(layer, kept)?;
        for (head, (kept, pairs)) in kept.iter().zip(&mut pairs).enumerate() {
            self.fit(&Head::of(layer, &self.pass(), head)?, &kept.positions(layer.prompt_len), pairs);
        }
        Ok(pairs)
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let heads = (0..layer.layout.kv_heads).map(|head| Ok(Head::of(layer, &self.pass(), head)?.root_mean_squares()));
        Ok(heads.collect::<Result<Vec<_>, PolicyError>>()?.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::{LAYOUT, Prompt, method};

    /// What a ladder's step makes of the toy's heads with so many keys: how far the reference queries' outputs are off, relative to
    /// their length.
    fn errors(step: &str, kept: usize) -> [f64; 2] {
        let text = format!("{{ name = 'attention-matching', sinks = 0, queries = 16, ridge = 1e-7, {step} }}");
        let (prompt, method) = (Prompt::new(16), method(&text));
        let shown = prompt.shown_to(&method);
        let view = shown.view();
        let selection = prompt.kept(&text, kept).map(HeadSelection::Tokens);
        let pairs = match method.rewrites() {
            true => method.rewrite(&view, &selection).unwrap(),
            false => kept_pairs(&view, &selection).unwrap(),
        };
        let pass = method.replay().unwrap();
        [0, 1].map(|head| {
            let all = Head::of(&view, &pass, head).unwrap();
            let Pairs { keys, values, biases } = &pairs[head];
            let [keys, values] =
                [keys, values].map(|numbers| ArrayView2::from_shape((kept, LAYOUT.head_dim), numbers).unwrap());
            let (mut off, mut length) = (0.0, 0.0);
            for query in all.queries.outer_iter() {
                let output = |keys: &ArrayView2<'_, f32>, values: &ArrayView2<'_, f32>, biases: &[f32]| {
                    let mut weights = keys.dot(&query);
                    weights.iter_mut().zip(biases).for_each(|(logit, bias)| *logit += bias);
                    weights.mapv_inplace(f32::exp);
                    let mass = weights.sum();
                    weights.dot(values) / mass
                };
                let (whole, ours) = (output(&all.keys, &all.values, &[]), output(&keys, &values, biases));
                off += f64::from((&whole - &ours).mapv(|x| x * x).sum());
                length += f64::from(whole.mapv(|x| x * x).sum());
            }
            (off / length).sqrt()
        })
    }

    #[test]
    fn the_ladder_of_the_closed_form() {
        // Of twelve keys of four numbers many biases are as good as the best.
        for (step, tolerance, expected) in [
            (
                "biases = false, values = false",
                1e-3,
                [[5.6471, 2.4111], [3.6498, 2.7172], [1.8869, 1.0715], [0.8502, 0.3156]],
            ),
            ("values = false", 3e-2, [[5.5907, 2.1498], [3.5673, 2.8647], [2.4022, 0.8671], [1.1432, 0.6988]]),
            ("biases = true", 5e-3, [[0.8134, 0.9479], [0.5158, 0.7619], [0.1976, 0.1573], [0.0504, 0.0718]]),
        ] {
            for (kept, expected) in [2, 4, 8, 12].into_iter().zip(expected) {
                let found = errors(step, kept);
                for (found, expected) in found.into_iter().zip(expected) {
                    assert!(
                        (found - expected).abs() < tolerance * expected.max(1.0),
                        "{step}, {kept} keys: {found} and not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn keys_and_biases_of_the_closed_form() {
        let text = "{ name = 'attention-matching', sinks = 0, queries = 16 }";
        let (prompt, method) = (Prompt::new(16), method(text));
        let kept = prompt.kept(text, 4);
        assert_eq!(kept, [[5, 7, 8, 11], [5, 6, 7, 8]].map(Vec::from));
        let shown = prompt.shown_to(&method);
        let pairs = method.rewrite(&shown.view(), &kept.map(HeadSelection::Tokens)).unwrap();
        for (pairs, expected) in pairs.iter().zip([[1.4090, 0.7535, 1.4962, 0.9413], [-0.1516, 0.8649, 0.8781, 1.4102]])
        {
            let close = |(ours, expected): (&f32, f64)| (f64::from(*ours) - expected).abs() < 5e-3;
            assert!(pairs.biases.iter().zip(expected).all(close), "{:?} and not {expected:?}", pairs.biases);
        }
    }

    #[test]
    fn what_keeps_everything_stays_as_it_is() {
        let (prompt, method) = (Prompt::new(16), method("'attention-matching'"));
        let shown = prompt.shown_to(&method);
        let whole = kept_pairs(&shown.view(), &[HeadSelection::Everything, HeadSelection::Everything]).unwrap();
        let pairs = method.rewrite(&shown.view(), &[HeadSelection::Everything, HeadSelection::Everything]).unwrap();
        for (pairs, whole) in pairs.iter().zip(&whole) {
            assert_eq!((&pairs.keys, &pairs.values, &pairs.biases[..]), (&whole.keys, &whole.values, &[0.0; 16][..]));
        }
    }
}
