//! Traces of what clients do, on a small random model: memory, order, isolation, and the same answers whatever else runs.

mod constraints;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{LazyLock, Mutex};

use cokv_core::{Budget, ConfigTable, Format, Frame, Method};
use cokv_models::batch::{Request, Start, Why};
use cokv_models::sampling::Sampling;
use cokv_models::source::{Observer, Source};
use cokv_models::{LoadOptions, StopRule};
use proptest::prelude::*;

use super::*;
use crate::handle::{Command, Handle, Ticket};
use crate::job::{Compression, Job, Namespace, NewDocument};
use crate::told::DocumentTold;

static MODEL: LazyLock<Arc<LanguageModel>> = LazyLock::new(|| {
    let files = "random:tiny".parse::<Source>().unwrap().fetch(Observer::default()).unwrap();
    let options = LoadOptions { format: Format::F16, ..LoadOptions::default() };
    Arc::new(LanguageModel::load(&files, &options, |_, _| {}).unwrap())
});

/// What a token of all heads takes.
fn token_bytes() -> u64 {
    let layout = MODEL.config().layout;
    (layout.heads() * Format::F16.token_bytes(layout.head_dim)) as u64
}

fn method(name: &str) -> Method {
    let line = format!("compressor = '{name}'");
    cokv_policies::registry().method(ConfigTable::parse("test", &line).unwrap()).unwrap()
}

/// What a job has heard.
#[derive(Default)]
struct Heard {
    queued: bool,
    tokens: HashMap<usize, Vec<u32>>,
    ended: Vec<(usize, Why)>,
    done: Option<crate::told::Used>,
    refused: Option<Refusal>,
}

impl Heard {
    fn is_over(&self) -> bool {
        self.done.is_some() || self.refused.is_some()
    }
}

/// A scheduler with whoever talks to it, and a clock that goes on by a millisecond whenever somebody looks.
struct World {
    scheduler: Scheduler,
    handle: Handle,
    asked: Receiver<Command>,
    now: RefCell<Instant>,
}

impl World {
    fn new(settings: Settings) -> Self {
        let (commands, asked) = channel();
        let figures = Arc::new(Figures::default());
        let handle = Handle::new(commands, Arc::clone(&figures));
        let scheduler = Scheduler::new(Arc::clone(&MODEL), settings, figures);
        Self { scheduler, handle, asked, now: RefCell::new(Instant::now()) }
    }

    fn of_tokens(tokens: u64) -> Self {
        Self::new(Self::settings(tokens))
    }

    /// Where idle prefixes are compressed to so many tokens of each head before any is dropped.
    fn compressing_idle(tokens: u64, kept: usize) -> Self {
        let compress_idle = Some((method("keydiff"), Budget::Tokens(kept)));
        Self::new(Settings { compress_idle, ..Self::settings(tokens) })
    }

    fn settings(tokens: u64) -> Settings {
        Settings {
            cache_memory: Some(tokens * token_bytes()),
            rows: 6,
            queue: 12,
            chunk: 16,
            least_prefix: 4,
            least_partial: 8,
            ..Settings::default()
        }
    }

    fn obey(&mut self) {
        while let Ok(command) = self.asked.try_recv() {
            self.scheduler.obey(command, *self.now.borrow());
        }
    }

    fn step(&mut self) -> bool {
        self.obey();
        let now = &self.now;
        self.scheduler.step(&mut || {
            *now.borrow_mut() += Duration::from_millis(1);
            *now.borrow()
        })
    }

    fn run(&mut self, job: Job) -> (Ticket, Arc<Mutex<Heard>>) {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let job = Job { hear: hears(&heard), ..job };
        let ticket = self.handle.run(job).unwrap();
        self.obey();
        (ticket, heard)
    }

    /// Runs until a job is over.
    fn answer(&mut self, job: Job) -> Heard {
        let (_ticket, heard) = self.run(job);
        for _ in 0..1000 {
            if heard.lock().unwrap().is_over() {
                return std::mem::take(&mut heard.lock().unwrap());
            }
            self.step();
        }
        panic!("it never ended");
    }

