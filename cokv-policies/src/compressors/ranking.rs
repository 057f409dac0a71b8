//! Two rankings of the same tokens in one: part of the budget for the best of the one, the rest for the other.

use std::ops::Range;

use cokv_core::Protected;

use crate::settings::Share;

/// Positions by score, highest first, the lower position among equals.
pub fn best_first(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Positions by score as [`best_tokens`](cokv_core::select::best_tokens) takes them: a window from its youngest token
/// on, sinks from the first on, then the others.
pub fn protected_first(scores: &[f32], protected: Protected) -> Vec<usize> {
    let candidates = protected.candidates(scores.len());
    let (window, sinks) = ((candidates.end..scores.len()).rev(), 0..candidates.start);
    let others = best_first(&scores[candidates.clone()]).into_iter().map(|at| candidates.start + at);
    window.chain(sinks).chain(others).collect()
}

/// A ranking whose best `b`, for every `b`, are the best `share.of(b)` of `first` and as many of `second`'s best
/// others.
///
/// It exists because one token more in the budget adds one token and takes none away.
pub fn merge(first: &[usize], second: &[usize], share: Share) -> Vec<usize> {
    let mut taken = vec![false; first.len()];
    let mut seconds = second.iter().copied();
    let mut ranking = Vec::with_capacity(first.len());
    for budget in 1..=first.len() {
        let reserved = share.of(budget);
        let reserved_token = (reserved > share.of(budget - 1)).then(|| first[reserved - 1]);
        let next = reserved_token.filter(|&token| !taken[token]).or_else(|| seconds.find(|&token| !taken[token]));
        if let Some(token) = next {
            taken[token] = true;
            ranking.push(token);
        }
    }
    ranking
}

/// Gives the highest of `scores` to the first of the ranking and so on, so that a head's scores keep their values
/// (which is what allocators compare between heads) in another order. Equal ones are told apart by the smallest step.
pub fn reorder(scores: &[f32], ranking: &[usize]) -> Vec<f32> {
    let mut reordered = vec![0.0; scores.len()];
    let mut last = f32::INFINITY;
    for (&token, &best) in ranking.iter().zip(&best_first(scores)) {
        last = scores[best].min(last.next_down());
        reordered[token] = last;
    }
    reordered
}

/// [`reorder`] among the candidates of a head, whatever the ranking says of the others, whose scores stay.
pub fn rearrange(scores: &mut [f32], candidates: Range<usize>, ranking: &[usize]) {
    let among = ranking.iter().filter(|&token| candidates.contains(token)).map(|token| token - candidates.start);
    let reordered = reorder(&scores[candidates.clone()], &among.collect::<Vec<_>>());
    scores[candidates].copy_from_slice(&reordered);
}

#[cfg(test)]
mod tests {
    use cokv_core::select::best_tokens;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_budget_has_its_share_of_both(
            scores in proptest::collection::vec((0i8..5, 0i8..5), 1..30), share in 0.0f64..=1.0,
        ) {
            let share = Share::try_from(share).unwrap();
            let (first, second): (Vec<f32>, Vec<f32>) = scores.iter().map(|&(a, b)| (f32::from(a), f32::from(b))).unzip();
            let (by_first, by_second) = (best_first(&first), best_first(&second));
            let ranking = merge(&by_first, &by_second, share);
            for budget in 0..=scores.len() {
                let mut expected = by_first[..share.of(budget)].to_vec();
                let others: Vec<usize> = by_second.iter().copied().filter(|token| !expected.contains(token)).collect();
                expected.extend(&others[..budget - expected.len()]);
                expected.sort_unstable();
                let mut kept = ranking[..budget].to_vec();
                kept.sort_unstable();
                prop_assert_eq!(kept, expected, "budget {}", budget);
            }
            prop_assert_eq!(best_first(&reorder(&first, &ranking)), ranking);
        }
    }

    proptest! {
        #[test]
        fn the_first_of_a_ranking_are_those_that_are_selected(
            scores in proptest::collection::vec(-3i8..4, 1..30), sinks in 0usize..5, window in 0usize..9,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let protected = Protected { sinks, window };
            let ranking = protected_first(&scores, protected);
            for budget in 0..=scores.len() {
                let mut kept = ranking[..budget].to_vec();
                kept.sort_unstable();
                prop_assert_eq!(kept, best_tokens(&scores, budget, protected).positions(scores.len()), "{}", budget);
            }
        }
    }

    #[test]
    fn candidates_change_places_among_themselves() {
        let mut scores = [9.0, 0.5, 3.0, 1.0, 7.0];
        rearrange(&mut scores, 1..4, &[3, 0, 4, 1, 2]);
        assert_eq!(scores, [9.0, 1.0, 0.5, 3.0, 7.0]);
    }

    #[test]
    fn reordered_scores_keep_their_values() {
        assert_eq!(reorder(&[0.5, 3.0, 1.0], &[2, 0, 1]), [1.0, 0.5, 3.0]);
        let tied = reorder(&[1.0, 1.0], &[1, 0]);
        assert!(tied[1] == 1.0 && tied[0] < 1.0 && tied[0] > 0.999_999);
    }
}
