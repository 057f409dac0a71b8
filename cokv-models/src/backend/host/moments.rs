//! Mean and covariance of queries, as sums that any number of tokens can be added to.

use cokv_core::{HeadLayout, QueryStatistics};

use crate::kernel::pool;

/// Sums over tokens of the queries before RoPE and of their outer products.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    count: usize,
    /// `[query_heads, head_dim]`
    first: Vec<f64>,
    /// `[query_heads, head_dim, head_dim]`
    second: Vec<f64>,
}

impl Moments {
    /// Adds queries of more tokens, `[tokens, query_heads, head_dim]`.
    pub fn add(&mut self, layout: HeadLayout, queries: &[f32]) {
        let HeadLayout { query_heads, head_dim, .. } = layout;
        self.count += queries.len() / (query_heads * head_dim);
        self.first.resize(query_heads * head_dim, 0.0);
        self.second.resize(query_heads * head_dim * head_dim, 0.0);
        for token in queries.chunks_exact(query_heads * head_dim) {
            self.first.iter_mut().zip(token).for_each(|(sum, &q)| *sum += f64::from(q));
        }
        pool::for_each_chunk(&mut self.second, head_dim * head_dim, |head, sums| {
            for token in queries.chunks_exact(query_heads * head_dim) {
                let query = &token[head * head_dim..(head + 1) * head_dim];
                for (row, &a) in sums.chunks_exact_mut(head_dim).zip(query) {
                    row.iter_mut().zip(query).for_each(|(sum, &b)| *sum += f64::from(a) * f64::from(b));
                }
            }
        });
    }

    /// Mean and (population) covariance; none where no query was counted.
    pub fn statistics(&self, layout: HeadLayout) -> Option<QueryStatistics> {
        let Self { count, first, second } = self;
        if *count == 0 {
            return None;
        }
        let dim = layout.head_dim;
        let mean: Vec<f64> = first.iter().map(|sum| sum / *count as f64).collect();
        let covariance = second.iter().enumerate().map(|(at, sum)| {
            let (head, row, column) = (at / (dim * dim), at / dim % dim, at % dim);
            (sum / *count as f64 - mean[head * dim + row] * mean[head * dim + column]) as f32
        });
        Some(QueryStatistics { covariance: covariance.collect(), mean: mean.iter().map(|&x| x as f32).collect() })
    }
}
