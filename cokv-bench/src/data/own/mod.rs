//! Records of one's own: files of JSON lines, JSON, CSV or Parquet, a folder of them, or a dataset of the hub.
//!
//! A row of a file becomes a record through its fields, which `[data.fields]` names or which are guessed from their names;
//! every guess is a notice, so that nobody is asked something else than he thinks. Files are read one row at a time, and no
//! more of them than the records asked for.

mod dataset;
mod files;
mod roles;
mod rows;
mod tables;

use std::collections::HashMap;
use std::ops::ControlFlow;

use cokv_core::config::unknown_name;

use self::files::TaskFiles;
use self::roles::Roles;
use self::rows::{Row, each_document, questions};
use super::longbench::Fetcher;
use super::{DataError, DataSettings, Record, Split, TaskProtocol, TaskRecords};

/// Rows that are looked at to guess what fields mean.
const SAMPLE: usize = 20;

/// What a source holds.
#[derive(Debug)]
pub struct OwnRecords {
    /// A task for each file.
    pub tasks: Vec<TaskRecords>,
    /// What was guessed and left out, a line each.
    pub notices: Vec<String>,
}

/// Reads the records that settings ask for.
pub fn open(settings: &DataSettings, fetcher: &Fetcher) -> Result<OwnRecords, DataError> {
    let mut own = OwnRecords { tasks: Vec::new(), notices: Vec::new() };
    for files in chosen(files::find(&settings.source, fetcher)?, &settings.tasks)? {
        let (records, notices) = read_task(&files, settings)?;
        own.notices.extend(notices.into_iter().map(|notice| format!("{}: {notice}", files.task)));
        own.tasks.push(records);
    }
    if own.tasks.iter().all(|task| task.records.is_empty()) {
        return Err(DataError::Setting(format!("{} holds no record that can be asked", settings.source)));
    }
    Ok(own)
}

/// The tasks that are meant by their names, or all.
fn chosen(all: Vec<TaskFiles>, names: &[String]) -> Result<Vec<TaskFiles>, DataError> {
    if names.iter().any(|name| name == "all") {
        return Ok(all);
    }
    let known = |name: &String| all.iter().any(|files| files.task == *name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let tasks = all.iter().map(|files| files.task.as_str()).chain(["all"]);
        return Err(DataError::UnknownTask(unknown_name("task of these files", unknown, tasks)));
    }
    Ok(all.into_iter().filter(|files| names.contains(&files.task)).collect())
}

fn read_task(files: &TaskFiles, settings: &DataSettings) -> Result<(TaskRecords, Vec<String>), DataError> {
    let description = &settings.description();
    let sample = sample(files)?;
    let (roles, mut notices) = Roles::of(&sample, description, &files.name())?;
    let (protocol, guessed) = roles.protocol(&files.task, &sample, description).map_err(DataError::Setting)?;
    notices.extend(guessed);
    let mut reading = Reading { roles: &roles, protocol: &protocol, left_out: 0, ids: HashMap::new(), twice: 0 };
    let mut records = match settings.split {
        Split::All => reading.first(files, settings.records)?,
        split => reading.of_split(files, split, settings.records)?,
    };
    records.truncate(settings.records);
    if reading.left_out > 0 {
        notices.push(format!("{} records have no answer, and are left out", reading.left_out));
    }
    if reading.twice > 0 {
        notices.push(format!("{} records have an id that another has; they are called ID#2 and so on", reading.twice));
    }
    Ok((TaskRecords { protocol, records }, notices))
}

/// The first rows, each question on its own.
fn sample(files: &TaskFiles) -> Result<Vec<Row>, DataError> {
    let mut sample = Vec::new();
    each_document(files, |document| {
        sample.extend(questions(document));
        Ok(if sample.len() < SAMPLE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    sample.truncate(SAMPLE);
    if sample.is_empty() {
        return Err(DataError::File { path: files.name(), message: "there is no record in it".into() });
    }
    Ok(sample)
}

/// Records as they are read from rows.
struct Reading<'a> {
    roles: &'a Roles,
    protocol: &'a TaskProtocol,
    /// Records without an answer.
    left_out: usize,
    /// How often each id came.
    ids: HashMap<String, usize>,
    /// Records whose id had come before.
    twice: usize,
}

impl Reading<'_> {
    /// At least the first `limit` records, where there are so many.
    fn first(&mut self, files: &TaskFiles, limit: usize) -> Result<Vec<Record>, DataError> {
        let mut records = Vec::new();
        each_document(files, |document| {
            records.extend(self.records(document)?);
            Ok(if records.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(records)
    }

    /// The records of a part, in the part's order. Documents are parted, and not questions, so that nothing is tested on a
    /// text that was looked at.
    fn of_split(&mut self, files: &TaskFiles, split: Split, limit: usize) -> Result<Vec<Record>, DataError> {
        let mut documents = 0;
        each_document(files, |_| {
            documents += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        let mut places = split.places(documents);
        // Some may have no answer; nobody holds all of a large file for that.
        places.truncate(2 * limit + SAMPLE);
        let order: HashMap<usize, usize> = places.iter().enumerate().map(|(at, &place)| (place, at)).collect();
        let mut of_place: Vec<Vec<Record>> = vec![Vec::new(); places.len()];
        let mut place = 0;
        each_document(files, |document| {
            if let Some(&at) = order.get(&place) {
                of_place[at] = self.records(document)?;
            }
            place += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(of_place.concat())
    }

    /// The records of a document: one for each of its questions.
    fn records(&mut self, document: Row) -> Result<Vec<Record>, DataError> {
        let mut records = Vec::new();
        for row in questions(document) {
            let read = self.roles.records(&row, self.protocol).map_err(|message| row.place.error(message))?;
            self.left_out += read.unanswered;
            for mut record in read.records {
                let times = self.ids.entry(record.id.clone()).and_modify(|times| *times += 1).or_insert(1);
                if *times > 1 {
                    self.twice += 1;
                    record.id = format!("{}#{times}", record.id);
                }
                records.push(record);
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests;
