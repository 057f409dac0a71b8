//! Eviction while a model answers: what compressors see then, what is kept, and what becomes of the answer.

mod tiny;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use cokv_core::{
    AllocationRequest, Budget, BudgetAllocator, BudgetPlan, CacheCompressor, Format, Frame, HeadSelection, LayerView,
    Method, Named, ObservationRequest, Pairs, PolicyError, Protected, Settings, WhileDecoding, WindowSum,
};
use cokv_models::ask::Ask;
use cokv_models::cache::RaggedCache;
use cokv_models::engine::Row;
use cokv_models::source::ModelFiles;
use cokv_models::{Answered, Compressed, Device, Eviction, Forced, LanguageModel, LoadOptions, Prefill, StopRule};
use serde_json::json;
use tiny::Tiny;

const HEADS: usize = 4;

/// What a compressor saw of a head: numbers under names.
type Seen = Vec<(&'static str, Vec<f32>)>;

/// Looks at all that is there, and keeps what is youngest but for every third token; rewrites, if asked to, by turning values round.
#[derive(Debug)]
struct Spy {
    seen: Arc<Mutex<Vec<(usize, Seen)>>>,
    rewrites: bool,
}

const SUM: WindowSum = WindowSum { rows: 3, tail: 1 };

impl CacheCompressor for Spy {
    fn observations(&self, _: Frame) -> ObservationRequest {
        ObservationRequest {
            window: 5,
            window_sums: vec![SUM],
            column_sums: true,
            query_statistics: true,
            keys: true,
            values: true,
            queries: 2,
            ..Default::default()
        }
    }

    fn protected(&self, _: Frame) -> Protected {
        Protected { sinks: 0, window: 2 }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let heads = 0..layer.layout.query_heads;
        let rows = heads.clone().map(|head| layer.last_rows(head, 5)).collect::<Result<Vec<_>, _>>()?.concat();
        let sums = heads.map(|head| layer.window_sum(head, SUM)).collect::<Result<Vec<_>, _>>()?.concat();
        let positions = (0..layer.prompt_len).map(|token| layer.position(token) as f32).collect();
        let seen = vec![
            ("positions", positions),
            ("window attention", rows),
            ("window sums", sums),
            ("column sums", layer.recorded("column sums", layer.column_sums)?.to_vec()),
            ("keys", layer.recorded("keys", layer.keys)?.to_vec()),
            ("keys before RoPE", layer.keys_before_rope()?),
            ("values", layer.recorded("values", layer.values)?.to_vec()),
            ("queries", layer.last_queries(2)?.to_vec()),
        ];
        layer.recorded("query statistics", layer.query_statistics)?;
        self.seen.lock().unwrap().push((layer.layer, seen));
        let score = |token: usize| {
            layer.position(token) as f32 - if layer.position(token).is_multiple_of(3) { 1e3 } else { 0.0 }
        };
        Ok((0..layer.layout.kv_heads).flat_map(|_| (0..layer.prompt_len).map(score)).collect())
    }

    fn rewrites(&self) -> bool {
        self.rewrites
    }

    fn rewrite(&self, layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
        let dim = layer.layout.head_dim;
        let of_head = |(head, kept): (usize, &HeadSelection)| {
            let of = |numbers: &[f32]| -> Vec<f32> {
                let place = |token: usize| (head * layer.prompt_len + token) * dim;
                kept.positions(layer.prompt_len)
                    .into_iter()
                    .flat_map(|t| numbers[place(t)..place(t) + dim].to_vec())
                    .collect()
            };
            let values = of(layer.values.unwrap()).iter().map(|value| -value).collect();
            Pairs { keys: of(layer.keys.unwrap()), values, biases: Vec::new() }
        };
        Ok(kept.iter().enumerate().map(of_head).collect())
    }
}

/// Shares of a total: 1, 2, 3 and 4 tenths.
#[derive(Debug)]
struct Uneven;

impl BudgetAllocator for Uneven {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let share = |part: usize| (request.total * part / 10).clamp(2, request.prompt_len);
        Ok(BudgetPlan::new((1..=HEADS).map(share).collect()))
    }

    fn spending(&self) -> cokv_core::Spending {
        cokv_core::Spending::MayExceed("of a test")
    }
}

fn named<T: ?Sized>(policy: Arc<T>) -> Named<T> {
    Named::new(policy, Settings::of("test", &json!({})).unwrap())
}

struct Case {
    model: LanguageModel,
    method: Method,
    seen: Arc<Mutex<Vec<(usize, Seen)>>>,
}

