//! Keys and values of a KV head that are not, or not only, those of a prompt.

/// What one KV head holds, row by row in ascending order of positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Keys after RoPE, `[rows, head_dim]`.
    pub keys: Vec<f32>,
    /// `[rows, head_dim]`
    pub values: Vec<f32>,
    /// Added to the logits of each key for ever after, `[rows]`; empty where nothing is.
    pub biases: Vec<f32>,
}
