//! Who is let in.

use std::time::Instant;

use cokv_models::batch::{Request, Start};
use cokv_models::sampling::Sampler;

use super::Scheduler;
use super::documents::Making;
use super::running::Running;
use crate::entries::{Beginning, Found, common};
use crate::job::Compression;
use crate::queue::Waiting;
use crate::refusal::Refusal;
use crate::told::{MadeBy, Told, Used};

/// What became of one that waits.
enum Admission {
    /// It runs, or is refused: it waits no more.
    Left,
    /// For others, whatever memory there is.
    Waits,
    /// There is no room for it yet.
    NoRoom,
    /// There is no room for anybody.
    Full,
}

/// Where a job may go on.
struct Places {
    /// The compressed memory that it begins with, and what made that.
    base: Option<(usize, MadeBy)>,
    /// What was compressed for want of memory and has seen much more of the prompt than what is kept whole.
    at_rest: Option<Beginning>,
    /// What has seen most of the prompt, where anything was found.
    longest: Option<Found>,
    /// What has seen no more of it than must be.
    least: Found,
}

impl Scheduler {
    /// Lets in whoever may run now. First come, first served, but a few that fit may overtake one that does not yet.
    pub(super) fn admit(&mut self, now: Instant) {
        if self.documents_starve(now) {
            return;
        }
        let mut place = 0;
        while place < self.queue.len() {
            match self.try_to_admit(place, now) {
                Admission::Left => {
                    let before = self.queue.iter_mut().take(place);
                    before.filter(|waiting| waiting.unfitting.is_some()).for_each(|waiting| waiting.overtaken += 1);
                }
                Admission::Waits => place += 1,
                Admission::NoRoom => {
                    let waiting = &mut self.queue[place];
                    waiting.unfitting.get_or_insert(now);
                    if waiting.is_waited_for(now, self.settings.overtakes, self.settings.overtaking) {
                        return;
                    }
                    place += 1;
                }
                Admission::Full => return,
            }
        }
    }

    fn try_to_admit(&mut self, place: usize, now: Instant) -> Admission {
        let Waiting { job, .. } = &self.queue[place];
        let rows: usize = self.running.iter().map(|running| running.open.len()).sum();
        if rows > 0 && rows + job.choices > self.settings.rows {
            return Admission::Full;
        }
        if self.has_its_share(place) {
            return Admission::Waits;
        }
        let Some(Places { base, at_rest, longest, least }) = self.places(place, now) else { return Admission::Waits };
        let seen = at_rest.as_ref().map(|beginning| &beginning.found).or(longest.as_ref()).unwrap_or(&least).tokens;
        if self.is_being_read(place, base.as_ref().map(|(base, _)| *base), seen) {
            return Admission::Waits;
        }
        // A few tokens at the beginning of something long hold all of its memory: where that is needed they are read again.
        let mut needed = 0;
        let others =
            longest.into_iter().chain([least]).map(|found| Beginning { found, base: base.clone(), at_rest: None });
        for beginning in at_rest.into_iter().chain(others) {
            let request = match self.request(place, &beginning.found) {
                Ok(request) => request,
                Err(refusal) => return self.refuse(place, refusal),
            };
            needed = request.bytes(self.model.config().layout, self.model.format());
            if self.make_room(needed) {
                return self.run(place, beginning, request, needed, now);
            }
        }
        // What was pinned meanwhile may have taken the room for good.
        match self.check_need(needed, 0) {
            Ok(()) => Admission::NoRoom,
            Err(refusal) => self.refuse(place, refusal),
        }
    }

    /// Whether a namespace has half of the rows already while others wait.
    fn has_its_share(&self, place: usize) -> bool {
        let namespace = &self.queue[place].job.namespace;
        let ours = self.running.iter().filter(|running| running.job.namespace == *namespace);
        let ours: usize = ours.map(|running| running.open.len()).sum();
        ours * 2 >= self.settings.rows && self.queue.iter().any(|other| other.job.namespace != *namespace)
    }

    /// Where a prompt may go on; none while its document is on its way.
    fn places(&mut self, place: usize, now: Instant) -> Option<Places> {
        let Waiting { job, document, made_by, .. } = &self.queue[place];
        let (mut base, mut least) = (None, self.model.engine().cache(self.model.format(), 0).ok().map(Found::nothing)?);
        if let Compression::Question { .. } = job.compression {
            return Some(Places { base, at_rest: None, longest: None, least });
        }
        if let Some(document) = document {
            least = document.again()?;
            let segment = least.cache.segments().next().map(|segment| segment.identity());
            base = segment.zip(made_by.clone());
        }
        if let Compression::Document { method, budget, tokens, .. } = &job.compression {
            let made_by = MadeBy::of(method, *budget);
            let Some(entry) = self.entries.compressed(&job.namespace, &job.tokens[..*tokens], &made_by) else {
                self.read_beginning(place, made_by, now);
                return None;
            };
            least = entry.beginning(*tokens)?;
            base = entry.base().map(|base| (base, made_by));
        }
        let of = base.as_ref().map(|(base, _)| *base);
        let longest = self.entries.longest(&job.namespace, &job.tokens, of, self.settings.least_prefix);
        let longest = longest.filter(|longest| longest.tokens > least.tokens);
        let may_lack = matches!(job.compression, Compression::Off) && base.is_none() && !job.exact;
        let whole = longest.as_ref().map_or(0, |longest| longest.tokens);
        let least_at_rest = whole + self.settings.least_prefix;
        let at_rest = may_lack.then(|| self.entries.longest_at_rest(&job.namespace, &job.tokens, least_at_rest));
        Some(Places { base, at_rest: at_rest.flatten(), longest, least })
    }

