//! Half a panel to a register, without an instruction for quads: unsigned by signed pairs into 16 bits, then pairs of those.
//! 16 bits hold one such sum where the unsigned operand is 128 at most, and several where it has fewer bits ([`summed`]).
#![expect(clippy::needless_range_loop, reason = "indices name registers of several arrays at once")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::format::spans;
use super::super::{Activations, BLOCK, Columns, Format, Line, NIBBLE_LINES, PANEL, QUAD, QUADS, Weight};
use super::{by_format, cover};

const HALVES: usize = 2;
/// Pairs of quads that are summed in 16 bits: of up to 5 bits, 4 quads of 2 products of at most 31 by 127; of 6, half as many.
const fn summed(bits: usize) -> usize {
    if bits == 6 { 1 } else { 2 }
}

/// # Safety
///
/// As of [`super::panels`].
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn panels(w: &Weight, panels: Range<usize>, x: &Activations, out: &Columns<'_>) {
    // SAFETY: the caller's promise.
    unsafe { by_format!(w, panels_of(w, panels, x, out)) }
}

/// # Safety
///
/// As of [`super::panels`]; the weight must have this many bits, and minima if it is said.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn panels_of<const BITS: usize, const MINIMA: bool>(
    w: &Weight,
    panels: Range<usize>,
    x: &Activations,
    out: &Columns<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe { cover!(w, panels, x, out, 1, [4, 2, 1]) }
}

/// # Safety
///
/// As of [`panels_of`]; all rows of the tile, and the panel, must exist.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
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
    let of_panel = |each: usize| panel * blocks * each..(panel + 1) * blocks * each;
    let quants = &w.quants[of_panel(BITS)];
    let scales = &w.scales[of_panel(spans)];
    let minima = if MINIMA { &w.minima[of_panel(spans)] } else { &[] };
    let rows: [_; ROWS] = std::array::from_fn(|r| x.row(row + r));
    let sign = _mm256_set1_epi8(-128);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_ps(); HALVES]; ROWS];
    for block in 0..blocks {
        for half in 0..HALVES {
            // SAFETY: a block's lines lie within its panel's, and half a line is 256 bits.
            let mut unpacked = unsafe { Unpacked::<BITS>::of(quants.as_ptr().add(block * BITS), half) };
            for span in 0..spans {
                let mut dots = [_mm256_setzero_si256(); ROWS];
                // Of 8 bits the offset is taken from the quants themselves, which would be too large without a sign.
                if BITS < 8 && !MINIMA {
                    for r in 0..ROWS {
                        dots[r] = _mm256_set1_epi32(-offset * rows[r].sum(block, span, spans));
                    }
                }
                let mut shorts = [_mm256_setzero_si256(); ROWS];
                for pair in span * QUADS / 2 / spans..(span + 1) * QUADS / 2 / spans {
                    // SAFETY: as above; the quad lies within the row.
                    unsafe {
                        for (quad, line) in unpacked.pair(pair).into_iter().enumerate() {
                            let signed = _mm256_xor_si256(line, sign);
                            let magnitude = _mm256_abs_epi8(signed);
                            for r in 0..ROWS {
                                let numbers = rows[r].quants.as_ptr().add(block * BLOCK + (2 * pair + quad) * QUAD);
                                let numbers = _mm256_set1_epi32(numbers.cast::<i32>().read_unaligned());
                                if BITS == 8 {
                                    let products = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(numbers, signed));
                                    dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(products, ones));
                                } else {
                                    shorts[r] = _mm256_add_epi16(shorts[r], _mm256_maddubs_epi16(line, numbers));
                                }
                            }
                        }
                    }
                    if BITS < 8 && pair % summed(BITS) == summed(BITS) - 1 {
                        for r in 0..ROWS {
                            dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(shorts[r], ones));
                            shorts[r] = _mm256_setzero_si256();
                        }
                    }
                }
                let scale = eight(&scales[block * spans + span], half);
                for r in 0..ROWS {
                    let dot = _mm256_cvtepi32_ps(dots[r]);
                    let row_scale = _mm256_set1_ps(rows[r].scales[block]);
                    sums[r][half] = if MINIMA {
                        let sum = _mm256_cvtepi32_ps(_mm256_set1_epi32(rows[r].sum(block, span, spans)));
                        let of_minima = _mm256_mul_ps(eight(&minima[block * spans + span], half), sum);
                        _mm256_fmadd_ps(_mm256_fmadd_ps(dot, scale, of_minima), row_scale, sums[r][half])
                    } else {
                        _mm256_fmadd_ps(dot, _mm256_mul_ps(scale, row_scale), sums[r][half])
                    };
                }
            }
        }
    }
    for r in 0..ROWS {
        let mut values = [0.0; PANEL];
        // SAFETY: eight floats are 256 bits; the rest is the caller's promise.
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), sums[r][0]);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), sums[r][1]);
            out.write(row + r, panel * PANEL, &values);
        }
    }
}