    fn read(&mut self, document: NewDocument) -> Result<(crate::told::Document, bool), Refusal> {
        let told = Arc::new(Mutex::new(None));
        let to = Arc::clone(&told);
        let hear = Box::new(move |event| match event {
            DocumentTold::Done { document, made } => *to.lock().unwrap() = Some(Ok((document, made))),
            DocumentTold::Refused(refusal) => *to.lock().unwrap() = Some(Err(refusal)),
            DocumentTold::Queued | DocumentTold::Read { .. } => {}
        });
        let _ticket = self.handle.read(NewDocument { hear, ..document }).unwrap();
        for _ in 0..1000 {
            self.step();
            if let Some(told) = told.lock().unwrap().take() {
                return told;
            }
        }
        panic!("it was never read");
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let ledger = &self.scheduler.ledger;
        prop_assert_eq!(ledger.held(), self.scheduler.buffers(), "the ledger is the buffers");
        prop_assert!(ledger.held() <= ledger.promised());
        prop_assert!(ledger.promised() <= ledger.limit().unwrap());
        Ok(())
    }
}

fn hears(heard: &Arc<Mutex<Heard>>) -> Box<dyn FnMut(Told) + Send> {
    let heard = Arc::clone(heard);
    Box::new(move |told| {
        let mut heard = heard.lock().unwrap();
        assert!(!heard.is_over(), "nothing is told after the end: {told:?}");
        match told {
            Told::Queued { .. } => heard.queued = true,
            Told::Read { tokens, of } => assert!(tokens <= of),
            Told::Token { choice, token, .. } => heard.tokens.entry(choice).or_default().push(token),
            Told::Ended { choice, why } => heard.ended.push((choice, why)),
            Told::Done(used) => heard.done = Some(used),
            Told::Refused(refusal) => heard.refused = Some(refusal),
        }
    })
}

fn namespace(number: usize) -> Namespace {
    Namespace(number.to_string())
}

/// Texts that begin alike for a while, and then each for itself.
fn text(which: usize, tokens: usize) -> Vec<u32> {
    let of = |place: usize| {
        let own = if place < 20 { which % 2 } else { which };
        (cokv_core::random::mix((own * 1000 + place) as u64) % MODEL.config().vocabulary as u64) as u32
    };
    (0..tokens).map(of).collect()
}

fn job(namespace_of: usize, tokens: Vec<u32>, answer: usize) -> Job {
    Job {
        namespace: namespace(namespace_of),
        tokens,
        document: None,
        compression: Compression::Off,
        exact: false,
        store: true,
        choices: 1,
        sampling: Sampling::greedy(),
        constraint: None,
        stop: StopRule { tokens: Vec::new(), max_new_tokens: answer, min_new_tokens: 0 },
        deadline: None,
        hear: Box::new(|_| {}),
    }
}

fn document(name: &str, tokens: Vec<u32>, compress: Option<(Method, Budget)>, pin: bool) -> NewDocument {
    NewDocument {
        namespace: namespace(0),
        shared: false,
        name: Some(name.into()),
        tokens,
        text: "[]".into(),
        compress,
        frame: Frame::default(),
        close: Vec::new(),
        pin,
        time_to_live: None,
        hear: Box::new(|_| {}),
    }
}

/// What the model says by itself.
fn alone(tokens: &[u32], answer: usize) -> Vec<u32> {
    static KNOWN: LazyLock<Mutex<HashMap<Vec<u32>, Vec<u32>>>> = LazyLock::new(Mutex::default);
    const LONGEST: usize = 16;
    let mut known = KNOWN.lock().unwrap();
    let said = known.entry(tokens.to_vec()).or_insert_with(|| {
        let mut batch = Batch::new(Arc::clone(MODEL.engine()), BatchSettings::default(), Ledger::new(None));
        let start = Start::Then { cache: MODEL.engine().cache(Format::F16, 0).unwrap(), tokens: tokens.to_vec() };
        let stop = StopRule { tokens: Vec::new(), max_new_tokens: LONGEST, min_new_tokens: 0 };
        batch.submit(Request::greedy(start, stop)).unwrap();
        let mut said = Vec::new();
        while batch
            .step(&mut |_, event| {
                if let Event::Token { token, .. } = event {
                    said.push(token)
                }
            })
            .unwrap()
        {}
        said
    });
    said[..answer].to_vec()
}

