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
    /// What has to be known before the tables are read: tasks that say nothing, budgets that are not spent.
    pub notes: Vec<String>,
    /// One sentence for every method and budget, against the best baseline.
    pub verdicts: Vec<String>,
    /// How many comparisons those are, and what their marks mean.
    pub verdicts_note: String,
    /// Tables, the main one first.
    pub tables: Vec<Table>,
    /// Figures.
    pub figures: Vec<Figure>,
    /// What was answered.
    pub predictions: Predictions,
    /// Its scores as a LaTeX table.
    pub latex: String,
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
    pub header: Vec<Heading>,
    /// How many of the first columns are names and not numbers.
    pub names: usize,
    /// The rows.
    pub rows: Vec<Vec<TableCell>>,
    /// What has to be known of some rows, under the table.
    pub notes: Vec<String>,
}

/// Name of a column.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Heading {
    /// For people.
    pub text: String,
    /// For programs: of each value that its cells have, unique in a table.
    pub keys: Vec<String>,
}

impl Heading {
    /// Of a column with one value a cell.
    pub fn new(text: impl Into<String>, key: impl Into<String>) -> Self {
        Self { text: text.into(), keys: vec![key.into()] }
    }
}

/// One cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TableCell {
    /// What people read.
    pub text: String,
    /// Whether it is the best of its group.
    pub best: bool,
    /// What programs read: a value for every key of the heading, plain numbers without units, empty where there is none.
    pub values: Vec<String>,
}

impl TableCell {
    /// A text, and the values behind it.
    pub fn new(text: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        Self { text: text.into(), best: false, values: values.into_iter().map(plain).collect() }
    }
}

impl<T: Into<String>> From<T> for TableCell {
    fn from(text: T) -> Self {
        let text = text.into();
        Self { values: vec![text.clone()], text, best: false }
    }
}

/// A number as programs read it: all digits, and nothing where it is not known.
pub fn plain(value: f64) -> String {
    if value.is_nan() { String::new() } else { value.to_string() }
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

/// What was answered to some records.
#[derive(Debug, Default, Serialize)]
pub struct Predictions {
    /// Records of the run.
    pub of: usize,
    /// Those that are shown.
    pub records: Vec<Predicted>,
}

/// All answers to a record.
#[derive(Debug, Serialize)]
pub struct Predicted {
    /// Task and record.
    pub title: String,
    /// What is asked, shortened; empty where rows do not say.
    pub question: String,
    /// What would be right.
    pub answers: String,
    /// One for every method and budget.
    pub predictions: Vec<Prediction>,
}

/// One answer.
#[derive(Debug, Serialize)]
pub struct Prediction {
    /// Name of the method.
    pub method: String,
    /// Its budget.
    pub budget: String,
    /// Its score, from 0 to 100.
    pub score: String,
    /// What the model said, shortened.
    pub text: String,
}
