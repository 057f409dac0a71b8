//! Tiles of a product: some rows by some panels, kept in registers while the inner dimension streams by.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod plain;

use std::ops::Range;

use super::{Activations, Columns, Weight};

/// Computes some panels of all rows, with the widest instructions that the processor has.
///
/// # Safety
///
/// Nothing else may look at these panels' columns meanwhile.
pub(super) unsafe fn panels(w: &Weight, panels: Range<usize>, x: &Activations, out: &Columns<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if crate::kernel::simd::has_tiles() && x.rows() >= amx::MANY_ROWS {
            // SAFETY: the processor has what the function is compiled for, and the system permits it; the rest is the caller's
            // promise.
            return unsafe { amx::panels::<crate::kernel::amx::Amx>(w, panels, x, out) };
        }
        if crate::kernel::simd::has_avx512() && has!("avx512vnni") {
            // SAFETY: as above.
            return unsafe { avx512::panels(w, panels, x, out) };
        }
        if crate::kernel::simd::has_avx2() {
            // SAFETY: as above.
            return unsafe { avx2::panels(w, panels, x, out) };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { plain::panels(w, panels, x, out) };
}

/// Calls `$run::<BITS, MINIMA, …>`, compiled for each format.
#[cfg(target_arch = "x86_64")]
macro_rules! by_format {
    ($w:ident, $run:ident($($argument:expr),+)) => {
        match $w.format {
            Format::Q2_K => $run::<2, true>($($argument),+),
            Format::Q3_K => $run::<3, false>($($argument),+),
            Format::Q4_0 => $run::<4, false>($($argument),+),
            Format::Q4_1 | Format::Q4_K => $run::<4, true>($($argument),+),
            Format::Q5_0 => $run::<5, false>($($argument),+),
            Format::Q5_1 | Format::Q5_K => $run::<5, true>($($argument),+),
            Format::Q6_K => $run::<6, false>($($argument),+),
            Format::Q8_0 => $run::<8, false>($($argument),+),
        }
    };
}
#[cfg(target_arch = "x86_64")]
use by_format;

/// Calls `tile::<BITS, MINIMA, ROWS, PANELS>` over all rows and panels: full tiles first, then what is left of rows.
#[cfg(target_arch = "x86_64")]
macro_rules! cover {
    ($w:ident, $panels:ident, $x:ident, $out:ident, $panels_of_tile:literal, [$($rows:literal),+]) => {{
        let mut panel = $panels.start;
        while panel < $panels.end {
            let several = $panels.end - panel >= $panels_of_tile;
            let mut row = 0;
            while row < $x.rows() {
                let left = $x.rows() - row;
                $(
                    if left >= $rows {
                        match several {
                            true => tile::<BITS, MINIMA, $rows, $panels_of_tile>($w, panel, $x, row, $out),
                            false => tile::<BITS, MINIMA, $rows, 1>($w, panel, $x, row, $out),
                        }
                        row += $rows;
                        continue;
                    }
                )+
            }
            panel += if several { $panels_of_tile } else { 1 };
        }
    }};
}
#[cfg(target_arch = "x86_64")]
use cover;
