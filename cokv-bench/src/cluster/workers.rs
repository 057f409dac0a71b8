//! The same tasks on one machine: processes, one for each GPU, or each with a share of the cores.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::error::{ClusterError, io};
use super::submission::{FOLDER, Submission, program};
use super::task::{AGAIN, Task};

/// How often a task is begun that is killed.
const ATTEMPTS: usize = 3;

/// How long it takes to hear that a process has ended, or that all should stop.
const PAUSE: Duration = Duration::from_millis(50);

/// Processes of one machine.
pub struct Workers<'a> {
    /// The run's folder.
    pub run: &'a Path,
    /// What is run.
    pub submission: &'a Submission,
    /// How many processes work at the same time.
    pub count: usize,
    /// GPUs, as `CUDA_VISIBLE_DEVICES` names them; none where there are none.
    pub gpus: Vec<String>,
    /// Threads of each process.
    pub threads: usize,
    /// Whether whoever started them has asked to stop.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
}

/// How a stage ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StageEnd {
    /// Tasks that failed.
    pub failed: Vec<Task>,
    /// Whether it was asked to stop.
    pub stopped: bool,
}

impl Workers<'_> {
    /// Runs tasks of a stage, and tells how each ended.
    ///
    /// # Errors
    /// A process cannot be started.
    pub fn run(&self, tasks: Vec<Task>, ended: &(dyn Fn(Task, ExitStatus) + Sync)) -> Result<StageEnd, ClusterError> {
        let tasks = Mutex::new(tasks.into_iter());
        let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).next();
        let (failed, broken) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let work = |worker: usize| -> Result<(), ClusterError> {
            while let Some(task) = next().filter(|_| !(self.stopped)() && !broken.load(Ordering::Relaxed)) {
                let status = self.task(worker, task).inspect_err(|_| broken.store(true, Ordering::Relaxed))?;
                ended(task, status);
                if !status.success() {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(task);
                }
            }
            Ok(())
        };
        let work = &work;
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.count).map(|worker| scope.spawn(move || work(worker))).collect();
            // A thread that panicked has said so.
            workers.into_iter().filter_map(|worker| worker.join().ok()).collect::<Result<(), _>>()
        })?;
        let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.sort_by_key(|task| task.index);
        Ok(StageEnd { failed, stopped: (self.stopped)() })
    }

    /// Runs a task to its end, again where it was killed.
    fn task(&self, worker: usize, task: Task) -> Result<ExitStatus, ClusterError> {
        let mut attempt = 1;
        loop {
            let mut child = self.command(worker, task)?.spawn().map_err(io(&program()?))?;
            let status = self.wait(&mut child)?;
            let again = status.code().is_none_or(|code| code == i32::from(AGAIN));
            if !again || attempt == ATTEMPTS || (self.stopped)() {
                return Ok(status);
            }
            attempt += 1;
        }
    }

    /// Waits, and passes on once that all should stop.
    fn wait(&self, child: &mut Child) -> Result<ExitStatus, ClusterError> {
        let mut told = false;
        loop {
            if let Some(status) = child.try_wait().map_err(io(self.run))? {
                return Ok(status);
            }
            if (self.stopped)() && !std::mem::replace(&mut told, true) {
                stop(child);
            }
            thread::sleep(PAUSE);
        }
    }

    fn command(&self, worker: usize, task: Task) -> Result<Command, ClusterError> {
        let log = task.log(&self.run.join(FOLDER));
        let file = File::options().append(true).create(true).open(&log).map_err(io(&log))?;
        let mut command = Command::new(program()?);
        command
            .args(["cluster", "work", "--run"])
            .arg(self.run)
            .args(["--stage", &task.duty.to_string(), "--index", &task.index.to_string()])
            .args(["--threads", &self.threads.to_string()])
            .current_dir(&self.submission.directory)
            .stdout(file.try_clone().map_err(io(&log))?)
            .stderr(file);
        if !self.gpus.is_empty() {
            command.env("CUDA_VISIBLE_DEVICES", &self.gpus[worker % self.gpus.len()]);
        }
        // Ctrl-C is passed on once, and not by the terminal too.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }
}

/// Asks a process to finish its prompt.
#[cfg(unix)]
fn stop(child: &mut Child) {
    let process = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(process) = process {
        // One that has just ended needs no signal.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
}

#[cfg(not(unix))]
fn stop(child: &mut Child) {
    // What was appended stays.
    let _ = child.kill();
}

/// The GPUs of this machine that may be used, by the names under which CUDA is told of one.
pub fn gpus(visible: Option<&str>) -> Vec<String> {
    let numbered = |count: usize| (0..count).map(|gpu| gpu.to_string()).collect();
    match visible {
        Some(listed) => listed.split(',').map(|gpu| gpu.trim().to_owned()).filter(|gpu| !gpu.is_empty()).collect(),
        None => {
            std::fs::read_dir("/proc/driver/nvidia/gpus").map_or_else(|_| Vec::new(), |gpus| numbered(gpus.count()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gpus_that_may_be_used_are_used() {
        assert_eq!(gpus(Some("2, 5")), ["2", "5"]);
        assert_eq!(gpus(Some("GPU-8932f937")), ["GPU-8932f937"]);
        assert!(gpus(Some("")).is_empty(), "none may be used");
    }
}
