//! An emulator of a GPU for tests: the CUDA kernels of `cokv-cuda`, compiled as C++ and run on the host.
//!
//! Every CUDA thread is a coroutine, and blocks run one after the other. One warp runs as far as it can before the next
//! has its turn, in an order that a seed draws: warps in lockstep would hide missing barriers. Copies into shared memory
//! are done as early or as late as they may be. Shared memory and new buffers are full of NaN. Misaligned accesses,
//! accesses outside of memory, writes past the end of a buffer and threads that wait at different barriers end a launch
//! with an error.
//!
//! It cannot show weak ordering of memory, races within a warp, or how long anything takes.
#![warn(missing_docs)]

mod copies;
mod emulated;
mod kernels;
mod machine;
mod memory;
mod product;
mod random;
mod schedule;

pub use emulated::Emulated;
pub use kernels::Kernels;
pub use memory::HostBuffer;
pub use random::Random;