    /// Reads the beginning of a prompt as a document that nobody has named, unless that is done already.
    fn read_beginning(&mut self, place: usize, made_by: MadeBy, now: Instant) {
        let Compression::Document { method, budget, tokens, frame, close } = &self.queue[place].job.compression else {
            return;
        };
        let job = &self.queue[place].job;
        let beginning = &job.tokens[..*tokens];
        if self.making.iter().any(|making| making.is_of(&job.namespace, beginning, &made_by)) {
            return;
        }
        let compress = Some((method.clone(), *budget));
        let making = Making::beginning(job.namespace.clone(), beginning.to_vec(), compress, *frame, close.clone(), now);
        self.making.push_back(making);
    }

    /// Whether more of a prompt than was found is being read for another job.
    fn is_being_read(&self, place: usize, base: Option<usize>, found: usize) -> bool {
        let job = &self.queue[place].job;
        let reads = self.running.iter().filter(|running| running.reading && running.job.store && running.base == base);
        let mut reads = reads.filter(|running| running.job.namespace == job.namespace);
        let most = job.tokens.len().saturating_sub(1);
        !matches!(job.compression, Compression::Question { .. })
            && reads
                .any(|running| common(&running.job.tokens, &job.tokens).min(most) >= found + self.settings.least_prefix)
    }

    fn request(&self, place: usize, found: &Found) -> Result<Request, Refusal> {
        let job = &self.queue[place].job;
        let start = match &job.compression {
            Compression::Question { method, budget, frame } => {
                Start::Prompt { tokens: job.tokens.clone(), frame: *frame, compress: Some((method.clone(), *budget)) }
            }
            Compression::Off | Compression::Document { .. } => {
                let cache = found.cache.fork().map_err(|error| Refusal::Internal(error.to_string()))?;
                Start::Then { cache, tokens: job.tokens[found.tokens..].to_vec() }
            }
        };
        let samplers = (0..job.choices).map(|choice| Sampler::new(job.sampling.clone(), choice, &job.tokens));
        // What answers have to follow is the job's until it runs.
        Ok(Request { start, stop: job.stop.clone(), samplers: samplers.collect(), constraint: None })
    }

    fn refuse(&mut self, place: usize, refusal: Refusal) -> Admission {
        if let Some(mut waiting) = self.queue.remove(place) {
            (waiting.job.hear)(Told::Refused(refusal));
        }
        Admission::Left
    }

    fn run(
        &mut self,
        place: usize,
        beginning: Beginning,
        mut request: Request,
        needed: u64,
        now: Instant,
    ) -> Admission {
        let Beginning { found, base, at_rest } = beginning;
        let Some(promise) = self.ledger.promise(needed) else { return Admission::NoRoom };
        let mut events = Vec::new();
        request.constraint = self.queue[place].job.constraint.take();
        let first = match self.batch.start(request, promise, &mut |id, event| events.push((id, event))) {
            Ok(first) => first,
            Err(error) => return self.refuse(place, Refusal::Internal(error.to_string())),
        };
        let Some(Waiting { job, flags, since, document, .. }) = self.queue.remove(place) else {
            return Admission::Left;
        };
        self.entries.touch(&found, now);
        self.figures.prefix_lookups.add(1);
        if found.tokens > 0 {
            self.figures.prefix_hits.add(1);
            self.figures.prompt_tokens_cached.add(found.tokens as u64);
        }
        self.figures.queued.observe(now.duration_since(since));
        let mut used = Used { cached_tokens: found.tokens, queued: now.duration_since(since), ..Used::default() };
        let layout = self.model.config().layout;
        let left = (job.tokens.len() - found.tokens) * layout.heads();
        used.cache.compressed = base.is_some();
        used.cache.document = document.and(job.document.clone());
        used.cache.method = base.as_ref().map(|(_, made_by)| made_by.method.clone());
        used.cache.kept_share = (found.cache.total_tokens() + left) as f64 / (job.tokens.len() * layout.heads()) as f64;
        used.cache.bytes = found.cache.bytes() + left * self.model.format().token_bytes(layout.head_dim);
        let (base, made_by) = base.unzip();
        let open = vec![true; job.choices];
        self.running.push(Running {
            job,
            flags,
            first,
            open,
            reading: true,
            base,
            made_by,
            at_rest,
            read: 0,
            queued_at: since,
            started: now,
            first_token: None,
            used,
        });
        for (id, event) in events {
            self.hear(id, event, now);
        }
        Admission::Left
    }
}
