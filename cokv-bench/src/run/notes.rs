//! What has to be known before a table of scores is read: tasks that say nothing, budgets that are not spent, head scores
//! that are noise.

use super::cells::{Cell, Measure};
use super::manifest::ManifestMethod;
use crate::machine::memory::mebibytes;

/// Tasks on which the full cache scores nothing, on any record: what methods score there is luck.
fn floors<'a>(cells: &[Cell<'a>]) -> Vec<&'a str> {
    let full: Vec<&Cell<'a>> = cells.iter().filter(|cell| cell.budget.is_full()).collect();
    let nothing = |task: &str| {
        let mut rows = full.iter().flat_map(|cell| cell.rows()).filter(|row| row.task == task).peekable();
        rows.peek().is_some() && rows.all(|row| row.score == 0.0)
    };
    let tasks = cells.first().map_or(&[][..], |cell| &cell.tasks);
    tasks.iter().map(|(task, _)| *task).filter(|task| nothing(task)).collect()
}

/// Tasks on which every cell that evicts scores the same on every record, but for those in [`floors`].
fn levels<'a>(cells: &[Cell<'a>]) -> Vec<&'a str> {
    let evicting: Vec<&Cell<'a>> = cells.iter().filter(|cell| !cell.budget.is_full()).collect();
    let Some((first, others)) = evicting.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Vec::new();
    };
    let floors = floors(cells);
    let level = |task: &&str| {
        let differs = |other: &&&Cell<'_>| {
            other.difference_on(first, Measure::Score, |name| name == *task).is_none_or(|d| d.informative > 0)
        };
        !floors.contains(task) && !others.iter().any(|other| differs(&other))
    };
    first.tasks.iter().map(|(task, _)| *task).filter(level).collect()
}

/// Sentences to stand under a table of the scores of one model's cells. Where methods are not known, their reasons are
/// left out.
pub fn notes(cells: &[Cell<'_>], methods: &[ManifestMethod]) -> Vec<String> {
    let floors = floors(cells).into_iter().map(|task| {
        format!(
            "{task} is a floor: the full cache scores 0 on every record, and the task says nothing about methods here."
        )
    });
    let levels = levels(cells).into_iter().map(|task| {
        format!("On {task} all methods score the same on every record: the task does not tell them apart.")
    });
    let mut seen: Vec<&str> = Vec::new();
    let columns = cells.iter().map(|cell| cell.method).filter(|method| {
        let first = !seen.contains(method);
        seen.push(method);
        first
    });
    let unworthy = columns.filter_map(|column| {
        let reason = unworthy(methods, column)?;
        Some(format!("† Head scores of {column} are noise: {reason}. What it gains or loses by them may be luck."))
    });
    let off_budget = cells.iter().filter_map(|cell| held(cell).or_else(|| off_budget(cell, methods)));
    floors.chain(levels).chain(unworthy).chain(off_budget).collect()
}

/// Why the head scores of a column are noise; none where they are not.
pub fn unworthy<'a>(methods: &'a [ManifestMethod], column: &str) -> Option<&'a str> {
    methods.iter().filter(|method| method.is_of(column)).find_map(ManifestMethod::unworthy)
}

/// A column's name in tables, with the sign of the note where its head scores are noise.
pub fn name(methods: &[ManifestMethod], column: &str) -> String {
    if unworthy(methods, column).is_some() { format!("{column} †") } else { column.to_owned() }
}

/// What a cell holds at most while the model answers, where it evicts then.
fn held(cell: &Cell<'_>) -> Option<String> {
    let each: Vec<usize> = cell.rows().filter_map(|row| row.most_held).collect();
    let most = *each.iter().max()?;
    let per_token = cell.mean(|row| row.cache_bytes as f64 / row.kept_tokens.max(1) as f64);
    let (name, budget, held) = (cell.method, cell.budget, mebibytes((most as f64 * per_token) as u64));
    Some(format!(
        "{name} evicts while the model answers, and holds {held} at most at {budget}, prompt and answer together."
    ))
}

