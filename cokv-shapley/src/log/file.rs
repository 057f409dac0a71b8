//! The log as a file of JSON lines: the header, the ends, then one sample a line.
//!
//! ```text
//! {"format":"cokv-samples","version":1,"game":"…","plan":{"players":90,…}}
//! {"ends":{"empty":[0.01],"full":[0.93]}}
//! {"k":12,"instances":[3],"coalitions":["90:0f3…"],"utilities":[0.25,0.5]}
//! ```
//!
//! Coalitions follow from the plan and k; they are written so that the log can be audited without this crate, and are
//! checked when it is read. Of a pair only S is written: the utilities of its complement come behind those of S.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Ends, Inserted, LogError, LogHeader, Sample, SampleLog, check_ends, check_sample};
use crate::SamplingPlan;

const FORMAT: &str = "cokv-samples";
const VERSION: u32 = 1;

/// Something about a log that its reader should know, and that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The writer was stopped in the middle of the last line; what it had written of it does not count.
    TornLine {
        /// Line, counted from 1.
        line: usize,
    },
    /// Samples that are there more than once, with equal utilities.
    Duplicates {
        /// Lines too many.
        count: usize,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornLine { line } => write!(f, "line {line} was never finished and does not count"),
            Self::Duplicates { count } => write!(f, "{count} lines repeat earlier ones with equal utilities"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine {
    format: String,
    version: u32,
    game: String,
    plan: SamplingPlan,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndsLine {
    ends: Ends,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleLine {
    k: u64,
    instances: Vec<usize>,
    coalitions: Vec<String>,
    utilities: Vec<f64>,
}

impl SampleLine {
    fn new(plan: &SamplingPlan, sample: &Sample) -> Self {
        let draw = plan.draw(sample.k);
        let written = if plan.design.is_paired() { &draw.coalitions[..1] } else { &draw.coalitions };
        let coalitions = written.iter().map(ToString::to_string).collect();
        Self { k: sample.k, instances: draw.instances, coalitions, utilities: sample.utilities.clone() }
    }
}

/// A log that is being written. It holds an exclusive lock on its file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    plan: SamplingPlan,
}

impl LogFile {
    /// Creates a log, and its folder, or resumes the one that is there: what it holds is read, and a last line that
    /// was never finished is cut off.
    pub fn open(path: impl AsRef<Path>, header: &LogHeader) -> Result<(Self, SampleLog, Vec<Notice>), LogError> {
        let path = path.as_ref().to_path_buf();
        let failed = |source| LogError::Io { path: path.clone(), source };
        let empty = SampleLog::new(header.clone())?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let first_line = header_line(&path, header)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut start = Vec::new();
        (&file).take(first_line.len() as u64).read_to_end(&mut start).map_err(failed)?;
        // A header that was never finished is no log yet; anything else that is not one belongs to somebody.
        let unborn = length < first_line.len() as u64 && first_line.as_bytes().starts_with(&start);
        let (log, notices, end) = if unborn {
            let notices = if length > 0 { vec![Notice::TornLine { line: 1 }] } else { Vec::new() };
            (empty, notices, 0)
        } else {
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            let reading = read(&path, &file)?;
            if let Some((field, found, expected)) = reading.log.header().difference(header) {
                return Err(LogError::OtherGame { path, field, found, expected });
            }
            (reading.log, reading.notices, reading.end)
        };
        file.set_len(end).map_err(failed)?;
        file.seek(SeekFrom::Start(end)).map_err(failed)?;
        if unborn {
            file.write_all(first_line.as_bytes()).map_err(failed)?;
        }
        Ok((Self { path, file, plan: header.plan.clone() }, log, notices))
    }

    /// Appends a sample as one line.
    pub fn append(&mut self, sample: &Sample) -> Result<(), LogError> {
        check_sample(&self.plan, sample)?;
        self.write(&SampleLine::new(&self.plan, sample))
    }

    /// Appends the ends as one line.
    pub fn append_ends(&mut self, ends: &Ends) -> Result<(), LogError> {
        check_ends(&self.plan, ends)?;
        self.write(&EndsLine { ends: ends.clone() })
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), LogError> {
        let text = json_line(&self.path, line)?;
        self.file.write_all(text.as_bytes()).map_err(|source| LogError::Io { path: self.path.clone(), source })
    }
}

/// Whether a file begins with this header, so that [`LogFile::open`] would resume it.
pub fn is_log_of(path: impl AsRef<Path>, header: &LogHeader) -> Result<bool, LogError> {
    let path = path.as_ref();
    let expected = header_line(path, header)?;
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(expected.len() as u64).read_to_end(&mut start))
        .map_err(|source| LogError::Io { path: path.into(), source })?;
    Ok(start == expected.as_bytes())
}

/// Reads a log without locking or changing it.
pub fn read_log(path: impl AsRef<Path>) -> Result<(SampleLog, Vec<Notice>), LogError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| LogError::Io { path: path.into(), source })?;
    read(path, &file).map(|reading| (reading.log, reading.notices))
}

