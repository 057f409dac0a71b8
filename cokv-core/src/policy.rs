//! The two seams that a compression method is made of.

use std::fmt::{self, Debug};

use serde::{Deserialize, Serialize};

use crate::{
    BudgetPlan, Frame, HeadLayout, HeadScores, HeadSelection, LayerView, ObservationRequest, Pairs, PlanError,
    PolicyError, Protected, Replay, Spending, TokenScores,
};

/// What a budget counts in a model whose query heads share KV heads. Tables must print it: the two are not comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gqa {
    /// Tokens of a KV head, stored once for its whole group (Ada-KV, CoKV, kvpress).
    #[default]
    PerKvHead,
    /// Tokens of a query head, stored once for each of them: a group keeps that many times more (SnapKV, PyramidKV and
    /// HeadKV as published).
    PerQueryHead,
}

impl fmt::Display for Gqa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Gqa::PerKvHead => "per-kv-head",
            Gqa::PerQueryHead => "per-query-head",
        })
    }
}

/// Says how much every prompt token is worth to every KV head.
///
/// A new policy is one file: a struct with its settings (read and written by `serde`, unknown keys denied), this trait, and
/// one line in a registry.
///
/// ```
/// use cokv_core::{CacheCompressor, Frame, HeadLayout, LayerView, ObservationRequest, PolicyError, Protected};
///
/// /// Keeps the tokens whose values are large, and the first of all.
/// #[derive(Debug)]
/// struct LargeValues;
///
/// impl CacheCompressor for LargeValues {
///     fn observations(&self, _: Frame) -> ObservationRequest {
///         ObservationRequest { values: true, ..ObservationRequest::default() }
///     }
///
///     fn protected(&self, _: Frame) -> Protected {
///         Protected { sinks: 1, window: 0 }
///     }
///
///     fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
///         let values = layer.recorded("values", layer.values)?;
///         Ok(values.chunks(layer.layout.head_dim).map(|value| value.iter().map(|x| x * x).sum()).collect())
///     }
/// }
///
/// // Two tokens, one KV head of two numbers.
/// let layout = HeadLayout::new(1, 1, 1, 2).unwrap();
/// let view = LayerView { values: Some(&[3.0, 4.0, 0.0, 1.0]), ..LayerView::new(0, layout, &[7, 8]) };
/// assert_eq!(LargeValues.score(&view), Ok(vec![25.0, 1.0]));
/// ```
pub trait CacheCompressor: Debug + Send + Sync {
    /// The compressor that this one builds on, if it changes what another says. All that it does not say itself is then what
    /// its base says, so that a wrapper is written without what it leaves alone.
    fn base(&self) -> Option<&dyn CacheCompressor> {
        None
    }

    /// What prefill must record for [`score`](Self::score) and [`rewrite`](Self::rewrite) of such a prompt.
    fn observations(&self, frame: Frame) -> ObservationRequest {
        self.base().map_or_else(ObservationRequest::default, |base| base.observations(frame))
    }

    /// Tokens of such a prompt that are kept before any other. Where a head's budget is smaller than both, the window's
    /// youngest tokens go first, then the sinks.
    fn protected(&self, frame: Frame) -> Protected {
        self.base().map_or_else(Protected::default, |base| base.protected(frame))
    }

    /// A second pass over the prompt that [`score`](Self::score) looks at.
    fn replay(&self) -> Option<Replay> {
        self.base().and_then(|base| base.replay())
    }

    /// Whether scores depend on the budget ([`LayerView::kept`]), so that every budget is scored for itself.
    fn follows_budget(&self) -> bool {
        self.base().is_some_and(|base| base.follows_budget())
    }

    /// Whether nothing can be scored before the question is known, so that a document cannot be compressed before anybody asks.
    fn needs_question(&self) -> bool {
        self.base().is_some_and(|base| base.needs_question())
    }

    /// Whether scores need what was [learned](crate::Learned) of the model.
    fn needs_learned(&self) -> bool {
        self.base().is_some_and(|base| base.needs_learned())
    }

    /// Whether [`rewrite`](Self::rewrite) changes what is kept.
    fn rewrites(&self) -> bool {
        self.base().is_some_and(|base| base.rewrites())
    }

    /// Whether [`rewrite`](Self::rewrite) turns keys to other positions than their tokens have.
    fn moves_keys(&self) -> bool {
        self.base().is_some_and(|base| base.moves_keys())
    }

    /// Whether what it makes of kept pairs has a bias for each, which takes memory too.
    fn adds_biases(&self) -> bool {
        self.base().is_some_and(|base| base.adds_biases())
    }

