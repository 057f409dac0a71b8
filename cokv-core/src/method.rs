//! A compressor and an allocator under one name: a column of the matrix.

use std::sync::Arc;

use crate::{
    AllocationRequest, Budget, BudgetAllocator, BudgetPlan, CacheCompressor, Format, Frame, Gqa, HeadLayout,
    HeadScores, HeadSelection, LayerView, Learned, MethodSettings, Named, ObservationRequest, Pairs, PolicyError,
    Protected, Replay, Selection, Spending, TokenScores, WhileDecoding, select,
};

/// A whole compression method: score, allocate, select. Copies share compressor and allocator.
#[derive(Clone)]
pub struct Method {
    name: String,
    compressor: Named<dyn CacheCompressor>,
    allocator: Named<dyn BudgetAllocator>,
    head_scores: Option<HeadScores>,
    while_decoding: Option<WhileDecoding>,
    learned: Option<Arc<Learned>>,
}

impl Method {
    /// Puts the two together under a name that tables and logs show.
    pub fn new(
        name: impl Into<String>,
        compressor: Named<dyn CacheCompressor>,
        allocator: Named<dyn BudgetAllocator>,
    ) -> Self {
        Self { name: name.into(), compressor, allocator, head_scores: None, while_decoding: None, learned: None }
    }

    /// Lets it evict while the model answers, too.
    pub fn set_while_decoding(&mut self, while_decoding: WhileDecoding) {
        self.while_decoding = Some(while_decoding);
    }

    /// What evicts while the model answers, if anything does.
    pub fn while_decoding(&self) -> Option<&WhileDecoding> {
        self.while_decoding.as_ref()
    }

    /// The method that looks again at what a cache holds while the model answers.
    pub fn again(&self) -> Option<Self> {
        let compressor = self.while_decoding.as_ref()?.compressor.clone();
        Some(Self { compressor, while_decoding: None, ..self.clone() })
    }

    /// Gives the allocator what the heads were found to be worth.
    pub fn set_head_scores(&mut self, scores: HeadScores) {
        self.head_scores = Some(scores);
    }

    /// Gives the compressor what was learned of the model.
    pub fn set_learned(&mut self, learned: Arc<Learned>) {
        self.learned = Some(learned);
    }

    /// What was learned of the model, if it was given that.
    pub fn learned(&self) -> Option<&Arc<Learned>> {
        self.learned.as_ref()
    }

    /// Whether its scores need what was learned of the model.
    pub fn needs_learned(&self) -> bool {
        let again = self.while_decoding.as_ref().is_some_and(|again| again.compressor.needs_learned());
        self.compressor.needs_learned() || again
    }

    /// A layer as the compressor sees it, with what was learned of it.
    fn seen<'a>(&'a self, view: &LayerView<'a>) -> LayerView<'a> {
        let learned = self.learned.as_ref().and_then(|learned| learned.layers.get(view.layer));
        LayerView { learned: learned.or(view.learned), ..*view }
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
        MethodSettings {
            compressor: self.compressor.settings().clone(),
            allocator: self.allocator.settings().clone(),
            while_decoding: self.while_decoding.as_ref().map(WhileDecoding::settings),
        }
    }

    /// Everything that could change what the method keeps, for fingerprints: its settings and its head scores.
    pub fn definition(&self) -> String {
        let head_scores = self.head_scores.as_ref().map_or(String::new(), |scores| match scores.query_heads() {
            None => format!(" with {:?}", scores.values()),
            Some(query_heads) => format!(" with {query_heads:?} per query head"),
        });
        let learned = match &self.learned {
            Some(learned) if self.needs_learned() => format!(" having learned {}", learned.fingerprint),
            _ => String::new(),
        };
        format!("{}{head_scores}{learned}", self.settings())
    }

    /// Whether the budget matters at all.
    pub fn evicts(&self) -> bool {
        self.compressor.evicts() || self.while_decoding.is_some()
    }

    /// What every head keeps, as far as its budget goes, of such a prompt.
    pub fn protected(&self, frame: Frame) -> Protected {
        self.compressor.protected(frame)
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
        if self.allocator.needs_layer_preferences() && !self.compressor.prefers_layers() {
            let message = format!(
                "method `{}`: the allocator `{}` shares the budget out by what the compressor says of layers, and `{}` says \
                 nothing: take a compressor that does, or another allocator",
                self.name,
                self.allocator.settings().name(),
                self.compressor.settings().name(),
            );
            return Err(PolicyError::MissingPreferences(message));
        }
        match &self.learned {
            None if self.needs_learned() => {
                let own = self.compressor.needs_learned();
                let again = self.while_decoding.as_ref().map(|again| again.compressor.settings().name().to_owned());
                let compressor = again.filter(|_| !own).unwrap_or_else(|| self.compressor.settings().name().to_owned());
                return Err(PolicyError::NotLearned { method: self.name.clone(), compressor });
            }
            Some(learned) if learned.layers.len() != layout.layers => {
                let (found, expected) = (learned.layers.len(), layout.layers);
                return Err(PolicyError::LearnedOfOther { method: self.name.clone(), found, expected });
            }
            _ => {}
        }
        if let Some(lacks) = self.while_decoding.as_ref().and_then(WhileDecoding::lacks) {
            let compressor = self.while_decoding.iter().map(|again| again.compressor.settings().name()).collect();
            return Err(PolicyError::NotWhileDecoding { method: self.name.clone(), compressor, lacks });
        }
        self.allocator.check(layout, self.head_scores.as_ref())
    }

