//! Rows grouped by model, method and budget, and what can be said of a group and of a pair of them.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::budget::CellBudget;
use super::measure::mean;
use super::store::Row;
use crate::data::{Place, Protocol};
use crate::statistics::{Cluster, Difference, Estimate, Mark, mean_of_groups};

/// What is measured of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The task's metric, from 0 to 100.
    Score,
    /// Of the reference answer, nats per token.
    LogLikelihood,
    /// From the full cache's distributions, nats per token.
    Divergence,
    /// Tokens that equal the full cache's, in percent.
    Agreement,
}

impl Measure {
    /// All, the benchmark's own first.
    pub const ALL: [Self; 4] = [Self::Score, Self::LogLikelihood, Self::Divergence, Self::Agreement];

    /// Heading of a column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::LogLikelihood => "log-lik.",
            Self::Divergence => "KL to full",
            Self::Agreement => "same tokens",
        }
    }

    /// Name for programs.
    pub fn key(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::LogLikelihood => "log-likelihood",
            Self::Divergence => "divergence",
            Self::Agreement => "agreement",
        }
    }

    /// Name and unit, for an axis.
    pub fn title(self) -> &'static str {
        match self {
            Self::Score => "score (0 to 100)",
            Self::LogLikelihood => "log-likelihood of the reference answer (nats per token)",
            Self::Divergence => "divergence from the full cache (nats per token)",
            Self::Agreement => "tokens as with the full cache (percent)",
        }
    }

    /// Whether more is better.
    pub fn rises(self) -> bool {
        self != Self::Divergence
    }

    /// What it cannot be below and above.
    pub fn bounds(self) -> (f64, f64) {
        match self {
            Self::Score | Self::Agreement => (0.0, 100.0),
            Self::LogLikelihood => (f64::NEG_INFINITY, 0.0),
            Self::Divergence => (0.0, f64::INFINITY),
        }
    }

    /// Of a row; none where it was not measured.
    pub fn of(self, row: &Row) -> Option<f64> {
        match self {
            Self::Score => Some(100.0 * row.score),
            Self::LogLikelihood => row.log_likelihood,
            Self::Divergence => row.divergence,
            Self::Agreement => row.agreement.map(|share| 100.0 * share),
        }
    }

    /// A number with the digits that tell.
    pub fn write(self, value: f64) -> String {
        match self {
            Self::Score | Self::Agreement => format!("{value:.1}"),
            Self::LogLikelihood | Self::Divergence => format!("{value:.3}"),
        }
    }

    /// The ends of a 95 % interval; none where all members are equal, whose interval says nothing.
    pub fn interval(self, estimate: Option<Estimate>) -> String {
        estimate.map_or("–".into(), |estimate| self.ends(estimate.low, estimate.high))
    }

    fn ends(self, low: f64, high: f64) -> String {
        if high > low { format!("{} … {}", self.write(low), self.write(high)) } else { "–".into() }
    }

    /// A difference with its interval, and where that excludes zero, △ or ▽, filled where it stands among all comparisons of
    /// its table.
    pub fn difference(self, difference: Option<Difference>) -> String {
        let Some(difference) = difference else { return "–".into() };
        let mark = match (difference.mark, difference.mean > 0.0) {
            (Mark::None, _) => "",
            (Mark::Alone, true) => " △",
            (Mark::Alone, false) => " ▽",
            (Mark::Corrected, true) => " ▲",
            (Mark::Corrected, false) => " ▼",
        };
        let sign = if difference.mean > 0.0 { "+" } else { "" };
        format!("{sign}{} ({}){mark}", self.write(difference.mean), self.ends(difference.low, difference.high))
    }
}

