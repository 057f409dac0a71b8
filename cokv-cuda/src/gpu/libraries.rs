//! Where NVIDIA's libraries lie: the driver's with the driver, cuBLASLt and NVRTC with a toolkit or with PyTorch's wheels.
//!
//! cudarc asks the system for a library by its name and panics where there is none, so that all of them are looked for before
//! anything is called. What lies elsewhere is opened by its full path first: the system then knows it by its name.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use cudarc::{cublaslt, driver, nvrtc};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};

use crate::error::{CudaError, Result};

/// A folder in which libraries are looked for before anywhere else.
pub const FOLDER: &str = "COKV_CUDA_LIBRARIES";

/// Major versions of CUDA whose libraries will do, the best first.
const VERSIONS: [u32; 2] = [13, 12];

/// Makes sure that all libraries can be called.
///
/// # Errors
/// Which one is missing, what it is for, where it was looked for, and what to do.
pub fn find() -> Result<()> {
    // SAFETY: opens a library of the system's and closes it again.
    if !unsafe { driver::sys::is_culib_present() } {
        return Err(CudaError::Library {
            library: "NVIDIA's driver",
            what: "it runs everything",
            names: "libcuda.so.1".into(),
            places: "on the system's library paths".into(),
            advice: "Install the driver, or compute on the processor: device = \"cpu\"",
        });
    }
    find_compiler()?;
    find_one(&folders(), "cuBLASLt", "it multiplies matrices", &["cublasLt"], cublaslt::sys::is_culib_present)
}

/// Makes sure that kernels can be compiled, which takes no GPU.
///
/// # Errors
/// As [`find`].
pub fn find_compiler() -> Result<()> {
    // NVRTC of the wheels does not find its own second half.
    let parts = ["nvrtc-builtins", "nvrtc"];
    find_one(&folders(), "NVRTC", "it compiles the kernels", &parts, nvrtc::sys::is_culib_present)
}

fn find_one(
    folders: &[PathBuf],
    library: &'static str,
    what: &'static str,
    parts: &[&str],
    present: unsafe fn() -> bool,
) -> Result<()> {
    // SAFETY: as above.
    let known = || unsafe { present() };
    // A folder that the user names comes before the system's.
    if env::var_os(FOLDER).is_none() && known() {
        return Ok(());
    }
    for folder in folders {
        for version in VERSIONS {
            let files: Vec<PathBuf> = parts.iter().filter_map(|part| file(folder, part, version)).collect();
            if files.len() == parts.len() && files.iter().all(|file| open(file)) && known() {
                return Ok(());
            }
        }
    }
    if known() {
        return Ok(());
    }
    let list = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(CudaError::Library {
        library,
        what,
        names: format!("lib{}.so.{{13,12}}", parts[parts.len() - 1]),
        places: match folders {
            [] => "on the system's library paths".into(),
            _ => format!("on the system's library paths and in {}", list(folders)),
        },
        advice: "Install CUDA's toolkit (12 or 13), or `pip install nvidia-cublas nvidia-cuda-nvrtc`, or name the folder that has \
                 them in COKV_CUDA_LIBRARIES",
    })
}

/// The file of a library, of a version: `libnvrtc.so.13`, and `libnvrtc-builtins.so.13.0`, which has a minor version, too.
fn file(folder: &Path, part: &str, version: u32) -> Option<PathBuf> {
    let exact = format!("lib{part}.so.{version}");
    let entries = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name == exact || name.starts_with(&format!("{exact}."))
    };
    entries.filter(fits).min_by_key(|path| path.as_os_str().len())
}

/// Opens a library for good.
fn open(file: &Path) -> bool {
    // SAFETY: NVIDIA's libraries do nothing but set themselves up when they are loaded.
    match unsafe { Library::open(Some(file), RTLD_LAZY | RTLD_GLOBAL) } {
        Ok(library) => {
            std::mem::forget(library);
            true
        }
        Err(_) => false,
    }
}

/// Folders that exist and may have libraries: the user's, a toolkit's, those of Python's wheels.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env::var_os(FOLDER).map(PathBuf::from).into_iter().collect();
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    folders.extend(toolkits.chain([PathBuf::from("/usr/local/cuda")]).map(|toolkit| toolkit.join("lib64")));
    for site in site_packages() {
        let nvidia = site.join("nvidia");
        folders.extend(["cu13/lib", "cuda_nvrtc/lib", "cublas/lib"].map(|inner| nvidia.join(inner)));
    }
    folders.retain(|folder| folder.is_dir());
    folders.dedup();
    folders
}

/// Where Python's packages lie: of the environment that is active, of the `python3` on the path, of the user.
fn site_packages() -> Vec<PathBuf> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter(|folder| folder.join("python3").exists());
    let prefixes = active.chain(on_path.filter_map(|folder| folder.parent().map(Path::to_path_buf)));
    let user = env::home_dir().map(|home| home.join(".local"));
    let mut found = Vec::new();
    for prefix in prefixes.chain(user) {
        let Ok(entries) = fs::read_dir(prefix.join("lib")) else { continue };
        for entry in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let python = entry.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("python3"));
            if python {
                found.extend(["site-packages", "dist-packages"].map(|folder| entry.join(folder)));
            }
        }
    }
    found
}