fn case(device: Device, every: usize, rewrites: bool) -> Case {
    let tiny = Tiny::new("llama", json!({}), false, 8);
    let options = LoadOptions { format: Format::F32, device, ..LoadOptions::default() };
    let model = LanguageModel::load(&ModelFiles::Folder(tiny.folder().to_path_buf()), &options, |_, _| {}).unwrap();
    let seen: Arc<Mutex<Vec<_>>> = Arc::default();
    let spy: Arc<dyn CacheCompressor> = Arc::new(Spy { seen: Arc::clone(&seen), rewrites });
    let allocator: Arc<dyn BudgetAllocator> = Arc::new(Uneven);
    let mut method = Method::new("test", named(Arc::clone(&spy)), named(allocator));
    method.set_while_decoding(WhileDecoding { every, compressor: named(spy) });
    Case { model, method, seen }
}

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 31 + i / 7 + seed) % 50).collect()
}

impl Case {
    fn compressed(&self, prompt: &[u32], budget: Budget) -> (Prefill, Compressed) {
        let request = self.method.observations(Frame::default());
        let prefill = self.model.prefill(prompt, request, |_| {}).unwrap();
        let compressed = prefill.compress(&self.method, budget).unwrap();
        self.seen.lock().unwrap().clear();
        (prefill, compressed)
    }

    /// Feeds tokens one by one.
    fn feed(
        &self,
        cache: &mut RaggedCache,
        eviction: &mut Eviction,
        tokens: &[u32],
        mut each: impl FnMut(&RaggedCache),
    ) {
        for token in tokens {
            let watches = vec![eviction.watch()];
            let row = Row { watches, ..Row::new(std::slice::from_ref(token), cache, Ask::Nothing) };
            self.model.engine().step(&mut [row]).unwrap();
            eviction.after(cache, 1).unwrap();
            each(cache);
        }
    }
}

/// Where nothing was dropped, a look at an answer shows what a prefill of the whole text shows.
#[test]
fn what_is_seen_of_an_answer_is_what_a_prefill_would_show() {
    for device in [Device::Cpu, Device::Candle, Device::Reference] {
        let case = case(device, 7, false);
        let (prompt, answer) = (tokens(20, 3), tokens(21, 11));
        let everything = Budget::Tokens(1 << 20);
        let (_, Compressed { mut cache, eviction, .. }) = case.compressed(&prompt, everything);
        let mut looks = Vec::new();
        let mut fed = 0;
        case.feed(&mut cache, &mut eviction.unwrap(), &answer, |_| {
            fed += 1;
            let seen = std::mem::take(&mut *case.seen.lock().unwrap());
            if !seen.is_empty() {
                looks.push((fed, seen));
            }
        });
        assert_eq!(looks.iter().map(|(fed, _)| *fed).collect::<Vec<_>>(), [7, 14, 21]);
        for (fed, seen) in looks {
            let whole = [prompt.as_slice(), &answer[..fed]].concat();
            let request = case.method.observations(Frame::default());
            let prefill = case.model.prefill(&whole, request, |_| {}).unwrap();
            case.seen.lock().unwrap().clear();
            prefill.score(&case.method, 1 << 20).unwrap();
            let of_layers = std::mem::take(&mut *case.seen.lock().unwrap());
            for (layer, all) in of_layers {
                for (name, numbers) in all.iter().skip(1) {
                    let heads: Vec<&Vec<f32>> = seen
                        .iter()
                        .filter(|(of, _)| *of == layer)
                        .map(|(_, seen)| &seen.iter().find(|(other, _)| other == name).unwrap().1)
                        .collect();
                    // Heads are looked at by several threads, in no order. Those of a layer lie one behind the other, but for queries.
                    if *name == "queries" {
                        assert_eq!(heads.iter().map(|head| head.len()).sum::<usize>(), numbers.len());
                        continue;
                    }
                    for part in numbers.chunks(numbers.len() / 2) {
                        let near = |head: &&Vec<f32>| head.iter().zip(part).all(|(a, b)| (a - b).abs() < 2e-4);
                        assert!(heads.iter().any(near), "{name} of layer {layer} after {fed} tokens, {device:?}");
                    }
                }
            }
        }
    }
}