/// All rows of a model, a method and a budget.
#[derive(Clone, Debug)]
pub struct Cell<'a> {
    /// The model's source.
    pub model: &'a str,
    /// Name of the method, and of the protocol where that is not the usual one.
    pub method: &'a str,
    /// When prompts were compressed.
    pub protocol: Protocol,
    /// The budget as configured; `full` for a method that evicts nothing.
    pub budget: CellBudget,
    /// Task by task, in the order of the tasks' first rows in any cell; empty where the cell has none of a task.
    pub tasks: Vec<(&'a str, Vec<&'a Row>)>,
}

/// Groups rows, in the order in which models, methods and budgets first come.
pub fn cells(rows: &[Row]) -> Vec<Cell<'_>> {
    let mut tasks: Vec<&str> = Vec::new();
    let mut place_of_task: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        place_of_task.entry(&row.task).or_insert_with(|| {
            tasks.push(&row.task);
            tasks.len() - 1
        });
    }
    let mut cells: Vec<Cell<'_>> = Vec::new();
    let mut place_of_cell: HashMap<(&str, &str, CellBudget), usize> = HashMap::new();
    for row in rows {
        let place = *place_of_cell.entry((&row.model, &row.method, row.budget)).or_insert_with(|| {
            let tasks = tasks.iter().map(|&task| (task, Vec::new())).collect();
            let Row { model, method, protocol, budget, .. } = row;
            cells.push(Cell { model, method, protocol: *protocol, budget: *budget, tasks });
            cells.len() - 1
        });
        cells[place].tasks[place_of_task[row.task.as_str()]].1.push(row);
    }
    cells
}

impl<'a> Cell<'a> {
    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &'a Row> {
        self.tasks.iter().flat_map(|(_, rows)| rows.iter().copied())
    }

    /// The mean over rows of something that every row has.
    pub fn mean(&self, of: impl Fn(&Row) -> f64) -> f64 {
        let count = self.rows().count().max(1);
        self.rows().map(of).sum::<f64>() / count as f64
    }

    /// The mean of the tasks' means, with its interval.
    pub fn estimate(&self, measure: Measure) -> Option<Estimate> {
        Some(Estimate::of_groups(&self.groups(measure))?.within(measure.bounds()))
    }

    /// The mean of [`estimate`](Self::estimate).
    pub fn mean_of_tasks(&self, measure: Measure) -> Option<f64> {
        mean_of_groups(&self.groups(measure))
    }

    /// The mean of the means of some of the tasks.
    pub fn mean_over(&self, measure: Measure, counts: impl Fn(&str) -> bool) -> Option<f64> {
        let tasks = self.tasks.iter().filter(|(task, _)| counts(task));
        mean_of_groups(&tasks.map(|(_, rows)| measured(rows, measure)).collect::<Vec<_>>())
    }

    /// The mean of a task.
    pub fn mean_of_task(&self, task: &str, measure: Measure) -> Option<f64> {
        let (_, rows) = self.tasks.iter().find(|(name, _)| *name == task)?;
        mean_of_groups(&[measured(rows, measure)])
    }

    /// The mean of a task, with its interval.
    pub fn estimate_of_task(&self, task: &str, measure: Measure) -> Option<Estimate> {
        let (_, rows) = self.tasks.iter().find(|(name, _)| *name == task)?;
        Some(Estimate::of_groups(&[measured(rows, measure)])?.within(measure.bounds()))
    }

    /// Records of a task, and the questions that they ask, which are fewer in a grid.
    pub fn size_of_task(&self, task: &str) -> [usize; 2] {
        let rows = self.tasks.iter().find(|(name, _)| *name == task).map_or(&[][..], |(_, rows)| rows);
        [rows.len(), measured(rows, Measure::Score).len()]
    }

    fn groups(&self, measure: Measure) -> Vec<Vec<Cluster>> {
        self.tasks.iter().map(|(_, rows)| measured(rows, measure)).collect()
    }

    /// How far this cell is above another on the records that both have.
    pub fn difference(&self, other: &Cell<'_>, measure: Measure) -> Option<Difference> {
        self.difference_on(other, measure, |_| true)
    }

    /// [`difference`](Self::difference) on some of the tasks.
    pub fn difference_on(
        &self,
        other: &Cell<'_>,
        measure: Measure,
        counts: impl Fn(&str) -> bool,
    ) -> Option<Difference> {
        let tasks = Pairs::of(&[(other, self)]).by_task(measure);
        let groups: Vec<Vec<Cluster>> =
            tasks.into_iter().filter(|(task, _)| counts(task)).map(|(_, clusters)| clusters).collect();
        Difference::of_groups(&groups)
    }
}

