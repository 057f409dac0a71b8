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

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Ends, Inserted, LogError, LogHeader, Notice, Repeats, Sample, SampleLog, check_ends, check_sample};
use crate::SamplingPlan;
use crate::lines::{LineLog, Lines};

const FORMAT: &str = "cokv-samples";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine {
    format: String,
    version: u32,
    game: String,
    plan: SamplingPlan,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    computed_by: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    about: BTreeMap<String, String>,
}

impl HeaderLine {
    fn new(header: &LogHeader) -> Self {
        let LogHeader { game, plan, computed_by, about } = header.clone();
        Self { format: FORMAT.into(), version: VERSION, game, plan, computed_by, about }
    }

    fn header(self) -> LogHeader {
        LogHeader { game: self.game, plan: self.plan, computed_by: self.computed_by, about: self.about }
    }
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
    lines: LineLog,
    plan: SamplingPlan,
    synced: Instant,
}

/// Samples of this long may be lost with the machine; none are with the process.
const UNSYNCED: Duration = Duration::from_secs(1);

impl LogFile {
    /// Creates a log, and its folder, or resumes the one that is there: what it holds is read, and a last line that
    /// was never finished is cut off.
    pub fn open(path: impl AsRef<Path>, header: &LogHeader) -> Result<(Self, SampleLog, Vec<Notice>), LogError> {
        let path = path.as_ref();
        let (first_line, empty) = (HeaderLine::new(header), SampleLog::new(header.clone())?);
        let (mut lines, (log, notices, is_new)) = LineLog::open(path, |lines| {
            if let Some((log, notices)) = begun(path, lines, header)? {
                return Ok::<_, LogError>((log, notices, false));
            }
            let torn = !lines.torn().is_empty();
            Ok((empty, torn.then_some(Notice::TornLine { line: 1 }).into_iter().collect(), true))
        })?;
        if is_new {
            lines.append([first_line]).map_err(LogError::io(path))?;
        }
        Ok((Self { lines, plan: header.plan.clone(), synced: Instant::now() }, log, notices))
    }

    /// Appends a sample as one line.
    pub fn append(&mut self, sample: &Sample) -> Result<(), LogError> {
        check_sample(&self.plan, sample)?;
        self.write(SampleLine::new(&self.plan, sample))
    }

    /// Appends the ends as one line.
    pub fn append_ends(&mut self, ends: &Ends) -> Result<(), LogError> {
        check_ends(&self.plan, ends)?;
        self.write(EndsLine { ends: ends.clone() })
    }

    fn write(&mut self, line: impl Serialize) -> Result<(), LogError> {
        let mut written = self.lines.append([line]);
        if self.synced.elapsed() > UNSYNCED {
            written = written.and_then(|()| self.lines.sync());
            self.synced = Instant::now();
        }
        written.map_err(LogError::io(self.lines.path()))
    }
}

/// The samples that a file has of this header, without locking or changing it; none where it is not there or not begun.
///
/// # Errors
/// The file cannot be read, or is another play's log.
pub fn read_log_of(path: impl AsRef<Path>, header: &LogHeader) -> Result<Option<SampleLog>, LogError> {
    let path = path.as_ref();
    let lines = Lines::read(path).map_err(LogError::io(path))?;
    Ok(begun(path, &lines, header)?.map(|(log, _)| log))
}

/// What the lines of a file hold of this header; none where not even the header is finished.
fn begun(path: &Path, lines: &Lines, header: &LogHeader) -> Result<Option<(SampleLog, Vec<Notice>)>, LogError> {
    let first_text =
        serde_json::to_string(&HeaderLine::new(header)).map_err(|error| LogError::io(path)(error.into()))?;
    // A header that was never finished is no log yet; anything else that is not one belongs to somebody.
    if lines.iter().next().is_none() && first_text.as_bytes().starts_with(lines.torn()) {
        return Ok(None);
    }
    let (log, notices) = read(path, lines)?;
    match log.header().difference(header) {
        Some((field, found, expected)) => Err(LogError::OtherGame { path: path.into(), field, found, expected }),
        None => Ok(Some((log, notices))),
    }
}

/// Whether a file begins with this header, so that [`LogFile::open`] would resume it.
pub fn is_log_of(path: impl AsRef<Path>, header: &LogHeader) -> Result<bool, LogError> {
    let path = path.as_ref();
    let mut first = Vec::new();
    let file = fs::File::open(path).map_err(LogError::io(path))?;
    BufReader::new(file).read_until(b'\n', &mut first).map_err(LogError::io(path))?;
    let line: Option<HeaderLine> = serde_json::from_slice(&first).ok();
    Ok(line.is_some_and(|line| line.header().difference(header).is_none()))
}

/// Reads a log without locking or changing it.
pub fn read_log(path: impl AsRef<Path>) -> Result<(SampleLog, Vec<Notice>), LogError> {
    let path = path.as_ref();
    // A log that is not there is no log without samples.
    let lines = fs::metadata(path).and_then(|_| Lines::read(path)).map_err(LogError::io(path))?;
    read(path, &lines)
}

fn read(path: &Path, lines: &Lines) -> Result<(SampleLog, Vec<Notice>), LogError> {
    let not_a_log = |reason: String| LogError::NotALog { path: path.into(), reason };
    let mut numbered = lines.iter();
    let Some((_, first)) = numbered.next() else { return Err(not_a_log("it has no header".into())) };
    let line: HeaderLine = serde_json::from_slice(first).map_err(|error| not_a_log(error.to_string()))?;
    if line.format != FORMAT || line.version != VERSION {
        let HeaderLine { format, version, .. } = line;
        return Err(not_a_log(format!("its format is {format} {version}, not {FORMAT} {VERSION}")));
    }
    let at = |line: usize| move |error| LogError::At { path: path.into(), line, error: Box::new(error) };
    let mut log = SampleLog::new(line.header()).map_err(|error| at(1)(error.into()))?;
    let (mut repeats, mut last) = (Repeats::default(), 1);
    for (number, text) in numbered {
        let inserted = match text.starts_with(b"{\"ends\"") {
            true => log.set_ends(parse::<EndsLine>(path, number, text)?.ends),
            false => insert(&mut log, parse(path, number, text)?),
        };
        repeats.count(inserted.map_err(at(number))?);
        last = number;
    }
    let torn = (!lines.torn().is_empty()).then_some(Notice::TornLine { line: last + 1 });
    Ok((log, repeats.duplicates().into_iter().chain(torn).collect()))
}

fn parse<T: DeserializeOwned>(path: &Path, line: usize, text: &[u8]) -> Result<T, LogError> {
    let wrong = |error: serde_json::Error| LogError::Line { path: path.into(), line, reason: error.to_string() };
    serde_json::from_slice(text).map_err(wrong)
}

fn insert(log: &mut SampleLog, line: SampleLine) -> Result<Inserted, LogError> {
    let sample = Sample { k: line.k, utilities: line.utilities };
    check_sample(log.plan(), &sample)?;
    let expected = SampleLine::new(log.plan(), &sample);
    if (&line.instances, &line.coalitions) != (&expected.instances, &expected.coalitions) {
        return Err(LogError::OtherDraw { k: line.k });
    }
    log.insert(sample)
}
