//! Traces of what users do, on an engine that computes nothing: memory, order and isolation are the batch's own.

mod constraints;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use cokv_core::random::mix;
use cokv_core::{
    AllocationRequest, Budget, BudgetAllocator, BudgetPlan, CacheCompressor, Frame, HeadLayout, LayerView, Method,
    Named, ObservationRequest, PolicyError, Replayed, RotaryEmbedding, RotaryPairs, Settings,
};
use proptest::prelude::*;

use super::*;
use crate::ask::{Answer, Ask, Top};
use crate::backend::host::{HostStore, Recorder};
use crate::backend::{Cpu, LayerSummaries, Replaying, Span, Watch};
use crate::cache::{RaggedCache, Segment};
use crate::config::{Architecture, ModelConfig, RopeScaling};
use crate::ledger::Ledger;
use crate::sampling::{Sampler, Sampling};
use crate::stop::StopRule;

const TOKEN_BYTES: usize = 2 * 16;
/// Its row is not finite.
const POISON: u32 = 999;
/// Its pass fails.
const FAILURE: u32 = 998;

/// Appends rows of zeros and answers with what a hash of the sequence says.
struct Fake {
    config: ModelConfig,
    passes: AtomicU64,
}

fn layout() -> HeadLayout {
    HeadLayout::new(2, 2, 1, 4).unwrap()
}

fn fake() -> Arc<dyn Engine> {
    let config = ModelConfig {
        architecture: Architecture::Llama,
        layout: layout(),
        vocabulary: 1000,
        hidden_size: 8,
        intermediate_size: 8,
        norm_epsilon: 1e-5,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::None,
        rope_attention_factor: 1.0,
        rope_pairs: RotaryPairs::Halves,
        attention_bias: false,
        tied_embeddings: None,
        context_length: 4096,
        windows: Vec::new(),
        stop_tokens: Vec::new(),
    };
    Arc::new(Fake { config, passes: AtomicU64::new(0) })
}

/// What the fake says after so many tokens.
fn next(seen: usize) -> u32 {
    (mix(seen as u64) % 900) as u32
}

impl Engine for Fake {
    fn config(&self) -> &ModelConfig {
        &self.config
    }
    fn backend(&self) -> &'static str {
        "fake"
    }
    fn free_bytes(&self) -> Option<u64> {
        Some(1 << 20)
    }
    fn chunk(&self) -> usize {
        512
    }
    fn weight_bytes(&self) -> usize {
        0
    }
    fn rotary(&self, _: usize) -> RotaryEmbedding {
        RotaryEmbedding { frequencies: vec![1.0; 2], scale: 1.0, pairs: RotaryPairs::Halves }
    }
    fn cache(&self, format: Format, tokens: usize) -> Result<RaggedCache, ModelError> {
        Ok(RaggedCache::new(layout(), format, Box::new(HostStore::with_capacity(layout(), format, tokens))))
    }
    fn watch(&self, request: ObservationRequest, prompt_len: usize) -> Box<dyn Watch> {
        Box::new(Recorder::new(request, layout(), prompt_len))
    }
    fn step(&self, rows: &mut [Row<'_>]) -> Result<Vec<Answer>, ModelError> {
        self.passes.fetch_add(1, Ordering::Relaxed);
        if rows.iter().any(|row| row.tokens.contains(&FAILURE)) {
            return Err(ModelError::Backend("it broke".into()));
        }
        let answers = rows.iter_mut().map(|row| {
            let tokens = row.tokens.len();
            let span: Span<'_, Cpu> = Span::of(tokens, row.cache, &mut [])?;
            for layer in 0..2 {
                span.own.push(layer, &vec![0.0; tokens * 4], &vec![0.0; tokens * 4]);
            }
            row.cache.advance(tokens);
            let token = next(row.cache.next_position());
            Ok(match row.ask {
                _ if row.tokens.contains(&POISON) => Answer::NotFinite,
                Ask::Nothing => Answer::Nothing,
                Ask::Top { .. } => Answer::Top(Top { tokens: vec![(token, 1.0)], log_sum_exp: None }),
                _ => Answer::Logits((0..1000).map(|id| if id == token { 1.0 } else { 0.0 }).collect()),
            })
        });
        answers.collect()
    }
    fn watch_queries(&self, count: usize) -> Box<dyn Watch> {
        Box::new(Recorder::of_answer(count, layout()))
    }
    fn last_queries(&self, watch: &dyn Watch, layer: usize) -> Result<Vec<f32>, ModelError> {
        let recorder: Option<&Recorder> = (watch as &dyn std::any::Any).downcast_ref();
        Ok(recorder.map_or(Vec::new(), |recorder| recorder.last_queries(layer)))
    }
    fn watch_replay(&self, replaying: Replaying) -> Box<dyn Watch> {
        Box::new(Recorder::of_replay(replaying, layout()))
    }
    fn replayed(&self, _: &mut dyn Watch, _: usize) -> Result<Replayed, ModelError> {
        Ok(Replayed::default())
    }
    fn summaries(&self, _: &dyn Watch, _: &Segment, _: usize) -> Result<LayerSummaries, ModelError> {
        Ok(LayerSummaries::default())
    }
}

