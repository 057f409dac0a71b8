//! Invented models, prompts and scores to allocate for.

use proptest::prelude::*;

use crate::random::mix;
use crate::{
    AllocationRequest, BudgetAllocator, BudgetPlan, HeadLayout, HeadScores, PolicyError, Protected, TokenScores,
};

/// One allocation, small enough to be read in a failure message.
#[derive(Clone, Debug)]
pub struct Case {
    pub layout: HeadLayout,
    pub prompt_len: usize,
    pub total: usize,
    pub protected: Protected,
    /// `[layers, query_heads]`
    pub head_scores: Vec<f64>,
    /// `[layers, kv_heads, prompt_len]`
    pub token_scores: Vec<f32>,
    /// `[layers]`, at least 0.
    pub preferences: Vec<f64>,
}

/// What scores look like. All are multiples of 2⁻²⁴, so that small shifts and means over a group are exact.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Between 0 and 1, no two alike.
    Distinct,
    /// Above and below zero.
    Signed,
    /// Four values, so that ties are the rule.
    Levels,
    /// All the same.
    Equal,
    /// All below zero.
    Negative,
    /// One far above the others.
    Giant,
}

impl Kind {
    fn value(self, seed: u64, at: usize) -> f64 {
        let bits = mix(mix(seed) ^ at as u64);
        let fraction = (bits >> 40) as f64 / (1u64 << 24) as f64;
        match self {
            Kind::Distinct => fraction,
            Kind::Signed => fraction - 0.5,
            Kind::Levels => (bits % 4) as f64 - 1.0,
            Kind::Equal => 0.25,
            Kind::Negative => fraction - 2.0,
            Kind::Giant => fraction + if at as u64 == seed % 4 { 1024.0 } else { 0.0 },
        }
    }
}

/// Models of up to 24 KV heads, prompts of up to 40 tokens, budgets from nothing to more than the prompt.
pub fn any_case() -> impl Strategy<Value = Case> {
    let kinds = [Kind::Distinct, Kind::Signed, Kind::Levels, Kind::Equal, Kind::Negative, Kind::Giant];
    case_of(&kinds)
}

/// The same with scores that do not tie.
pub fn untied_case() -> impl Strategy<Value = Case> {
    case_of(&[Kind::Distinct, Kind::Signed])
}

/// Larger prompts and budgets of heads that have little in common: their scores differ by decades, and so does how much
/// of a head's scores lies on how few tokens. A budget on the wrong head is then wrong by more than a token.
pub fn contrasting_case() -> impl Strategy<Value = Case> {
    let model = (2usize..5, 3usize..7, prop::sample::select(vec![1usize, 2]));
    (model, 100usize..300, 0.1f64..0.6, any::<u64>()).prop_map(
        |((layers, kv_heads, group), prompt_len, share, seed)| {
            let layout = HeadLayout { layers, query_heads: kv_heads * group, kv_heads, head_dim: 4 };
            let protected = Protected { sinks: 1, window: 4 };
            let fraction = |seed, at: usize| Kind::Distinct.value(seed, at);
            // Decades, lower and upper for each head in another order.
            let scale = |head: usize| 10f64.powf(6.0 * fraction(mix(seed), head) - 3.0);
            let peak = |head: usize| 10f64.powf(3.0 * fraction(mix(!seed), head) - 1.0);
            let token = |at: usize| {
                let head = at / prompt_len;
                (scale(head) * fraction(seed, at).powf(peak(head))) as f32
            };
            Case {
                layout,
                prompt_len,
                total: (share * (layout.heads() * prompt_len) as f64) as usize,
                protected,
                head_scores: (0..layers * layout.query_heads)
                    .map(|at| fraction(seed, at) * scale(at / group))
                    .collect(),
                token_scores: (0..layout.heads() * prompt_len).map(token).collect(),
                preferences: (0..layers).map(|layer| fraction(mix(seed ^ 1), layer)).collect(),
            }
        },
    )
}

