//! Kernels, compiled by NVRTC for the card at hand when they are first used, and kept.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};

use crate::error::{CudaError, Result};
use crate::kernels::Program;

/// Machine code of a program for heads of some size, on cards of some kind. It is taken from the cache folder where it lies
/// there, undamaged; a folder that cannot be written is no error.
pub fn cubin(program: Program, capability: (i32, i32), head_dim: usize, cache: Option<&Path>) -> Result<Vec<u8>> {
    let architecture = format!("sm_{}{}", capability.0, capability.1);
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()];
    options.extend(program.options(head_dim));
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
    let compiled = compile(&source, &options, &architecture)?;
    if let Some(file) = file {
        keep(&file, &compiled);
    }
    Ok(compiled)
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

/// Compiles a program; what the compiler says is the error.
fn compile(source: &str, options: &[String], architecture: &str) -> Result<Vec<u8>> {
    let nul = |error| CudaError::call("nvrtcCreateProgram", error);
    let source = CString::new(source).map_err(nul)?;
    let program = result::create_program(&source, Some(c"cokv.cu"))
        .map_err(|error| CudaError::call("nvrtcCreateProgram", error))?;
    // SAFETY: the program was just created, and is destroyed after its last use; buffers have the sizes that were asked for.
    unsafe {
        let compiled = result::compile_program(program, options);
        let outcome = match compiled {
            Ok(()) => machine_code(program),
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
