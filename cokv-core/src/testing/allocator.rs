//! The contract of [`BudgetAllocator`].

use std::cell::Cell;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use proptest::{prop_assert, prop_assert_eq};

use super::ContractViolation;
use super::case::{Case, any_case, contrasting_case, untied_case};
use crate::{BudgetAllocator, BudgetPlan, HeadLayout, HeadScores, PolicyError, Protected, Spending};

/// Property tests of one allocator with its settings.
///
/// Always checked: bounds, protected tokens, the total as [`Spending`] says, determinism, the whole prompt where the
/// total pays for it, scores that rise, heads of the same prompt but other scores, scores that are scaled, heads of a
/// layer that change places and must take their budgets along (up to a token, for ties), and extreme input.
/// [`Spending::Exact`] allocators are also held to be house-monotone.
#[derive(Debug)]
pub struct AllocatorContract<'a> {
    allocator: &'a dyn BudgetAllocator,
    house_monotone: bool,
    shift_invariant: bool,
}

/// Cases of each promise.
const CASES: u32 = 96;

type Verdict = Result<(), TestCaseError>;

impl<'a> AllocatorContract<'a> {
    /// What every allocator must keep.
    pub fn new(allocator: &'a dyn BudgetAllocator) -> Self {
        let house_monotone = allocator.spending() == Spending::Exact;
        Self { allocator, house_monotone, shift_invariant: false }
    }

    /// Allows a larger total to take a token from a head, as the largest remainder does.
    pub fn not_house_monotone(self) -> Self {
        Self { house_monotone: false, ..self }
    }

    /// Also demands that adding a number to all head scores changes nothing.
    pub fn shift_invariant(self) -> Self {
        Self { shift_invariant: true, ..self }
    }

    /// Runs everything; the same cases every time.
    pub fn check(&self) -> Result<(), ContractViolation> {
        self.bounds()?;
        self.run("the same input gives the same plan", any_case(), |case| self.deterministic(case))?;
        self.run("a total for the whole prompt keeps it", any_case(), |case| self.whole_prompt(case))?;
        self.run("a head that rises keeps no less", any_case(), |case| self.score_monotone(case))?;
        self.run("a head keeps no less than a lesser one", any_case(), |case| self.ordered(case))?;
        self.run("the unit of the scores does not matter", any_case(), |case| self.same_after(case, |s| s * 8.0))?;
        self.run("a head's place does not matter", untied_case(), |case| self.equivariant(case))?;
        self.run("a head's place does not matter", contrasting_case(), |case| self.equivariant(case))?;
        self.run("unfit scores are refused", any_case(), |case| self.refuses_unfit_scores(case))?;
        if self.shift_invariant {
            self.run("the zero of the scores does not matter", any_case(), |case| self.same_after(case, |s| s + 3.0))?;
        }
        if self.house_monotone {
            self.run("a larger total takes from nobody", any_case(), |case| self.house_monotone(case))?;
        }
        self.extremes()
    }

    fn run(
        &self,
        promise: &'static str,
        cases: impl Strategy<Value = Case>,
        verdict: impl Fn(&Case) -> Verdict,
    ) -> Result<(), ContractViolation> {
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let failed = |error: TestError<Case>| ContractViolation { promise, failure: error.to_string() };
        runner.run(&cases, |case| verdict(&case)).map_err(failed)
    }

    /// A sound plan, or none where it was refused for a reason.
    fn plan(&self, case: &Case) -> Result<Option<BudgetPlan>, TestCaseError> {
        let heads = case.layout.heads();
        let protected = (case.protected.sinks + case.protected.window).min(case.prompt_len);
        let plan = match case.allocate(self.allocator) {
            Ok(plan) => plan,
            Err(PolicyError::BudgetBelowProtected { .. }) if case.total < heads * protected => return Ok(None),
            Err(PolicyError::NothingLeft { drop_lowest, .. }) if drop_lowest >= heads => return Ok(None),
            Err(PolicyError::NotFinite { value, .. }) if !value.is_finite() => return Ok(None),
            Err(error) => return Err(TestCaseError::fail(format!("refused: {error}"))),
        };
        let checked = case.with_request(None, |request| request.check(&plan, self.allocator.spending()));
        checked.map_err(|broken| TestCaseError::fail(broken.to_string()))?;
        Ok(Some(plan))
    }

    /// Also that most cases get a plan: what is refused is not tested, so that the settings must suit small models.
    fn bounds(&self) -> Result<(), ContractViolation> {
        let planned = Cell::new(0);
        self.run("a plan keeps its bounds", any_case(), |case| {
            planned.set(planned.get() + u32::from(self.plan(case)?.is_some()));
            Ok(())
        })?;
        match planned.get() > CASES / 2 {
            true => Ok(()),
            false => Err(ContractViolation {
                promise: "most cases get a plan",
                failure: format!("{} of {CASES} did", planned.get()),
            }),
        }
    }

    fn deterministic(&self, case: &Case) -> Verdict {
        prop_assert_eq!(case.allocate(self.allocator), case.allocate(self.allocator));
        Ok(())
    }

    fn whole_prompt(&self, case: &Case) -> Verdict {
        let whole = case.layout.heads() * case.prompt_len;
        for total in [whole, whole + 1, usize::MAX] {
            if let Some(plan) = self.plan(&case.with_total(total))? {
                prop_assert!(plan.kept().iter().all(|&kept| kept == case.prompt_len), "{:?}", plan);
            }
        }
        Ok(())
    }

    fn score_monotone(&self, case: &Case) -> Verdict {
        let Some(before) = self.plan(case)? else { return Ok(()) };
        for head in 0..case.layout.heads() {
            let raised = case.with_head_scores(|at, score| if at == head { score + 0.5 } else { score });
            if let Some(after) = self.plan(&raised)? {
                let (before, after) = (before.kept()[head], after.kept()[head]);
                prop_assert!(after >= before, "head {} fell from {} to {}", head, before, after);
            }
        }
        Ok(())
    }