fn header_line(path: &Path, header: &LogHeader) -> Result<String, LogError> {
    let LogHeader { game, plan } = header.clone();
    json_line(path, &HeaderLine { format: FORMAT.into(), version: VERSION, game, plan })
}

fn json_line(path: &Path, line: &impl Serialize) -> Result<String, LogError> {
    let mut text = serde_json::to_string(line)
        .map_err(|error| LogError::Io { path: path.into(), source: io::Error::from(error) })?;
    text.push('\n');
    Ok(text)
}

struct Reading {
    log: SampleLog,
    notices: Vec<Notice>,
    /// Bytes up to the end of the last finished line.
    end: u64,
}

fn read(path: &Path, file: &File) -> Result<Reading, LogError> {
    let mut lines = Lines { path, reader: BufReader::new(file), text: String::new(), line: 0, end: 0 };
    let not_a_log = |reason: String| LogError::NotALog { path: path.into(), reason };
    if !lines.advance()? {
        return Err(not_a_log("it has no header".into()));
    }
    let header: HeaderLine = serde_json::from_str(&lines.text).map_err(|error| not_a_log(error.to_string()))?;
    if header.format != FORMAT || header.version != VERSION {
        let HeaderLine { format, version, .. } = header;
        return Err(not_a_log(format!("its format is {format} {version}, not {FORMAT} {VERSION}")));
    }
    let mut log = SampleLog::new(LogHeader { game: header.game, plan: header.plan }).map_err(|error| LogError::At {
        path: path.into(),
        line: 1,
        source: Box::new(error.into()),
    })?;
    let mut duplicates = 0;
    while lines.advance()? {
        if lines.insert(&mut log)? == Inserted::Same {
            duplicates += 1;
        }
    }
    let mut notices = Vec::new();
    if duplicates > 0 {
        notices.push(Notice::Duplicates { count: duplicates });
    }
    if !lines.text.is_empty() {
        notices.push(Notice::TornLine { line: lines.line });
    }
    Ok(Reading { log, notices, end: lines.end })
}

struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<&'a File>,
    text: String,
    line: usize,
    end: u64,
}

impl Lines<'_> {
    /// Reads the next line into `text`; false at the end, with a line that was never finished left in `text`.
    fn advance(&mut self) -> Result<bool, LogError> {
        let mut bytes = Vec::new();
        self.reader.read_until(b'\n', &mut bytes).map_err(|source| LogError::Io { path: self.path.into(), source })?;
        self.line += 1;
        if bytes.last() != Some(&b'\n') {
            self.text = String::from_utf8_lossy(&bytes).into_owned();
            return Ok(false);
        }
        self.end += bytes.len() as u64;
        self.text = String::from_utf8(bytes).map_err(|error| self.wrong(error.to_string()))?;
        Ok(true)
    }

    fn insert(&self, log: &mut SampleLog) -> Result<Inserted, LogError> {
        let at = |source| LogError::At { path: self.path.into(), line: self.line, source: Box::new(source) };
        if self.text.starts_with("{\"ends\"") {
            let line: EndsLine = self.parse()?;
            return log.set_ends(line.ends).map_err(at);
        }
        let line: SampleLine = self.parse()?;
        let sample = Sample { k: line.k, utilities: line.utilities };
        check_sample(log.plan(), &sample).map_err(at)?;
        let expected = SampleLine::new(log.plan(), &sample);
        if (&line.instances, &line.coalitions) != (&expected.instances, &expected.coalitions) {
            return Err(self.wrong(format!(
                "sample {} evaluated other coalitions or instances than its plan draws: this log was sampled with \
                 another seed or version",
                line.k
            )));
        }
        log.insert(sample).map_err(at)
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, LogError> {
        serde_json::from_str(&self.text).map_err(|error| self.wrong(error.to_string()))
    }

    fn wrong(&self, reason: String) -> LogError {
        LogError::Line { path: self.path.into(), line: self.line, reason }
    }
}