    /// What prefill must record of such a prompt.
    pub fn observations(&self, frame: Frame) -> ObservationRequest {
        let observed = self.compressor.observations(frame);
        // Attention that is summed up goes on from what the prompt gave.
        let goes_on =
            self.while_decoding.as_ref().is_some_and(|again| again.compressor.observations(frame).column_sums);
        ObservationRequest { column_sums: observed.column_sums || goes_on, ..observed }
    }

    /// The second pass that its scores look at, if any.
    pub fn replay(&self) -> Option<Replay> {
        self.compressor.replay()
    }

    /// Whether every budget is scored for itself.
    pub fn follows_budget(&self) -> bool {
        self.compressor.follows_budget()
    }

    /// Whether what it keeps is changed: [`CacheCompressor::rewrite`].
    pub fn rewrites(&self) -> bool {
        self.compressor.rewrites()
    }

    /// Whether what it keeps has a bias for each pair.
    pub fn adds_biases(&self) -> bool {
        self.compressor.adds_biases()
    }

    /// What becomes of what the heads of a layer keep; checked for length and finiteness.
    pub fn rewrite(&self, view: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
        let pairs = self.compressor.rewrite(&self.seen(view), kept)?;
        let (dim, biased) = (view.layout.head_dim, self.adds_biases());
        for (kv_head, kept) in kept.iter().enumerate() {
            let (rows, of_head) = (kept.len(view.prompt_len), pairs.get(kv_head));
            let found = of_head.map_or([0; 3], |pairs| [pairs.keys.len(), pairs.values.len(), pairs.biases.len()]);
            let expected = [rows * dim, rows * dim, if biased { rows } else { 0 }];
            if let Some(wrong) = (0..3).find(|&part| found[part] != expected[part]) {
                return Err(PolicyError::WrongLength {
                    method: self.name.clone(),
                    what: ["the rewritten keys of a head", "the rewritten values of a head", "the biases of a head"]
                        [wrong],
                    found: found[wrong],
                    expected: expected[wrong],
                });
            }
            let numbers = of_head.into_iter().flat_map(|pairs| [&pairs.keys, &pairs.values, &pairs.biases]);
            for (part, width) in numbers.zip([dim, dim, 1]) {
                if let Some(at) = part.iter().position(|number| !number.is_finite()) {
                    return Err(PolicyError::NotFinite {
                        method: self.name.clone(),
                        layer: view.layer,
                        kv_head,
                        token: at / width,
                        value: part[at],
                    });
                }
            }
        }
        Ok(pairs)
    }

    /// Tokens that all heads together may keep of a prompt; of a budget in bytes, as many as fit with the biases that it adds.
    pub fn allowed(&self, budget: Budget, layout: HeadLayout, prompt_len: usize, format: Format) -> usize {
        match budget {
            Budget::Bytes(bytes) if self.adds_biases() => {
                bytes as usize / (format.token_bytes(layout.head_dim) + size_of::<f32>())
            }
            budget => budget.total_tokens(layout, prompt_len, format),
        }
    }

    /// Whether it scores nothing before the question is known.
    pub fn needs_question(&self) -> bool {
        self.compressor.needs_question()
    }

    /// The observation window, where it holds nothing but the chat template's tail: no token of the user's text then
    /// says what is kept.
    pub fn window_within(&self, frame: Frame) -> Option<usize> {
        let window = self.observations(frame).last_queries();
        (1..=frame.tail).contains(&window).then_some(window)
    }

