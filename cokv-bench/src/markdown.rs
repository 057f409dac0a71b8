//! Markdown tables that also read well on a terminal.

use comfy_table::{CellAlignment, Table, presets};

/// An empty table whose columns after the first `left` ones are numbers, aligned to the right.
pub fn table<H: Into<comfy_table::Row>>(header: H, left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The table's lines without the blanks that pad them.
pub fn text(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
