//! What the queries of a layer look like before RoPE.

/// Mean and (population) covariance of a layer's queries before RoPE, over the positions from
/// [`FIRST_POSITION`](Self::FIRST_POSITION) on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryStatistics {
    /// `[query_heads, head_dim]`
    pub mean: Vec<f32>,
    /// `[query_heads, head_dim, head_dim]`
    pub covariance: Vec<f32>,
}

impl QueryStatistics {
    /// Attention sinks are left out, because their queries are unlike all that follow. One number for everybody: if
    /// methods could choose, a method's scores would depend on which others run beside it.
    pub const FIRST_POSITION: usize = 4;
}
