//! Where a model computes.
//!
//! [`Backend`] is generic inside this crate and erased as [`Engine`](crate::engine::Engine) outside: nothing outside knows a
//! tensor. What rounds differently has another name, which goes into fingerprints. `contract` holds any two backends against
//! each other; [`Reference`] is plain f64, the oracle of all others.

pub mod candle;
pub mod cpu;
pub mod host;
mod reference;

use std::any::Any;
use std::ops::Range;

use cokv_core::{BlockSums, Format, HeadLayout, ObservationRequest, QueryStatistics, Replayed, WindowSum};

pub use self::candle::Candle;
pub use self::cpu::Cpu;
pub use self::reference::Reference;
use crate::ask::{Answer, Ask};
use crate::cache::{Places, RaggedCache, SLICES, Store};
use crate::error::ModelError;
use crate::rope::Angles;
use crate::weights::{Stored, WeightType};

/// What backends return.
pub type Result<T> = std::result::Result<T, ModelError>;

/// A place to compute: some twenty functions, of which a decoder is made.
pub trait Backend: Send + Sync + Sized + 'static {
    /// `[rows, width]` numbers, row-major.
    type Matrix: Send + Sync;
    /// `y = x wᵀ + b`, dense or in a file's blocks.
    type Linear: Send + Sync;
    /// Keys and values of every KV head of one cache.
    type Store: Store;
    /// What is recorded of one prompt so far.
    type Watch: Watch;
    /// What all layers of one pass share.
    type Pass<'a>;
    /// Rotations of the tokens of one pass, where it computes.
    type Angles: Send + Sync;

    /// Goes into fingerprints: what rounds differently is called differently.
    fn name(&self) -> &'static str;
    /// Bytes that caches and batches may still take, where that is known.
    fn free_bytes(&self) -> Option<u64>;
    /// Bytes that it held at its peak since this was last asked; none where that is the host's memory.
    fn take_peak_bytes(&self) -> Option<u64> {
        None
    }
    /// What it can do at most, measured; none where that is the host's processor.
    fn ceilings(&self) -> Result<Option<Ceilings>> {
        Ok(None)
    }

    /// Numbers from the host.
    fn matrix(&self, numbers: Vec<f32>, width: usize) -> Result<Self::Matrix>;
    /// Numbers to the host.
    fn numbers(&self, x: &Self::Matrix) -> Result<Vec<f32>>;
    /// Takes a weight, `[out_features, in_features]`, and perhaps a bias, `[out_features]`.
    fn load(&self, weight: Stored, bias: Option<Vec<f32>>, held: WeightType) -> Result<Self::Linear>;
    /// Takes weights whose products have the same `x` ([`Self::linear`]), read one by one: a backend may lay them out as one.
    fn load_together<const N: usize>(
        &self,
        mut read: impl FnMut(usize) -> Result<(Stored, Option<Vec<f32>>)>,
        held: WeightType,
    ) -> Result<[Self::Linear; N]> {
        let mut loaded = [const { None }; N];
        for (at, place) in loaded.iter_mut().enumerate() {
            let (weight, bias) = read(at)?;
            *place = Some(self.load(weight, bias, held)?);
        }
        Ok(loaded.map(|linear| linear.expect("one for each weight")))
    }
    /// Bytes of a weight.
    fn bytes(&self, linear: &Self::Linear) -> usize;

    /// Rows of a weight, `[tokens, in_features]`: an embedding table that is not held twice.
    fn embed(&self, table: &Self::Linear, tokens: &[u32]) -> Result<Self::Matrix>;
    /// What several layers make of the same `x`, which is rounded or laid out once for all of them.
    fn linear<const N: usize>(&self, layers: [&Self::Linear; N], x: &Self::Matrix) -> Result<[Self::Matrix; N]>;
    /// Root-mean-square norm of each run of numbers as long as the weight.
    fn rms_norm(&self, x: &Self::Matrix, weight: &Self::Matrix, epsilon: f32) -> Result<Self::Matrix>;
    /// `silu(gate) * up`
    fn silu_times(&self, gate: &Self::Matrix, up: &Self::Matrix) -> Result<Self::Matrix>;
    /// `a + x wᵀ + b` of a layer.
    fn add_linear(&self, a: Self::Matrix, layer: &Self::Linear, x: &Self::Matrix) -> Result<Self::Matrix>;
    /// Brings the rotations of a pass to where it computes.
    fn angles(&self, angles: Angles) -> Result<Self::Angles>;
    /// Some rows of a matrix, in the order asked for.
    fn rows(&self, x: &Self::Matrix, rows: &[usize]) -> Result<Self::Matrix>;

    /// A store that holds nothing, with room for `tokens` in every head.
    fn store(&self, layout: HeadLayout, format: Format, tokens: usize) -> Result<Self::Store>;
    /// Nothing recorded yet of a prompt.
    fn watch(&self, layout: HeadLayout, request: ObservationRequest, prompt_len: usize) -> Self::Watch;
    /// Nothing recorded yet of a chunk of a prompt that is fed again.
    fn watch_replay(&self, layout: HeadLayout, replaying: Replaying) -> Self::Watch;
    /// Nothing recorded yet of an answer, whose last `count` queries will be.
    fn watch_queries(&self, layout: HeadLayout, count: usize) -> Self::Watch;
    /// The last queries of an answer after RoPE, oldest first, `[tokens, query_heads, head_dim]`: as many as are watched, or as
    /// there are.
    fn last_queries(&self, watch: &Self::Watch, layer: usize) -> Vec<f32>;
    /// Prepares what all layers share.
    fn pass<'a>(&self, layout: HeadLayout, spans: Vec<Span<'a, Self>>) -> Result<Self::Pass<'a>>;
    /// Before queries are turned: watches record query statistics, and values behind the output projection.
    fn observe(&self, pass: &mut Self::Pass<'_>, layer: usize, observed: Observed<'_, Self>) -> Result<()>;
    /// Turns queries and keys by their positions, appends keys and values, and lets every new token attend to its own cache;
    /// watches see what they asked for.
    fn attend(
        &self,
        pass: &mut Self::Pass<'_>,
        layer: Layer,
        projected: Projected<Self>,
        angles: &Self::Angles,
    ) -> Result<Self::Matrix>;
    /// What compressors see of a layer, on the host. `prompt` holds the whole prompt in every head, and perhaps what follows it.
    fn summaries(
        &self,
        layout: HeadLayout,
        watch: &Self::Watch,
        prompt: &Self::Store,
        layer: Layer,
    ) -> Result<LayerSummaries>;

    /// What a layer's chunk got of the fed tokens' attention, `[query_heads, chunk]`, and the queries that were to be kept,
    /// `[queries, query_heads, head_dim]`; taken out of the watch.
    fn replayed(&self, watch: &mut Self::Watch, layer: usize) -> Result<Replayed>;

    /// Prompt tokens of one pass: enough rows for products to reach their peak, few enough that activations stay small.
    fn chunk(&self) -> usize {
        512
    }
    /// Logits that are held at once: those of all rows together would outgrow the caches.
    fn logits_at_once(&self) -> usize {
        1 << 23
    }
    /// Answers some rows, behind the answers of the rows before. `hidden` are normed, `[places, hidden_size]`, and `logits`
    /// are `[places, vocabulary]`, of all places that the asks look at, in their order; `tokens` says how many each row has.
    fn answer(
        &self,
        hidden: &Self::Matrix,
        logits: &Self::Matrix,
        asks: &[(Ask<'_>, usize)],
        answers: &mut Vec<Answer>,
    ) -> Result<()>;
}

/// What a device can do at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Ceilings {
    /// As people know it: `NVIDIA H100`.
    pub device: String,
    /// Bytes that a large copy reads and writes.
    pub bytes_per_second: f64,
    /// Of a product of two large matrices.
    pub operations_per_second: f64,
    /// How the numbers of these are stored.
    pub numbers: &'static str,
}