/// The youngest tokens, and twice as many in the first head as in the second.
#[derive(Debug, serde::Serialize)]
struct Youngest {}

impl CacheCompressor for Youngest {
    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        Ok((0..layer.prompt_len).map(|token| token as f32).collect())
    }
}

impl BudgetAllocator for Youngest {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let first = (request.total * 2 / 3).min(request.prompt_len);
        Ok(BudgetPlan::new(vec![first, (request.total - first).min(request.prompt_len)]))
    }
}

fn method() -> Method {
    let settings = || Settings::of("youngest", &Youngest {}).unwrap();
    Method::new(
        "youngest",
        Named::new(Arc::new(Youngest {}), settings()),
        Named::new(Arc::new(Youngest {}), settings()),
    )
}

fn stop(max_new_tokens: usize) -> StopRule {
    StopRule { tokens: vec![], max_new_tokens, min_new_tokens: 0 }
}

fn prompt(tokens: usize, answer: usize, budget: Option<usize>) -> Request {
    let compress = budget.map(|budget| (method(), Budget::Tokens(budget)));
    Request::greedy(Start::Prompt { tokens: vec![1; tokens], frame: Frame::default(), compress }, stop(answer))
}

fn batch(limit: u64) -> Batch {
    Batch::new(
        fake(),
        BatchSettings { chunk: 16, chunk_beside_rows: 4, ..BatchSettings::default() },
        Ledger::new(Some(limit)),
    )
}

/// What the fake answers after so many tokens.
fn expected(seen: usize, answer: usize) -> Vec<u32> {
    (seen..seen + answer).map(next).collect()
}

