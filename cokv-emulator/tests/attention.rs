//! The attention kernels give what attention is, whatever the order in which their threads run.

mod checks;

use checks::attention::{Case, Kernel};
use cokv_cuda::device::Kind;
use cokv_emulator::{Emulated, Random};

/// About the tiles of 16 and of 64 keys, and about several of them.
const KEYS: [u32; 18] = [1, 2, 5, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 129, 192, 255, 256, 257];

fn check(kernel: Kernel, kinds: &[Kind], head_dims: &[usize], rounds: u64) {
    for (&kind, &head_dim) in kinds.iter().flat_map(|kind| head_dims.iter().map(move |head_dim| (kind, head_dim))) {
        let drawn = (0..rounds).flat_map(|round| KEYS.map(|keys| (round, keys))).map(|(round, keys)| {
            let mut random = Random::new((round * 1000 + u64::from(keys)) * 1000 + head_dim as u64);
            Case::draw(&mut random, kernel, kind, head_dim, keys)
        });
        for case in drawn.chain(Case::edges(kernel, kind, head_dim)) {
            let Some(device) = Emulated::new(case.seed) else {
                return cokv_golden::skip("there is no C++ compiler: CUDA kernels are not emulated");
            };
            case.check(&device).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

#[test]
fn few_queries_attend() {
    check(Kernel::Few, &[Kind::F16, Kind::Bf16], &[64, 80, 96, 128], 3);
}

#[test]
fn up_to_64_queries_attend() {
    check(Kernel::Many(1), &[Kind::F16, Kind::Bf16], &[64, 80, 96, 128], 1);
}

#[test]
fn up_to_128_queries_attend() {
    check(Kernel::Many(2), &[Kind::F16, Kind::Bf16], &[64, 80, 96, 128], 1);
}

#[test]
fn queries_of_any_size_attend() {
    check(Kernel::Plain, &[Kind::F32, Kind::F16, Kind::Bf16], &[8, 20, 64, 80, 128, 256], 1);
}
