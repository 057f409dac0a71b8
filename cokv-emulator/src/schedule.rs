//! The order in which the threads of a block have their turns.

use std::cell::RefCell;
use std::ffi::c_void;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::copies::Copies;
use crate::kernels::Entry;
use crate::machine::{Machine, Pause, Place, Whom};
use crate::memory::{FILL, Ranges};
use crate::random::Random;

const LANES: usize = 32;

/// Of each coroutine.
const STACK_BYTES: usize = 64 << 10;

/// Units of 16 bytes behind shared memory that nobody may write.
const GUARD: usize = 64;

/// One time in so many, a warp that could go on does not.
const BREAK: usize = 64;

thread_local! {
    /// Stacks that no block uses now.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// A kernel to be run.
pub struct Work<'a> {
    pub entry: &'a Entry,
    /// Where each argument lies.
    pub arguments: &'a [*const c_void],
    pub blocks: [usize; 2],
    /// A multiple of 32.
    pub threads: usize,
    pub shared_bytes: usize,
    pub ranges: &'a Ranges,
    /// Draws the order.
    pub random: Random,
}

/// Runs one block after the other. What a GPU would not do is an error.
pub fn run(mut work: Work<'_>) -> Result<(), String> {
    let mut shared = vec![[0; 16]; work.shared_bytes.div_ceil(16) + GUARD];
    let guarded_bytes = size_of_val(&shared[..]);
    let mut machine = Machine::new(work.threads, &mut shared, work.shared_bytes, work.ranges);
    let machine = &raw mut machine;
    let mut exchanges = vec![[Exchange([0; _]); 2]; work.threads / LANES];
    let [blocks_x, blocks_y] = work.blocks;
    for (block, block_y) in (0..blocks_y).flat_map(|y| (0..blocks_x).map(move |x| (x, y))) {
        // SAFETY: no thread runs, and the shared memory is as long as that.
        unsafe {
            (*machine).block = block as u32;
            (*machine).block_y = block_y as u32;
            (*machine).shared.write_bytes(FILL, guarded_bytes);
        }
        let eager = work.random.one_in(2);
        let mut of_block = Block::new(&work, eager, machine, &mut exchanges);
        let result = of_block.run(&mut work.random);
        of_block.give_stacks_back();
        result.map_err(|error| format!("block ({block}, {block_y}): {error}"))?;
        // SAFETY: no thread runs.
        let guard = unsafe { std::slice::from_raw_parts((*machine).shared, guarded_bytes) };
        if let Some(at) = guard[work.shared_bytes..].iter().position(|&byte| byte != FILL) {
            return Err(format!("block ({block}, {block_y}): shared memory was written {at} bytes past its end"));
        }
    }
    Ok(())
}

/// What a warp exchanges numbers through: the largest are fragments of a product.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Exchange([u8; 1536]);

struct Thread {
    coroutine: Coroutine<(), Pause, (), DefaultStack>,
    yielder: *const Yielder<(), Pause>,
    copies: Copies,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Ready,
    Waits(Whom, Place),
    Over,
}

struct Block<'a> {
    machine: *mut Machine,
    threads: Vec<Thread>,
    exchanges: &'a mut [[Exchange; 2]],
    /// How often each warp has waited for all of it.
    rounds: Vec<usize>,
}

impl<'a> Block<'a> {
    fn new(work: &Work<'_>, eager: bool, machine: *mut Machine, exchanges: &'a mut [[Exchange; 2]]) -> Self {
        let run = work.entry.run;
        let arguments = work.arguments.as_ptr();
        let thread = |_| Thread {
            coroutine: Coroutine::with_stack(stack(), move |yielder, ()| {
                // SAFETY: the machine outlives the block, and this thread has its turn. The arguments were checked.
                unsafe {
                    (*machine).yielder = yielder;
                    run(machine, arguments);
                }
            }),
            yielder: std::ptr::null(),
            copies: Copies::new(eager),
            state: State::Ready,
        };
        let threads = (0..work.threads).map(thread).collect();
        Self { machine, threads, rounds: vec![0; exchanges.len()], exchanges }
    }