#[derive(Clone, Debug)]
enum Act {
    Submit { tokens: usize, answer: usize, budget: Option<usize> },
    Step,
    Cancel(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let submit = (1usize..60, 0usize..12, prop::option::of(1usize..40))
        .prop_map(|(tokens, answer, budget)| Act::Submit { tokens, answer, budget });
    let act = prop_oneof![2 => submit, 5 => Just(Act::Step), 1 => (0usize..20).prop_map(Act::Cancel)];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #[test]
    fn the_ledger_is_the_buffers_and_nobody_starves(acts in acts(), limit in 60usize..400) {
        let limit = (limit * TOKEN_BYTES) as u64;
        let mut batch = batch(limit);
        let mut open: HashMap<SequenceId, (usize, usize)> = HashMap::new();
        let mut ended = Vec::new();
        let mut passes = 0;
        let mut acts = acts.into_iter();
        loop {
            match acts.next().unwrap_or(Act::Step) {
                Act::Submit { tokens, answer, budget } => {
                    let needed = prompt(tokens, answer, budget).bytes(layout(), Format::F16);
                    match batch.submit(prompt(tokens, answer, budget)) {
                        Ok(id) => { open.insert(id, (tokens, answer)); }
                        Err(error) => prop_assert!(needed > limit, "{error}"),
                    }
                }
                Act::Cancel(which) => {
                    let id = SequenceId(which as u64);
                    let before = batch.ledger().held();
                    batch.cancel(id);
                    prop_assert!(batch.ledger().held() <= before);
                    open.remove(&id);
                }
                Act::Step => {
                    batch.step(&mut |id, event| match event {
                        Event::Ended { answer, cache, .. } => ended.push((id, answer, cache.next_position())),
                        Event::Failed(error) => panic!("{error}"),
                        _ => {}
                    }).unwrap();
                    passes += 1;
                }
            }
            let (own, segments) = batch.buffers();
            let buffers = own + segments.iter().map(|segment| segment.bytes()).sum::<usize>();
            prop_assert_eq!(batch.ledger().held(), buffers as u64, "after every operation");
            prop_assert!(batch.ledger().held() <= batch.ledger().promised() && batch.ledger().promised() <= limit);
            for (id, answer, seen) in ended.drain(..) {
                let (tokens, length) = open.remove(&id).expect("a sequence ends once, and not after it was cancelled");
                prop_assert_eq!(&answer, &expected(tokens, length), "whatever ran beside it");
                prop_assert_eq!(seen, tokens + length.saturating_sub(1));
            }
            if batch.is_empty() && acts.len() == 0 {
                break;
            }
            prop_assert!(passes < 5000, "somebody starves");
        }
        prop_assert!(open.is_empty(), "everybody was answered: {open:?}");
        prop_assert_eq!((batch.ledger().held(), batch.ledger().promised()), (0, 0));
    }
}

#[test]
fn a_large_one_is_overtaken_but_not_for_ever() {
    let mut batch = batch((100 * TOKEN_BYTES) as u64);
    batch.submit(prompt(40, 10, None)).unwrap();
    let large = batch.submit(prompt(90, 10, None)).unwrap();
    let mut order = Vec::new();
    for _ in 0..200 {
        batch.submit(prompt(10, 10, None)).unwrap();
        batch
            .step(&mut |id, event| {
                if let Event::Ended { .. } = event {
                    order.push(id);
                }
            })
            .unwrap();
    }
    let place = order.iter().position(|&id| id == large).expect("it had its turn");
    assert!(place > 1, "smaller ones went before");
    assert!(place <= 2 + BatchSettings::default().overtakes, "but not more than allowed: {place}");
}

#[test]
fn a_row_that_is_not_finite_concerns_nobody_else() {
    let mut batch = batch(1 << 20);
    let poisoned =
        Request::greedy(Start::Prompt { tokens: vec![1, POISON], frame: Frame::default(), compress: None }, stop(5));
    let [sound, poisoned] = [prompt(20, 5, None), poisoned].map(|request| batch.submit(request).unwrap());
    let mut ended = Vec::new();
    while batch
        .step(&mut |id, event| match event {
            Event::Ended { answer, .. } => ended.push((id, Ok(answer))),
            Event::Failed(error) => ended.push((id, Err(error.to_string()))),
            _ => {}
        })
        .unwrap()
    {}
    assert_eq!(ended[1], (sound, Ok(expected(20, 5))));
    assert_eq!(ended[0].0, poisoned);
    assert!(ended[0].1.as_ref().unwrap_err().contains("not finite after the 2 tokens of the prompt"));
}

#[test]
fn a_pass_that_fails_frees_its_rows() {
    let mut batch = batch(1 << 20);
    let broken =
        Request::greedy(Start::Prompt { tokens: vec![FAILURE], frame: Frame::default(), compress: None }, stop(5));
    batch.submit(broken).unwrap();
    let mut told = Vec::new();
    assert!(batch.step(&mut |_, event| told.push(format!("{event:?}"))).is_err());
    assert!(matches!(&told[..], [failed] if failed.contains("it broke")), "{told:?}");
    assert!(batch.is_empty());
    assert_eq!((batch.ledger().held(), batch.ledger().promised()), (0, 0));
}

#[test]
fn what_can_never_run_is_refused_at_once() {
    let mut batch = batch((100 * TOKEN_BYTES) as u64);
    let error = batch.submit(prompt(100, 10, None)).unwrap_err();
    assert!(matches!(error, ModelError::OutOfMemory { .. }), "{error}");
    assert!(matches!(batch.submit(prompt(0, 10, None)), Err(ModelError::EmptyPrompt)));
    assert!(matches!(batch.submit(prompt(4090, 10, None)), Err(ModelError::TooLong { .. })));
    assert!(batch.submit(prompt(60, 10, Some(10))).is_ok(), "what is kept is what counts afterwards");
}

#[test]
fn a_document_is_asked_many_times_in_chunks_beside_answers() {
    let engine = fake();
    let mut prefilling =
        crate::prefill::Prefilling::new(&engine, vec![1; 50], Format::F16, Default::default()).unwrap();
    while prefilling.left() > 0 {
        let answer = engine.step(&mut [prefilling.row(16)]).unwrap().remove(0);
        prefilling.take(answer).unwrap();
    }
    let document = RaggedCache::full(prefilling.finish().unwrap().prompt());
    let mut batch = batch(1 << 20);
    let answering = batch.submit(prompt(5, 30, None)).unwrap();
    let asked: Vec<SequenceId> = [9, 3]
        .map(|tokens| {
            let start = Start::Then { cache: document.fork().unwrap(), tokens: vec![2; tokens] };
            batch.submit(Request::greedy(start, stop(4))).unwrap()
        })
        .into();
    let mut chunks = Vec::new();
    let mut answers = HashMap::new();
    while batch
        .step(&mut |id, event| match event {
            Event::Prefilled { tokens, of } => chunks.push((id, tokens, of)),
            Event::Ended { answer, .. } => {
                answers.insert(id, answer);
            }
            _ => {}
        })
        .unwrap()
    {}
    assert_eq!(chunks[0], (answering, 5, 5));
    assert_eq!(chunks[1..], [(asked[0], 4, 9), (asked[0], 8, 9), (asked[0], 9, 9), (asked[1], 3, 3)]);
    assert_eq!(answers[&asked[0]], expected(59, 4));
    assert_eq!(answers[&asked[1]], expected(53, 4));
    assert_eq!(answers[&answering], expected(5, 30));
}

#[test]
fn answers_to_one_prompt_share_what_was_read() {
    for compress in [None, Some(20)] {
        let mut batch = batch(1 << 20);
        let samplers = (0..3).map(|choice| Sampler::new(Sampling { seed: 7, ..Sampling::default() }, choice, &[]));
        let request = Request { samplers: samplers.collect(), ..prompt(50, 6, compress) };
        let needed = request.bytes(layout(), Format::F16);
        let first = batch.submit(request).unwrap();
        let (mut ended, mut most) = (Vec::new(), 0);
        while batch
            .step(&mut |id, event| match event {
                Event::Ended { answer, cache, .. } => ended.push((id, answer.len(), cache.next_position())),
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            })
            .unwrap()
        {
            most = most.max(batch.ledger().held());
            assert!(batch.ledger().promised() <= needed);
        }
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2].map(|choice| (SequenceId(first.0 + choice), 6, 55)));
        let kept = compress.unwrap_or(50);
        assert!(most <= needed && most >= ((kept + 3 * 6) * TOKEN_BYTES) as u64, "{most} of {needed}");
        assert_eq!((batch.ledger().held(), batch.ledger().promised()), (0, 0));
        assert_ne!(batch.submit(prompt(1, 1, None)).unwrap().0, first.0 + 1, "ids are nobody else's");
    }
}