    /// Between heads of a layer whose tokens are worth the same, up to a token of the remainder.
    fn ordered(&self, case: &Case) -> Verdict {
        let case = case.with_equal_tokens();
        let Some(plan) = self.plan(&case)? else { return Ok(()) };
        let score = |head: usize| case.head_scores[head * case.layout.group()];
        for lesser in 0..case.layout.heads() {
            let layer = lesser / case.layout.kv_heads;
            for greater in case.layout.flat(layer, 0)..case.layout.flat(layer + 1, 0) {
                let (least, most) = (plan.kept()[lesser], plan.kept()[greater]);
                let ordered = score(lesser) >= score(greater) || least <= most + 1;
                prop_assert!(ordered, "head {} keeps {}, head {} only {}", lesser, least, greater, most);
            }
        }
        Ok(())
    }

    fn same_after(&self, case: &Case, change: impl Fn(f64) -> f64) -> Verdict {
        prop_assert_eq!(self.plan(&case.with_head_scores(|_, score| change(score)))?, self.plan(case)?);
        Ok(())
    }

    /// Layer by layer, so that a budget which lands in another layer is found too.
    fn equivariant(&self, case: &Case) -> Verdict {
        let (HeadLayout { layers, .. }, heads) = (case.layout, case.layout.heads());
        // Without a remainder, which must go to somebody.
        let case = case.with_total(case.total / heads * heads);
        let Some(before) = self.plan(&case)? else { return Ok(()) };
        for layer in 0..layers {
            let Some(after) = self.plan(&case.rotated(layer))? else { continue };
            let mut expected = before.kept().to_vec();
            expected[case.layout.flat(layer, 0)..case.layout.flat(layer + 1, 0)].rotate_right(1);
            for (head, (&after, &expected)) in after.kept().iter().zip(&expected).enumerate() {
                let (place, kept) = (case.layout.place(head), format!("{after} and not {expected}"));
                prop_assert!(
                    after.abs_diff(expected) <= 1,
                    "layer {layer} turned: head {}.{}: {kept}",
                    place.0,
                    place.1
                );
            }
        }
        Ok(())
    }

    fn house_monotone(&self, case: &Case) -> Verdict {
        let Some(mut less) = self.plan(case)? else { return Ok(()) };
        for more in 1..=2 * case.layout.heads() {
            let total = case.total + more;
            let Some(larger) = self.plan(&case.with_total(total))? else {
                return Err(TestCaseError::fail(format!("{total} tokens are refused, one less was not")));
            };
            let nobody_loses = less.kept().iter().zip(larger.kept()).all(|(less, more)| less <= more);
            prop_assert!(nobody_loses, "{:?} became {:?} at {}", less, larger, total);
            less = larger;
        }
        Ok(())
    }

    /// An allocator either does not look at head scores, or refuses their absence and those of another model.
    fn refuses_unfit_scores(&self, case: &Case) -> Verdict {
        if self.plan(case)?.is_none() {
            return Ok(());
        }
        let HeadLayout { layers, query_heads, kv_heads, head_dim } = case.layout;
        let other = HeadLayout { layers: layers + 1, query_heads, kv_heads, head_dim };
        let foreign = HeadScores::per_query_head(other, vec![1.0; other.layers * query_heads]).ok();
        let ignores = case.allocate_with(self.allocator, None).is_ok();
        for scores in [None, foreign.as_ref()] {
            let result = case.allocate_with(self.allocator, scores);
            let expected = match &result {
                Ok(_) => ignores,
                Err(PolicyError::MissingScores(_)) => scores.is_none(),
                Err(PolicyError::OtherModel { .. }) => scores.is_some(),
                Err(_) => false,
            };
            prop_assert!(expected, "scores {:?} gave {:?}", scores, result);
            let early = self.allocator.check(case.layout, scores).is_ok();
            prop_assert_eq!(early, result.is_ok(), "`check` and `allocate` disagree on {:?}", scores);
        }
        Ok(())
    }

    /// A sound plan or an error, whatever the numbers are: never a panic.
    fn extremes(&self) -> Result<(), ContractViolation> {
        let scores = [0.0, 1.0, -1.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE / 4.0];
        let tokens = [0.0, 1.0, f32::MAX, f32::MIN, f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        // The third is more than any model has, and slow: once is enough.
        for (layers, kv_heads, mixtures) in [(1, 1, 8), (2, 3, 8), (64, 1024, 1)] {
            let heads = layers * kv_heads;
            for (prompt_len, total) in [(0, 0), (1, 0), (5, 1), (5, 2 * heads), (5, 4 * heads + 1), (5, usize::MAX)] {
                for first in 0..mixtures {
                    // Every value beside the one that follows it.
                    let case = Case {
                        layout: HeadLayout { layers, query_heads: kv_heads, kv_heads, head_dim: 1 },
                        prompt_len,
                        total,
                        protected: Protected { sinks: 0, window: 1 },
                        head_scores: (0..heads).map(|head| scores[(first + head % 2) % scores.len()]).collect(),
                        token_scores: (0..heads * prompt_len)
                            .map(|at| tokens[(first + at % 2) % tokens.len()])
                            .collect(),
                        preferences: (0..layers)
                            .map(|layer| scores[(first + layer % 2) % scores.len()].abs())
                            .collect(),
                    };
                    self.plan(&case).map_err(|error| ContractViolation {
                        promise: "extreme input is survived",
                        failure: format!("{error}; {heads} heads, prompt {prompt_len}, total {total}"),
                    })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "allocator_tests.rs"]
mod tests;
