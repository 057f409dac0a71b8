//! The contract must see through allocators that break it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::AllocationRequest;

type Share = dyn Fn(&AllocationRequest<'_>, usize) -> Result<usize, PolicyError> + Send + Sync;

/// An allocator made of a function of the request and a head. What every allocator does first is done for it.
struct Invented {
    spending: Spending,
    share: Box<Share>,
}

impl std::fmt::Debug for Invented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Invented")
    }
}

impl BudgetAllocator for Invented {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        request.protected_tokens()?;
        let heads = request.layout.heads();
        let whole = heads.saturating_mul(request.prompt_len) <= request.total;
        let share = |head| if whole { Ok(request.prompt_len) } else { (self.share)(request, head) };
        Ok(BudgetPlan::new((0..heads).map(share).collect::<Result<_, _>>()?))
    }

    fn spending(&self) -> Spending {
        self.spending
    }
}

fn invented(
    spending: Spending,
    share: impl Fn(&AllocationRequest<'_>, usize) -> usize + Send + Sync + 'static,
) -> Invented {
    Invented { spending, share: Box::new(move |request, head| Ok(share(request, head))) }
}

/// The promise that it breaks.
fn broken(invented: Invented) -> &'static str {
    AllocatorContract::new(&invented).check().unwrap_err().promise
}

fn even_share(request: &AllocationRequest<'_>, head: usize) -> usize {
    let heads = request.layout.heads();
    request.total / heads + usize::from(head < request.total % heads)
}

/// The whole prompt for some heads, an even share for the others.
fn whole_if(
    favoured: impl Fn(&AllocationRequest<'_>, usize, f64) -> bool + Send + Sync + 'static,
) -> impl Fn(&AllocationRequest<'_>, usize) -> usize + Send + Sync + 'static {
    move |request, head| {
        let score = request.head_scores.and_then(|scores| scores.values().get(head)).copied().unwrap_or(0.0);
        if favoured(request, head, score) { request.prompt_len } else { even_share(request, head) }
    }
}

#[test]
fn an_even_share_keeps_the_contract() {
    AllocatorContract::new(&invented(Spending::Exact, even_share)).check().unwrap();
}

#[test]
fn broken_bounds_are_found() {
    let bounds = "a plan keeps its bounds";
    assert_eq!(broken(invented(Spending::Exact, |r, head| even_share(r, head).saturating_sub(1))), bounds);
    assert_eq!(broken(invented(Spending::AtMost(""), |r, head| even_share(r, head) + 1)), bounds);
    assert_eq!(broken(invented(Spending::MayExceed(""), |r, _| r.prompt_len + 1)), bounds);
    assert_eq!(broken(invented(Spending::AtMost(""), |_, _| 0)), bounds);

    let nothing_left = |r: &AllocationRequest<'_>, _| {
        let heads = r.layout.heads();
        Err(PolicyError::NothingLeft { drop_lowest: heads, heads })
    };
    let refusing = Invented { spending: Spending::Exact, share: Box::new(nothing_left) };
    assert_eq!(broken(refusing), "most cases get a plan");
}

#[test]
fn moods_are_found() {
    let calls = AtomicUsize::new(0);
    let moody = whole_if(move |_, _, _| calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(7));
    assert_eq!(broken(invented(Spending::MayExceed(""), moody)), "the same input gives the same plan");
}

#[test]
fn scores_that_are_read_wrongly_are_found() {
    let contrary = whole_if(|_, _, score| score <= 0.25);
    assert_eq!(broken(invented(Spending::MayExceed(""), contrary)), "a head that rises keeps no less");
    let ahead = whole_if(|_, head, score| head == 0 || score > 1.0);
    assert_eq!(broken(invented(Spending::MayExceed(""), ahead)), "a head keeps no less than a lesser one");
    let in_units = whole_if(|_, _, score| score > 2.0);
    assert_eq!(broken(invented(Spending::MayExceed(""), in_units)), "the unit of the scores does not matter");
    let first_head = whole_if(|r, _, _| r.token_scores.head(0).first().is_some_and(|&score| score > 0.5));
    assert_eq!(broken(invented(Spending::MayExceed(""), first_head)), "a head's place does not matter");
}

#[test]
fn scores_of_another_model_must_be_seen() {
    let careless = |r: &AllocationRequest<'_>, head: usize| match r.head_scores {
        Some(_) => Ok(even_share(r, head)),
        None => Err(PolicyError::MissingScores("none".into())),
    };
    assert_eq!(broken(Invented { spending: Spending::Exact, share: Box::new(careless) }), "unfit scores are refused");
}