fn measured(rows: &[&Row], measure: Measure) -> Vec<Cluster> {
    clusters(rows.iter().filter_map(|row| Some((*row, measure.of(row)?))))
}

/// What is drawn together: the rows of a grid that ask the same question, whatever their place, and those that ask about one
/// text; all others are alone.
fn clusters<'a>(values: impl Iterator<Item = (&'a Row, f64)>) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut place_of_question: HashMap<String, usize> = HashMap::new();
    for (row, value) in values {
        let place = question(row).map(|question| *place_of_question.entry(question).or_insert(clusters.len()));
        match place.and_then(|place| clusters.get_mut(place)) {
            Some(cluster) => cluster.add(value),
            None => clusters.push(Cluster::alone(value)),
        }
    }
    clusters
}

/// What rows have in common that are not independent: their text; in a grid the question, which is the record's id,
/// TASK-TOKENS-SEED-dPERCENT-INDEX, without its place. Rows have no fingerprint of their record, of which this says the same.
/// None for a row that is alone.
fn question(row: &Row) -> Option<String> {
    if let Some(text) = &row.text {
        return Some(text.clone());
    }
    let Place { context_tokens, depth_percent } = row.place?;
    let rest = row.record.strip_prefix(&format!("{}-{context_tokens}-", row.task))?;
    let (seed, index) = rest.split_once(&format!("-d{depth_percent}-"))?;
    Some(format!("{seed}-{index}"))
}

/// Rows of pairs of cells that are of the same record, by task and record.
pub struct Pairs<'a>(BTreeMap<(&'a str, &'a str), Vec<[&'a Row; 2]>>);

impl<'a> Pairs<'a> {
    /// Pairs the rows of the first cells with those of the second.
    pub fn of(cells: &[(&Cell<'a>, &Cell<'a>)]) -> Self {
        let mut pairs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let record = |row: &'a Row| (row.task.as_str(), row.record.as_str());
        for (first, second) in cells {
            let firsts: HashMap<_, _> = first.rows().map(|row| (record(row), row)).collect();
            for row in second.rows() {
                if let Some(&first) = firsts.get(&record(row)) {
                    pairs.entry(record(row)).or_default().push([first, row]);
                }
            }
        }
        Self(pairs)
    }

    /// Records that are in a pair.
    pub fn records(&self) -> usize {
        self.0.len()
    }

    /// For every task, how far the second rows are above the first, one number a record: its mean over the pairs, because a
    /// record that was asked at several budgets is not several records. Records of a grid that ask the same are one cluster.
    pub fn by_task(&self, measure: Measure) -> Vec<(&'a str, Vec<Cluster>)> {
        let mut tasks: BTreeMap<&str, Vec<(&Row, f64)>> = BTreeMap::new();
        for ((task, _), pairs) in &self.0 {
            let differences = pairs.iter().filter_map(|[first, second]| Some(measure.of(second)? - measure.of(first)?));
            if let Some(difference) = mean(differences) {
                tasks.entry(task).or_default().push((pairs[0][1], difference));
            }
        }
        tasks.into_iter().map(|(task, values)| (task, clusters(values.into_iter()))).collect()
    }