/// An attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Counted from the first.
    pub index: usize,
    /// Its sliding window, where it has one: a token sees itself and what stands fewer positions than this before it, however
    /// little a head has kept of that.
    pub window: Option<usize>,
}

/// A chunk of a prompt that is fed again behind the prompt: see [`Replay`](cokv_core::Replay).
#[derive(Clone, Debug)]
pub struct Replaying {
    /// Tokens of the prompt.
    pub prompt_len: usize,
    /// Of these, the first ones that fed tokens see.
    pub sinks: usize,
    /// Prompt tokens that they see and of which is recorded.
    pub keys: Range<usize>,
    /// Fed tokens of which queries are kept, counted from the first that is fed, ascending.
    pub kept: Vec<usize>,
}

/// What a layer reads and projects, before RoPE.
pub struct Observed<'a, B: Backend> {
    /// Hidden states behind the first norm, `[tokens, hidden_size]`.
    pub inputs: &'a B::Matrix,
    /// `[tokens, query_heads * head_dim]`
    pub queries: &'a B::Matrix,
    /// `[tokens, kv_heads * head_dim]`
    pub values: &'a B::Matrix,
    /// The output projection.
    pub output: &'a B::Linear,
}

/// Queries, keys and values of the new tokens of a pass, before RoPE.
pub struct Projected<B: Backend> {
    /// `[tokens, query_heads * head_dim]`
    pub queries: B::Matrix,
    /// `[tokens, kv_heads * head_dim]`
    pub keys: B::Matrix,
    /// `[tokens, kv_heads * head_dim]`
    pub values: B::Matrix,
}

