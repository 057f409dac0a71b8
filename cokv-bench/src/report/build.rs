//! From runs to a report.

use std::collections::HashSet;

use super::run::{LoadedRun, ModelRun};
use super::{Report, ReportError, Section, figures, latex, pairwise, predictions, tables};
use crate::names::file_name;
use crate::run::{cells, notes};

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
    let cells = cells(&model.rows);
    let (verdicts, comparisons) = pairwise::verdicts(&cells, model.methods());
    Ok(Section {
        run: run.name.clone(),
        notes: notes(&cells, model.methods()),
        verdicts: verdicts.iter().map(ToString::to_string).collect(),
        verdicts_note: format!("{comparisons}."),
        predictions: predictions::of_model(model),
        latex: latex::of_model(&title, &id, &cells, model.methods()),
        title,
        facts,
        id,
        tables,
        figures,
    })
}
