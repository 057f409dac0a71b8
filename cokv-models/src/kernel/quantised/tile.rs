//! Tiles of a product: some rows by some panels, kept in registers while the inner dimension streams by.
#![expect(clippy::needless_range_loop, reason = "indices name registers of several arrays at once")]

use std::ops::Range;

use super::{Activations, Columns, PANEL, Weight};

/// Computes some panels of all rows, with the widest instructions that the processor has.
///
/// # Safety
///
/// `out` must have a row for each of `x`, and nothing else may look at these panels' columns meanwhile.
pub(super) unsafe fn panels(w: &Weight, panels: Range<usize>, x: &Activations, out: &Columns) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if crate::kernel::simd::has_avx512() && has!("avx512vnni") {
            // SAFETY: the processor has the features that the function is compiled for; the rest is the caller's promise.
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

/// Calls `$tile::<ROWS, PANELS>` over all rows and panels: full tiles first, then what is left of rows.
macro_rules! cover {
    ($w:ident, $panels:ident, $x:ident, $out:ident, $tile:ident, $panels_of_tile:literal, [$($rows:literal),+]) => {{
        let mut panel = $panels.start;
        while panel < $panels.end {
            let several = $panels.end - panel >= $panels_of_tile;
            let mut row = 0;
            while row < $x.rows() {
                let left = $x.rows() - row;
                $(
                    if left >= $rows {
                        match several {
                            true => $tile::<$rows, $panels_of_tile>($w, panel, $x, row, $out),
                            false => $tile::<$rows, 1>($w, panel, $x, row, $out),
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
mod avx512 {
    use std::arch::x86_64::*;

    use super::super::{BLOCK, QUAD, QUADS};
    use super::*;

    /// # Safety
    ///
    /// As of [`super::panels`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
    pub unsafe fn panels(w: &Weight, panels: Range<usize>, x: &Activations, out: &Columns) {
        // SAFETY: the caller's promise.
        unsafe { cover!(w, panels, x, out, tile, 2, [6, 4, 2, 1]) }
    }

    /// # Safety
    ///
    /// As of [`super::panels`]; all rows and panels of the tile must exist.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
    unsafe fn tile<const ROWS: usize, const PANELS: usize>(
        w: &Weight,
        panel: usize,
        x: &Activations,
        row: usize,
        out: &Columns,
    ) {
        let blocks = w.blocks();
        let lines: [_; PANELS] = std::array::from_fn(|p| &w.quants[(panel + p) * blocks * QUADS..][..blocks * QUADS]);
        let scales: [_; PANELS] = std::array::from_fn(|p| &w.scales[(panel + p) * blocks..][..blocks]);
        let rows: [_; ROWS] = std::array::from_fn(|r| x.row(row + r));
        let mut sums = [[_mm512_setzero_ps(); PANELS]; ROWS];
        for block in 0..blocks {
            let mut dots = [[_mm512_setzero_si512(); PANELS]; ROWS];
            for r in 0..ROWS {
                dots[r] = [_mm512_set1_epi32(rows[r].offsets[block]); PANELS];
            }
            for quad in 0..QUADS {
                // SAFETY: a line has 64 bytes and is aligned to as many; `block * BLOCK + quad * QUAD` and the three
                // numbers after it lie within the row.
                unsafe {
                    let lines: [__m512i; PANELS] =
                        std::array::from_fn(|p| _mm512_load_si512(lines[p].as_ptr().add(block * QUADS + quad).cast()));
                    for r in 0..ROWS {
                        let numbers = rows[r].quants.as_ptr().add(block * BLOCK + quad * QUAD);
                        let numbers = _mm512_set1_epi32(numbers.cast::<i32>().read_unaligned());
                        for p in 0..PANELS {
                            dots[r][p] = _mm512_dpbusd_epi32(dots[r][p], lines[p], numbers);
                        }
                    }
                }
            }
            for p in 0..PANELS {
                // SAFETY: sixteen halves are 256 bits.
                let scale = unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(scales[p][block].as_ptr().cast())) };
                for r in 0..ROWS {
                    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(rows[r].scales[block]));
                    sums[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][p]), scale, sums[r][p]);
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
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use std::arch::x86_64::*;

    use super::super::{BLOCK, QUAD, QUADS};
    use super::*;

    /// Half a panel fills a register.
    const HALVES: usize = 2;

    /// # Safety
    ///
    /// As of [`super::panels`].
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn panels(w: &Weight, panels: Range<usize>, x: &Activations, out: &Columns) {
        // SAFETY: the caller's promise.
        unsafe { cover!(w, panels, x, out, tile, 1, [2, 1]) }
    }

    /// Without an instruction for unsigned by signed quads into 32 bits: unsigned by signed pairs into 16 bits, which
    /// cannot overflow when the unsigned operand is a magnitude of 128 at most, then pairs of those.
    ///
    /// # Safety
    ///
    /// As of [`super::panels`]; all rows of the tile, and the panel, must exist.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tile<const ROWS: usize, const PANELS: usize>(
        w: &Weight,
        panel: usize,
        x: &Activations,
        row: usize,
        out: &Columns,
    ) {
        let blocks = w.blocks();
        let lines = &w.quants[panel * blocks * QUADS..][..blocks * QUADS];
        let scales = &w.scales[panel * blocks..][..blocks];
        let rows: [_; ROWS] = std::array::from_fn(|r| x.row(row + r));
        let offset = _mm256_set1_epi8(-128);
        let ones = _mm256_set1_epi16(1);
        let mut sums = [[_mm256_setzero_ps(); HALVES]; ROWS];
        for block in 0..blocks {
            let mut dots = [[_mm256_setzero_si256(); HALVES]; ROWS];
            for quad in 0..QUADS {
                let line = lines[block * QUADS + quad].0.as_ptr();
                for half in 0..HALVES {
                    // SAFETY: half a line is 256 bits; the quad lies within the row.
                    unsafe {
                        let signed = _mm256_xor_si256(_mm256_load_si256(line.add(32 * half).cast()), offset);
                        let magnitude = _mm256_abs_epi8(signed);
                        for r in 0..ROWS {
                            let numbers = rows[r].quants.as_ptr().add(block * BLOCK + quad * QUAD);
                            let numbers = _mm256_set1_epi32(numbers.cast::<i32>().read_unaligned());
                            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(numbers, signed));
                            dots[r][half] = _mm256_add_epi32(dots[r][half], _mm256_madd_epi16(pairs, ones));
                        }
                    }
                }
            }
            for half in 0..HALVES {
                // SAFETY: eight halves of 16 bits are 128 bits.
                let scale = unsafe { _mm256_cvtph_ps(_mm_loadu_si128(scales[block].as_ptr().add(8 * half).cast())) };
                for r in 0..ROWS {
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(rows[r].scales[block]));
                    sums[r][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r][half]), scale, sums[r][half]);
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
}

pub(super) mod plain {
    use super::super::{BLOCK, QUAD, QUADS};
    use super::*;

    /// # Safety
    ///
    /// As of [`super::panels`].
    pub unsafe fn panels(w: &Weight, panels: Range<usize>, x: &Activations, out: &Columns) {
        for panel in panels {
            for row in 0..x.rows() {
                let values = tile(w, panel, x, row);
                // SAFETY: the caller's promise.
                unsafe { out.write(row, panel * PANEL, &values) };
            }
        }
    }

    fn tile(w: &Weight, panel: usize, x: &Activations, row: usize) -> [f32; PANEL] {
        let blocks = w.blocks();
        let row = x.row(row);
        let mut sums = [0.0; PANEL];
        for (block, numbers) in row.quants.as_chunks::<BLOCK>().0.iter().enumerate() {
            let mut dots = [row.offsets[block]; PANEL];
            let lines = &w.quants[(panel * blocks + block) * QUADS..][..QUADS];
            for (line, numbers) in lines.iter().zip(numbers.as_chunks::<QUAD>().0) {
                for (dot, quad) in dots.iter_mut().zip(line.0.as_chunks::<QUAD>().0) {
                    *dot += quad.iter().zip(numbers).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum::<i32>();
                }
            }
            let scale = row.scales[block];
            for ((sum, dot), weight_scale) in sums.iter_mut().zip(dots).zip(w.scales[panel * blocks + block]) {
                *sum += dot as f32 * (weight_scale.to_f32() * scale);
            }
        }
        sums
    }
}