/// Uneven budgets are held however long the answer becomes, and memory is what is held.
#[test]
fn a_cache_stays_within_its_budget_however_long_the_answer() {
    for rewrites in [false, true] {
        let case = case(Device::Cpu, 16, rewrites);
        let (_, Compressed { mut cache, eviction, allowed, .. }) = case.compressed(&tokens(90, 3), Budget::Tokens(20));
        assert_eq!(allowed, 80);
        let mut before: Vec<Vec<u32>> = (0..HEADS).map(|head| cache.positions(head / 2, head % 2)).collect();
        let mut eviction = eviction.unwrap();
        cache.reserve(eviction.until_next()).unwrap();
        let mut looks = 0;
        case.feed(&mut cache, &mut eviction, &tokens(600, 11), |cache| {
            let last = cache.next_position() as u32 - 1;
            for (head, before) in before.iter_mut().enumerate() {
                let positions = cache.positions(head / 2, head % 2);
                let share = 8 * (head + 1);
                assert!(positions.len() <= share + 16, "head {head}: {}", positions.len());
                assert!(positions.is_sorted_by(|a, b| a < b) && positions.contains(&last));
                assert!(positions.iter().all(|at| *at == last || before.contains(at)), "nothing comes back");
                looks += usize::from(positions.len() == share && before.len() > share);
                *before = positions;
            }
            assert!(cache.own_bytes() <= (80 + 5 * 16) * 2 * 4 * case.model.config().layout.head_dim);
        });
        // The shares that are reached; the last look was 8 tokens ago.
        assert_eq!(looks, HEADS * (600 / 16));
        assert!(eviction.most_held() <= 80 + HEADS * 16);
    }
}

#[test]
fn an_answer_that_drops_nothing_is_the_answer_and_one_that_drops_is_forced_as_it_is_decoded() {
    let case = case(Device::Cpu, 8, false);
    let stop = StopRule { tokens: vec![], max_new_tokens: 40, min_new_tokens: 0 };
    let prompt = tokens(60, 3);
    let answer = |budget: Budget| -> Vec<Answered> {
        let (prefill, Compressed { cache, eviction, .. }) = case.compressed(&prompt, budget);
        let first = [prefill.first(&stop)];
        case.model.answer(&mut [cache], [eviction], &first, &stop, |_, _| ControlFlow::Continue(())).unwrap()
    };
    let (prefill, _) = case.compressed(&prompt, Budget::Tokens(1 << 20));
    let first = [prefill.first(&stop)];
    let full = RaggedCache::full(prefill.prompt());
    let said = case.model.greedy(&mut [full], &first, &stop, |_, _| ControlFlow::Continue(())).unwrap();
    let whole = answer(Budget::Tokens(1 << 20));
    assert_eq!((&whole[0].tokens, whole[0].most_held), (&said[0], HEADS * 99));

    let (prefill, Compressed { mut cache, eviction, .. }) = case.compressed(&prompt, Budget::Tokens(12));
    let eviction = eviction.unwrap();
    let (mut full, fed) = (RaggedCache::full(prefill.prompt()), tokens(30, 5));
    let forced = Forced { tokens: &fed, skip: 3, targets: &fed[4..] };
    let mut rows = [(cache.fork().unwrap(), eviction.anew())];
    let along = case.model.along_evicting(&mut full, &mut rows, forced).unwrap().remove(0);
    assert_eq!((along.log_likelihoods.len(), along.divergences.len()), (26, 27));
    assert_eq!(full.next_position(), 60);
    let mut eviction = eviction.anew();
    for (at, token) in fed.iter().enumerate() {
        let row = Row::new(std::slice::from_ref(token), &mut cache, Ask::Logits);
        let row = Row { watches: vec![eviction.watch()], ..row };
        let logits = case.model.engine().step(&mut [row]).unwrap().remove(0).logits(String::new).unwrap();
        eviction.after(&mut cache, 1).unwrap();
        if let Some(&target) = fed.get(at + 1).filter(|_| at >= 3) {
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let expected = f64::from(logits[target as usize]) - sum.ln();
            assert!((along.log_likelihoods[at - 3] - expected).abs() < 1e-4, "token {at}");
        }
    }
}

/// The first look waits for as many queries as the compressor looks at; later ones do not.
#[test]
fn a_window_longer_than_a_block_is_waited_for_once() {
    let case = case(Device::Cpu, 2, false);
    let (_, Compressed { mut cache, eviction, .. }) = case.compressed(&tokens(30, 3), Budget::Tokens(6));
    let mut eviction = eviction.unwrap();
    let mut looks = Vec::new();
    for fed in 1..=11 {
        case.feed(&mut cache, &mut eviction, &[7], |_| {});
        if !std::mem::take(&mut *case.seen.lock().unwrap()).is_empty() {
            looks.push(fed);
        }
    }
    assert_eq!(looks, [5, 7, 9, 11]);
}