    /// What it looks at beside keys and values, all that is left of a text once it was read; none where these suffice, so that a cache can be
    /// compressed by it at any time.
    pub fn lacks_at_rest(&self) -> Option<&'static str> {
        let compressor = &self.compressor;
        let observed = compressor.observations(Frame::default());
        let queries = observed.last_queries() > 0 || observed.column_sums || observed.query_statistics;
        queries.then_some("queries").or_else(|| crate::while_decoding::lacks(compressor))
    }

    /// Whether another method's compressor is the same, so that its scores are this one's too.
    pub fn scores_like(&self, other: &Self) -> bool {
        self.compressor.settings() == other.compressor.settings()
    }

    /// Scores one layer, `[kv_heads, prompt_len]`, and checks that they are complete and finite.
    pub fn score(&self, view: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let scores = self.compressor.score(&self.seen(view))?;
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

    /// How much a layer needs, for [`TokenScores::push_preference`]; none where the compressor does not say. Checked to be a number
    /// that a budget can follow.
    pub fn layer_preference(&self, view: &LayerView<'_>) -> Result<Option<f64>, PolicyError> {
        if !self.compressor.prefers_layers() {
            return Ok(None);
        }
        let value = self.compressor.layer_preference(&self.seen(view))?;
        match value.is_finite() && value >= 0.0 {
            true => Ok(Some(value)),
            false => Err(PolicyError::UnfitPreference { method: self.name.clone(), layer: view.layer, value }),
        }
    }

    /// Shares `total` tokens out over the heads and takes the best of each.
    ///
    /// # Errors
    /// Where the allocator refuses, and [`PolicyError::BrokenPlan`] where it breaks its own promises.
    pub fn select(&self, layout: HeadLayout, scores: &TokenScores, total: usize) -> Result<Selection, PolicyError> {
        if !self.compressor.evicts() {
            return Ok(Selection::everything(layout.heads()));
        }
        let protected = self.protected(scores.frame());
        let plan = self.plan(layout, scores, total, protected)?;
        Ok(select::select(scores, &plan, protected))
    }

    /// How many of the tokens that it holds each head keeps while the model answers, of `total` for all, and which. `held` are scores
    /// of each head's own, in the order of its tokens. A head that holds fewer than its share keeps all of them. First and last tokens
    /// are kept where the compressor or `besides` says so.
    ///
    /// # Errors
    /// As of [`select`](Self::select).
    pub fn select_held(
        &self,
        layout: HeadLayout,
        held: &[Vec<f32>],
        total: usize,
        besides: Protected,
    ) -> Result<Selection, PolicyError> {
        let longest = held.iter().map(Vec::len).max().unwrap_or(0);
        let mut scores = TokenScores::with_capacity(layout, longest);
        // Allocators look at as many tokens of every head. Those that a head lacks are worth no more than its least, and stand in
        // front, far from the window.
        for head in held {
            let least = head.iter().copied().reduce(f32::min).unwrap_or(0.0);
            scores.push_layer(&vec![least; longest - head.len()]);
            scores.push_layer(head);
        }
        let protected = self.protected(scores.frame()).or(besides);
        let plan = self.plan(layout, &scores, total, protected)?;
        let heads = held.iter().zip(plan.kept()).map(|(held, &kept)| select::best_tokens(held, kept, protected));
        Ok(Selection { heads: heads.collect() })
    }

    fn plan(
        &self,
        layout: HeadLayout,
        scores: &TokenScores,
        total: usize,
        protected: Protected,
    ) -> Result<BudgetPlan, PolicyError> {
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
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use toml::Table;

    use super::*;
    use crate::{PlanError, Settings};

    /// Scores nothing, protects two tokens, and allocates what it was told.
    #[derive(Debug)]
    struct Told {
        counts: Vec<usize>,
        spending: Spending,
    }

    impl CacheCompressor for Told {
        fn protected(&self, _frame: Frame) -> Protected {
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

    /// Says of its layers what it was told, and shares out by it if it was.
    #[derive(Debug)]
    struct OfLayers(Option<f64>);

    impl CacheCompressor for OfLayers {
        fn prefers_layers(&self) -> bool {
            self.0.is_some()
        }

        fn layer_preference(&self, layer: &LayerView<'_>) -> Result<f64, PolicyError> {
            layer.recorded("what it was told", self.0)
        }

        fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Ok(vec![0.0; layer.layout.kv_heads * layer.prompt_len])
        }
    }

    impl BudgetAllocator for OfLayers {
        fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
            Ok(BudgetPlan::new(vec![0; request.layout.heads()]))
        }

        fn needs_layer_preferences(&self) -> bool {
            self.0.is_some()
        }
    }

    #[test]
    fn who_shares_out_by_layers_goes_with_who_speaks_of_them() {
        let named = |said| Settings::of(said, &Table::new()).unwrap();
        let method = |said, asks: bool| {
            let allocator: Arc<dyn BudgetAllocator> = Arc::new(OfLayers(asks.then_some(1.0)));
            let compressor: Arc<dyn CacheCompressor> = Arc::new(OfLayers(said));
            Method::new("mine", Named::new(compressor, named("scorer")), Named::new(allocator, named("sharer")))
        };
        let layout = HeadLayout::new(1, 1, 1, 1).unwrap();
        let error = method(None, true).check(layout).unwrap_err().to_string();
        assert!(error.contains("the allocator `sharer` shares") && error.contains("`scorer` says nothing"), "{error}");
        for (said, asks) in [(None, false), (Some(1.0), false), (Some(1.0), true)] {
            assert!(method(said, asks).check(layout).is_ok());
        }
        let view = LayerView::new(3, layout, &[]);
        assert_eq!(method(Some(0.5), false).layer_preference(&view), Ok(Some(0.5)));
        assert_eq!(method(None, false).layer_preference(&view), Ok(None));
        for unfit in [-1.0, f64::NAN, f64::INFINITY] {
            let error = method(Some(unfit), true).layer_preference(&view).unwrap_err().to_string();
            assert!(error.starts_with("method `mine`: layer 3 needs"), "{error}");
        }
    }
}