/// A frozen store, and which of its rows each KV head sees.
pub type SharedRows<'a, S> = (&'a S, &'a [Range<usize>]);

/// One row of a pass as a backend sees it.
pub struct Span<'a, B: Backend> {
    /// New tokens.
    pub tokens: usize,
    /// Tokens seen before them.
    pub seen: usize,
    /// Where the tokens of its cache stand, new ones included.
    pub places: Places<'a>,
    /// What its cache shares.
    pub slices: [Option<SharedRows<'a, B::Store>>; SLICES],
    /// What its cache holds alone, to which new keys and values are appended.
    pub own: &'a mut B::Store,
    /// What records the row.
    pub watches: Vec<&'a mut B::Watch>,
}

impl<'a, B: Backend> Span<'a, B> {
    /// How many tokens of a KV head, counted flat, lie before the sliding window of each new token; none where no token has any
    /// before it.
    pub fn hidden(&self, head: usize, window: Option<usize>) -> Option<impl Iterator<Item = usize>> {
        let window = window.filter(|&window| self.seen + self.tokens > window)?;
        let first_seen = (self.seen..self.seen + self.tokens).map(move |at| (at + 1).saturating_sub(window));
        Some(first_seen.map(move |first| self.places.before(head, first)))
    }

    /// Finds the backend's own types behind a cache and a watch; an error where they are another backend's.
    pub(crate) fn of(tokens: usize, cache: &'a mut RaggedCache, watches: &'a mut [&mut dyn Watch]) -> Result<Self> {
        let seen = cache.next_position();
        let (shared, places, own) = cache.parts();
        let mut slices = [None; SLICES];
        for (place, slice) in slices.iter_mut().zip(shared) {
            *place = Some((own_store::<B>(slice.segment.store())?, slice.rows.as_slice()));
        }
        let own = (own as &mut dyn Any).downcast_mut().ok_or_else(|| foreign("cache"))?;
        let own_watch = |watch: &'a mut &mut dyn Watch| {
            (&mut **watch as &mut dyn Any).downcast_mut().ok_or_else(|| foreign("watch"))
        };
        let watches = watches.iter_mut().map(own_watch).collect::<Result<_>>()?;
        Ok(Self { tokens, seen, places, slices, own, watches })
    }
}

/// The backend's store behind a store.
pub(crate) fn own_store<B: Backend>(store: &dyn Store) -> Result<&B::Store> {
    (store as &dyn Any).downcast_ref().ok_or_else(|| foreign("cache"))
}

/// The error where something of another backend is given to one.
pub fn foreign(what: &str) -> ModelError {
    ModelError::Backend(format!("a {what} of another backend was given to this one"))
}

/// Records what compressors ask for while a prompt is prefilled.
pub trait Watch: Any + Send + Sync {}

/// One layer's observations on the host; a [`LayerView`](cokv_core::LayerView) borrows them. What was not asked for is empty.
#[derive(Clone, Debug, Default)]
pub struct LayerSummaries {
    /// Queries at the end of the prompt whose attention was recorded.
    pub window: usize,
    /// `[query_heads, window, prompt_len]`
    pub window_attention: Vec<f32>,
    /// Each sum that was asked for: `[query_heads, prompt_len]`.
    pub window_sums: Vec<(WindowSum, Vec<f32>)>,
    /// `[query_heads, prompt_len]`
    pub column_sums: Vec<f32>,
    /// Each that was asked for: `[query_heads, prompt_len]`.
    pub block_sums: Vec<(BlockSums, Vec<f32>)>,
    /// Of the queries before RoPE.
    pub query_statistics: Option<QueryStatistics>,
    /// `[kv_heads, prompt_len, head_dim]`
    pub keys: Vec<f32>,
    /// `[kv_heads, prompt_len, head_dim]`
    pub values: Vec<f32>,
    /// `[query_heads, prompt_len]`
    pub value_output_norms: Vec<f32>,
    /// `[query_heads, head_dim, head_dim]`
    pub output_grams: Vec<f32>,
    /// `[prompt_len, hidden_size]`
    pub inputs: Vec<f32>,
    /// `[queries, query_heads, head_dim]`
    pub queries: Vec<f32>,
}
