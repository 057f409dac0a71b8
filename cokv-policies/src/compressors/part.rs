//! Some tokens of a prompt as if they were all of it.

use cokv_core::LayerView;

/// Keys and values of some tokens, as many of each KV head.
pub struct Part {
    tokens: Vec<u32>,
    keys: Option<Vec<f32>>,
    values: Option<Vec<f32>>,
}

impl Part {
    /// Of these positions of each KV head, ascending. Where heads have different ones, the ids are those of the first
    /// head's: who looks at keys and values alone has no use for them.
    pub fn of(layer: &LayerView<'_>, positions: &[Vec<usize>]) -> Self {
        let of_head = |vectors, (head, positions): (usize, &Vec<usize>)| gather(layer, vectors, head, positions);
        let of_heads = |vectors| positions.iter().enumerate().flat_map(|head| of_head(vectors, head)).collect();
        Self {
            tokens: positions.first().into_iter().flatten().map(|&position| layer.tokens[position]).collect(),
            keys: layer.keys.map(of_heads),
            values: layer.values.map(of_heads),
        }
    }

    /// What a compressor sees of it: nothing but keys and values.
    pub fn view(&self, layer: &LayerView<'_>) -> LayerView<'_> {
        LayerView {
            keys: self.keys.as_deref(),
            values: self.values.as_deref(),
            ..LayerView::new(layer.layer, layer.layout, &self.tokens)
        }
    }
}

/// Vectors of a KV head, of `[kv_heads, prompt_len, head_dim]`, at these positions.
pub fn gather(layer: &LayerView<'_>, vectors: &[f32], head: usize, positions: &[usize]) -> Vec<f32> {
    let dim = layer.layout.head_dim;
    let places = positions.iter().map(|position| (head * layer.prompt_len + position) * dim);
    places.flat_map(|place| &vectors[place..place + dim]).copied().collect()
}