#[derive(Clone, Debug)]
enum Act {
    Ask { whose: usize, text: usize, tokens: usize, answer: usize, choices: usize, compressed: usize },
    Read { text: usize, tokens: usize, budget: Option<usize>, pin: bool },
    Forget(usize),
    Step,
    Leave(usize),
    Enough(usize),
    Wait,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let ask = (0usize..2, 0usize..5, 1usize..70, 1usize..12, 1usize..4, 0usize..6).prop_map(
        |(whose, text, tokens, answer, choices, compressed)| Act::Ask {
            whose,
            text,
            tokens,
            answer,
            choices,
            compressed,
        },
    );
    let read = (0usize..3, 10usize..50, prop::option::of(7usize..12), any::<bool>())
        .prop_map(|(text, tokens, budget, pin)| Act::Read { text, tokens, budget, pin });
    let act = prop_oneof![
        4 => ask, 1 => read, 1 => (0usize..3).prop_map(Act::Forget), 12 => Just(Act::Step),
        1 => (0usize..12).prop_map(Act::Leave), 1 => (0usize..12).prop_map(Act::Enough), 1 => Just(Act::Wait),
    ];
    prop::collection::vec(act, 1..80)
}

/// A job on its way, and what it will say.
struct Open {
    ticket: Option<Ticket>,
    heard: Arc<Mutex<Heard>>,
    /// Where all answers are those of the model by itself.
    expected: Option<Vec<u32>>,
    exact: bool,
    choices: usize,
    enough: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn whatever_clients_do(acts in acts(), memory in 80u64..400, compresses_idle: bool) {
        let mut world = if compresses_idle { World::compressing_idle(memory, 10) } else { World::of_tokens(memory) };
        let mut open: Vec<Open> = Vec::new();
        let mut reading: Vec<Ticket> = Vec::new();
        let mut steps = 0;
        let mut acts = acts.into_iter();
        loop {
            match acts.next().unwrap_or(Act::Step) {
                Act::Ask { whose, text: which, tokens, answer, choices, compressed } => {
                    let prompt = text(which, tokens);
                    let compression = match compressed {
                        0 => Compression::Question { method: method("snapkv"), budget: Budget::Tokens(40), frame: Frame::default() },
                        1 => Compression::Document {
                            method: method("knorm"), budget: Budget::Tokens(12), tokens: tokens * 2 / 3, frame: Frame::default(), close: Vec::new(),
                        },
                        _ => Compression::Off,
                    };
                    let expected = matches!(compression, Compression::Off).then(|| alone(&prompt, answer));
                    let exact = compressed == 2;
                    let job = Job { choices, compression, exact, ..job(whose, prompt, answer) };
                    let (ticket, heard) = world.run(job);
                    let (queued, refused) = { let heard = heard.lock().unwrap(); (heard.queued, heard.refused.is_some()) };
                    prop_assert!(queued != refused);
                    open.push(Open { ticket: Some(ticket), heard, expected, exact, choices, enough: false });
                }
                Act::Read { text: which, tokens, budget, pin } => {
                    let compress = budget.map(|budget| (method("keydiff"), Budget::Tokens(budget)));
                    reading.push(world.handle.read(document(&which.to_string(), text(which, tokens), compress, pin)).unwrap());
                }
                Act::Forget(which) => {
                    world.handle.forget(namespace(0), which.to_string(), Box::new(drop)).unwrap();
                }
                Act::Step => {
                    let pinned = world.scheduler.entries.pinned_bytes();
                    world.step();
                    prop_assert!(world.scheduler.entries.pinned_bytes() >= pinned, "what is pinned stays");
                    steps += 1;
                }
                Act::Leave(which) => {
                    if let Some(open) = open.get_mut(which) {
                        open.ticket = None;
                    }
                }
                Act::Enough(which) => {
                    if let Some(open) = open.get_mut(which)
                        && let Some(ticket) = &open.ticket
                    {
                        open.enough = true;
                        ticket.enough(0);
                    }
                }
                Act::Wait => *world.now.borrow_mut() += Duration::from_secs(11),
            }
            world.obey();
            world.check()?;
            if acts.len() == 0 && world.scheduler.is_idle() {
                break;
            }
            prop_assert!(steps < 5000, "somebody starves: {} wait, {} run", world.scheduler.queue.len(), world.scheduler.running.len());
        }
        for Open { ticket, heard, expected, exact, choices, enough } in open {
            let heard = heard.lock().unwrap();
            if ticket.is_none() {
                continue;
            }
            prop_assert!(heard.is_over());
            prop_assert!(!matches!(heard.refused, Some(Refusal::Internal(_) | Refusal::NotFinite(_))), "{:?}", heard.refused);
            if heard.done.is_some() {
                prop_assert_eq!(heard.ended.len(), choices);
            }
            let lacks = heard.done.as_ref().is_some_and(|used| used.cache.compressed);
            prop_assert!(!lacks || (!exact && (compresses_idle || expected.is_none())), "what was left out of serves those alone who take it");
            if let (Some(expected), Some(_), false) = (expected, &heard.done, lacks) {
                for choice in 0..choices {
                    let said = heard.tokens.get(&choice).cloned().unwrap_or_default();
                    let all = if enough && choice == 0 { &expected[..said.len()] } else { &expected[..] };
                    prop_assert_eq!(said, all, "answer {} of {}", choice, choices);
                }
            }
        }
        drop(reading);
        while world.scheduler.entries.drop_one() {}
        for which in 0..3 {
            world.handle.forget(namespace(0), which.to_string(), Box::new(drop)).unwrap();
        }
        world.obey();
        prop_assert_eq!((world.scheduler.ledger.held(), world.scheduler.ledger.promised()), (0, 0));
    }
}

