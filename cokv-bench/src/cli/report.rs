//! `cokv report`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cokv_shapley::whole;
use serde_json::json;

use super::output::print;
use crate::report::{LoadedRun, Report, cells_csv, csv, latex, markdown, page, predictions_csv};

/// Make a page of runs: tables with intervals, curves, heat maps
///
/// The folder gets index.html, which opens without a network, report.md, report.tex (tables for booktabs), a CSV file of every
/// table, an SVG file of every figure, cells.csv, which has all numbers of all cells task by task, and predictions.csv. Numbers
/// in CSV files are plain, bytes are bytes and shares fractions. Runs that are not at their end yet can be reported too.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cokv report runs/cokv --out report
  cokv report runs/longbench-small runs/needle --record qasper --out report")]
pub struct Arguments {
    /// Folders of runs
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The folder that the report is written to
    #[arg(long, default_value = "report")]
    out: PathBuf,
    /// The task whose first record shows which tokens were kept; the first task where none is named
    #[arg(long, value_name = "TASK")]
    record: Option<String>,
    /// Print where the page and the numbers are as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let runs: Vec<LoadedRun> = arguments.runs.iter().map(|run| LoadedRun::read(run)).collect::<Result<_, _>>()?;
    note_damage(&runs.iter().collect::<Vec<_>>());
    if let Some(task) = &arguments.record {
        let tasks: Vec<&str> = runs
            .iter()
            .flat_map(|run| &run.models)
            .flat_map(|model| &model.kept)
            .map(|kept| kept.task.as_str())
            .collect();
        if !tasks.contains(&task.as_str()) {
            bail!(
                "--record {task}: what was kept is known of {}",
                if tasks.is_empty() { "no task".into() } else { tasks.join(", ") }
            );
        }
    }
    write_report(&runs, arguments.record.as_deref(), &arguments.out)?;
    let file = |name: &str| arguments.out.join(name);
    if arguments.json {
        let files = json!({
            "page": file("index.html"), "markdown": file("report.md"), "latex": file("report.tex"),
            "cells": file("cells.csv"), "predictions": file("predictions.csv"),
        });
        return print(&files.to_string());
    }
    print(&file("index.html").display().to_string())
}

/// Writes a report of runs into a folder.
pub(super) fn write_report(runs: &[LoadedRun], record: Option<&str>, out: &Path) -> Result<()> {
    let report = Report::of(runs, record)?;
    let write = |name: &str, text: &str| -> Result<()> {
        let path = out.join(name);
        whole::write(&path, text).with_context(|| path.display().to_string())
    };
    write("index.html", &page(&report)?)?;
    write("report.md", &markdown(&report))?;
    write("report.tex", &latex(&report))?;
    write("cells.csv", &cells_csv(runs)?)?;
    write("predictions.csv", &predictions_csv(runs)?)?;
    for section in &report.sections {
        section.tables.iter().try_for_each(|table| write(&format!("{}.csv", table.id), &csv(table)?))?;
        section.figures.iter().try_for_each(|figure| write(&format!("{}.svg", figure.id), &figure.svg))?;
    }
    Ok(())
}

/// Says which lines of some runs are no rows, each once.
pub(super) fn note_damage(runs: &[&LoadedRun]) {
    let damaged: BTreeSet<&String> = runs.iter().flat_map(|run| &run.damaged).collect();
    for line in damaged {
        eprintln!("note: {line}; it is skipped, and cokv bench runs its cell again");
    }
}
