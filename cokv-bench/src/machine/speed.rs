//! What the machine can do, to hold the model's speeds against.

use std::time::{Duration, Instant};

use cokv_models::backend::Ceilings;
use cokv_models::{instructions, product, threads};
use serde::Serialize;

/// What the machine can do with all its threads.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The accelerator, where that is what is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Threads.
    pub threads: usize,
    /// What the processor's kernels are made of.
    pub instructions: &'static str,
    /// Bytes read from memory in a second, in GB.
    pub read_gigabytes_per_second: f64,
    /// Operations of a product of two matrices in a second, in billions.
    pub product_gigaflops: f64,
    /// How the numbers of these are stored.
    pub product_of: &'static str,
}

impl Machine {
    /// Measures both in a second or two.
    pub fn measure() -> Self {
        Self {
            device: None,
            threads: threads(),
            instructions: instructions(),
            read_gigabytes_per_second: bandwidth(threads()),
            product_gigaflops: gigaflops(),
            product_of: "f32",
        }
    }

    /// An accelerator in the place of this machine's processor.
    pub fn with_device(self, ceilings: Ceilings) -> Self {
        Self {
            device: Some(ceilings.device),
            read_gigabytes_per_second: ceilings.bytes_per_second / 1e9,
            product_gigaflops: ceilings.operations_per_second / 1e9,
            product_of: ceilings.numbers,
            ..self
        }
    }
}

/// Every thread sums numbers that fit into no cache; the best of three counts.
fn bandwidth(threads: usize) -> f64 {
    const NUMBERS: usize = 1 << 25;
    const PASSES: usize = 3;
    let numbers = vec![1u64; NUMBERS];
    let pass = || {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in numbers.chunks(NUMBERS.div_ceil(threads)) {
                scope.spawn(move || {
                    std::hint::black_box(part.iter().fold(0u64, |sum, number| sum.wrapping_add(*number)))
                });
            }
        });
        started.elapsed()
    };
    let best = (0..PASSES).map(|_| pass()).min().unwrap_or(Duration::MAX);
    size_of_val(&numbers[..]) as f64 / best.as_secs_f64() / 1e9
}

fn gigaflops() -> f64 {
    const SIDE: usize = 1536;
    const PRODUCTS: usize = 8;
    let square = vec![1.0; SIDE * SIDE];
    let mut best = f64::INFINITY;
    for _ in 0..PRODUCTS {
        let started = Instant::now();
        std::hint::black_box(product(&square, &square, SIDE, SIDE, SIDE));
        best = best.min(started.elapsed().as_secs_f64());
    }
    2.0 * (SIDE as f64).powi(3) / best / 1e9
}
