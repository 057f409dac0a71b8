//! The table at the end of a run.

use super::measure::mean;
use super::memory::mebibytes;
use super::store::Row;
use crate::markdown;

/// Means of one method at one budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Name of the method.
    pub method: String,
    /// Its budget.
    pub budget: String,
    /// Share of the prompt's cache kept.
    pub kept_share: f64,
    /// Bytes of the compressed prompt.
    pub cache_bytes: f64,
    /// Mean of the tasks' mean scores, in percent.
    pub score: f64,
    /// Nats per token.
    pub log_likelihood: Option<f64>,
    /// Nats per token.
    pub divergence: Option<f64>,
    /// Share of tokens.
    pub agreement: Option<f64>,
    /// Mean score of each task in percent, in the order of the tasks.
    pub tasks: Vec<(String, f64)>,
}

/// Summaries of all cells, in the order of their first row.
pub fn summarise(rows: &[Row]) -> Vec<Summary> {
    let mut cells: Vec<(&str, &str)> = Vec::new();
    let mut tasks: Vec<&str> = Vec::new();
    for row in rows {
        if !cells.contains(&(&row.method, &row.budget)) {
            cells.push((&row.method, &row.budget));
        }
        if !tasks.contains(&row.task.as_str()) {
            tasks.push(&row.task);
        }
    }
    let summary = |(method, budget): (&str, &str)| {
        let cell: Vec<&Row> = rows.iter().filter(|row| row.method == method && row.budget == budget).collect();
        let of = |value: fn(&Row) -> Option<f64>| mean(cell.iter().filter_map(|row| value(row)));
        let task_scores: Vec<(String, f64)> = tasks
            .iter()
            .filter_map(|task| {
                let scores = cell.iter().filter(|row| row.task == *task).map(|row| 100.0 * row.score);
                mean(scores).map(|score| ((*task).to_owned(), score))
            })
            .collect();
        Summary {
            method: method.into(),
            budget: budget.into(),
            kept_share: of(|row| Some(row.kept_share)).unwrap_or(0.0),
            cache_bytes: of(|row| Some(row.cache_bytes as f64)).unwrap_or(0.0),
            score: mean(task_scores.iter().map(|(_, score)| *score)).unwrap_or(0.0),
            log_likelihood: of(|row| row.log_likelihood),
            divergence: of(|row| row.divergence),
            agreement: of(|row| row.agreement),
            tasks: task_scores,
        }
    };
    cells.into_iter().map(summary).collect()
}

impl Summary {
    /// Two Markdown tables: damage and memory of every cell, and its score on every task.
    pub fn markdown(summaries: &[Summary]) -> String {
        let number =
            |value: Option<f64>, digits: usize| value.map_or("–".into(), |value| format!("{value:.digits$}"));
        let header = ["method", "budget", "kept", "cache", "score", "log-lik.", "KL to full", "same tokens"];
        let mut main = markdown::table(header, 1);
        for cell in summaries {
            main.add_row([
                cell.method.clone(),
                cell.budget.clone(),
                format!("{:.1} %", 100.0 * cell.kept_share),
                mebibytes(cell.cache_bytes as u64),
                format!("{:.1}", cell.score),
                number(cell.log_likelihood, 3),
                number(cell.divergence, 4),
                cell.agreement.map_or("–".into(), |share| format!("{:.1} %", 100.0 * share)),
            ]);
        }
        let names = summaries.first().map(|cell| cell.tasks.iter().map(|(task, _)| task.clone())).into_iter().flatten();
        let header: Vec<String> = ["method".into(), "budget".into()].into_iter().chain(names).collect();
        let mut by_task = markdown::table(header, 1);
        for cell in summaries {
            let scores = cell.tasks.iter().map(|(_, score)| format!("{score:.1}"));
            by_task.add_row([cell.method.clone(), cell.budget.clone()].into_iter().chain(scores));
        }
        format!("{}\n\nScore by task (0 to 100)\n\n{}\n", markdown::text(&main), markdown::text(&by_task))
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::row;
    use super::*;

    #[test]
    fn tasks_weigh_the_same_whatever_their_size() {
        let with = |task: &str, score: f64| Row { task: task.into(), score, ..row("x") };
        let rows = [with("a", 1.0), with("a", 1.0), with("b", 0.0), Row { divergence: Some(0.5), ..with("b", 0.5) }];
        let summaries = summarise(&rows);
        assert_eq!(summaries.len(), 1);
        assert!((summaries[0].score - 62.5).abs() < 1e-9);
        assert_eq!(summaries[0].divergence, Some(0.5));
        let text = Summary::markdown(&summaries);
        assert!(text.contains("| snapkv |") && text.contains("62.5"), "{text}");
    }
}
