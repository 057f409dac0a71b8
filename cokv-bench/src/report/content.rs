//! What a report consists of, whatever its form.

use std::collections::HashSet;

use serde::Serialize;

use super::run::{LoadedRun, ModelRun};
use super::{ReportError, figures, tables};
use crate::run::file_name;

/// Tables and figures of some runs.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Heading.
    pub title: String,
    /// Which runs, and how far they are.
    pub overview: Table,
    /// One for every run and model.
    pub sections: Vec<Section>,
    /// Name and text of every run's configuration, and its environment.
    pub configurations: Vec<[String; 3]>,
}

/// Everything about one run on one model.
#[derive(Debug, Serialize)]
pub struct Section {
    /// Unique on the page.
    pub id: String,
    /// Heading.
    pub title: String,
    /// The run that it is from.
    pub run: String,
    /// What was run, as far as its files say.
    pub facts: String,
    /// Tables, the main one first.
    pub tables: Vec<Table>,
    /// Figures.
    pub figures: Vec<Figure>,
}

/// Rows of texts.
#[derive(Debug, Default, Serialize)]
pub struct Table {
    /// Unique on the page, and the name of its CSV file.
    pub id: String,
    /// Heading.
    pub title: String,
    /// What the columns mean.
    pub caption: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// How many of the first columns are names and not numbers.
    pub names: usize,
    /// The rows.
    pub rows: Vec<Vec<TableCell>>,
    /// What has to be known of some rows, under the table.
    pub notes: Vec<String>,
}

/// One cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TableCell {
    /// What it says.
    pub text: String,
    /// Whether it is the best of its group.
    pub best: bool,
}

impl<T: Into<String>> From<T> for TableCell {
    fn from(text: T) -> Self {
        Self { text: text.into(), best: false }
    }
}

/// A picture.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Unique on the page, and the name of its SVG file.
    pub id: String,
    /// What it shows, and how to read it.
    pub caption: String,
    /// The picture.
    pub svg: String,
}

impl Report {
    /// Everything that can be said of some runs. `record` names the task whose first record shows which tokens were kept;
    /// none is the first.
    pub fn of(runs: &[LoadedRun], record: Option<&str>) -> Result<Self, ReportError> {
        let mut sections: Vec<Section> = Vec::new();
        for run in runs {
            for model in run.models.iter().filter(|model| !model.rows.is_empty()) {
                sections.push(section(run, model, record)?);
            }
        }
        unique_ids(&mut sections);
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        let configurations =
            runs.iter().map(|run| [run.name.clone(), run.config.clone(), format!("{:#}", run.environment)]).collect();
        Ok(Self { title: names.join(", "), overview: tables::overview(runs), sections, configurations })
    }
}

/// Gives ids that are taken another number: names that differ in signs which no file can have, or runs of one name.
fn unique_ids(sections: &mut [Section]) {
    let mut taken = HashSet::new();
    for section in sections {
        let tables = section.tables.iter_mut().map(|table| &mut table.id);
        let figures = section.figures.iter_mut().map(|figure| &mut figure.id);
        for id in std::iter::once(&mut section.id).chain(tables).chain(figures) {
            let first = id.clone();
            let mut number = 2;
            while !taken.insert(id.clone()) {
                *id = format!("{first}-{number}");
                number += 1;
            }
        }
    }
}

fn section(run: &LoadedRun, model: &ModelRun, record: Option<&str>) -> Result<Section, ReportError> {
    let id = file_name(&format!("{}-{}", run.name, model.model));
    let mut tables = tables::of_model(model);
    let mut figures = figures::of_model(model, record)?;
    for name in tables.iter_mut().map(|table| &mut table.id).chain(figures.iter_mut().map(|figure| &mut figure.id)) {
        *name = file_name(&format!("{id}-{name}"));
    }
    let (title, facts) = (format!("{} · {}", run.name, model.model), run.facts(model));
    Ok(Section { title, run: run.name.clone(), facts, id, tables, figures })
}
