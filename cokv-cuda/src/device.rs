//! What the backend asks of a machine: memory with addresses, kernels by name, products of matrices.
//!
//! Two machines have it: [`Gpu`](crate::gpu::Gpu), and the emulator of the tests, which runs the same kernels on the host.
//! Everything happens in the order in which it was asked for; only downloads wait for it.

use std::fmt::Debug;

use crate::Result;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// 32 bits.
    F32 = 0,
    /// Half precision.
    F16 = 1,
    /// bfloat16.
    Bf16 = 2,
}

impl Kind {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The kernel of a family for numbers of this kind: `turn_append_f16`.
    pub fn kernel(self, family: &str) -> String {
        format!("{family}_{}", self.name())
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// An address, or any number of 64 bits.
    Address(u64),
    /// `int`, `u32`
    Int(i32),
    /// `float`
    Float(f32),
}

impl From<u64> for Argument {
    fn from(address: u64) -> Self {
        Self::Address(address)
    }
}

impl From<usize> for Argument {
    /// A count, of which kernels take 31 bits.
    fn from(count: usize) -> Self {
        Self::Int(count as i32)
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Self::Float(number)
    }
}

impl From<Kind> for Argument {
    fn from(kind: Kind) -> Self {
        Self::Int(kind as i32)
    }
}

impl From<bool> for Argument {
    fn from(flag: bool) -> Self {
        Self::Int(flag.into())
    }
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Its name in `kernels/`.
    pub kernel: &'a str,
    /// Blocks, in both dimensions.
    pub blocks: [usize; 2],
    /// Threads of a block, a multiple of 32.
    pub threads: usize,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
}

/// One operand of a product: `[rows, columns]`, rows `stride` numbers apart.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Where it begins.
    pub address: u64,
    /// Numbers from one row to the next.
    pub stride: usize,
    /// Of both operands the same.
    pub kind: Kind,
}

/// `y = x wᵀ`, or `y += x wᵀ`, with sums in f32.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// `[rows, inner]`
    pub x: Operand,
    /// `[columns, inner]`
    pub weight: Operand,
    /// `[rows, columns]`, f32
    pub y: u64,
    /// Numbers from one row of y to the next.
    pub y_stride: usize,
    /// Of x and y.
    pub rows: usize,
    /// Of y, rows of the weight.
    pub columns: usize,
    /// Of both operands.
    pub inner: usize,
    /// Whether y is added to.
    pub accumulate: bool,
}

/// Memory of a device, given back when it is dropped and all that was asked for before is done.
pub trait Buffer: Send + Sync + Debug {
    /// Where it begins; a multiple of 256.
    fn address(&self) -> u64;
    /// How long it is.
    fn bytes(&self) -> usize;
}

/// A machine that computes.
pub trait Device: Send + Sync + 'static {
    /// Its memory.
    type Buffer: Buffer + 'static;

    /// Goes into fingerprints: what rounds differently is called differently.
    fn name(&self) -> &'static str;

    /// As people know it.
    fn description(&self) -> String;

    /// Bytes that were held at the peak since this was last asked, where that is known.
    fn take_peak_bytes(&self) -> Option<u64>;

    /// Blocks of `attend_many` that run at once: work is cut so that there are more than these.
    fn blocks_at_once(&self) -> usize;

    /// Bytes that may still be taken, where that is known.
    fn free_bytes(&self) -> Option<u64>;

    /// Memory whose contents nobody knows.
    fn allocate(&self, bytes: usize) -> Result<Self::Buffer>;

    /// Copies from the host. The bytes are taken before this returns.
    fn upload(&self, from: &[u8], to: u64) -> Result<()>;

    /// Copies to the host, after all that was asked for before.
    fn download(&self, from: u64, to: &mut [u8]) -> Result<()>;

    /// Copies within the device's memory.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;

    /// Writes zeros.
    fn clear(&self, at: u64, bytes: usize) -> Result<()>;

    /// Runs a kernel of `kernels/`.
    fn launch(&self, launch: Launch<'_>, arguments: &[Argument]) -> Result<()>;

    /// A product of matrices.
    fn product(&self, product: &Product) -> Result<()>;

    /// Waits for all that was asked for.
    fn synchronise(&self) -> Result<()>;
}
