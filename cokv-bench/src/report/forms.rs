//! Reports as Markdown and as CSV.

use super::content::plain;
use super::{LoadedRun, Report, ReportError, Table};
use crate::markdown as format;
use crate::run::{ManifestMethod, Measure, Row, cells, unworthy};

/// All tables, with links to the pictures in the same folder.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# {}\n\n{}\n", report.title, of_table(&report.overview));
    for section in &report.sections {
        text += &format!("\n## {}\n\n{}\n", section.title, section.facts);
        section.notes.iter().for_each(|note| text += &format!("\n{note}\n"));
        if !section.verdicts.is_empty() {
            let verdicts: Vec<String> = section.verdicts.iter().map(|verdict| format!("- {verdict}")).collect();
            text += &format!(
                "\nAgainst the best baseline, in score:\n\n{}\n\n{}\n",
                verdicts.join("\n"),
                section.verdicts_note
            );
        }
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
    let header: Vec<&str> = table.header.iter().map(|heading| heading.text.as_str()).collect();
    let mut formatted = format::table(header, table.names);
    for row in &table.rows {
        formatted
            .add_row(row.iter().map(|cell| if cell.best { format!("**{}**", cell.text) } else { cell.text.clone() }));
    }
    format::text(&formatted)
}

/// One table, as programs read it: plain numbers without units, shares from 0 to 1 unless their heading says percent, and
/// nothing where a number is not known.
pub fn csv(table: &Table) -> Result<String, ReportError> {
    let header = table.header.iter().flat_map(|heading| heading.keys.clone()).collect();
    written(header, table.rows.iter().map(|row| row.iter().flat_map(|cell| cell.values.clone()).collect()))
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
        "head_scores_reliability",
        "head_scores_records",
        "head_scores_evaluations",
        "head_scores_unworthy",
    ];
    let mut lines: Vec<Vec<String>> = Vec::new();
    for (run, model) in runs.iter().flat_map(|run| run.models.iter().map(move |model| (run, model))) {
        for cell in cells(&model.rows) {
            let worth = worth_of_head_scores(model.methods(), cell.method);
            for (task, rows) in cell.tasks.iter().filter(|(_, rows)| !rows.is_empty()) {
                let mean = |of: fn(&Row) -> f64| rows.iter().map(|row| of(row)).sum::<f64>() / rows.len() as f64;
                let memory = [mean(|row| row.kept_share), mean(|row| row.cache_bytes as f64)].map(plain);
                for measure in Measure::ALL {
                    let Some(estimate) = cell.estimate_of_task(task, measure) else { continue };
                    let records = rows.iter().filter(|row| measure.of(row).is_some()).count();
                    let names = [&run.name, cell.model, cell.method, &cell.budget.to_string(), task].map(str::to_owned);
                    let numbers = [estimate.mean, estimate.low, estimate.high].map(plain);
                    let measured = [records.to_string(), measure.key().to_owned()];
                    lines.push([&names[..], &measured, &numbers, &memory, &worth].concat());
                }
            }
        }
    }
    written(header.map(str::to_owned).into(), lines.into_iter())
}

/// Reliability, records, evaluations of a column's head scores and why they are noise, as far as that is known.
fn worth_of_head_scores(methods: &[ManifestMethod], column: &str) -> [String; 4] {
    let worth =
        methods.iter().filter(|method| method.is_of(column)).find_map(|method| method.head_scores_worth.clone());
    let worth = worth.unwrap_or_default();
    let count = |count: Option<usize>| count.map_or(String::new(), |count| count.to_string());
    [
        worth.reliability.map_or(String::new(), plain),
        count(worth.records),
        count(worth.evaluations),
        unworthy(methods, column).unwrap_or_default().to_owned(),
    ]
}

pub(super) fn written(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> Result<String, ReportError> {
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
        assert_eq!(lines[1], "r,m,snapkv,64,t,2,score,50,0,100,0.64,1000,,,,");
        // Divergence was not measured.
        assert_eq!(lines.len(), 4, "{text}");
    }
}