    fn run(&mut self, random: &mut Random) -> Result<(), String> {
        let mut turns: Vec<usize> = (0..self.rounds.len()).collect();
        loop {
            random.shuffle(&mut turns);
            let mut moved = false;
            for &warp in &turns {
                moved |= self.run_warp(warp, random)?;
            }
            let released = self.release(0, self.threads.len(), Whom::Block)?;
            if !moved && !released {
                return if self.threads.iter().all(|thread| matches!(thread.state, State::Over)) {
                    Ok(())
                } else {
                    Err(self.deadlock())
                };
            }
        }
    }

    /// Runs a warp as far as it can, and says whether any of it had something to do.
    fn run_warp(&mut self, warp: usize, random: &mut Random) -> Result<bool, String> {
        let first = warp * LANES;
        let mut moved = false;
        loop {
            for thread in first..first + LANES {
                if matches!(self.threads[thread].state, State::Ready) {
                    self.run_thread(thread)?;
                    moved = true;
                }
            }
            if !self.release(first, LANES, Whom::Warp)? {
                return Ok(moved);
            }
            self.rounds[warp] += 1;
            if random.one_in(BREAK) {
                return Ok(true);
            }
        }
    }

    /// Runs a thread until it waits for others.
    fn run_thread(&mut self, index: usize) -> Result<(), String> {
        let warp = index / LANES;
        let thread = &mut self.threads[index];
        // SAFETY: no other thread runs.
        unsafe {
            (*self.machine).thread = index as u32;
            (*self.machine).exchange = self.exchanges[warp][self.rounds[warp] % 2].0.as_mut_ptr();
            (*self.machine).yielder = thread.yielder;
            (*self.machine).copies = &raw mut thread.copies;
        }
        thread.state = match thread.coroutine.resume(()) {
            CoroutineResult::Yield(Pause::Wait(whom, place)) => State::Waits(whom, place),
            CoroutineResult::Yield(Pause::Fault(fault)) => return Err(format!("thread {index}: {fault}")),
            CoroutineResult::Return(()) => State::Over,
        };
        // SAFETY: it has come to rest.
        thread.yielder = unsafe { (*self.machine).yielder };
        Ok(())
    }

    /// Lets all these threads go on if all of them wait for one another.
    fn release(&mut self, first: usize, count: usize, whom: Whom) -> Result<bool, String> {
        let threads = &mut self.threads[first..first + count];
        let mut common = None;
        for (index, thread) in threads.iter().enumerate() {
            let State::Waits(for_whom, place) = thread.state else { return Ok(false) };
            if for_whom != whom {
                return Ok(false);
            }
            let common = *common.get_or_insert(place);
            if common != place {
                let other = first + index;
                return Err(format!("thread {first} waits at {common} for thread {other}, which waits at {place}"));
            }
        }
        for thread in threads {
            thread.state = State::Ready;
        }
        Ok(true)
    }

    /// Who waits for ever.
    fn deadlock(&self) -> String {
        let describe = |index: usize| match self.threads[index].state {
            State::Waits(whom, place) => format!("thread {index} waits at {place} for all of its {whom:?}"),
            State::Over => format!("thread {index} is over"),
            State::Ready => format!("thread {index} could go on"),
        };
        let waits = (0..self.threads.len()).find(|&index| matches!(self.threads[index].state, State::Waits(..)));
        let first = waits.unwrap_or(0);
        let kind = std::mem::discriminant(&self.threads[first].state);
        let differs = |&index: &usize| match (self.threads[index].state, self.threads[first].state) {
            (State::Waits(_, place), State::Waits(_, other)) => place != other,
            (state, _) => std::mem::discriminant(&state) != kind,
        };
        let other = (0..self.threads.len()).find(differs).map(describe).unwrap_or_default();
        format!("deadlock: {}, {other}", describe(first))
    }

    fn give_stacks_back(self) {
        STACKS.with_borrow_mut(|stacks| {
            for mut thread in self.threads {
                if thread.coroutine.started() && !thread.coroutine.done() {
                    // SAFETY: a kernel that is left in its middle has nothing to drop.
                    unsafe { thread.coroutine.force_reset() };
                }
                if thread.coroutine.done() {
                    stacks.push(thread.coroutine.into_stack());
                }
            }
        });
    }
}

fn stack() -> DefaultStack {
    let kept = STACKS.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| DefaultStack::new(STACK_BYTES).expect("memory for a stack"))
}
