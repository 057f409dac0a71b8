//! Kernels whose threads make one result together give it in any order.

mod checks;

use checks::sums;
use cokv_emulator::Emulated;

#[test]
fn blocks_make_their_results_together() {
    for seed in 0..6 {
        let Some(device) = Emulated::new(seed) else {
            return cokv_golden::skip("there is no C++ compiler: CUDA kernels are not emulated");
        };
        sums::check(&device, seed).unwrap_or_else(|error| panic!("{error}"));
    }
}
