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

    /// What every head keeps, as far as its budget goes.
    pub fn protected(&self) -> Protected {
        self.compressor.protected()
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

    /// What prefill must record.
    pub fn observations(&self) -> ObservationRequest {
        self.compressor.observations()
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
    pub fn select(&self, layout: HeadLayout, scores: &TokenScores, total: usize) -> Result<Selection, PolicyError> {
        if !self.evicts() {
            return Ok(Selection::everything(layout.heads()));
        }
        let protected = self.compressor.protected();
        let plan = self.allocator.allocate(&AllocationRequest {
            layout,
            prompt_len: scores.prompt_len(),
            total,
            protected,
            token_scores: scores,
            head_scores: self.head_scores.as_ref(),
        })?;
        if plan.kept().len() != layout.heads() {
            return Err(PolicyError::WrongLength {
                method: self.name.clone(),
                what: "the budget plan",
                found: plan.kept().len(),
                expected: layout.heads(),
            });
        }
        Ok(select::select(scores, &plan, protected))
    }
}
