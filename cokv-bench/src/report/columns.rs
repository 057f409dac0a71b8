//! Columns of tables whose rows are cells.

use super::content::plain;
use super::{Heading, Table, TableCell};
use crate::run::{Cell, ManifestMethod, Measure, name, unworthy};
use crate::statistics::{Comparisons, Difference, Mark};

/// A column with a table cell for every cell.
pub struct Column {
    /// Its name.
    pub heading: Heading,
    /// In the order of the cells.
    pub cells: Vec<TableCell>,
}

/// A table of these columns behind the cells' names.
pub fn table(cells: &[Cell<'_>], methods: &[ManifestMethod], columns: Vec<Column>) -> Table {
    let names = [Heading::new("method", "method"), Heading::new("budget", "budget")];
    let row = |(at, cell): (usize, &Cell<'_>)| {
        let method = TableCell { text: name(methods, cell.method), ..cell.method.into() };
        let names = [method, cell.budget.to_string().into()];
        names.into_iter().chain(columns.iter().map(|column| column.cells[at].clone())).collect()
    };
    Table {
        rows: cells.iter().enumerate().map(row).collect(),
        header: names.into_iter().chain(columns.iter().map(|column| column.heading.clone())).collect(),
        names: 2,
        ..Table::default()
    }
}

/// A name as programs like it: small letters, digits and underscores.
pub fn key(text: &str) -> String {
    let letter = |letter: char| if letter.is_alphanumeric() { letter.to_ascii_lowercase() } else { '_' };
    text.chars().map(letter).collect()
}

/// What programs call a measure as a column; those from 0 to 100 that are shares say so.
pub fn key_of(measure: Measure) -> &'static str {
    match measure {
        Measure::Score => "score",
        Measure::LogLikelihood => "log_likelihood",
        Measure::Divergence => "divergence",
        Measure::Agreement => "agreement_percent",
    }
}

