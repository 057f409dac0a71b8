//! What a compressed cache changes, on a scale that even a small model shows: distributions along the reference answer.

use cokv_models::ask::Along;
use cokv_models::cache::RaggedCache;
use cokv_models::{ComparedWith, Eviction, Forced, LanguageModel, ModelError};

/// Damage of one cell along the reference answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Damage {
    /// Mean log-likelihood of the answer's tokens after the first, nats per token.
    pub log_likelihood: Option<f64>,
    /// Mean divergence from the full cache's next-token distributions, nats per token.
    pub divergence: Option<f64>,
}

/// A cache that is measured.
pub trait Measured: AsMut<RaggedCache> {
    /// What evicts from it while it is answered from.
    fn eviction(&self) -> Option<&Eviction> {
        None
    }
}

/// Damage of every cache, given that the first is the full one. The caches are as before afterwards.
///
/// `last` is the prompt's last token where the caches have not seen it: what is compared are the distributions behind it and behind
/// each answer token. Where it was read with the prompt, the first token of an answer is the same for all.
pub fn damage<C: Measured>(
    model: &LanguageModel,
    caches: &mut [C],
    last: Option<u32>,
    answer: &[u32],
) -> Result<Vec<Damage>, ModelError> {
    let fed: Vec<u32> = last.into_iter().chain(answer.iter().copied()).collect();
    let targets = fed.get(1..).unwrap_or_default();
    let forced = Forced { tokens: if answer.is_empty() { &[] } else { &fed }, skip: 0, targets };
    let mut rows = model.along(caches, forced, ComparedWith::First, false)?;
    let evicted = evicted_from(caches, fed.len());
    let mut forks = Vec::with_capacity(evicted.len());
    for &place in &evicted {
        if let Some(eviction) = caches[place].eviction().map(Eviction::anew) {
            forks.push((caches[place].as_mut().fork()?, eviction));
        }
    }
    if let ([full, ..], false) = (caches, forks.is_empty()) {
        let along = model.along_evicting(full.as_mut(), &mut forks, forced)?;
        evicted.into_iter().zip(along).for_each(|(place, along)| rows[place] = along);
    }
    let of_row = |(row, along): (usize, &Along)| Damage {
        log_likelihood: mean(along.log_likelihoods.iter().copied()),
        divergence: match row {
            // Of the full cache from itself, where there is an answer at all.
            0 => (!answer.is_empty()).then_some(0.0),
            _ => mean(along.divergences.iter().copied()),
        },
    };
    Ok(rows.iter().enumerate().map(of_row).collect())
}

/// Places of the caches that are evicted from along so many tokens.
fn evicted_from<C: Measured>(caches: &[C], tokens: usize) -> Vec<usize> {
    let is_evicted = |&place: &usize| caches[place].eviction().is_some_and(|eviction| eviction.until_next() <= tokens);
    (0..caches.len()).filter(is_evicted).collect()
}

/// Share of places from `first` on at which a cell's greedy answer equals the full cache's. The end of an answer counts
/// as a token: a cell that rambles on, or stops early, differs there. None where there is no such place.
pub fn agreement(full: &[u32], cell: &[u32], max_new_tokens: usize, first: usize) -> Option<f64> {
    let longest = full.len().max(cell.len());
    let places = first..(longest + 1).min(max_new_tokens);
    let same = |at: usize| match (full.get(at), cell.get(at)) {
        (Some(full), Some(cell)) => full == cell,
        // Both end here.
        _ => full.len() == at && cell.len() == at,
    };
    let equal = places.clone().filter(|&at| same(at)).count();
    (!places.is_empty()).then(|| equal as f64 / places.len() as f64)
}

/// Mean of what there is.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_counts_tokens_after_the_first_and_the_end() {
        assert_eq!(agreement(&[1, 2, 3], &[1, 2, 4], 3, 1), Some(0.5));
        assert_eq!(agreement(&[1, 2], &[1, 2, 7, 8], 9, 1), Some(0.25));
        assert_eq!(agreement(&[1, 2, 3], &[1], 9, 1), Some(0.0));
        assert_eq!(agreement(&[1], &[1], 9, 1), Some(1.0));
        assert_eq!(agreement(&[1], &[1], 1, 1), None);
        assert_eq!(agreement(&[], &[], 9, 1), None);
        assert_eq!(agreement(&[1, 2], &[7, 2], 2, 0), Some(0.5));
    }
}
