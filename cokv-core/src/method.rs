//! A compressor and an allocator under one name: a column of the matrix.

use crate::{
    AllocationRequest, BudgetAllocator, CacheCompressor, Gqa, HeadLayout, HeadScores, LayerView, MethodSettings, Named,
    ObservationRequest, PolicyError, Protected, Selection, Spending, TokenScores, select,
};

/// A whole compression method: score, allocate, select. Copies share compressor and allocator.
#[derive(Clone)]
pub struct Method {
    name: String,
    compressor: Named<dyn CacheCompressor>,
    allocator: Named<dyn BudgetAllocator>,
    head_scores: Option<HeadScores>,
}

impl Method {
    /// Puts the two together under a name that tables and logs show.
    pub fn new(
        name: impl Into<String>,
        compressor: Named<dyn CacheCompressor>,
        allocator: Named<dyn BudgetAllocator>,
    ) -> Self {
        Self { name: name.into(), compressor, allocator, head_scores: None }
    }

    /// Gives the allocator what the heads were found to be worth.
    pub fn set_head_scores(&mut self, scores: HeadScores) {
        self.head_scores = Some(scores);
    }

    /// What each head is worth to the allocator, where that was given.
    pub fn head_scores(&self) -> Option<&HeadScores> {
        self.head_scores.as_ref()
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: String) {
        self.name = name;
    }

    /// The name that tables and logs show.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compressor and allocator with all settings, defaults written out.
    pub fn settings(&self) -> MethodSettings {
        MethodSettings { compressor: self.compressor.settings().clone(), allocator: self.allocator.settings().clone() }
    }

    /// Everything that could change what the method keeps, for fingerprints: its settings and its head scores.
    pub fn definition(&self) -> String {
        let head_scores = self.head_scores.as_ref().map_or(String::new(), |scores| match scores.query_heads() {
            None => format!(" with {:?}", scores.values()),
            Some(query_heads) => format!(" with {query_heads:?} per query head"),
        });
        format!("{}{head_scores}", self.settings())
    }

    /// Whether the budget matters at all.
    pub fn evicts(&self) -> bool {
        self.compressor.evicts()
    }

    /// What every head keeps, as far as its budget goes, of a prompt whose last `tail` tokens are the chat template's,
    /// behind the user's text.
    pub fn protected(&self, tail: usize) -> Protected {
        self.compressor.protected(tail)
    }

    /// How what is kept relates to the budget.
    pub fn spending(&self) -> Spending {
        self.allocator.spending()
    }

    /// What the budget counts.
    pub fn gqa(&self) -> Gqa {
        self.allocator.gqa()
    }

    /// Finds what is wrong with the method on this model before a prompt is read.
    pub fn check(&self, layout: HeadLayout) -> Result<(), PolicyError> {
        self.allocator.check(layout, self.head_scores.as_ref())
    }

    /// What prefill must record of such a prompt.
    pub fn observations(&self, tail: usize) -> ObservationRequest {
        self.compressor.observations(tail)
    }

    /// The observation window, where it holds nothing but the chat template's tail: no token of the user's text then
    /// says what is kept.
    pub fn window_within(&self, tail: usize) -> Option<usize> {
        let window = self.observations(tail).last_queries();
        (1..=tail).contains(&window).then_some(window)
    }

    /// Whether another method's compressor is the same, so that its scores are this one's too.
    pub fn scores_like(&self, other: &Self) -> bool {
        self.compressor.settings() == other.compressor.settings()
    }

    /// Scores one layer, `[kv_heads, prompt_len]`, and checks that they are complete and finite.
    pub fn score(&self, view: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let scores = self.compressor.score(view)?;
        let expected = view.layout.kv_heads * view.prompt_len;
        if scores.len() != expected {
            return Err(PolicyError::WrongLength {
                method: self.name.clone(),
                what: "the scores of a layer",
                found: scores.len(),
                expected,
            });
        }
        match scores.iter().position(|score| !score.is_finite()) {
            Some(at) => Err(PolicyError::NotFinite {
                method: self.name.clone(),
                layer: view.layer,
                kv_head: at / view.prompt_len,
                token: at % view.prompt_len,
                value: scores[at],
            }),
            None => Ok(scores),
        }
    }

