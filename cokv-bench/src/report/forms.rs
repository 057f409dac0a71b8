//! Reports as Markdown and as CSV.

use super::{LoadedRun, Report, ReportError, Table};
use crate::markdown as format;
use crate::run::{Measure, Row, cells};

/// All tables, with links to the pictures in the same folder.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# {}\n\n{}\n", report.title, of_table(&report.overview));
    for section in &report.sections {
        text += &format!("\n## {}\n\n{}\n", section.title, section.facts);
        for table in &section.tables {
            text += &format!("\n### {}\n\n{}\n\n{}\n", table.title, table.caption, of_table(table));
            table.notes.iter().for_each(|note| text += &format!("\n{note}\n"));
        }
        for figure in &section.figures {
            text += &format!("\n![{}]({}.svg)\n", figure.caption, figure.id);
        }
    }
    for [name, config, _] in &report.configurations {
        text += &format!("\n## Configuration of {name}\n\n```toml\n{config}\n```\n");
    }
    text
}

fn of_table(table: &Table) -> String {
    let mut formatted = format::table(table.header.clone(), table.names);
    for row in &table.rows {
        formatted
            .add_row(row.iter().map(|cell| if cell.best { format!("**{}**", cell.text) } else { cell.text.clone() }));
    }
    format::text(&formatted)
}

/// One table, as spreadsheets read it.
pub fn csv(table: &Table) -> Result<String, ReportError> {
    let rows = table.rows.iter().map(|row| row.iter().map(|cell| cell.text.clone()).collect());
    written(table.header.clone(), rows)
}

/// Every measure of every cell on every task, one a line, for programs: plain numbers, scores and agreement from 0 to 100,
/// the share kept from 0 to 1, bytes, and nothing where an end of an interval is not known.
pub fn cells_csv(runs: &[LoadedRun]) -> Result<String, ReportError> {
    let header = [
        "run",
        "model",
        "method",
        "budget",
        "task",
        "records",
        "measure",
        "mean",
        "low",
        "high",
        "kept_share",
        "cache_bytes",
    ];
    let number = |value: f64| if value.is_nan() { String::new() } else { value.to_string() };
    let mut lines: Vec<Vec<String>> = Vec::new();
    for (run, model) in runs.iter().flat_map(|run| run.models.iter().map(move |model| (run, model))) {
        for cell in cells(&model.rows) {
            for (task, rows) in cell.tasks.iter().filter(|(_, rows)| !rows.is_empty()) {
                let mean = |of: fn(&Row) -> f64| rows.iter().map(|row| of(row)).sum::<f64>() / rows.len() as f64;
                let memory = [mean(|row| row.kept_share), mean(|row| row.cache_bytes as f64)].map(number);
                for measure in Measure::ALL {
                    let Some(estimate) = cell.estimate_of_task(task, measure) else { continue };
                    let records = rows.iter().filter(|row| measure.of(row).is_some()).count();
                    let names = [&run.name, cell.model, cell.method, &cell.budget.to_string(), task].map(str::to_owned);
                    let numbers = [estimate.mean, estimate.low, estimate.high].map(number);
                    let measured = [records.to_string(), measure.key().to_owned()];
                    lines.push([&names[..], &measured, &numbers, &memory].concat());
                }
            }
        }
    }
    written(header.map(str::to_owned).into(), lines.into_iter())
}

fn written(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> Result<String, ReportError> {
    let failed = |error: csv::Error| ReportError::Csv(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    std::iter::once(header).chain(rows).try_for_each(|row| writer.write_record(row)).map_err(failed)?;
    let bytes = writer.into_inner().map_err(|error| ReportError::Csv(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| ReportError::Csv(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::ModelRun;
    use super::*;
    use crate::run::tests::row;

    #[test]
    fn programs_get_plain_numbers() {
        let rows = vec![Row { score: 0.25, ..row("x") }, Row { score: 0.75, record: "2".into(), ..row("y") }];
        let model = ModelRun { model: "m".into(), rows, missing: 0, manifest: None, kept: Vec::new() };
        let run = LoadedRun {
            name: "r".into(),
            config: String::new(),
            environment: serde_json::Value::Null,
            models: vec![model],
            date: None,
            damaged: Vec::new(),
        };
        let text = cells_csv(&[run]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "r,m,snapkv,64,t,2,score,50,25,75,0.64,1000");
        // Divergence was not measured.
        assert_eq!(lines.len(), 4, "{text}");
    }
}