    /// What becomes of the tokens that the heads of a layer keep, `[kv_heads]`, once that is known: their keys turned, values merged,
    /// biases fitted. Every head gets as many pairs as it keeps tokens. Layers are rewritten independently, several at a time.
    ///
    /// # Errors
    /// As of [`score`](Self::score).
    fn rewrite(&self, layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
        match self.base() {
            Some(base) => base.rewrite(layer, kept),
            None => Err(PolicyError::MissingObservation { what: "what becomes of kept pairs", layer: layer.layer }),
        }
    }

    /// Whether [`layer_preference`](Self::layer_preference) says how much each layer needs.
    fn prefers_layers(&self) -> bool {
        self.base().is_some_and(|base| base.prefers_layers())
    }

    /// How much of the budget a layer should get beside the others: finite, at least 0, in a unit that all layers share. Allocators
    /// that [ask for it](BudgetAllocator::needs_layer_preferences) see it next to the scores, which say nothing about a layer where
    /// they are comparable inside of it alone.
    ///
    /// # Errors
    /// As of [`score`](Self::score).
    fn layer_preference(&self, layer: &LayerView<'_>) -> Result<f64, PolicyError> {
        match self.base() {
            Some(base) => base.layer_preference(layer),
            None => Err(PolicyError::MissingObservation { what: "how much a layer needs", layer: layer.layer }),
        }
    }

    /// Whether anything is evicted at all; `false` keeps the whole prompt at every budget.
    fn evicts(&self) -> bool {
        self.base().is_none_or(|base| base.evicts())
    }

    /// Scores of one layer: `[kv_heads, prompt_len]`, row-major, higher is kept first, finite. Scores of protected
    /// tokens are ignored.
    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError>;
}

/// What an allocator may look at.
#[derive(Clone, Copy, Debug)]
pub struct AllocationRequest<'a> {
    /// Heads of the model.
    pub layout: HeadLayout,
    /// Prompt tokens.
    pub prompt_len: usize,
    /// Tokens that all heads may keep together, protected ones included.
    pub total: usize,
    /// What the compressor keeps in every head.
    pub protected: Protected,
    /// This prompt's scores, all layers.
    pub token_scores: &'a TokenScores,
    /// What the heads are worth, found offline, if the method names such scores.
    pub head_scores: Option<&'a HeadScores>,
}

impl AllocationRequest<'_> {
    /// Tokens that every head keeps whatever its scores: sinks and window, or the whole of a shorter prompt.
    ///
    /// # Errors
    /// [`PolicyError::BudgetBelowProtected`] where the total does not pay for them.
    pub fn protected_tokens(&self) -> Result<usize, PolicyError> {
        self.protected.within(self.total, self.layout, self.prompt_len)
    }

    /// Holds a plan to what [`BudgetAllocator::allocate`] promises: a count for every head, between the protected tokens and
    /// the prompt, together as the allocator spends.
    pub fn check(&self, plan: &BudgetPlan, spending: Spending) -> Result<(), PlanError> {
        let Self { layout, prompt_len, total, protected, .. } = *self;
        if plan.kept().len() != layout.heads() {
            return Err(PlanError::WrongNumber { found: plan.kept().len(), expected: layout.heads() });
        }
        let protected = prompt_len - protected.candidates(prompt_len).len();
        for (head, &kept) in plan.kept().iter().enumerate() {
            let (layer, kv_head) = layout.place(head);
            if kept > prompt_len {
                return Err(PlanError::AbovePrompt { layer, kv_head, kept, prompt_len });
            }
            if kept < protected {
                return Err(PlanError::BelowProtected { layer, kv_head, kept, protected });
            }
        }
        let (planned, payable) = (plan.total(), total.min(layout.heads().saturating_mul(prompt_len)));
        let spends = match spending {
            Spending::Exact => planned == payable,
            Spending::AtMost(_) => planned <= payable,
            Spending::MayExceed(_) => true,
        };
        if spends { Ok(()) } else { Err(PlanError::WrongTotal { planned, payable, spending }) }
    }
}