    /// Shares `total` tokens out over the heads and takes the best of each.
    ///
    /// # Errors
    /// Where the allocator refuses, and [`PolicyError::BrokenPlan`] where it breaks its own promises.
    pub fn select(&self, layout: HeadLayout, scores: &TokenScores, total: usize) -> Result<Selection, PolicyError> {
        if !self.evicts() {
            return Ok(Selection::everything(layout.heads()));
        }
        let protected = self.protected(scores.tail());
        let request = AllocationRequest {
            layout,
            prompt_len: scores.prompt_len(),
            total,
            protected,
            token_scores: scores,
            head_scores: self.head_scores.as_ref(),
        };
        let plan = self.allocator.allocate(&request)?;
        let broken = |broken| PolicyError::BrokenPlan { method: self.name.clone(), broken };
        request.check(&plan, self.allocator.spending()).map_err(broken)?;
        Ok(select::select(scores, &plan, protected))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use toml::Table;

    use super::*;
    use crate::{BudgetPlan, PlanError, Settings};

    /// Scores nothing, protects two tokens, and allocates what it was told.
    #[derive(Debug)]
    struct Told {
        counts: Vec<usize>,
        spending: Spending,
    }

    impl CacheCompressor for Told {
        fn protected(&self, _tail: usize) -> Protected {
            Protected { sinks: 1, window: 1 }
        }

        fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Ok(vec![0.0; layer.layout.kv_heads * layer.prompt_len])
        }
    }

    impl BudgetAllocator for Told {
        fn allocate(&self, _: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
            Ok(BudgetPlan::new(self.counts.clone()))
        }

        fn spending(&self) -> Spending {
            self.spending
        }
    }

    /// What becomes of a plan for two layers of two heads, a prompt of ten tokens and twenty for all.
    fn select(counts: [usize; 4], spending: Spending) -> Result<Selection, PolicyError> {
        let told = Arc::new(Told { counts: counts.to_vec(), spending });
        let settings = Settings::of("told", &Table::new()).unwrap();
        let method = Method::new(
            "mine",
            Named::new(told.clone() as Arc<dyn CacheCompressor>, settings.clone()),
            Named::new(told as Arc<dyn BudgetAllocator>, settings),
        );
        let layout = HeadLayout::new(2, 2, 2, 4).unwrap();
        let mut scores = TokenScores::with_capacity(layout, 10);
        scores.push_layer(&[0.0; 40]);
        method.select(layout, &scores, 20)
    }

    #[test]
    fn plans_that_break_a_promise_are_refused_with_method_head_and_numbers() {
        assert_eq!(select([2, 3, 5, 10], Spending::Exact).unwrap().total(10), 20);
        let error = |counts, spending| select(counts, spending).unwrap_err().to_string();
        let above = error([2, 2, 5, 11], Spending::MayExceed(""));
        assert!(above.starts_with("method `mine`: ") && above.contains("head 1.1 gets 11 tokens of a prompt of 10"));
        let below = error([9, 1, 5, 5], Spending::Exact);
        assert!(below.contains("head 0.1 gets 1 tokens, fewer than the 2 that are always kept"), "{below}");
        for counts in [[5, 5, 5, 4], [5, 5, 5, 6]] {
            let off = error(counts, Spending::Exact);
            assert!(off.contains("where exactly 20 are to be spent"), "{off}");
        }
        assert!(select([5, 5, 5, 4], Spending::AtMost("")).is_ok());
        assert!(error([5, 5, 5, 6], Spending::AtMost("")).contains("get 21 tokens, where at most 20 are"));
        assert!(select([5, 5, 5, 6], Spending::MayExceed("")).is_ok());
    }

    #[test]
    fn a_plan_for_other_heads_is_refused() {
        let plan = BudgetPlan::new(vec![5; 3]);
        let request = AllocationRequest {
            layout: HeadLayout::new(2, 2, 2, 4).unwrap(),
            prompt_len: 10,
            total: 20,
            protected: Protected::default(),
            token_scores: &TokenScores::with_capacity(HeadLayout::new(2, 2, 2, 4).unwrap(), 0),
            head_scores: None,
        };
        assert_eq!(request.check(&plan, Spending::Exact), Err(PlanError::WrongNumber { found: 3, expected: 4 }));
    }
}