#[test]
fn a_prefix_is_read_once_and_used_by_all_of_one_namespace() {
    let mut world = World::of_tokens(1000);
    let (long, answer) = (text(1, 60), 6);
    let first = world.answer(job(0, long.clone(), answer)).done.unwrap();
    assert_eq!((first.cached_tokens, first.written_tokens), (0, 60));
    let again = world.answer(job(0, long.clone(), answer));
    assert_eq!((again.done.unwrap().cached_tokens, &again.tokens[&0]), (59, &alone(&long, answer)));
    assert_eq!(world.answer(job(1, long.clone(), answer)).done.unwrap().cached_tokens, 0, "of somebody else");
    assert_eq!(world.answer(job(0, long[..30].to_vec(), answer)).done.unwrap().cached_tokens, 29, "a beginning of it");
    // A conversation goes on with what was said; of an answer the model has not seen the last token.
    let next = [&long[..], &alone(&long, answer)[..], &text(3, 10)].concat();
    let next = world.answer(job(0, next.clone(), answer));
    assert_eq!(next.done.unwrap().cached_tokens, 60 + answer - 1);
}

#[test]
fn a_prompt_that_is_being_read_is_waited_for() {
    let mut world = World::of_tokens(2000);
    let prompts: Vec<Vec<u32>> = (0..4).map(|which| [text(1, 100), text(which + 2, 9)].concat()).collect();
    let jobs: Vec<_> = prompts.iter().map(|prompt| world.run(job(0, prompt.clone(), 4))).collect();
    while world.step() {}
    let used: Vec<usize> =
        jobs.iter().map(|(_, heard)| heard.lock().unwrap().done.as_ref().unwrap().cached_tokens).collect();
    assert_eq!(used[0], 0);
    assert!(used[1..].iter().all(|&cached| cached >= 100), "{used:?}");
    for (prompt, (_, heard)) in prompts.iter().zip(&jobs) {
        assert_eq!(heard.lock().unwrap().tokens[&0], alone(prompt, 4));
    }
}

#[test]
fn who_leaves_while_a_prompt_is_read_leaves_what_was_read() {
    let mut world = World::of_tokens(1000);
    let prompt = text(1, 200);
    let (ticket, _) = world.run(job(0, prompt.clone(), 4));
    (0..4).for_each(|_| assert!(world.step()));
    drop(ticket);
    world.step();
    assert!(world.scheduler.is_idle());
    assert_eq!(world.scheduler.ledger.promised(), world.scheduler.ledger.held());
    let again = world.answer(job(0, prompt.clone(), 4));
    assert_eq!((again.done.unwrap().cached_tokens, &again.tokens[&0]), (64, &alone(&prompt, 4)));
}

