//! Kinds of files, and how each gives its rows.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use serde_json::{Map, Value};

use crate::data::DataError;

/// What is called when there is a value, with the line or the number of its row.
pub type Visit<'a> = dyn FnMut(usize, Value) -> Result<ControlFlow<()>, DataError> + 'a;

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Documents, one a line or in a list.
    Json,
    /// Rows of values parted by this byte, of which the first row has the names.
    Separated(u8),
    /// Columns.
    Parquet,
}

/// What a file should be called.
pub const UNKNOWN: &str =
    "records are read from files called .jsonl, .ndjson, .json, .csv, .tsv (these also .gz) and .parquet";

impl Kind {
    /// What a file of this name is; none where it holds no records.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let unpacked = name.strip_suffix(".gz").unwrap_or(&name);
        match unpacked.rsplit_once('.')?.1 {
            "jsonl" | "ndjson" | "json" => Some(Self::Json),
            "csv" => Some(Self::Separated(b',')),
            "tsv" => Some(Self::Separated(b'\t')),
            "parquet" if unpacked == name => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// A file's bytes, unpacked where it is called `.gz`.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>, DataError> {
    let file = BufReader::new(File::open(path).map_err(DataError::io(path))?);
    let packed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    Ok(if packed { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) })
}

/// Rows of values that are texts, named by the first row.
pub fn each_separated(path: &Path, separator: u8, visit: &mut Visit<'_>) -> Result<(), DataError> {
    let mut bytes = open(path)?;
    // The mark that spreadsheets write before UTF-8 is no part of the first name.
    if bytes.fill_buf().map_err(DataError::io(path))?.starts_with(b"\xef\xbb\xbf") {
        bytes.consume(3);
    }
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(bytes);
    let damaged = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line) as usize;
        DataError::Line { path: path.display().to_string(), line, message: error.to_string() }
    };
    let names = reader.headers().map_err(damaged)?.clone();
    for row in reader.records() {
        let row = row.map_err(damaged)?;
        let line = row.position().map_or(1, csv::Position::line) as usize;
        let named = names.iter().zip(&row).map(|(name, value)| (name.trim().to_owned(), Value::from(value)));
        if visit(line, Value::Object(named.collect()))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Rows of a Parquet file; what stands in for a line is the row's number from 1.
pub fn each_parquet(path: &Path, visit: &mut Visit<'_>) -> Result<(), DataError> {
    let damaged = |error: parquet::errors::ParquetError| DataError::File {
        path: path.display().to_string(),
        message: format!("not a readable Parquet file ({error})"),
    };
    let file = File::open(path).map_err(DataError::io(path))?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    // A group of rows is in memory at a time.
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(damaged)?;
        for row in RowIter::from_row_group(None, group.as_ref()).map_err(damaged)? {
            number += 1;
            let fields: Map<String, Value> = row
                .map_err(damaged)?
                .into_columns()
                .into_iter()
                .map(|(name, field)| (name, field.to_json_value()))
                .collect();
            if visit(number, Value::Object(fields))?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}