/// Means of a measure over some of the tasks. Of the methods at a budget the best is marked where it is better than the one that
/// comes next by more than chance, pair by pair, and its head scores are not known to be noise; the full cache does not
/// compete.
pub fn means(
    cells: &[Cell<'_>],
    methods: &[ManifestMethod],
    heading: Heading,
    measure: Measure,
    counts: &dyn Fn(&str) -> bool,
) -> Column {
    let values: Vec<Option<f64>> = cells.iter().map(|cell| cell.mean_over(measure, counts)).collect();
    let is_best = |at: usize| -> bool {
        let cell = &cells[at];
        let Some(value) = values[at].filter(|_| !cell.budget.is_full()) else { return false };
        let better = |a: f64, b: f64| if measure.rises() { a > b } else { a < b };
        let rivals = cells
            .iter()
            .zip(&values)
            .enumerate()
            .filter(|(other, (rival, _))| *other != at && rival.budget == cell.budget);
        let rivals = rivals.filter_map(|(_, (rival, rival_value))| Some((rival, (*rival_value)?)));
        let next = rivals.reduce(|a, b| if better(b.1, a.1) { b } else { a });
        let Some((rival, rival_value)) = next else { return false };
        better(value, rival_value)
            && unworthy(methods, cell.method).is_none()
            && cell.difference_on(rival, measure, counts).is_some_and(|difference| difference.excludes_zero())
    };
    let cell = |at: usize| TableCell {
        best: is_best(at),
        ..match values[at] {
            Some(value) => TableCell::new(measure.write(value), [value]),
            None => TableCell::new("–", [f64::NAN]),
        }
    };
    Column { heading, cells: (0..cells.len()).map(cell).collect() }
}

/// The 95 % intervals of a measure's means.
pub fn intervals(cells: &[Cell<'_>], measure: Measure) -> Column {
    let key = key_of(measure);
    let heading = Heading { text: "95 %".into(), keys: vec![format!("{key}_low"), format!("{key}_high")] };
    let of = |cell: &Cell<'_>| {
        let estimate = cell.estimate(measure);
        let ends = estimate.map_or([f64::NAN; 2], |estimate| [estimate.low, estimate.high]);
        TableCell::new(measure.interval(estimate), ends)
    };
    Column { heading, cells: cells.iter().map(of).collect() }
}

/// Differences and their intervals, marked against one another, and how many there are.
pub fn differences(
    heading: &str,
    prefix: &str,
    measure: Measure,
    mut differences: Vec<Option<Difference>>,
) -> (Column, Comparisons) {
    let comparisons = Comparisons::correct(differences.iter_mut().flatten());
    (difference_column(heading, prefix, measure, &differences), comparisons)
}

/// Differences as they are marked.
pub fn difference_column(heading: &str, prefix: &str, measure: Measure, all: &[Option<Difference>]) -> Column {
    let keys = ["", "_low", "_high", "_p", "_mark", "_records_that_differ"].map(|end| format!("{prefix}{end}"));
    let values = |difference: &Difference| {
        let Difference { mean, low, high, p, informative, mark, .. } = difference;
        let mark = match mark {
            Mark::None => "",
            Mark::Alone => "alone",
            Mark::Corrected => "corrected",
        };
        vec![plain(*mean), plain(*low), plain(*high), plain(*p), mark.to_owned(), informative.to_string()]
    };
    let cell = |difference: &Option<Difference>| TableCell {
        text: measure.difference(*difference),
        best: false,
        values: difference.as_ref().map_or(vec![String::new(); keys.len()], values),
    };
    Column { heading: Heading { text: heading.into(), keys: keys.to_vec() }, cells: all.iter().map(cell).collect() }
}

/// How far every cell is above the full cache, and how many comparisons that makes; none where that was not run.
pub fn above_full(cells: &[Cell<'_>], heading: &str, measure: Measure) -> Option<(Column, Comparisons)> {
    let full = cells.iter().find(|cell| cell.budget.is_full())?;
    let of = |cell: &Cell<'_>| if cell.budget.is_full() { None } else { cell.difference(full, measure) };
    let prefix = format!("{}_above_full", key_of(measure));
    Some(differences(heading, &prefix, measure, cells.iter().map(of).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::row;
    use crate::run::{Row, cells};
    use crate::scores::HeadScoresWorth;

    /// Regression: the highest mean was bold whether or not it was higher by more than chance.
    #[test]
    fn only_what_is_better_by_more_than_chance_is_best() {
        let of = |method: &str, record: usize, score: f64| Row {
            method: method.into(),
            record: record.to_string(),
            score,
            ..row("x")
        };
        let best = |records: usize, methods: &[ManifestMethod]| -> Vec<bool> {
            let mut rows = Vec::new();
            for record in 0..records {
                let noise = (record % 3) as f64 / 10.0;
                rows.extend([of("a", record, 0.1 + noise), of("b", record, 0.4), of("c", record, 0.7 - noise / 2.0)]);
            }
            let cells = cells(&rows);
            let column = means(&cells, methods, Heading::new("score", "score"), Measure::Score, &|_| true);
            column.cells.iter().map(|cell| cell.best).collect()
        };
        assert_eq!(best(12, &[]), [false, false, true]);
        assert_eq!(best(6, &[]), [false; 3], "six records are too few to say");
        let worth = HeadScoresWorth { unworthy: Some("reliability 0.04".into()), ..HeadScoresWorth::default() };
        let noisy = ManifestMethod { name: "c".into(), head_scores_worth: Some(worth), ..ManifestMethod::default() };
        assert_eq!(best(12, std::slice::from_ref(&noisy)), [false; 3], "its head scores are noise");
        let rows = [of("c", 0, 0.5)];
        let name = &table(&cells(&rows), &[noisy], Vec::new()).rows[0][0];
        assert_eq!((name.text.as_str(), &name.values), ("c †", &vec!["c".to_owned()]));
    }
}