#[test]
fn documents_are_compressed_once_and_asked_many_times() {
    let mut world = World::of_tokens(1000);
    let document_tokens = text(1, 100);
    let new = || document("report", document_tokens.clone(), Some((method("keydiff"), Budget::Tokens(10))), true);
    let (made, was_made) = world.read(new()).unwrap();
    assert!(was_made && made.kept_tokens() <= 10.0 && made.pinned);
    assert!(!world.read(new()).unwrap().1, "the same again is no work");
    let other = document("report", text(2, 100), None, true);
    assert_eq!(world.read(other).unwrap_err(), Refusal::DocumentExists("report".into()));

    let ask = |question: usize| {
        let tokens = [document_tokens.clone(), text(question, 8)].concat();
        Job { document: Some("report".into()), ..job(0, tokens, 5) }
    };
    let first = world.answer(ask(2));
    let used = first.done.unwrap();
    assert!(used.cache.compressed && used.cache.kept_share < 0.2, "{used:?}");
    assert_eq!((used.cached_tokens, used.cache.document.as_deref()), (100, Some("report")));
    assert_eq!(world.answer(ask(2)).tokens, first.tokens);
    assert_eq!(world.answer(Job { exact: true, ..ask(2) }).refused, Some(Refusal::Compressed("report".into())));
    let elsewhere = Job { namespace: namespace(1), ..ask(2) };
    assert_eq!(world.answer(elsewhere).refused, Some(Refusal::NoDocument("report".into())));
    let strange = Job { tokens: text(3, 120), ..ask(2) };
    assert_eq!(world.answer(strange).refused, Some(Refusal::Mismatch { name: "report".into(), tokens: 100 }));
    // Without its name nobody gets what something was left out of.
    let full = world.answer(Job { document: None, ..ask(2) });
    assert_eq!((full.done.unwrap().cached_tokens, &full.tokens[&0]), (0, &alone(&ask(2).tokens, 5)));

    let (_ticket, heard) = world.run(ask(3));
    world.handle.forget(namespace(0), "report".into(), Box::new(|gone| assert!(gone.is_some()))).unwrap();
    while world.step() {}
    assert!(heard.lock().unwrap().done.is_some(), "who waits for a document has it, whatever becomes of its name");
    assert_eq!(world.answer(ask(2)).refused, Some(Refusal::NoDocument("report".into())));
}

#[test]
fn a_method_that_reads_twice_makes_a_document_of_a_beginning() {
    let mut world = World::of_tokens(2000);
    let of = |question: usize| {
        let compression = Compression::Document {
            method: method("kvzip"),
            budget: Budget::Tokens(12),
            tokens: 90,
            frame: Frame::default(),
            close: Vec::new(),
        };
        Job { compression, ..job(0, [text(1, 90), text(question, 7)].concat(), 4) }
    };
    let jobs: Vec<_> = (2..5).map(|question| world.run(of(question))).collect();
    while world.step() {}
    for (_, heard) in &jobs {
        let heard = heard.lock().unwrap();
        let used = heard.done.as_ref().unwrap_or_else(|| panic!("{:?}", heard.refused));
        assert!(used.cache.compressed && used.cached_tokens >= 90 && used.cache.method.as_deref() == Some("kvzip"));
    }
    let (computed, _) = world.scheduler.figures.compressing.total();
    assert_eq!(computed, 1, "one pass for all questions");
    let again = world.answer(Job {
        compression: Compression::Question {
            method: method("kvzip"),
            budget: Budget::Tokens(9),
            frame: Frame::default(),
        },
        ..of(2)
    });
    assert!(matches!(again.refused, Some(Refusal::Method(_))));
}

#[test]
fn what_can_never_be_run_is_refused_at_once_and_the_rest_waits() {
    let mut world = World::of_tokens(100);
    let refused = |job: Job, world: &mut World| world.run(job).1.lock().unwrap().refused.clone();
    assert!(matches!(refused(job(0, text(1, 99), 5), &mut world), Some(Refusal::NeverFits { .. })));
    assert!(matches!(refused(job(0, text(1, 10), 1 << 20), &mut world), Some(Refusal::TooLong { .. })));
    assert!(matches!(refused(job(0, Vec::new(), 5), &mut world), Some(Refusal::Method(_))));
    let hot = Sampling { temperature: 3.0, ..Sampling::default() };
    assert!(matches!(refused(Job { sampling: hot, ..job(0, text(1, 9), 5) }, &mut world), Some(Refusal::Sampling(_))));
    let pinned = world.read(document("large", text(1, 60), None, true)).unwrap_err();
    assert!(matches!(pinned, Refusal::PinLimit { .. }), "{pinned}");
    let waiting: Vec<_> = (0..12).map(|which| world.run(job(0, text(which, 60), 5))).collect();
    let full = refused(job(0, text(1, 9), 5), &mut world);
    assert!(matches!(full, Some(Refusal::QueueFull { waiting: 12, .. })), "{full:?}");
    world.handle.drain();
    world.obey();
    assert!(waiting.iter().all(|(_, heard)| heard.lock().unwrap().refused == Some(Refusal::Draining)));
}

