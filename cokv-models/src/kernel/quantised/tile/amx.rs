//! A span of a panel is a tile: sixteen columns by thirty-two numbers or sixteen, four of each column together. Quants are unpacked
//! to signed bytes once for all rows; the integers of a span, and the f32 sums over spans, are those of `avx512.rs`, to the bit.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use super::super::format::spans;
use super::super::{Activations, BLOCK, Columns, Format, Line, PANEL, QUAD, QUADS, Weight};
use super::avx512::{Unpacked, sixteen};
use super::by_format;
use crate::kernel::amx::{LANES, ROW_BYTES, ROWS, Shape, TILES, Tiles};

/// Rows from which on tiles are used: below, some of a tile would be empty.
pub const MANY_ROWS: usize = ROWS;

/// Spans whose integers are computed before they are scaled, so that the unit goes on meanwhile.
const TOGETHER: usize = 4;

/// Tiles 0 to 3 are sums of integers, 4 and 5 rows, 6 and 7 quants: those of a span have half of a tile's depth, or, where a block
/// has two, a quarter.
fn shapes(spans: usize) -> [Shape; TILES] {
    let sums = Shape::WHOLE;
    let rows = Shape { rows: ROWS as u8, row_bytes: (BLOCK / spans) as u16 };
    let quants = Shape { rows: (QUADS / spans) as u8, row_bytes: ROW_BYTES as u16 };
    [sums, sums, sums, sums, rows, rows, quants, quants]
}
const _: () = assert!(PANEL == LANES && PANEL * QUAD == ROW_BYTES);

thread_local! {
    /// Quants of one panel, `[blocks, QUADS]`.
    static SIGNED: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// # Safety
///
/// As of [`super::panels`]; the processor must have the unit, and the system must permit it; at least [`MANY_ROWS`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
pub unsafe fn panels<T: Tiles>(w: &Weight, panels: Range<usize>, x: &Activations, out: &Columns<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        let unit = &mut T::configured(shapes(w.format.spans()));
        by_format!(w, panels_of(unit, w, panels, x, out))
    }
}

/// # Safety
///
/// As of [`panels`]; the unit must be configured so, and the weight must have this many bits, and minima if it is said.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
unsafe fn panels_of<const BITS: usize, const MINIMA: bool>(
    unit: &mut impl Tiles,
    w: &Weight,
    panels: Range<usize>,
    x: &Activations,
    out: &Columns<'_>,
) {
    SIGNED.with_borrow_mut(|signed| {
        signed.resize(w.blocks() * QUADS, Line([0; ROW_BYTES]));
        for panel in panels {
            // SAFETY: the caller's promise.
            unsafe { unpack::<BITS>(w, panel, signed) };
            for row in (0..x.rows()).step_by(ROWS) {
                // The last tile begins among the rows of the one before, where they do not fill it, and finds the same.
                let row = row.min(x.rows() - ROWS);
                // SAFETY: there are as many rows from there; the rest is the caller's promise.
                unsafe { tile::<BITS, MINIMA>(unit, w, panel, signed, x, row, out) };
            }
        }
    });
}

/// Quants of a panel less their offset, as signed bytes.
///
/// # Safety
///
/// The panel must exist, and the weight have this many bits.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn unpack<const BITS: usize>(w: &Weight, panel: usize, signed: &mut [Line]) {
    let offset = _mm512_set1_epi8(w.format.offset() as i8);
    let lines = &w.quants[panel * w.blocks() * BITS..][..w.blocks() * BITS];
    for (lines, signed) in lines.chunks_exact(BITS).zip(signed.chunks_exact_mut(QUADS)) {
        // SAFETY: these are all lines of a block, which has as many quads; a line is a register, and aligned like one.
        unsafe {
            let mut unpacked = Unpacked::<BITS>::of(lines.as_ptr());
            for pair in 0..QUADS / 2 {
                for (half, quads) in unpacked.pair(pair).into_iter().enumerate() {
                    let to = signed.as_mut_ptr().add(2 * pair + half);
                    _mm512_store_si512(to.cast(), _mm512_sub_epi8(quads, offset));
                }
            }
        }
    }
}

/// # Safety
///
/// As of [`panels_of`]; `ROWS` rows from `row` on, and the panel, must exist. `signed` must be its quants.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
unsafe fn tile<const BITS: usize, const MINIMA: bool>(
    unit: &mut impl Tiles,
    w: &Weight,
    panel: usize,
    signed: &[Line],
    x: &Activations,
    row: usize,
    out: &Columns<'_>,
) {
    let blocks = w.blocks();
    let spans = const { spans(BITS) };
    let all = blocks * spans;
    let of_panel = panel * all..(panel + 1) * all;
    let scales = &w.scales[of_panel.clone()];
    let minima = if MINIMA { &w.minima[of_panel] } else { &[] };
    let rows: [_; ROWS] = std::array::from_fn(|r| x.row(row + r));
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let mut dots = [Dots([[0; PANEL]; ROWS]); TOGETHER];
    let numbers = x.quants_from(row).as_ptr();
    for first in (0..all).step_by(TOGETHER) {
        let count = TOGETHER.min(all - first);
        // SAFETY: a span's numbers lie within each of the rows, which follow each other; its quads lie in `signed`; there is
        // room for the sums of each.
        unsafe {
            macro_rules! span {
                ($at:literal, $x:literal, $w:literal) => {
                    if $at < count {
                        unit.zero::<$at>();
                        unit.load::<$x>(numbers.add((first + $at) * (BLOCK / spans)).cast(), blocks * BLOCK);
                        unit.load::<$w>(signed.as_ptr().add((first + $at) * (QUADS / spans)).cast(), ROW_BYTES);
                        unit.multiply_bytes::<$at, $x, $w>();
                        unit.store::<$at>(dots[$at].0.as_mut_ptr().cast(), ROW_BYTES);
                    }
                };
            }
            span!(0, 4, 6);
            span!(1, 5, 7);
            span!(2, 4, 6);
            span!(3, 5, 7);
        }
        for (at, dots) in (first..first + count).zip(&dots) {
            let (block, span) = (at / spans, at % spans);
            let scale = sixteen(&scales[at]);
            for r in 0..ROWS {
                // SAFETY: a row of sums is a register, and aligned like one.
                let dot = _mm512_cvtepi32_ps(unsafe { _mm512_load_si512(dots.0[r].as_ptr().cast()) });
                let row_scale = _mm512_set1_ps(rows[r].scales[block]);
                sums[r] = if MINIMA {
                    let sum = _mm512_cvtepi32_ps(_mm512_set1_epi32(rows[r].sum(block, span, spans)));
                    let of_minima = _mm512_mul_ps(sixteen(&minima[at]), sum);
                    _mm512_fmadd_ps(_mm512_fmadd_ps(dot, scale, of_minima), row_scale, sums[r])
                } else {
                    _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, row_scale), sums[r])
                };
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let mut values = [0.0; PANEL];
        // SAFETY: sixteen floats are 512 bits; the rest is the caller's promise.
        unsafe {
            _mm512_storeu_ps(values.as_mut_ptr(), sums);
            out.write(row + r, panel * PANEL, &values);
        }
    }
}

/// Sums of a span, `[ROWS, PANEL]`.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Dots([[i32; PANEL]; ROWS]);
