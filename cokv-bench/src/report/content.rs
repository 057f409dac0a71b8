//! What a report consists of, whatever its form.

use serde::Serialize;

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
