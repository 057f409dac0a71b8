//! Panels as wide as a register, with an instruction (VNNI) that multiplies and sums a quad of each column.
#![expect(clippy::needless_range_loop, reason = "indices name registers of several arrays at once")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::format::spans;
use super::super::{Activations, BLOCK, Columns, Format, Line, NIBBLE_LINES, PANEL, QUAD, QUADS, Weight};
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
    let spans = const { spans(BITS) };
    let of_panel = |p: usize, each: usize| (panel + p) * blocks * each..(panel + p + 1) * blocks * each;
    let quants: [_; PANELS] = std::array::from_fn(|p| &w.quants[of_panel(p, BITS)]);
    let scales: [_; PANELS] = std::array::from_fn(|p| &w.scales[of_panel(p, spans)]);
    let minima: [_; PANELS] = std::array::from_fn(|p| if MINIMA { &w.minima[of_panel(p, spans)] } else { &[] });
    let rows: [_; ROWS] = std::array::from_fn(|r| x.row(row + r));
    let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
    for block in 0..blocks {
        // SAFETY: a block's lines lie within its panel's.
        let mut unpacked: [_; PANELS] =
            std::array::from_fn(|p| unsafe { Unpacked::<BITS>::of(quants[p].as_ptr().add(block * BITS)) });
        for span in 0..spans {
            let mut dots = [[_mm512_setzero_si512(); PANELS]; ROWS];
            if !MINIMA {
                for r in 0..ROWS {
                    dots[r] = [_mm512_set1_epi32(-offset * rows[r].sum(block, span, spans)); PANELS];
                }
            }
            for pair in span * QUADS / 2 / spans..(span + 1) * QUADS / 2 / spans {
                // SAFETY: `block * BLOCK + quad * QUAD` and the three numbers after it lie within the row.
                unsafe {
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
                let scale = sixteen(&scales[p][block * spans + span]);
                for r in 0..ROWS {
                    let dot = _mm512_cvtepi32_ps(dots[r][p]);
                    let row_scale = _mm512_set1_ps(rows[r].scales[block]);
                    sums[r][p] = if MINIMA {
                        let sum = _mm512_cvtepi32_ps(_mm512_set1_epi32(rows[r].sum(block, span, spans)));
                        let of_minima = _mm512_mul_ps(sixteen(&minima[p][block * spans + span]), sum);
                        _mm512_fmadd_ps(_mm512_fmadd_ps(dot, scale, of_minima), row_scale, sums[r][p])
                    } else {
                        _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, row_scale), sums[r][p])
                    };
                }
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
    /// Twos of the pairs that are next, in bits 0 and 4.
    twos: __m512i,
    /// Ones, those of the next pair in bits 0 and 4.
    ones: __m512i,
}

impl<const BITS: usize> Unpacked<BITS> {
    /// # Safety
    ///
    /// There must be as many lines as a block has.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn of(block: *const Line) -> Self {
        let ones = match BITS {
            // SAFETY: the caller's promise; a line has 64 bytes and is aligned to as many.
            3 | 5 => unsafe { _mm512_load_si512(block.add(BITS - 1).cast()) },
            _ => _mm512_setzero_si512(),
        };
        Self { block, twos: _mm512_setzero_si512(), ones }
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
        /// `(a & b) | c`
        const AND_OR: i32 = 0xEA;
        let mut quads = [_mm512_setzero_si512(); 2];
        if BITS & 4 != 0 {
            let both = line(pair);
            let nibble = _mm512_set1_epi8(15);
            quads = [_mm512_and_si512(both, nibble), _mm512_and_si512(_mm512_srli_epi16::<4>(both), nibble)];
        }
        if BITS & 2 != 0 {
            let first = if BITS & 4 != 0 { NIBBLE_LINES } else { 0 };
            self.twos = if pair.is_multiple_of(2) { line(first + pair / 2) } else { _mm512_srli_epi16::<2>(self.twos) };
            let moved = match BITS {
                6 => [_mm512_slli_epi16::<4>(self.twos), self.twos],
                _ => [self.twos, _mm512_srli_epi16::<4>(self.twos)],
            };
            let mask = _mm512_set1_epi8(if BITS == 6 { 0x30 } else { 3 });
            quads = [0, 1].map(|quad| _mm512_ternarylogic_epi32::<AND_OR>(moved[quad], mask, quads[quad]));
        }
        if BITS & 1 != 0 {
            let moved = match BITS {
                5 => [_mm512_slli_epi16::<4>(self.ones), self.ones],
                _ => [_mm512_slli_epi16::<2>(self.ones), _mm512_srli_epi16::<2>(self.ones)],
            };
            self.ones = _mm512_srli_epi16::<1>(self.ones);
            let mask = _mm512_set1_epi8(1 << (BITS - 1));
            quads = [0, 1].map(|quad| _mm512_ternarylogic_epi32::<AND_OR>(moved[quad], mask, quads[quad]));
        }
        quads
    }
}