/// A conversation: each turn begins with all that was said before, which nobody reads again.
#[test]
fn what_is_read_goes_on_in_other_sequences() {
    let mut batch = batch(1 << 20);
    let mut history: Option<RaggedCache> = None;
    for (turn, seen) in [(0, 30), (1, 49), (2, 68)] {
        let cache = history.take().unwrap_or_else(|| fake().cache(Format::F16, 0).unwrap());
        let tokens = vec![1; if turn == 0 { 30 } else { 10 }];
        let before = cache.next_position();
        batch.submit(Request::greedy(Start::Then { cache, tokens: tokens.clone() }, stop(10))).unwrap();
        let mut read = Vec::new();
        while batch
            .step(&mut |_, event| match event {
                Event::Read { cache } => read.push(cache.next_position()),
                Event::Ended { answer, mut cache, promise, .. } => {
                    assert_eq!(answer, expected(seen, 10));
                    cache.settle().unwrap();
                    cache.freeze().unwrap();
                    drop(promise);
                    history = Some(cache);
                }
                _ => {}
            })
            .unwrap()
        {}
        // Behind two segments nothing is frozen until the answer is there.
        assert_eq!(read, if turn == 0 { vec![before + tokens.len()] } else { vec![] });
        let cache = history.as_ref().unwrap();
        assert_eq!(cache.own_bytes(), 0);
        for tokens in [1, 29, 30, 31, cache.next_position()] {
            let prefix = cache.prefix(tokens).unwrap();
            assert_eq!((prefix.next_position(), prefix.len(1, 0), prefix.own_bytes()), (tokens, tokens, 0));
            assert_eq!(prefix.positions(0, 0), (0..tokens as u32).collect::<Vec<_>>());
        }
        assert!(cache.prefix(cache.next_position() + 1).is_none());
    }
}

#[test]
fn short_prompts_go_before_a_long_one_but_not_for_ever() {
    let mut batch = batch(1 << 20);
    batch.settings_mut().short_ones_first = 2;
    let long = batch.submit(prompt(100, 1, None)).unwrap();
    let short: Vec<_> = (0..4).map(|_| batch.submit(prompt(3, 1, None)).unwrap()).collect();
    let mut order = Vec::new();
    while batch
        .step(&mut |id, event| {
            if let Event::Ended { .. } = event {
                order.push(id);
            }
        })
        .unwrap()
    {}
    assert_eq!(order, [short[0], short[1], long, short[2], short[3]]);
}
