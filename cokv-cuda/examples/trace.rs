//! Where the time of a pass goes: `cargo run --release -p cokv-cuda --example trace`.
//!
//! Every call is timed twice: what it costs the host to ask for it, and, waiting after each, how long the card takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cokv_core::{Coalition, Format, HeadSelection, ObservationRequest, Selection, WindowSum};
use cokv_cuda::device::{Argument, Device, Launch, Product};
use cokv_cuda::gpu::{Gpu, GpuBuffer};
use cokv_cuda::{Cuda, Result};
use cokv_models::ask::{Against, Ask};
use cokv_models::cache::RaggedCache;
use cokv_models::engine::Row;
use cokv_models::source::{Observer, Source};
use cokv_models::{LanguageModel, LoadOptions, Outline, Prefill};

/// Calls and seconds, by name.
#[derive(Default)]
struct Log {
    waits: AtomicBool,
    calls: Mutex<BTreeMap<String, (usize, f64)>>,
}

/// A GPU that is watched.
struct Timed {
    gpu: Gpu,
    log: Arc<Log>,
}

impl Timed {
    fn timed<T>(&self, name: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let waits = self.log.waits.load(Ordering::Relaxed);
        let started = Instant::now();
        let result = call()?;
        if waits {
            self.gpu.synchronise()?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut calls = self.log.calls.lock().unwrap();
        let entry = calls.entry(name.to_owned()).or_default();
        *entry = (entry.0 + 1, entry.1 + seconds);
        Ok(result)
    }
}

impl Device for Timed {
    type Buffer = GpuBuffer;
    fn name(&self) -> &'static str {
        self.gpu.name()
    }
    fn description(&self) -> String {
        self.gpu.description()
    }
    fn take_peak_bytes(&self) -> Option<u64> {
        self.gpu.take_peak_bytes()
    }
    fn blocks_at_once(&self) -> usize {
        self.gpu.blocks_at_once()
    }
    fn free_bytes(&self) -> Option<u64> {
        self.gpu.free_bytes()
    }
    fn allocate(&self, bytes: usize) -> Result<GpuBuffer> {
        self.timed("allocate", || self.gpu.allocate(bytes))
    }
    fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        self.timed("upload", || self.gpu.upload(from, to))
    }
    fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.timed("download", || self.gpu.download(from, to))
    }
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.timed("copy", || self.gpu.copy(from, to, bytes))
    }
    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        self.timed("clear", || self.gpu.clear(at, bytes))
    }
    fn launch(&self, launch: Launch<'_>, arguments: &[Argument]) -> Result<()> {
        self.timed(launch.kernel, || self.gpu.launch(launch, arguments))
    }
    fn product(&self, product: &Product) -> Result<()> {
        let name = format!("product {} x {}", product.columns, product.inner);
        self.timed(&name, || self.gpu.product(product))
    }
    fn synchronise(&self) -> Result<()> {
        self.gpu.synchronise()
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let files = "random:llama3-8b".parse::<Source>()?.fetch(Observer::default())?;
    let outline = Arc::new(Outline::open(&files)?);
    let layout = outline.config().layout;
    let log = Arc::new(Log::default());
    let device =
        Timed { gpu: Gpu::open(0, 128, Some(&std::env::temp_dir().join("cokv-floors")))?, log: Arc::clone(&log) };
    let model = LanguageModel::load_on(Cuda::new(device), outline, &files, &LoadOptions::default(), |_, _| {})?;
    let engine = model.engine();
    let tokens: Vec<u32> = (0..8192u32).map(|at| at.wrapping_mul(2_654_435_761) % 128_000).collect();

    let prefill = || Prefill::run(engine, &tokens, Format::F16, ObservationRequest::default(), |_| ());
    drop(prefill()?);
    show(&log, "prefill of 8192 tokens", 1, || prefill().map(drop))?;
    let window_sums = vec![WindowSum { rows: 32, tail: 0 }];
    let request = ObservationRequest { window_sums, ..ObservationRequest::default() };
    let prefill = Prefill::run(engine, &tokens, Format::F16, request, |_| ())?;
    show(&log, "what SnapKV looks at", 3, || (0..layout.layers).try_for_each(|layer| prefill.view(layer, |_| ())))?;
    let prompt = prefill.prompt();
    let kept = |count: u32| HeadSelection::Tokens((0..count).collect());
    for count in [8192, 128] {
        let selection = Selection { heads: vec![kept(count); layout.heads()] };
        let cut = || RaggedCache::compressed(prompt, &selection).map(drop);
        show(&log, &format!("a cache of {count} tokens of each head"), 3, cut)?;
        for rows in [1, 32] {
            let mut caches = (0..rows)
                .map(|_| RaggedCache::compressed(prompt, &selection))
                .collect::<std::result::Result<Vec<_>, _>>()?;
            caches.iter_mut().try_for_each(|cache| cache.reserve(64))?;
            let mut step = || {
                let mut rows: Vec<Row<'_>> = caches
                    .iter_mut()
                    .map(|cache| Row::new(&[17], cache, Ask::Top { count: 1, log_sum_exp: false }))
                    .collect();
                engine.step(&mut rows).map(drop)
            };
            step()?;
            show(&log, &format!("a step of {rows} rows, {count} tokens kept"), 5, step)?;
        }
    }
    let answer: Vec<u32> = tokens[..15].to_vec();
    let coalition = |row: u64| {
        let members =
            (0..layout.heads()).filter(move |&head| cokv_core::random::mix(row << 32 | head as u64) >> 63 == 1);
        RaggedCache::masked(prompt, &Coalition::from_members(layout.heads(), members), 8)
    };
    let pass = || {
        let mut caches: Vec<RaggedCache> = (0..64).map(coalition).collect();
        let ask = Ask::Along { skip: 0, targets: &answer, against: Against::Nobody, keep: false };
        let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::new(&answer, cache, ask)).collect();
        engine.step(&mut rows).map(drop)
    };
    pass()?;
    show(&log, "64 coalitions of 15 tokens", 3, pass)?;
    Ok(())
}

/// Runs something as it is, and then waiting after every call.
fn show<E>(
    log: &Log,
    what: &str,
    times: usize,
    mut work: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut run = |waits: bool| {
        log.waits.store(waits, Ordering::Relaxed);
        log.calls.lock().unwrap().clear();
        let started = Instant::now();
        (0..times).try_for_each(|_| work())?;
        Ok((started.elapsed().as_secs_f64() / times as f64, std::mem::take(&mut *log.calls.lock().unwrap())))
    };
    let (seconds, asked) = run(false)?;
    let (_, waited) = run(true)?;
    let host: f64 = asked.values().map(|(_, seconds)| seconds / times as f64).sum();
    println!("\n{what}: {:.2} ms, of which {:.2} ms in calls", seconds * 1e3, host * 1e3);
    println!("{:28} {:>6} {:>10} {:>12}", "", "calls", "asking us", "waiting us");
    for (name, (calls, seconds)) in &waited {
        let asking = asked.get(name).map_or(0.0, |(_, seconds)| seconds / times as f64);
        println!("{name:28} {:>6} {:>10.0} {:>12.0}", calls / times, asking * 1e6, seconds / times as f64 * 1e6);
    }
    Ok(())
}
