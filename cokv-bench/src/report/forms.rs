//! Reports as Markdown and as CSV.

use super::{Report, ReportError, Table};
use crate::markdown as format;

/// All tables, with links to the pictures in the same folder.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# {}\n\n{}\n", report.title, of_table(&report.overview));
    for section in &report.sections {
        text += &format!("\n## {}\n", section.title);
        for table in &section.tables {
            text += &format!("\n### {}\n\n{}\n\n{}\n", table.title, table.caption, of_table(table));
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
    let failed = |error: csv::Error| ReportError::Csv(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&table.header).map_err(failed)?;
    for row in &table.rows {
        writer.write_record(row.iter().map(|cell| cell.text.as_str())).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| ReportError::Csv(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| ReportError::Csv(error.to_string()))
}