/// Says how many prompt tokens each KV head keeps.
///
/// `cokv_core::testing` (feature `testing`) checks an implementation against everything that is promised here.
///
/// ```
/// use cokv_core::{
///     AllocationRequest, BudgetAllocator, BudgetPlan, HeadLayout, PolicyError, Protected, TokenScores,
/// };
///
/// /// Fills the heads one after the other.
/// #[derive(Debug)]
/// struct FirstComeFirstServed;
///
/// impl BudgetAllocator for FirstComeFirstServed {
///     fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
///         let least = request.protected_tokens()?;
///         let mut left = request.total.saturating_sub(least * request.layout.heads());
///         let kept = (0..request.layout.heads()).map(|_| {
///             let more = left.min(request.prompt_len - least);
///             left -= more;
///             least + more
///         });
///         Ok(BudgetPlan::new(kept.collect()))
///     }
/// }
///
/// let layout = HeadLayout::new(1, 2, 2, 64).unwrap();
/// let token_scores = TokenScores::with_capacity(layout, 10);
/// let protected = Protected { sinks: 1, window: 2 };
/// let request =
///     AllocationRequest { layout, prompt_len: 10, total: 12, protected, token_scores: &token_scores, head_scores: None };
/// let plan = FirstComeFirstServed.allocate(&request).unwrap();
/// assert_eq!(plan.kept(), [9, 3]);
/// assert!(request.check(&plan, FirstComeFirstServed.spending()).is_ok());
/// ```
pub trait BudgetAllocator: Debug + Send + Sync {
    /// A count for every head: at least what the compressor protects, at most `prompt_len`, together as
    /// [`spending`](Self::spending) says.
    ///
    /// Raising a head's score never costs it a token. Unless the allocator's documentation says otherwise,
    /// [exact](Spending::Exact) plans never take a token from a head when the total grows.
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError>;

    /// What can be seen to be wrong before there is a prompt: scores missing or of another model, settings that do not
    /// fit the number of heads.
    fn check(&self, _layout: HeadLayout, _head_scores: Option<&HeadScores>) -> Result<(), PolicyError> {
        Ok(())
    }

    /// Whether it works on what the compressor says of layers ([`TokenScores::layer_preferences`]), so that it goes with those alone
    /// that say it.
    fn needs_layer_preferences(&self) -> bool {
        false
    }

    /// How the plans relate to the total.
    fn spending(&self) -> Spending {
        Spending::Exact
    }

    /// What the budget counts.
    fn gqa(&self) -> Gqa {
        Gqa::PerKvHead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says all that can be said.
    #[derive(Debug)]
    struct Talkative;

    impl CacheCompressor for Talkative {
        fn observations(&self, frame: Frame) -> ObservationRequest {
            ObservationRequest { window: frame.tail, ..Default::default() }
        }

        fn protected(&self, frame: Frame) -> Protected {
            Protected { sinks: 1, window: frame.tail }
        }

        fn replay(&self) -> Option<Replay> {
            let text = String::new();
            Some(Replay {
                chunk: 1,
                verbatim: false,
                first: text.clone(),
                further: text,
                overlap: 0,
                sinks: 0,
                queries: 0,
            })
        }

        fn follows_budget(&self) -> bool {
            true
        }

        fn needs_question(&self) -> bool {
            true
        }

        fn needs_learned(&self) -> bool {
            true
        }

        fn rewrites(&self) -> bool {
            true
        }

        fn moves_keys(&self) -> bool {
            true
        }

        fn adds_biases(&self) -> bool {
            true
        }

        fn rewrite(&self, _: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
            Ok(vec![Pairs::default(); kept.len()])
        }

        fn prefers_layers(&self) -> bool {
            true
        }

        fn layer_preference(&self, _: &LayerView<'_>) -> Result<f64, PolicyError> {
            Ok(3.0)
        }

        fn evicts(&self) -> bool {
            false
        }

        fn score(&self, _: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Ok(vec![1.0])
        }
    }

    /// Says nothing but scores.
    #[derive(Debug)]
    struct Silent(Option<Talkative>);

    impl CacheCompressor for Silent {
        fn base(&self) -> Option<&dyn CacheCompressor> {
            self.0.as_ref().map(|base| base as _)
        }

        fn score(&self, _: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Ok(vec![2.0])
        }
    }

    #[test]
    fn what_a_wrapper_does_not_say_its_base_says() {
        let said = |by: &dyn CacheCompressor| {
            let view = LayerView::new(0, HeadLayout { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 1 }, &[]);
            let frame = Frame::with_tail(3);
            let when = [by.follows_budget(), by.needs_question() && by.needs_learned(), !by.evicts()];
            let also = [by.rewrites() && by.moves_keys(), by.adds_biases(), by.prefers_layers()];
            let rewritten = by.rewrite(&view, &[HeadSelection::Everything]).ok();
            let said = (rewritten, by.layer_preference(&view).ok());
            (by.observations(frame), by.protected(frame), by.replay(), [when, also], said)
        };
        assert_eq!(said(&Silent(Some(Talkative))), said(&Talkative));
        let alone = said(&Silent(None));
        assert_eq!((alone.0, alone.1), (ObservationRequest::default(), Protected::default()));
        assert_eq!((alone.2, alone.3, alone.4), (None, [[false; 3]; 2], (None, None)));
    }
}
