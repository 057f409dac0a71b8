//! Kernels, compiled by NVRTC for the card at hand when they are first used, and kept.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};

use super::libraries::find_compiler;
use crate::error::{CudaError, Result};
use crate::kernels::Program;

/// Machine code of a program for heads of some size, on cards of some kind. It is taken from the cache folder where it lies
/// there, undamaged; a folder that cannot be written is no error.
pub fn cubin(program: Program, capability: (i32, i32), head_dim: usize, cache: Option<&Path>) -> Result<Vec<u8>> {
    let architecture = architecture(capability);
    let options = options(program, &architecture, head_dim);
    let source = program.source();
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two integers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }
        .result()
        .map_err(|error| CudaError::call("nvrtcVersion", error))?;
    let mut hash = Sha256::new();
    hash.update(format!("{options:?} {major}.{minor}\0"));
    hash.update(source.as_bytes());
    let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let file = cache.map(|cache| cache.join("kernels").join(format!("{name}.cubin")));
    if let Some(kept) = file.as_ref().and_then(kept) {
        return Ok(kept);
    }
    let compiled = compile(&source, &options, &architecture)?.code;
    if let Some(file) = file {
        keep(&file, &compiled);
    }
    Ok(compiled)
}

/// What a kernel takes of a multiprocessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// The kernel.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread keeps in memory because it has too few.
    pub spilled_bytes: u32,
}

/// What all kernels of a program take on cards of some kind, of which none has to be there.
///
/// # Errors
/// NVRTC is missing, does not know such cards, or does not compile the program.
pub fn resources(program: Program, capability: (i32, i32), head_dim: usize) -> Result<Vec<Resources>> {
    find_compiler()?;
    let architecture = architecture(capability);
    let mut options = options(program, &architecture, head_dim);
    options.push("--ptxas-options=-v".into());
    Ok(resources_in(&compile(&program.source(), &options, &architecture)?.log))
}

/// Reads what ptxas says of each kernel.
fn resources_in(log: &str) -> Vec<Resources> {
    let number_before = |line: &str, word: &str| -> Option<u32> {
        line.split(word).next()?.split_whitespace().next_back()?.parse().ok()
    };
    let mut found: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            found.push(Resources { kernel, registers: 0, spilled_bytes: 0 });
        }
        let Some(last) = found.last_mut() else { continue };
        last.registers = number_before(line, " registers").unwrap_or(last.registers);
        last.spilled_bytes = number_before(line, " bytes spill stores").unwrap_or(last.spilled_bytes);
    }
    found
}

fn architecture((major, minor): (i32, i32)) -> String {
    format!("sm_{major}{minor}")
}

fn options(program: Program, architecture: &str, head_dim: usize) -> Vec<String> {
    // Each program leaves some of what the headers have unused.
    let options = [format!("--gpu-architecture={architecture}"), "--std=c++17".into(), "--diag-suppress=177".into()];
    options.into_iter().chain(program.options(head_dim)).collect()
}

/// A file's content behind its own hash; nothing where the two do not agree.
fn kept(file: &PathBuf) -> Option<Vec<u8>> {
    let mut bytes = fs::read(file).ok()?;
    let (hash, content) = bytes.split_at_checked(32)?;
    (Sha256::digest(content)[..] == *hash).then(|| bytes.split_off(32))
}

/// Writes what [`kept`] reads, whole or not at all.
fn keep(file: &Path, content: &[u8]) {
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(file.parent().unwrap_or(file))?;
        let part = file.with_extension(format!("part-{}", std::process::id()));
        fs::write(&part, [&Sha256::digest(content)[..], content].concat())?;
        fs::rename(part, file)
    };
    // The next start compiles again.
    let _ = write();
}

/// Machine code, and what the compiler said of it.
struct Compiled {
    code: Vec<u8>,
    log: String,
}

/// Compiles a program; what the compiler says is the error.
fn compile(source: &str, options: &[String], architecture: &str) -> Result<Compiled> {
    let nul = |error| CudaError::call("nvrtcCreateProgram", error);
    let source = CString::new(source).map_err(nul)?;
    let program = result::create_program(&source, Some(c"cokv.cu"))
        .map_err(|error| CudaError::call("nvrtcCreateProgram", error))?;
    // SAFETY: the program was just created, and is destroyed after its last use; buffers have the sizes that were asked for.
    unsafe {
        let compiled = result::compile_program(program, options);
        let outcome = match compiled {
            Ok(()) => machine_code(program).map(|code| Compiled { code, log: log(program) }),
            Err(_) => Err(CudaError::Compile { architecture: architecture.into(), log: log(program) }),
        };
        let _ = result::destroy_program(program);
        outcome
    }
}

/// # Safety
/// The program has been compiled.
unsafe fn machine_code(program: sys::nvrtcProgram) -> Result<Vec<u8>> {
    let mut length = 0;
    let failed = |error| CudaError::call("nvrtcGetCUBIN", error);
    // SAFETY: as the caller says; the buffer has the length that was asked for.
    unsafe {
        sys::nvrtcGetCUBINSize(program, &mut length).result().map_err(failed)?;
        let mut bytes = vec![0u8; length];
        sys::nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast::<c_char>()).result().map_err(failed)?;
        Ok(bytes)
    }
}

/// # Safety
/// The program has been given to the compiler.
unsafe fn log(program: sys::nvrtcProgram) -> String {
    // SAFETY: as the caller says.
    match unsafe { result::get_program_log(program) } {
        // SAFETY: the compiler ends its log with a NUL.
        Ok(log) if !log.is_empty() => unsafe { CStr::from_ptr(log.as_ptr()) }.to_string_lossy().into_owned(),
        _ => "it left no log".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ptxas_says_is_read() {
        let log = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'attend_many_f16_128_2' for 'sm_90'
ptxas info    : Function properties for attend_many_f16_128_2
ptxas         .     40 bytes stack frame, 104 bytes spill stores, 124 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 40 bytes cumulative stack size
ptxas info    : Compiling entry function 'join' for 'sm_90'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 55 registers";
        let of = |kernel: &str, registers, spilled_bytes| Resources { kernel: kernel.into(), registers, spilled_bytes };
        assert_eq!(resources_in(log), [of("attend_many_f16_128_2", 255, 104), of("join", 55, 0)]);
    }

    #[test]
    fn damaged_files_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernels").join("a.cubin");
        assert_eq!(kept(&file), None);
        keep(&file, b"machine code");
        assert_eq!(kept(&file).unwrap(), b"machine code");
        let whole = fs::read(&file).unwrap();
        for damaged in [&whole[..20], &whole[..40], &[&whole[..], b"x"].concat()] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(kept(&file), None);
        }
        // A folder that cannot be made concerns nobody.
        keep(&file.join("below a file"), b"machine code");
    }
}
