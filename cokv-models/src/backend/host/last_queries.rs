//! What is recorded of an answer: its last queries, from which attention to whatever is held can be made.

/// The last queries of every layer.
#[derive(Clone, Debug)]
pub struct LastQueries {
    count: usize,
    /// Numbers of a token's queries.
    width: usize,
    /// `[tokens, query_heads, head_dim]` of every layer: at most twice as many tokens as are wanted.
    layers: Vec<Vec<f32>>,
}

impl LastQueries {
    /// None yet; `count` of them will be kept, of `width` numbers each.
    pub fn new(layers: usize, count: usize, width: usize) -> Self {
        Self { count, width, layers: vec![Vec::new(); layers] }
    }

    /// Takes those of new tokens, after RoPE, `[tokens, query_heads, head_dim]`.
    pub fn add(&mut self, layer: usize, queries: &[f32]) {
        let held = &mut self.layers[layer];
        held.extend_from_slice(queries);
        let most = self.count * self.width;
        if held.len() > 2 * most {
            held.drain(..held.len() - most);
        }
    }

    /// Of a layer, oldest first: `[tokens, query_heads, head_dim]`.
    pub fn of_layer(&self, layer: usize) -> &[f32] {
        let held = &self.layers[layer];
        &held[held.len().saturating_sub(self.count * self.width)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_however_they_come() {
        for chunk in 1..9 {
            let mut queries = LastQueries::new(1, 3, 2);
            let all: Vec<f32> = (0..16).map(|number| number as f32).collect();
            for (done, tokens) in all.chunks(chunk * 2).enumerate() {
                queries.add(0, tokens);
                let seen = all.len().min((done + 1) * chunk * 2);
                assert_eq!(queries.of_layer(0), &all[seen.saturating_sub(6)..seen]);
                assert!(queries.layers[0].len() <= 12);
            }
        }
    }
}