fn case_of(kinds: &[Kind]) -> impl Strategy<Value = Case> + use<> {
    let kind = prop::sample::select(kinds.to_vec());
    let model = (1usize..5, 1usize..7, prop::sample::select(vec![1usize, 2, 4]));
    // The budget is a share of what there is beyond the protected tokens, from a little below to a little above.
    let budget = (-0.1f64..1.1, 0usize..7, 0usize..4, 0usize..9);
    (model, 0usize..40, budget, (kind.clone(), kind), any::<u64>()).prop_map(
        |((layers, kv_heads, group), prompt_len, (share, extra, sinks, window), (heads, tokens), seed)| {
            let layout = HeadLayout { layers, query_heads: kv_heads * group, kv_heads, head_dim: 4 };
            let protected = Protected { sinks, window };
            let least = layout.heads() * (sinks + window).min(prompt_len);
            let room = (layout.heads() * prompt_len - least) as f64;
            let total = (least as f64 + share * room) as usize + extra;
            let value = |kind: Kind, seed| move |at| kind.value(seed, at);
            let head_scores = (0..layers * layout.query_heads).map(value(heads, seed)).collect();
            let token_values = (0..layout.heads() * prompt_len).map(value(tokens, !seed));
            let token_scores = token_values.map(|value| value as f32).collect();
            let preferences = (0..layers).map(|layer| Kind::Distinct.value(mix(seed ^ 1), layer)).collect();
            Case { layout, prompt_len, total, protected, head_scores, token_scores, preferences }
        },
    )
}

impl Case {
    /// What the allocator says.
    pub fn allocate(&self, allocator: &dyn BudgetAllocator) -> Result<BudgetPlan, PolicyError> {
        let scores = HeadScores::per_query_head(self.layout, self.head_scores.clone()).ok();
        self.allocate_with(allocator, scores.as_ref())
    }

    /// What the allocator says with these head scores.
    pub fn allocate_with(
        &self,
        allocator: &dyn BudgetAllocator,
        head_scores: Option<&HeadScores>,
    ) -> Result<BudgetPlan, PolicyError> {
        self.with_request(head_scores, |request| allocator.allocate(request))
    }

    /// Lends what an allocator sees.
    pub fn with_request<T>(
        &self,
        head_scores: Option<&HeadScores>,
        work: impl FnOnce(&AllocationRequest<'_>) -> T,
    ) -> T {
        let mut token_scores = TokenScores::with_capacity(self.layout, self.prompt_len);
        token_scores.push_layer(&self.token_scores);
        self.preferences.iter().for_each(|&preference| token_scores.push_preference(preference));
        work(&AllocationRequest {
            layout: self.layout,
            prompt_len: self.prompt_len,
            total: self.total,
            protected: self.protected,
            token_scores: &token_scores,
            head_scores,
        })
    }

    /// The same with another total.
    pub fn with_total(&self, total: usize) -> Self {
        Self { total, ..self.clone() }
    }

    /// The same with every head score changed; the function sees the KV head's flat index.
    pub fn with_head_scores(&self, change: impl Fn(usize, f64) -> f64) -> Self {
        let group = self.layout.group();
        let changed = self.head_scores.iter().enumerate().map(|(at, &score)| change(at / group, score));
        Self { head_scores: changed.collect(), ..self.clone() }
    }

    /// The same with the first head's token scores for all heads, and one score for all query heads of a group.
    pub fn with_equal_tokens(&self) -> Self {
        let first = self.token_scores.get(..self.prompt_len).unwrap_or_default();
        let equal = Self { token_scores: first.repeat(self.layout.heads()), ..self.clone() };
        equal.with_head_scores(|head, _| self.head_scores[head * self.layout.group()])
    }

    /// The same with the KV heads of a layer moved on by one, the last to the front.
    pub fn rotated(&self, layer: usize) -> Self {
        let mut rotated = self.clone();
        let HeadLayout { kv_heads, query_heads, .. } = self.layout;
        rotated.head_scores[layer * query_heads..][..query_heads].rotate_right(self.layout.group());
        let width = kv_heads * self.prompt_len;
        rotated.token_scores[layer * width..][..width].rotate_right(self.prompt_len);
        rotated
    }
}