/// Why a cell keeps another share than its budget, by more than a hundredth of it; none where it does not.
fn off_budget(cell: &Cell<'_>, methods: &[ManifestMethod]) -> Option<String> {
    let budget = cell.budget.0?;
    let asked = cell.mean(|row| budget.share_of(row.compressed_tokens(), row.cache_bytes as f64 / row.kept_share));
    let kept = cell.mean(|row| row.kept_share);
    if (kept / asked - 1.0).abs() <= 0.01 {
        return None;
    }
    let mut of_cell = methods.iter().filter(|method| method.is_of(cell.method));
    let reason = of_cell.find_map(|method| method.off_budget.as_deref());
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    let (name, budget) = (cell.method, cell.budget);
    Some(format!("{name} keeps {:.1} % at {budget}, which allows {:.1} %{reason}.", 100.0 * kept, 100.0 * asked))
}

#[cfg(test)]
mod tests {
    use super::super::cells::cells;
    use super::super::store::Row;
    use super::super::store::tests::row;
    use super::*;
    use crate::scores::HeadScoresWorth;

    fn method(name: &str) -> ManifestMethod {
        ManifestMethod { name: name.into(), ..ManifestMethod::default() }
    }

    #[test]
    fn a_cell_that_does_not_spend_its_budget_is_explained() {
        let of = |budget: &str, kept_share: f64| Row { budget: budget.parse().unwrap(), kept_share, ..row("x") };
        let note = |row: Row, reason: Option<&str>| {
            let method = ManifestMethod { off_budget: reason.map(str::to_owned), ..method("snapkv") };
            notes(&cells(&[row]), &[method])
        };
        // Of 100 tokens of the prompt.
        assert!(note(of("64", 0.64), None).is_empty());
        assert!(note(of("12.5%", 0.12), None).is_empty(), "whole tokens");
        assert!(note(of("200", 1.0), None).is_empty(), "a whole prompt");
        let paper = note(of("64", 0.6), Some("its allocator rounds"));
        assert_eq!(paper, ["snapkv keeps 60.0 % at 64, which allows 64.0 %: its allocator rounds."]);
        assert_eq!(note(of("64", 0.6), None), ["snapkv keeps 60.0 % at 64, which allows 64.0 %."]);
    }

    #[test]
    fn tasks_that_say_nothing_are_named() {
        let of = |task: &str, method: &str, budget: &str, score: f64| Row {
            task: task.into(),
            method: method.into(),
            budget: budget.parse().unwrap(),
            score,
            ..row("x")
        };
        let mut rows = Vec::new();
        for (task, full, a, b) in [("floor", 0.0, 0.5, 0.0), ("level", 1.0, 0.5, 0.5), ("tells", 1.0, 0.5, 0.0)] {
            rows.extend([of(task, "full", "full", full), of(task, "a", "64", a), of(task, "b", "64", b)]);
        }
        let cells = cells(&rows);
        assert_eq!((floors(&cells), levels(&cells)), (vec!["floor"], vec!["level"]));
        let two: Vec<Cell<'_>> = cells[..2].to_vec();
        assert!(levels(&two).is_empty(), "one method has nobody to be told apart from");
    }

    #[test]
    fn head_scores_that_are_noise_are_said() {
        let worth = HeadScoresWorth { unworthy: Some("reliability 0.04".into()), ..HeadScoresWorth::default() };
        let noisy = ManifestMethod { head_scores_worth: Some(worth), ..method("snapkv on t") };
        let rows = [Row { kept_share: 0.64, ..row("x") }];
        assert_eq!(name(std::slice::from_ref(&noisy), "snapkv"), "snapkv †");
        let notes = notes(&cells(&rows), &[noisy]);
        assert_eq!(
            notes,
            ["† Head scores of snapkv are noise: reliability 0.04. What it gains or loses by them may be luck."]
        );
    }
}
