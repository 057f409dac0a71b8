//! Compiles the kernels for the host. Where there is no C++ compiler there is no emulator, and its tests are skipped.

fn main() {
    let kernels = "../cokv-cuda/kernels";
    println!("cargo::rustc-check-cfg=cfg(emulator)");
    println!("cargo::rerun-if-changed=build.rs");
    for file in SOURCES {
        println!("cargo::rerun-if-changed=src/{file}");
    }
    println!("cargo::rerun-if-changed={kernels}");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        // What NVRTC takes the kernels for.
        .std("c++17")
        .opt_level(2)
        .warnings(false)
        .cpp_link_stdlib(None)
        .include(kernels)
        .file("src/kernels.cpp");
    for flag in FLAGS {
        build.flag(flag);
    }
    match build.try_compile("cokv_emulated_kernels") {
        Ok(()) => {
            println!("cargo::rustc-cfg=emulator");
            // The tests of planted faults compile the kernels once more.
            println!("cargo::rustc-env=COKV_EMULATOR_COMPILER={}", build.get_compiler().path().display());
            println!("cargo::rustc-env=COKV_EMULATOR_FLAGS={}", FLAGS.join(" "));
        }
        Err(error) => println!("cargo::warning=no emulator of CUDA kernels: {error}"),
    }
}

/// C++ of this crate.
const SOURCES: [&str; 6] = ["device.h", "entries.h", "kernels.cpp", "machine.h", "numbers_16.h", "warp.h"];

/// Besides warnings about CUDA's words: nothing that needs the C++ library, the same sums on every processor, and symbols
/// that a second copy of the kernels in the process may have as well.
const FLAGS: [&str; 7] = [
    "-fno-exceptions",
    "-fno-rtti",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-Wno-attributes",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
];
