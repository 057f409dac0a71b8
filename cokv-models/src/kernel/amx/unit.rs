//! The processor's unit, by its instructions: the compiler has no names for them yet that are stable.

use std::arch::asm;
use std::marker::PhantomData;

use super::{Shape, TILES, Tiles};

/// The unit of this thread.
pub(crate) struct Amx {
    /// Of one thread.
    thread: PhantomData<*const ()>,
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// An instruction that may change tiles. All are said to change: the compiler keeps nothing in them, and knows no single one by
/// a number that is generic.
macro_rules! tiles {
    ($($instruction:tt)+) => {
        asm!(
            $($instruction)+,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        )
    };
}

impl Tiles for Amx {
    #[inline(always)]
    unsafe fn configured(shapes: [Shape; TILES]) -> Self {
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (tile, shape) in shapes.into_iter().enumerate() {
            configuration.row_bytes[tile] = shape.row_bytes;
            configuration.rows[tile] = shape.rows;
        }
        // SAFETY: the processor has the unit by the caller's promise; `ldtilecfg` reads 64 bytes and sets tiles to zero.
        unsafe { tiles!("ldtilecfg [{}]", in(reg) &raw const configuration) };
        Self { thread: PhantomData }
    }

    #[inline(always)]
    fn zero<const TILE: usize>(&mut self) {
        // SAFETY: the unit is configured while `self` lives, here and below.
        unsafe { tiles!("tilezero tmm{}", const TILE) };
    }

    #[inline(always)]
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: the caller has the rows there.
        unsafe { tiles!("tileloadd tmm{}, [{} + {}]", const TILE, in(reg) from, in(reg) stride) };
    }

    #[inline(always)]
    unsafe fn store<const TILE: usize>(&self, to: *mut u8, stride: usize) {
        // SAFETY: the caller has room for the rows there.
        unsafe { tiles!("tilestored [{} + {}], tmm{}", in(reg) to, in(reg) stride, const TILE) };
    }

    #[inline(always)]
    fn multiply_bytes<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: as above.
        unsafe { tiles!("tdpbssd tmm{}, tmm{}, tmm{}", const C, const A, const B) };
    }

    #[inline(always)]
    fn multiply_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: as above.
        unsafe { tiles!("tdpbf16ps tmm{}, tmm{}, tmm{}", const C, const A, const B) };
    }
}

impl Drop for Amx {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { tiles!("tilerelease") };
    }
}
