//! The thread that computes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cokv_models::LanguageModel;

use crate::figures::Figures;
use crate::handle::{Command, Handle};
use crate::scheduler::Scheduler;
use crate::settings::Settings;

/// How often what waits for memory or for its time is looked at where nothing runs.
const PAUSE: Duration = Duration::from_millis(20);

/// The thread that computes, for whoever started it.
pub struct Worker {
    thread: JoinHandle<()>,
}

impl Worker {
    /// Whether it has ended: because it was told to, or because something broke.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end. False where something broke.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

/// Starts a thread that owns a model and all its caches, and does what the handle is asked.
///
/// # Errors
/// Where the system has no thread.
pub fn start(model: Arc<LanguageModel>, settings: Settings) -> std::io::Result<(Handle, Worker)> {
    let (commands, asked) = channel();
    let figures = Arc::new(Figures::default());
    let handle = Handle::new(commands, Arc::clone(&figures));
    let thread = std::thread::Builder::new().name("cokv-scheduler".into()).spawn(move || {
        let mut scheduler = Scheduler::new(model, settings, figures);
        work(&mut scheduler, &asked);
    })?;
    Ok((handle, Worker { thread }))
}

/// Obeys and computes in turn. A panic ends the thread, which its owner sees; what is in flight hears nothing more.
fn work(scheduler: &mut Scheduler, asked: &Receiver<Command>) {
    let mut computed = false;
    while let Ok(command) = next(asked, scheduler.is_idle(), computed) {
        let mut next = command;
        while let Some(command) = next {
            if !scheduler.obey(command, Instant::now()) {
                return;
            }
            next = asked.try_recv().ok();
        }
        computed = scheduler.step(&mut Instant::now);
    }
}

/// The next command: waited for where there is nothing else to do, and a while where what there is waits for others. An error where
/// nobody is left to ask.
fn next(asked: &Receiver<Command>, idle: bool, computed: bool) -> Result<Option<Command>, RecvTimeoutError> {
    let waited = match (idle, computed) {
        (true, _) => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        (false, true) => asked.try_recv().map_err(|error| match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        }),
        (false, false) => asked.recv_timeout(PAUSE),
    };
    match waited {
        Ok(command) => Ok(Some(command)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(gone) => Err(gone),
    }
}
