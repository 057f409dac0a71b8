//! Parallel loops on a set of threads that share a machine with others.
//!
//! A step of a decoder is some two hundred loops of a few microseconds each. A pool that waits for every one of its threads
//! in every loop is as slow as the one that the system has just put aside for a neighbour. Here
//!
//! - whoever calls works too, and a loop is over when its **pieces** are done: a thread that has taken none is not waited for;
//! - pieces are taken from one counter, a few at a time, so that a thread which is put aside holds back little;
//! - threads without work look for some a moment longer, since the next loop is near, and then sleep. So does a caller that
//!   waits for others' last pieces: a thread that sleeps leaves its core to whoever holds them, and gets it back
//!   sooner than one that has spent its share on waiting;
//! - helpers offer their core before it is taken away from them (`turn.rs`);
//! - a pool runs one loop at a time. Who finds it busy, as a loop inside a loop does, runs the loop alone.
//!
//! What a loop computes must not depend on who runs which piece; then its results are the same for any number of threads.

mod cores;
mod pool;
mod sync;
mod turn;
mod worker;

pub use self::pool::Pool;

/// The examples of its README are tested here.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
