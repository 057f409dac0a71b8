//! Settings chosen on the validation records, for every task and budget: what `cokv select` writes and a run reads.

use crate::config::Column;
use crate::data::{DataSettings, SYNTHETIC, Split};
use crate::run::{CellBudget, Choice, Row, Trial, mean};

/// The records to choose on: CoKV's validation split of LongBench, the next seed of synthetic data.
pub fn validation(data: &DataSettings) -> DataSettings {
    match data.source == SYNTHETIC {
        true => DataSettings { seed: data.seed.wrapping_add(1), ..data.clone() },
        false => DataSettings { split: Split::Validation, ..data.clone() },
    }
}

/// Every variant as a column of its own.
pub fn sweep(columns: Vec<Column>) -> Vec<Column> {
    let apart = columns.into_iter().flat_map(|Column { variants, scores, learned, .. }| {
        variants.into_iter().map(move |variant| Column {
            name: variant.method.name().into(),
            variants: vec![variant],
            scores: scores.clone(),
            learned: learned.clone(),
        })
    });
    apart.collect()
}

/// Chooses, for every task and budget, the settings of the highest mean score; of equal ones those under which the
/// reference answers are likeliest, and of those the first. `names` are the open columns' names with those of their
/// variants and settings.
pub fn choose(rows: &[Row], names: &[(String, Vec<(String, String)>)]) -> Vec<Choice> {
    let mut places: Vec<(&str, CellBudget)> = Vec::new();
    for row in rows {
        if !places.contains(&(&row.task, row.budget)) {
            places.push((&row.task, row.budget));
        }
    }
    let mut choices = Vec::new();
    for (method, variants) in names {
        for &(task, budget) in &places {
            let trial = |(variant, settings): &(String, String)| {
                let of_variant = |row: &&Row| row.method == *variant && row.task == task && row.budget == budget;
                let rows: Vec<&Row> = rows.iter().filter(of_variant).collect();
                Trial {
                    settings: settings.clone(),
                    score: mean(rows.iter().map(|row| row.score)).unwrap_or(0.0),
                    log_likelihood: mean(rows.iter().filter_map(|row| row.log_likelihood)),
                    records: rows.len(),
                }
            };
            let sweep: Vec<Trial> = variants.iter().map(trial).filter(|trial| trial.records > 0).collect();
            let merit = |trial: &Trial| (trial.score, trial.log_likelihood.unwrap_or(f64::NEG_INFINITY));
            let better = |best: &Trial, trial: &Trial| {
                let ((score, likelihood), (other, other_likelihood)) = (merit(trial), merit(best));
                score.total_cmp(&other).then(likelihood.total_cmp(&other_likelihood)).is_gt()
            };
            let best = sweep.iter().reduce(|best, trial| if better(best, trial) { trial } else { best });
            if let Some(settings) = best.map(|best| best.settings.clone()) {
                let (method, task, budget) = (method.clone(), task.into(), budget);
                choices.push(Choice { method, task, budget, settings, sweep });
            }
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Selected;
    use crate::run::tests::row;

    #[test]
    fn the_best_score_wins_then_the_likelier_answers_then_the_first() {
        let rows: Vec<Row> =
            [("m(x=1)", 0.5, -2.0), ("m(x=2)", 0.7, -3.0), ("m(x=3)", 0.7, -1.0), ("m(x=4)", 0.7, -1.0)]
                .map(|(method, score, likelihood)| Row {
                    method: method.into(),
                    score,
                    log_likelihood: Some(likelihood),
                    ..row(method)
                })
                .into();
        let variants = (1..=4).map(|x| (format!("m(x={x})"), format!("x={x}"))).collect();
        let choices = choose(&rows, &[("m".into(), variants)]);
        assert_eq!((choices.len(), choices[0].settings.as_str()), (1, "x=3"));
        assert_eq!(choices[0].sweep.len(), 4);
        let selected = Selected { fingerprint: "a".into(), seen: vec![], choices };
        assert_eq!(selected.settings("m", &rows[0].task, rows[0].budget), Some("x=3"));
        assert_eq!(selected.settings("n", &rows[0].task, rows[0].budget), None);
    }
}
