//! The left operand of a product, rounded to 8 bits as it comes.

use super::BLOCK;
use crate::kernel::parts::Parts;
use crate::kernel::pool;
use crate::kernel::simd::{LANES, dispatch, fused};

/// Rows that one piece of parallel work rounds.
const ROWS_PER_PIECE: usize = 16;

/// `x` of `y = x wᵀ`, `[rows, inner]`.
pub struct Activations {
    rows: usize,
    inner: usize,
    /// From -127 to 127, `[rows, blocks, BLOCK]`.
    quants: Vec<i8>,
    /// `[rows, blocks]`; NaN where a number was not finite, so that it shows in the result.
    scales: Vec<f32>,
    /// Of the quants of each half of a block, `[rows, blocks, 2]`: what weights with an offset or a minimum are multiplied
    /// with besides.
    sums: Vec<[i32; 2]>,
}

/// One row of [`Activations`].
#[derive(Clone, Copy)]
pub(super) struct RoundedRow<'a> {
    /// `[blocks, BLOCK]`
    pub quants: &'a [i8],
    /// `[blocks]`
    pub scales: &'a [f32],
    /// `[blocks, 2]`
    sums: &'a [[i32; 2]],
}

impl RoundedRow<'_> {
    /// Of the quants of one of a block's spans, of which there are one or two.
    #[inline(always)]
    pub fn sum(&self, block: usize, span: usize, spans: usize) -> i32 {
        let [first, second] = self.sums[block];
        if spans == 1 { first + second } else { [first, second][span] }
    }
}

impl Activations {
    /// Rounds `[rows, inner]` numbers; rows are padded to whole blocks.
    pub fn quantise(numbers: &[f32], inner: usize) -> Self {
        let rows = numbers.len() / inner;
        let blocks = inner.div_ceil(BLOCK);
        let mut quants = vec![0; rows * blocks * BLOCK];
        let mut scales = vec![0.0; rows * blocks];
        let mut sums = vec![[0; 2]; rows * blocks];
        if inner == blocks * BLOCK && rows > 1 {
            let (of_quants, of_scales, of_sums) =
                (Parts::of(&mut quants), Parts::of(&mut scales), Parts::of(&mut sums));
            pool::for_each(rows.div_ceil(ROWS_PER_PIECE), |piece| {
                let rows = piece * ROWS_PER_PIECE..rows.min((piece + 1) * ROWS_PER_PIECE);
                let of = |width: usize| rows.start * width..rows.end * width;
                // SAFETY: every piece is run once, and their rows do not overlap.
                unsafe {
                    round(
                        &numbers[of(inner)],
                        of_quants.part(of(inner)),
                        of_scales.part(of(blocks)),
                        of_sums.part(of(blocks)),
                    );
                }
            });
        } else {
            let mut padded = vec![0.0; blocks * BLOCK];
            for (row, numbers) in numbers.chunks_exact(inner).enumerate() {
                padded[..inner].copy_from_slice(numbers);
                let (blocks, numbers) =
                    (row * blocks..(row + 1) * blocks, row * padded.len()..(row + 1) * padded.len());
                round(&padded, &mut quants[numbers], &mut scales[blocks.clone()], &mut sums[blocks]);
            }
        }
        Self { rows, inner, quants, scales, sums }
    }

    /// One row, to be multiplied.
    pub(super) fn row(&self, row: usize) -> RoundedRow<'_> {
        let blocks = self.inner.div_ceil(BLOCK);
        let of_row = row * blocks..(row + 1) * blocks;
        RoundedRow {
            quants: &self.quants[of_row.start * BLOCK..of_row.end * BLOCK],
            scales: &self.scales[of_row.clone()],
            sums: &self.sums[of_row],
        }
    }

    /// The quants of a row and of all that follow, `[rows, blocks, BLOCK]`.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn quants_from(&self, row: usize) -> &[i8] {
        &self.quants[row * self.inner.div_ceil(BLOCK) * BLOCK..]
    }

    /// Rows of the result.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers of a row.
    pub fn inner(&self) -> usize {
        self.inner
    }
}

dispatch! {
    /// Rounds whole blocks.
    pub fn round(numbers: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [[i32; 2]]) = round_body
}

#[inline(always)]
fn round_body<const FMA: bool>(numbers: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [[i32; 2]]) {
    /// Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let blocks = numbers.as_chunks::<BLOCK>().0.iter().zip(quants.as_chunks_mut::<BLOCK>().0);
    for ((numbers, quants), (scale, sums)) in blocks.zip(scales.iter_mut().zip(sums)) {
        let mut largest = [0.0f32; LANES];
        // Stays zero for finite numbers, and becomes NaN otherwise: the largest of numbers would hide that.
        let mut finite = [0.0f32; LANES];
        for half in numbers.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                let x = half[lane].abs();
                largest[lane] = if x > largest[lane] { x } else { largest[lane] };
                finite[lane] = fused::<FMA>(half[lane], 0.0, finite[lane]);
            }
        }
        let largest = largest.into_iter().fold(0.0, |a: f32, b| if b > a { b } else { a });
        let finite: f32 = finite.into_iter().sum();
        *scale = largest / 127.0 + finite;
        let inverse = if largest > 0.0 && largest.is_finite() { 127.0 / largest } else { 0.0 };
        let halves = numbers.as_chunks::<LANES>().0.iter().zip(quants.as_chunks_mut::<LANES>().0);
        for ((half, quants), half_sum) in halves.zip(sums) {
            let mut sum = [0i32; LANES];
            for lane in 0..LANES {
                let rounded = fused::<FMA>(half[lane], inverse, ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
                // Numbers too small for `127 / largest` to be finite would leave the range.
                let rounded = rounded.clamp(-127, 127);
                quants[lane] = rounded as i8;
                sum[lane] += rounded;
            }
            *half_sum = sum.into_iter().sum();
        }
    }
}