#[inline]
#[target_feature(enable = "avx,f16c")]
fn eight(halves: &[half::f16; PANEL], half: usize) -> __m256 {
    let halves = &halves.as_chunks::<8>().0[half];
    // SAFETY: eight halves of 16 bits are 128 bits.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves.as_ptr().cast()) })
}

/// A block of half a panel, whose quads are asked for two by two in their order.
struct Unpacked<const BITS: usize> {
    /// From which on every second register is of this half.
    block: *const __m256i,
    /// Twos of the pairs that are next, in bits 0 and 4.
    twos: __m256i,
    /// Ones, those of the next pair in bits 0 and 4.
    ones: __m256i,
}

impl<const BITS: usize> Unpacked<BITS> {
    /// # Safety
    ///
    /// There must be as many lines as a block has, and two halves.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn of(block: *const Line, half: usize) -> Self {
        // SAFETY: the caller's promise; a line has 64 bytes and is aligned to as many.
        unsafe {
            let block = block.cast::<__m256i>().add(half);
            let ones = match BITS {
                3 | 5 => _mm256_load_si256(block.add((BITS - 1) * HALVES)),
                _ => _mm256_setzero_si256(),
            };
            Self { block, twos: _mm256_setzero_si256(), ones }
        }
    }

    /// # Safety
    ///
    /// There are `QUADS / 2` pairs.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn pair(&mut self, pair: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise, and as above.
        let line = |at: usize| unsafe { _mm256_load_si256(self.block.add(at * HALVES)) };
        if BITS == 8 {
            return [line(2 * pair), line(2 * pair + 1)];
        }
        let mut quads = [_mm256_setzero_si256(); 2];
        if BITS & 4 != 0 {
            let both = line(pair);
            let nibble = _mm256_set1_epi8(15);
            quads = [_mm256_and_si256(both, nibble), _mm256_and_si256(_mm256_srli_epi16::<4>(both), nibble)];
        }
        if BITS & 2 != 0 {
            let first = if BITS & 4 != 0 { NIBBLE_LINES } else { 0 };
            self.twos = if pair.is_multiple_of(2) { line(first + pair / 2) } else { _mm256_srli_epi16::<2>(self.twos) };
            let moved = match BITS {
                6 => [_mm256_slli_epi16::<4>(self.twos), self.twos],
                _ => [self.twos, _mm256_srli_epi16::<4>(self.twos)],
            };
            let mask = _mm256_set1_epi8(if BITS == 6 { 0x30 } else { 3 });
            quads = [0, 1].map(|quad| _mm256_or_si256(_mm256_and_si256(moved[quad], mask), quads[quad]));
        }
        if BITS & 1 != 0 {
            let moved = match BITS {
                5 => [_mm256_slli_epi16::<4>(self.ones), self.ones],
                _ => [_mm256_slli_epi16::<2>(self.ones), _mm256_srli_epi16::<2>(self.ones)],
            };
            self.ones = _mm256_srli_epi16::<1>(self.ones);
            let mask = _mm256_set1_epi8(1 << (BITS - 1));
            quads = [0, 1].map(|quad| _mm256_or_si256(_mm256_and_si256(moved[quad], mask), quads[quad]));
        }
        quads
    }
}
