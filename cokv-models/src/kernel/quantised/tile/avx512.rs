//! Panels as wide as a register, with an instruction (VNNI) that multiplies and sums a quad of each column.
#![expect(clippy::needless_range_loop, reason = "indices name registers of several arrays at once")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::{Activations, BLOCK, Columns, Format, Line, PANEL, QUAD, QUADS, Weight, block_lines};
use super::{by_format, cover};

/// # Safety
///
/// As of [`super::panels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
pub unsafe fn panels(w: &Weight, panels: Range<usize>, x: &Activations, out: &Columns<'_>) {
    // SAFETY: the caller's promise.
    unsafe { by_format!(w, panels_of(w, panels, x, out)) }
}

/// # Safety
///
/// As of [`super::panels`]; the weight must have this many bits, and minima if it is said.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
unsafe fn panels_of<const BITS: usize, const MINIMA: bool>(
    w: &Weight,
    panels: Range<usize>,
    x: &Activations,
    out: &Columns<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe { cover!(w, panels, x, out, 2, [6, 4, 2, 1]) }
}

/// # Safety
///
/// As of [`panels_of`]; all rows and panels of the tile must exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
unsafe fn tile<const BITS: usize, const MINIMA: bool, const ROWS: usize, const PANELS: usize>(
    w: &Weight,
    panel: usize,
    x: &Activations,
    row: usize,
    out: &Columns<'_>,
) {
    let blocks = w.blocks();
    let offset = w.format.offset();
    let of_panel = |p: usize| (panel + p) * blocks..(panel + p + 1) * blocks;
    let quants: [_; PANELS] =
        std::array::from_fn(|p| &w.quants[of_panel(p).start * block_lines(BITS)..of_panel(p).end * block_lines(BITS)]);
    let scales: [_; PANELS] = std::array::from_fn(|p| &w.scales[of_panel(p)]);
    let minima: [_; PANELS] = std::array::from_fn(|p| if MINIMA { &w.minima[of_panel(p)] } else { &[] });
    let rows: [_; ROWS] = std::array::from_fn(|r| x.row(row + r));
    let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
    for block in 0..blocks {
        let mut dots = [[_mm512_setzero_si512(); PANELS]; ROWS];
        if !MINIMA {
            for r in 0..ROWS {
                dots[r] = [_mm512_set1_epi32(-offset * rows[r].sums[block]); PANELS];
            }
        }
        // SAFETY: a block's lines lie within its panel's; `block * BLOCK + quad * QUAD` and the three numbers after it lie
        // within the row.
        unsafe {
            let mut unpacked: [_; PANELS] =
                std::array::from_fn(|p| Unpacked::<BITS>::of(quants[p].as_ptr().add(block * block_lines(BITS))));
            for pair in 0..QUADS / 2 {
                let pairs: [_; PANELS] = std::array::from_fn(|p| unpacked[p].pair(pair));
                for half in 0..2 {
                    for r in 0..ROWS {
                        let numbers = rows[r].quants.as_ptr().add(block * BLOCK + (2 * pair + half) * QUAD);
                        let numbers = _mm512_set1_epi32(numbers.cast::<i32>().read_unaligned());
                        for p in 0..PANELS {
                            dots[r][p] = _mm512_dpbusd_epi32(dots[r][p], pairs[p][half], numbers);
                        }
                    }
                }
            }
        }
        for p in 0..PANELS {
            let scale = sixteen(&scales[p][block]);
            for r in 0..ROWS {
                let dot = _mm512_cvtepi32_ps(dots[r][p]);
                let row_scale = _mm512_set1_ps(rows[r].scales[block]);
                sums[r][p] = if MINIMA {
                    let sum = _mm512_cvtepi32_ps(_mm512_set1_epi32(rows[r].sums[block]));
                    let of_minima = _mm512_mul_ps(sixteen(&minima[p][block]), sum);
                    _mm512_fmadd_ps(_mm512_fmadd_ps(dot, scale, of_minima), row_scale, sums[r][p])
                } else {
                    _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, row_scale), sums[r][p])
                };
            }
        }
    }
    for r in 0..ROWS {
        for p in 0..PANELS {
            let mut values = [0.0; PANEL];
            // SAFETY: sixteen floats are 512 bits; the rest is the caller's promise.
            unsafe {
                _mm512_storeu_ps(values.as_mut_ptr(), sums[r][p]);
                out.write(row + r, (panel + p) * PANEL, &values);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sixteen(halves: &[half::f16; PANEL]) -> __m512 {
    // SAFETY: sixteen halves are 256 bits.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}

/// A block of a panel, whose quads are asked for two by two in their order.
pub(super) struct Unpacked<const BITS: usize> {
    block: *const Line,
    /// The fifth bits, those of the next pair in bits 0 and 4.
    fifth_bits: __m512i,
}

impl<const BITS: usize> Unpacked<BITS> {
    /// # Safety
    ///
    /// There must be as many lines as a block has.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn of(block: *const Line) -> Self {
        // SAFETY: the caller's promise; a line has 64 bytes and is aligned to as many.
        let fifth_bits = match BITS {
            5 => unsafe { _mm512_load_si512(block.add(QUADS / 2).cast()) },
            _ => _mm512_setzero_si512(),
        };
        Self { block, fifth_bits }
    }

    /// # Safety
    ///
    /// There are `QUADS / 2` pairs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn pair(&mut self, pair: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise, and as above.
        let line = |at: usize| unsafe { _mm512_load_si512(self.block.add(at).cast()) };
        if BITS == 8 {
            return [line(2 * pair), line(2 * pair + 1)];
        }
        let both = line(pair);
        let nibble = _mm512_set1_epi8(15);
        let quads = [_mm512_and_si512(both, nibble), _mm512_and_si512(_mm512_srli_epi16::<4>(both), nibble)];
        if BITS == 4 {
            return quads;
        }
        /// `(a & b) | c`
        const AND_OR: i32 = 0xEA;
        let bit = _mm512_set1_epi8(16);
        let fifth = [_mm512_slli_epi16::<4>(self.fifth_bits), self.fifth_bits];
        self.fifth_bits = _mm512_srli_epi16::<1>(self.fifth_bits);
        [
            _mm512_ternarylogic_epi32::<AND_OR>(fifth[0], bit, quads[0]),
            _mm512_ternarylogic_epi32::<AND_OR>(fifth[1], bit, quads[1]),
        ]
    }
}
