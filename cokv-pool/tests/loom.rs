//! Every order in which the threads of a small pool may do things: `cargo xtask loom`.
#![cfg(loom)]

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cokv_pool::Pool;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};

fn explore(check: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    // Threads that are switched oftener against their will find nothing new (three were tried) and take minutes.
    model.preemption_bound = Some(2);
    model.check(check);
}

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap())
}

/// A loop of two pieces.
fn both_pieces_run(pool: &Pool) {
    let ran = AtomicUsize::new(0);
    pool.for_each(2, |_| {
        ran.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(ran.load(Ordering::Relaxed), 2);
}

#[test]
fn two_loops_run_every_piece_once_and_are_seen_to_the_end() {
    explore(|| {
        let pool = pool(2);
        for _ in 0..2 {
            // Written without order by the pieces: that the caller sees it is the pool's doing.
            let cells = [const { () }; 2].map(|()| loom::cell::UnsafeCell::new(0));
            struct Shared([loom::cell::UnsafeCell<i32>; 2]);
            // SAFETY: every piece writes a cell of its own.
            unsafe impl Sync for Shared {}
            let shared = Shared(cells);
            let of = &shared;
            pool.for_each(2, |index| of.0[index].with_mut(|cell| unsafe { *cell += 1 }));
            for cell in &shared.0 {
                cell.with(|cell| assert_eq!(unsafe { *cell }, 1));
            }
        }
    });
}

#[test]
fn two_workers_share_a_loop() {
    explore(|| {
        let pool = pool(3);
        both_pieces_run(&pool);
    });
}

#[test]
fn who_finds_the_pool_busy_runs_alone() {
    explore(|| {
        let pool = Arc::new(pool(2));
        let beside = {
            let pool = pool.clone();
            loom::thread::spawn(move || {
                both_pieces_run(&pool);
            })
        };
        both_pieces_run(&pool);
        beside.join().unwrap();
    });
}

#[test]
fn a_pool_that_shrinks_loses_nothing() {
    explore(|| {
        let pool = pool(2);
        let ran = AtomicUsize::new(0);
        pool.for_each(2, |index| {
            ran.fetch_add(1, Ordering::Relaxed);
            if index == 0 {
                pool.resize(NonZeroUsize::MIN);
            }
        });
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_panic_reaches_the_caller() {
    explore(|| {
        let pool = pool(2);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.for_each(2, |index| {
                if index == 1 {
                    // Without the hook, which would write a line for every order.
                    std::panic::resume_unwind(Box::new("stop"));
                }
            });
        }));
        assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "stop");
    });
}
