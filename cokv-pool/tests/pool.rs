//! Loops on real threads, more of them than cores.
#![cfg(not(loom))]

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cokv_pool::Pool;

/// Few enough for Miri, which runs these too.
const LOOPS: usize = if cfg!(miri) { 20 } else { 20_000 };

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap())
}

/// How often each index was run.
fn counts(pool: &Pool, count: usize) -> Vec<usize> {
    let counts: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
    pool.for_each(count, |index| {
        counts[index].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_index_is_run_once() {
    for threads in [1, 2, 3, 8] {
        let pool = pool(threads);
        assert_eq!(pool.threads(), threads);
        for count in [0, 1, 2, 3, 17, 100, 1000] {
            assert_eq!(counts(&pool, count), vec![1; count], "{count} on {threads} threads");
        }
    }
}

#[test]
fn many_short_loops_on_more_threads_than_cores() {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let pool = pool(3 * cores);
    let sum = AtomicUsize::new(0);
    for round in 0..LOOPS {
        let count = round % 7;
        pool.for_each(count, |index| {
            sum.fetch_add(index, Ordering::Relaxed);
        });
    }
    let expected: usize = (0..LOOPS).map(|round| (0..round % 7).sum::<usize>()).sum();
    assert_eq!(sum.into_inner(), expected);
}

/// Pauses make threads sleep between loops, and callers at the end of them.
#[test]
fn sleepers_are_woken() {
    let pool = pool(4);
    for round in 0..LOOPS / 100 {
        if round % 3 == 0 {
            thread::sleep(std::time::Duration::from_micros(300));
        }
        let ran = AtomicUsize::new(0);
        pool.for_each(8, |index| {
            if index == round % 8 {
                thread::sleep(std::time::Duration::from_micros(150));
            }
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 8);
    }
}

#[test]
fn what_pieces_wrote_is_seen_after_the_loop() {
    let pool = pool(3);
    let slots: Vec<Mutex<Option<usize>>> = (0..257).map(|_| Mutex::new(None)).collect();
    pool.for_each(slots.len(), |index| *slots[index].lock().unwrap() = Some(index * index));
    assert!(slots.iter().enumerate().all(|(index, slot)| *slot.lock().unwrap() == Some(index * index)));
}

#[test]
fn a_loop_inside_a_loop_runs_where_it_is() {
    let pool = pool(4);
    let sum = AtomicUsize::new(0);
    pool.for_each(10, |outer| {
        let here = thread::current().id();
        pool.for_each(10, |inner| {
            assert_eq!(thread::current().id(), here);
            sum.fetch_add(outer * inner, Ordering::Relaxed);
        });
    });
    assert_eq!(sum.into_inner(), 45 * 45);
}

#[test]
fn callers_beside_each_other_all_get_their_results() {
    let pool = pool(3);
    thread::scope(|scope| {
        for caller in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..LOOPS / 100 {
                    assert_eq!(counts(pool, caller * 10 + round % 5), vec![1; caller * 10 + round % 5]);
                }
            });
        }
    });
}

#[test]
fn a_panic_is_the_callers_and_the_pool_goes_on() {
    let pool = pool(3);
    for bad in [0, 5, 9] {
        let ran = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.for_each(10, |index| {
                ran.fetch_add(1, Ordering::Relaxed);
                assert!(index != bad, "piece {index}");
            });
        }));
        let message = *result.unwrap_err().downcast::<String>().unwrap();
        assert_eq!((message, ran.into_inner()), (format!("piece {bad}"), 10));
        assert_eq!(counts(&pool, 100), vec![1; 100]);
    }
}

#[test]
fn a_pool_grows_and_shrinks_between_loops_and_within_them() {
    let pool = pool(1);
    for threads in [4, 2, 7, 1, 3] {
        pool.resize(NonZeroUsize::new(threads).unwrap());
        assert_eq!(pool.threads(), threads);
        assert_eq!(counts(&pool, 50), vec![1; 50]);
    }
    pool.for_each(20, |index| pool.resize(NonZeroUsize::new(1 + index % 4).unwrap()));
    assert_eq!(counts(&pool, 50), vec![1; 50]);
}
