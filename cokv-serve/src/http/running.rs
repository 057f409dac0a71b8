//! Jobs that run, as a connection sees them.

use std::collections::VecDeque;
use std::sync::Arc;

use cokv_scheduler::{Job, Refusal, Ticket, Told};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::shared::Shared;

/// Jobs of one request. They end when this is dropped.
pub struct Running {
    shared: Arc<Shared>,
    tickets: Vec<Ticket>,
    /// What was told of some jobs before all were taken.
    early: VecDeque<(usize, Told)>,
    /// A token takes little room and there are no more than were asked for: what computes never waits for who reads.
    told: UnboundedReceiver<(usize, Told)>,
    unfinished: usize,
}

impl Running {
    /// Hands jobs in, and waits until all are taken.
    ///
    /// # Errors
    /// One of them is refused; the others end.
    pub async fn start(shared: Arc<Shared>, jobs: Vec<Job>) -> Result<Self, Refusal> {
        let (sender, told) = unbounded_channel();
        let unfinished = jobs.len();
        let submit = |(at, mut job): (usize, Job)| {
            let sender = sender.clone();
            // Whoever listened may have gone.
            job.hear = Box::new(move |told| drop(sender.send((at, told))));
            shared.handle().run(job)
        };
        let tickets = jobs.into_iter().enumerate().map(submit).collect::<Result<_, _>>();
        let tickets = tickets.map_err(|_| shared.ended())?;
        // So that the channel ends with the thread that computes.
        drop(sender);
        let mut running = Self { shared, tickets, early: VecDeque::new(), told, unfinished };
        let mut waiting = unfinished;
        while waiting > 0 {
            let (at, told) = running.hear().await?;
            waiting -= usize::from(matches!(told, Told::Queued { .. }));
            running.early.push_back((at, told));
        }
        Ok(running)
    }

    /// What is told next, and of which job; none once all are done.
    pub async fn next(&mut self) -> Result<Option<(usize, Told)>, Refusal> {
        if let Some(early) = self.early.pop_front() {
            return Ok(Some(self.count(early)));
        }
        if self.unfinished == 0 {
            return Ok(None);
        }
        let told = self.hear().await?;
        Ok(Some(self.count(told)))
    }

    /// Ends one answer of a job.
    pub fn enough(&self, job: usize, choice: usize) {
        if let Some(ticket) = self.tickets.get(job) {
            ticket.enough(choice);
        }
    }

    async fn hear(&mut self) -> Result<(usize, Told), Refusal> {
        match self.told.recv().await {
            Some((_, Told::Refused(refusal))) => Err(refusal),
            Some(told) => Ok(told),
            None => Err(self.shared.ended()),
        }
    }

    fn count(&mut self, told: (usize, Told)) -> (usize, Told) {
        self.unfinished -= usize::from(matches!(told.1, Told::Done(_)));
        told
    }
}
