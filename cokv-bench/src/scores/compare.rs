//! How far score files agree.

use std::path::Path;

use super::file::ScoreFile;
use super::statistics::{pearson, spearman, top_overlap};
use super::{Problem, ScoreFileError};
use crate::chart::label;
use crate::markdown;

/// Agreement of two score files. Figures are none where one of the files gives all heads the same score.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Pearson's correlation, in [-1, 1].
    pub pearson: Option<f64>,
    /// Spearman's rank correlation, in [-1, 1].
    pub spearman: Option<f64>,
    /// Share of the best tenth of the heads (rounded up) that both files have in common, in [0, 1].
    pub top_overlap: Option<f64>,
    /// Whether and how the models differ.
    pub notice: Option<String>,
}

/// Compares two files of models of one shape.
pub fn compare(first: &ScoreFile, second: &ScoreFile) -> Result<Comparison, Problem> {
    if (first.model.layers, first.model.kv_heads) != (second.model.layers, second.model.kv_heads) {
        let [first, second] = [first, second].map(|file| file.model.to_string());
        return Err(Problem::Incomparable { first, second });
    }
    let [one, other] = [first, second].map(|file| file.head_scores(&file.model));
    let (one, other) = (one?.values().to_vec(), other?.values().to_vec());
    Ok(Comparison {
        pearson: pearson(&one, &other),
        spearman: spearman(&one, &other),
        top_overlap: top_overlap(&one, &other, 0.1),
        notice: first.model.notice(&second.model),
    })
}

/// One of the figures of a [`Comparison`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Pearson's correlation.
    Pearson,
    /// Spearman's rank correlation.
    Spearman,
    /// Share of the best tenth in common.
    TopOverlap,
}

impl Measure {
    /// Name for titles.
    pub fn title(self) -> &'static str {
        match self {
            Self::Pearson => "Pearson correlation",
            Self::Spearman => "Spearman rank correlation",
            Self::TopOverlap => "overlap of the best 10 % of the heads",
        }
    }

    fn of(self, comparison: &Comparison) -> Option<f64> {
        match self {
            Self::Pearson => comparison.pearson,
            Self::Spearman => comparison.spearman,
            Self::TopOverlap => comparison.top_overlap,
        }
    }
}

/// Every file compared with every file.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparisonMatrix {
    /// Names of the files.
    pub names: Vec<String>,
    /// `[files][files]`
    pub comparisons: Vec<Vec<Comparison>>,
}

impl ComparisonMatrix {
    /// Compares named files; an error names the first file whose model has another shape than that of one before it.
    pub fn new(files: &[(String, ScoreFile)]) -> Result<Self, ScoreFileError> {
        let row = |file: &ScoreFile| {
            let cell = |(name, other): &(String, ScoreFile)| {
                compare(other, file).map_err(|problem| problem.at(Path::new(name)))
            };
            files.iter().map(cell).collect::<Result<Vec<_>, _>>()
        };
        let comparisons = files.iter().map(|(_, file)| row(file)).collect::<Result<_, _>>()?;
        Ok(Self { names: files.iter().map(|(name, _)| name.clone()).collect(), comparisons })
    }

    /// One figure of all comparisons: `[files][files]`.
    pub fn values(&self, measure: Measure) -> Vec<Vec<Option<f64>>> {
        self.comparisons.iter().map(|row| row.iter().map(|cell| measure.of(cell)).collect()).collect()
    }

    /// One figure of all comparisons as a Markdown table.
    pub fn markdown(&self, measure: Measure) -> String {
        let header: Vec<&str> = std::iter::once("").chain(self.names.iter().map(String::as_str)).collect();
        let mut table = markdown::table(header, 1);
        for (name, row) in self.names.iter().zip(self.values(measure)) {
            let cells = row.into_iter().map(|value| value.map_or("–".into(), |value| label(value, 0.01)));
            table.add_row(std::iter::once(name.clone()).chain(cells));
        }
        markdown::text(&table)
    }

    /// What to tell the user of files whose models differ, each pair once.
    pub fn notices(&self) -> Vec<String> {
        let above = |(place, row): (usize, &'_ Vec<Comparison>)| {
            row.iter().take(place).filter_map(|cell| cell.notice.clone()).collect::<Vec<_>>()
        };
        let mut notices: Vec<String> = self.comparisons.iter().enumerate().flat_map(above).collect();
        notices.sort();
        notices.dedup();
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::model;
    use super::super::published::import_cokv;
    use super::*;

    fn file(name: &str, scores: &[f64]) -> ScoreFile {
        ScoreFile::new(model(name, scores.len() / 2, 1, 2), "test", scores)
    }

    #[test]
    fn figures_and_notices() {
        let scores = [0.0, 1.0, 2.0, 4.0];
        let same = compare(&file("a", &scores), &file("a", &scores.map(f64::exp))).unwrap();
        assert_eq!((same.spearman, same.top_overlap, same.notice), (Some(1.0), Some(1.0), None));
        assert!(same.pearson.is_some_and(|r| (0.9..0.99).contains(&r)));
        let other = compare(&file("a", &scores), &file("b", &[1.0; 4])).unwrap();
        assert_eq!((other.pearson, other.top_overlap), (None, Some(0.0)));
        assert!(other.notice.is_some_and(|notice| notice.contains("scores of a") && notice.contains("for b")));
    }

    #[test]
    fn matrices_are_tables() {
        let files = [("x", [1.0, 2.0, 3.0, 4.0]), ("y", [4.0, 3.0, 2.0, 1.0]), ("z", [1.0; 4])];
        let files = files.map(|(name, scores)| (name.to_owned(), file(name, &scores)));
        let matrix = ComparisonMatrix::new(&files).unwrap();
        let expected = "\
|   |     x |     y | z |
|---|-------|-------|---|
| x |  1.00 | -1.00 | – |
| y | -1.00 |  1.00 | – |
| z |     – |     – | – |";
        assert_eq!(matrix.markdown(Measure::Spearman), expected);
        assert_eq!(matrix.notices().len(), 3);
        let unlike = [files[0].clone(), ("w".into(), file("w", &[0.0; 6]))];
        let error = ComparisonMatrix::new(&unlike).unwrap_err().to_string();
        assert!(error.starts_with("w: ") && error.contains("x (2 layers × 2 KV heads)"), "{error}");
    }

    #[test]
    fn published_tasks_agree_as_reported() {
        let Some(published) = cokv_golden::find("scores/cokv") else { return };
        let import = |folder: &str, task| import_cokv(&published.join(folder), task, None).unwrap().file;
        for (folder, first, second, expected) in [
            ("llama3-8b", "qasper", "hotpotqa", 0.54),
            ("llama3-8b", "qasper", "lcc", 0.10),
            ("llama3-8b", "lcc", "repobench-p", 0.84),
            ("mistral-7b", "qasper", "triviaqa", 0.54),
        ] {
            let found = compare(&import(folder, first), &import(folder, second)).unwrap().pearson.unwrap();
            assert!((found - expected).abs() < 0.006, "{folder} {first} {second}: {found}");
        }
    }
}
