//! Loops in a second, as a decoder's step has them, alone and beside busy threads: `cargo run --release --example beside`.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cokv_pool::Pool;

/// Pieces of a loop, and multiplications of a piece: about four microseconds.
const PIECES: usize = 12;
const MULTIPLICATIONS: u64 = 4000;

fn work(multiplications: u64) {
    black_box((0..multiplications).fold(1u64, |number, _| black_box(number).wrapping_mul(0x5851_F42D_4C95_7F2D)));
}

fn main() {
    let stop = AtomicBool::new(false);
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        for beside in 0..=cores {
            if beside > 0 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        work(10_000);
                    }
                });
            }
            for threads in 1..=cores {
                let pool = Pool::new(NonZeroUsize::new(threads).expect("at least one"));
                let (start, mut loops) = (Instant::now(), 0);
                let mut slow = [0usize; 4];
                let mut last = Instant::now();
                while start.elapsed() < Duration::from_secs(2) {
                    pool.for_each(PIECES, |_| work(MULTIPLICATIONS));
                    let now = Instant::now();
                    let took = (now - last).as_micros();
                    last = now;
                    for (slow, limit) in slow.iter_mut().zip([100, 500, 2000, 6000]) {
                        *slow += usize::from(took > limit);
                    }
                    loops += 1;
                }
                println!(
                    "{beside} beside, {threads} threads: {:.0} loops/s; longer than 0.1, 0.5, 2, 6 ms: {slow:?}",
                    f64::from(loops) / start.elapsed().as_secs_f64()
                );
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