#[test]
fn a_larger_total_that_takes_tokens_away_is_found_where_it_is_forbidden() {
    // An odd remainder goes to the last heads, an even one to the first.
    let alternating = |r: &AllocationRequest<'_>, head: usize| {
        let heads = r.layout.heads();
        let remainder = r.total % heads;
        let place = if remainder % 2 == 1 { heads - 1 - head } else { head };
        r.total / heads + usize::from(place < remainder)
    };
    let alternating = invented(Spending::Exact, alternating);
    AllocatorContract::new(&alternating).not_house_monotone().check().unwrap();
    assert_eq!(broken(alternating), "a larger total takes from nobody");
}

#[test]
fn shifts_are_looked_at_where_they_are_promised() {
    let positive = invented(Spending::MayExceed(""), whole_if(|_, _, score| score > 0.0));
    AllocatorContract::new(&positive).check().unwrap();
    let violation = AllocatorContract::new(&positive).shift_invariant().check().unwrap_err();
    assert_eq!(violation.promise, "the zero of the scores does not matter");
}

/// What happens to a plan behind its allocator's back.
type Sabotage = fn(HeadLayout, &mut [usize]);

/// Shares out in proportion to how evenly a head's scores lie on its tokens, which is a mild weight: the natural
/// logarithm of the number of tokens at most, and seldom less than half of it. Then `sabotage` has its way with the
/// plan.
#[derive(Debug)]
struct Entropic {
    sabotage: Sabotage,
}

impl BudgetAllocator for Entropic {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let (heads, protected) = (request.layout.heads(), request.protected_tokens()?);
        if heads.saturating_mul(request.prompt_len) <= request.total {
            return Ok(BudgetPlan::new(vec![request.prompt_len; heads]));
        }
        let weights: Vec<f64> = (0..heads).map(|head| entropy(request.token_scores, head)).collect();
        let (sum, pool) = (weights.iter().sum::<f64>(), (request.total - heads * protected) as f64);
        let share = |weight: &f64| protected + if sum > 0.0 { (pool * weight / sum) as usize } else { 0 };
        let mut kept: Vec<usize> = weights.iter().map(|weight| share(weight).min(request.prompt_len)).collect();
        (self.sabotage)(request.layout, &mut kept);
        Ok(BudgetPlan::new(kept))
    }

    fn spending(&self) -> Spending {
        Spending::AtMost("shares are rounded down")
    }
}

fn entropy(scores: &crate::TokenScores, head: usize) -> f64 {
    let sound = |score: &&f32| score.is_finite() && **score > 0.0;
    let scores: Vec<f64> = scores.head(head).iter().filter(sound).map(|&score| f64::from(score)).collect();
    let sum: f64 = scores.iter().sum();
    -scores.iter().map(|score| score / sum).filter(|share| *share > 0.0).map(|share| share * share.ln()).sum::<f64>()
}

/// Regression: budgets that were right in their sum and on the wrong heads passed where the weights of heads were mild.
#[test]
fn budgets_on_the_wrong_heads_are_found() {
    let check = |sabotage: Sabotage| AllocatorContract::new(&Entropic { sabotage }).check();
    check(|_, _| {}).unwrap();
    let sabotages: [(&str, Sabotage); 6] = [
        ("sorted", |_, plan| plan.sort_unstable()),
        ("reversed", |_, plan| plan.reverse()),
        ("layers reversed", |layout, plan| {
            plan.reverse();
            plan.chunks_exact_mut(layout.kv_heads).for_each(<[usize]>::reverse);
        }),
        ("heads of a layer reversed", |layout, plan| {
            plan.chunks_exact_mut(layout.kv_heads).for_each(<[usize]>::reverse);
        }),
        ("head-major", |layout, plan| {
            let layer_major = plan.to_vec();
            for (head, kept) in layer_major.into_iter().enumerate() {
                let (layer, kv_head) = layout.place(head);
                plan[kv_head * layout.layers + layer] = kept;
            }
        }),
        ("a head late", |_, plan| plan.rotate_right(1)),
    ];
    for (name, sabotage) in sabotages {
        let violation = check(sabotage).expect_err(name);
        assert_eq!(violation.promise, "a head's place does not matter", "{name}: {violation}");
    }
}
