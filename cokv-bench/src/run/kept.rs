//! What every cell kept of a few prompts, for pictures: budgets of heads, and where in the prompt their tokens lie.

use std::path::Path;

use cokv_core::{HeadSelection, Selection};
use cokv_shapley::lines::Lines;
use serde::{Deserialize, Serialize};

use super::budget::CellBudget;
use super::folder::{StoreError, files, io};

/// What was kept of one prompt: the first of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The model's source.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Id of the record.
    pub record: String,
    /// Length of the prompt.
    pub prompt_tokens: usize,
    /// One for every cell that evicts.
    pub cells: Vec<KeptCell>,
}

/// What one cell kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptCell {
    /// That of the cell's row, by which configurations are told apart.
    pub fingerprint: String,
    /// Name of the method.
    pub method: String,
    /// Its budget.
    pub budget: CellBudget,
    /// Tokens kept: `[heads][STRETCHES]`, heads in flat order, the prompt cut into stretches of equal length.
    pub heads: Vec<Vec<u32>>,
}

/// Into how many stretches a prompt is cut.
pub const STRETCHES: usize = 40;

pub(super) const KEPT: &str = "kept";

impl KeptCell {
    /// Counts what a selection keeps.
    pub fn of(
        fingerprint: String,
        method: &str,
        budget: &CellBudget,
        selection: &Selection,
        prompt_tokens: usize,
    ) -> Self {
        let heads = selection.heads.iter().map(|head| {
            let mut counts = vec![0; STRETCHES];
            let mut count = |position: usize| counts[position * STRETCHES / prompt_tokens] += 1;
            match head {
                HeadSelection::Everything => (0..prompt_tokens).for_each(count),
                HeadSelection::Tokens(tokens) => tokens.iter().for_each(|&position| count(position as usize)),
            }
            counts
        });
        Self { fingerprint, method: method.into(), budget: *budget, heads: heads.collect() }
    }

    /// Tokens that each head keeps.
    pub fn budgets(&self) -> impl Iterator<Item = u32> {
        self.heads.iter().map(|stretches| stretches.iter().sum())
    }
}

impl Kept {
    /// What a run's folder has, all shards of it, of earlier configurations too. Lines that cannot be read are left out.
    pub fn read(folder: &Path) -> Result<Vec<Self>, StoreError> {
        let mut all: Vec<Self> = Vec::new();
        for path in files(folder, KEPT)? {
            all.extend(Lines::read(&path).map_err(io(&path))?.parse().0);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_lies_in_one_stretch() {
        let heads = vec![HeadSelection::Everything, HeadSelection::Tokens(vec![0, 2, 99])];
        let budget = CellBudget(None);
        let cell = KeptCell::of("x".into(), "snapkv", &budget, &Selection { heads }, 100);
        assert_eq!(cell.budgets().collect::<Vec<_>>(), [100, 3]);
        assert_eq!((cell.heads[1][0], cell.heads[1][STRETCHES - 1]), (2, 1));
        // A prompt shorter than the picture is wide.
        let cell = KeptCell::of("x".into(), "snapkv", &budget, &Selection::everything(1), 3);
        assert_eq!(cell.budgets().collect::<Vec<_>>(), [3]);
    }
}