    /// The mean of the tasks' means of [`by_task`](Self::by_task), with its interval.
    pub fn difference(&self, measure: Measure) -> Option<Difference> {
        let groups: Vec<Vec<Cluster>> = self.by_task(measure).into_iter().map(|(_, clusters)| clusters).collect();
        Difference::of_groups(&groups)
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::row;
    use super::*;

    fn of(method: &str, task: &str, record: usize, score: f64) -> Row {
        Row { method: method.into(), task: task.into(), record: record.to_string(), score, ..row("x") }
    }

    #[test]
    fn tasks_weigh_the_same_whatever_their_size() {
        let rows = [of("a", "t", 1, 1.0), of("a", "t", 2, 1.0), of("a", "u", 1, 0.0), of("b", "u", 1, 0.5)];
        let cells = cells(&rows);
        assert_eq!(cells.len(), 2);
        assert_eq!(cells[0].estimate(Measure::Score).unwrap().mean, 50.0);
        assert_eq!(cells[0].mean_of_tasks(Measure::Score), Some(50.0));
        assert_eq!(cells[0].mean_of_task("t", Measure::Score), Some(100.0));
        assert_eq!(cells[1].mean_of_task("t", Measure::Score), None);
        assert_eq!(cells[0].estimate(Measure::Divergence), None);
        assert_eq!(cells[0].mean_of_tasks(Measure::Divergence), None);
    }

    #[test]
    fn differences_are_of_the_same_records() {
        let mut rows: Vec<Row> =
            (0..20).map(|record| of("a", "t", record, 0.5 + f64::from(record as u32 % 2) / 2.0)).collect();
        rows.extend((0..10).map(|record| of("b", "t", record, 0.25 + f64::from(record as u32 % 2) / 2.0)));
        let cells = cells(&rows);
        let difference = cells[0].difference(&cells[1], Measure::Score).unwrap();
        // Records that differ among themselves by 50 say nothing against a difference that they all share.
        assert_eq!((difference.mean, difference.low, difference.high, difference.members), (25.0, 25.0, 25.0, 10));
        assert_eq!(Measure::Score.difference(Some(difference)), "+25.0 (–) △");
    }

    /// Records as a grid has them: three needles at each length and depth.
    fn grid(method: &str, score: impl Fn(usize) -> f64) -> Vec<Row> {
        let places = [500, 1000].into_iter().flat_map(|tokens| [0, 25, 50, 75, 100].map(|depth| (tokens, depth)));
        let all = places.flat_map(|place| (0..3).map(move |index| (place, index)));
        all.map(|((context_tokens, depth_percent), index)| Row {
            place: Some(Place { context_tokens, depth_percent }),
            record: format!("needle-{context_tokens}-0-d{depth_percent}-{index}"),
            ..of(method, "needle", index, score(index))
        })
        .collect()
    }

    #[test]
    fn places_of_one_needle_are_not_several_records() {
        let scores = [1.0, 0.0, 0.5];
        let places = grid("a", |index| scores[index]);
        let needles: Vec<Row> = (0..3).map(|index| of("a", "needle", index, scores[index])).collect();
        let estimate = |rows: &[Row]| cells(rows)[0].estimate(Measure::Score).unwrap();
        assert_eq!(places.len(), 30);
        let (wide, narrow) = (estimate(&places), estimate(&needles));
        assert!((wide.low - narrow.low).abs() < 1e-9 && wide.members == 3, "as wide as three needles allow: {wide:?}");
        // Thirty draws of their own would be surer than that.
        let apart: Vec<Row> = places.iter().map(|row| Row { place: None, ..row.clone() }).collect();
        let width = |estimate: Estimate| estimate.high - estimate.low;
        assert!(width(estimate(&places)) > 2.0 * width(estimate(&apart)));
    }

    #[test]
    fn few_needles_at_many_places_say_nothing_sure() {
        let rows = [grid("a", |_| 1.0), grid("b", |index| index as f64 / 4.0)].concat();
        let cells = cells(&rows);
        let difference = cells[0].difference(&cells[1], Measure::Score).unwrap();
        assert!(difference.mean > 0.0 && difference.members == 3 && !difference.excludes_zero(), "{difference:?}");
    }
}
