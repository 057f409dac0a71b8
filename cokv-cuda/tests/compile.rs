//! Kernels compile for every kind of card that is supported, and keep everything in registers.

use std::sync::Mutex;
use std::thread;

use cokv_cuda::device::Kind;
use cokv_cuda::gpu::{find_compiler, resources};
use cokv_cuda::kernels::Program;

/// A100; RTX 30; RTX 40, L4; H100, H200; B200; RTX 50.
const CARDS: [(i32, i32); 6] = [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)];

#[test]
fn every_card_has_its_kernels_without_spills() {
    if let Err(missing) = find_compiler() {
        return cokv_golden::skip(&missing.to_string());
    }
    let general = CARDS.map(|card| (Program::General, card, 128));
    let large = CARDS.map(|card| (Program::Fast(Kind::F16), card, 128));
    let rest = [(Kind::Bf16, 128), (Kind::F16, 64), (Kind::F16, 80), (Kind::F16, 96)];
    let rest = rest.map(|(kind, head_dim)| (Program::Fast(kind), (9, 0), head_dim));
    let queue = Mutex::new(general.into_iter().chain(large).chain(rest));
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((program, card, head_dim)) = { queue.lock().unwrap().next() } {
                    let found = resources(program, card, head_dim).unwrap();
                    assert!(!found.is_empty() && found.iter().all(|kernel| kernel.registers > 0), "{found:?}");
                    let spilling = found.into_iter().filter(|kernel| kernel.spilled_bytes > 0);
                    wrong.lock().unwrap().extend(spilling.map(|kernel| (card, kernel)));
                }
            });
        }
    });
    assert_eq!(wrong.into_inner().unwrap(), []);
}