#[test]
fn idle_conversations_are_compressed_before_any_is_dropped() {
    let mut world = World::compressing_idle(200, 16);
    // Behind what texts have in common.
    let conversations: Vec<Vec<u32>> = (0..6).map(|which| text(which + 1, 80)[20..].to_vec()).collect();
    for tokens in &conversations {
        assert!(!world.answer(job(0, tokens.clone(), 2)).done.unwrap().cache.compressed);
    }
    let figures = Arc::clone(&world.scheduler.figures);
    assert_eq!(
        figures.dropped_entries.get(),
        0,
        "of six conversations of 60 tokens, 16 of which are kept, 200 have room for all"
    );
    assert!(figures.compressed_entries.get() >= 4, "{}", figures.compressed_entries.get());
    let again = [&conversations[0][..], &text(9, 7)].concat();
    let exact = world.answer(Job { exact: true, ..job(0, again.clone(), 4) });
    let used = exact.done.unwrap();
    assert_eq!((used.cached_tokens, used.cache.compressed, &exact.tokens[&0]), (0, false, &alone(&again, 4)));
    // What was read for this is whole, and goes before what something was left out of.
    assert!(!world.answer(job(0, again, 4)).done.unwrap().cache.compressed);
    let again = [&conversations[4][..], &text(9, 7)].concat();
    let used = world.answer(job(0, again.clone(), 4)).done.unwrap();
    assert!(used.cache.compressed && used.cached_tokens >= 60 && used.cache.kept_share < 0.5, "{used:?}");
    assert_eq!(used.cache.method.as_deref(), Some("keydiff"));
    // And so does what goes on from there.
    let further = world.answer(job(0, [&again[..], &text(8, 5)].concat(), 2)).done.unwrap();
    assert!(further.cache.compressed && further.cached_tokens >= again.len(), "{further:?}");
    world.check().unwrap();
}

/// Conversations that begin with the same words hold the memory of the first: it is free once all of them are compressed.
#[test]
fn conversations_that_share_their_beginning_are_compressed_too() {
    let mut world = World::compressing_idle(200, 12);
    for which in [1, 3, 5, 7, 9, 11, 13] {
        assert!(world.answer(job(0, text(which, 60), 2)).done.is_some());
        world.check().unwrap();
    }
    let figures = &world.scheduler.figures;
    assert!(figures.compressed_entries.get() >= 3, "{}", figures.compressed_entries.get());
    assert!(world.scheduler.entries.states(&namespace(0), *world.now.borrow()).len() >= 5);
}

#[test]
fn late_jobs_end() {
    let mut world = World::of_tokens(1000);
    let deadline = Some(Duration::from_secs(5));
    let (_ticket, heard) = world.run(Job { deadline, ..job(0, text(1, 100), 50) });
    (0..10).for_each(|_| assert!(world.step()));
    *world.now.borrow_mut() += Duration::from_secs(6);
    world.step();
    assert_eq!(heard.lock().unwrap().refused, Some(Refusal::Deadline(Duration::from_secs(5))));
    assert!(world.scheduler.is_idle());
}

/// A few tokens at the beginning of something long hold all of its memory.
#[test]
fn a_prefix_whose_memory_is_needed_is_read_again() {
    let mut world = World::of_tokens(100);
    assert!(world.answer(job(0, text(1, 49), 1)).done.is_some());
    let other = [text(1, 10), text(2, 30)].concat();
    let heard = world.answer(job(0, other.clone(), 16));
    assert_eq!((heard.done.unwrap().cached_tokens, &heard.tokens[&0]), (10, &alone(&other, 16)));
    let mut world = World::of_tokens(100);
    assert!(world.answer(job(0, text(1, 49), 1)).done.is_some());
    let other = [text(1, 10), text(2, 70)].concat();
    let heard = world.answer(job(0, other.clone(), 16));
    assert_eq!((heard.done.unwrap().cached_tokens, &heard.tokens[&0]), (0, &alone(&other, 16)));
}
