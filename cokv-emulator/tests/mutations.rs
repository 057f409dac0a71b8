//! Faults that are planted into the kernels are all found: by wrong numbers, or because the emulator refuses what they do.
//!
//! A fault is a piece of text that is replaced by another. The piece must be there exactly once; where a kernel has changed, its
//! faults change with it.

mod checks;
mod faults;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use checks::attention::{Case, Kernel};
use checks::sums;
use cokv_cuda::device::Kind;
use cokv_emulator::{Emulated, Kernels, Random};
use faults::Fault;

/// Some of the attention kernels: compiling all of them for every fault takes too long.
const ATTENTION: &str = r#"
#include "device.h"
#include "numbers.h"
#include "tables.h"
#include "attend_few.cu"
#include "attend_many.cu"
#include "attend_plain.cu"
#include "join.cu"
ATTEND_FEW(F16, f16, 64)
ATTEND_FEW(F16, f16, 80)
ATTEND_MANY(F16, f16, 64, 1)
ATTEND_MANY(F16, f16, 80, 1)
"#;

/// Kernels whose threads make one result together.
const SUMS: &str = r#"
#include "device.h"
#include "numbers.h"
#include "tables.h"
#include "elements.cu"
#include "answers.cu"
#include "observations.cu"
"#;

const KEYS: [u32; 12] = [257, 200, 129, 128, 127, 65, 64, 63, 17, 16, 15, 5];

#[test]
fn every_fault_of_attention_is_found() {
    find_all(ATTENTION, faults::ATTENTION, attention_failure);
}

#[test]
fn every_fault_of_sums_is_found() {
    find_all(SUMS, faults::SUMS, |library| (0..4).find_map(|seed| sums::check(&device(library, seed), seed).err()));
}

fn find_all(unit: &str, faults: &[Fault], failure: impl Fn(&Path) -> Option<String> + Sync) {
    let Some(compiler) = option_env!("COKV_EMULATOR_COMPILER") else {
        return cokv_golden::skip("there is no C++ compiler: CUDA kernels are not emulated");
    };
    let found = |fault: Option<&Fault>| {
        let folder = tempfile::tempdir().unwrap();
        failure(&compile(compiler, folder.path(), unit, fault))
    };
    assert_eq!(found(None), None, "kernels without a planted fault");
    let queue = Mutex::new(faults.iter());
    let missed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(fault) = { queue.lock().unwrap().next() } {
                    match found(Some(fault)) {
                        Some(error) => println!("{}: {}", fault.name, error.chars().take(150).collect::<String>()),
                        None => missed.lock().unwrap().push(fault.name),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "faults that nothing found: {missed:#?}");
}

/// Compiles kernels with a fault into a shared library.
fn compile(compiler: &str, folder: &Path, unit: &str, fault: Option<&Fault>) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kernels = here.join("../cokv-cuda/kernels");
    if let Some(fault) = fault {
        let mut text = fs::read_to_string(kernels.join(fault.file)).unwrap();
        for &(piece, instead) in fault.changes {
            let places = text.matches(piece).count();
            assert_eq!(
                places, 1,
                "the fault \"{}\" is stale: {piece:?} is {places} times in {}",
                fault.name, fault.file
            );
            text = text.replace(piece, instead);
        }
        fs::write(folder.join(fault.file), text).unwrap();
    }
    let source = folder.join("unit.cpp");
    fs::write(&source, unit).unwrap();
    let library = folder.join("kernels.so");
    let mut command = Command::new(compiler);
    command
        .args(["-std=c++17", "-O0", "-shared", "-fPIC"])
        .args(option_env!("COKV_EMULATOR_FLAGS").unwrap_or_default().split(' '));
    // The changed file is found before the one that it was made of.
    for include in [folder, &here.join("src"), &kernels] {
        command.arg("-I").arg(include);
    }
    let output = command.arg("-o").arg(&library).arg(&source).output().unwrap();
    let name = fault.map_or("no fault", |fault| fault.name);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    library
}

fn device(library: &Path, seed: u64) -> Emulated {
    Emulated::with_kernels(Kernels::load(library).unwrap(), seed)
}

/// What goes wrong with attention, if anything does.
fn attention_failure(library: &Path) -> Option<String> {
    let kernels =
        [(Kernel::Few, 64), (Kernel::Many(1), 64), (Kernel::Few, 80), (Kernel::Many(1), 80), (Kernel::Plain, 80)];
    let draw = |round: u64, keys: u32| {
        kernels.map(|(kernel, head_dim)| {
            Case::draw(&mut Random::new(round * 1000 + u64::from(keys)), kernel, Kind::F16, head_dim, keys)
        })
    };
    let drawn = (0..2).flat_map(|round| KEYS.into_iter().flat_map(move |keys| draw(round, keys)));
    let edges = kernels.into_iter().flat_map(|(kernel, head_dim)| Case::edges(kernel, Kind::F16, head_dim));
    edges.chain(drawn).find_map(|case| case.check(&device(library, case.seed)).err())
}
