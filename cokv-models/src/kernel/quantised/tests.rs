use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device};
use proptest::prelude::*;

use super::*;

const FORMATS: [(Format, GgmlDType); 10] = [
    (Format::Q2_K, GgmlDType::Q2K),
    (Format::Q3_K, GgmlDType::Q3K),
    (Format::Q4_0, GgmlDType::Q4_0),
    (Format::Q4_1, GgmlDType::Q4_1),
    (Format::Q4_K, GgmlDType::Q4K),
    (Format::Q5_0, GgmlDType::Q5_0),
    (Format::Q5_1, GgmlDType::Q5_1),
    (Format::Q5_K, GgmlDType::Q5K),
    (Format::Q6_K, GgmlDType::Q6K),
    (Format::Q8_0, GgmlDType::Q8_0),
];

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    (0..count as u64).map(|i| (((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5) - 1.0).collect()
}

/// Blocks as a file has them, with scales (and minima) of at most 1/64 and any quants.
fn file(format: Format, columns: usize, inner: usize, seed: u64) -> Vec<u8> {
    let halves = if format.has_minima() { 2 } else { 1 };
    // Where a block's scales lie.
    let first = match format {
        Format::Q2_K => 80,
        Format::Q3_K => 108,
        Format::Q6_K => 208,
        _ => 0,
    };
    let blocks = columns * inner / (BLOCK * format.together());
    let mut bytes = Vec::new();
    for (block, numbers) in numbers(blocks * format.file_bytes(), seed).chunks(format.file_bytes()).enumerate() {
        let mut of_block: Vec<u8> = numbers.iter().map(|x| (x * 1000.0) as i32 as u8 ^ block as u8).collect();
        for (half, x) in numbers[..halves].iter().enumerate() {
            of_block[first + 2 * half..][..2].copy_from_slice(&f16::from_f32(x / 64.0).to_le_bytes());
        }
        bytes.extend(of_block);
    }
    bytes
}

/// `x wᵀ` of the rounded operands in f64.
fn reference(weight: &Weight, x: &Activations) -> Vec<f64> {
    let mut column = vec![0.0; weight.inner()];
    let mut exact = vec![0.0; x.rows() * weight.columns()];
    for at in 0..weight.columns() {
        weight.column(at, &mut column);
        for row in 0..x.rows() {
            let of_row = x.row(row);
            let rounded = |i: usize| f64::from(of_row.scales[i / BLOCK]) * f64::from(of_row.quants[i]);
            exact[row * weight.columns() + at] =
                column.iter().enumerate().map(|(i, &w)| f64::from(w) * rounded(i)).sum();
        }
    }
    exact
}

fn close(ours: &[f32], exact: &[f64], inner: usize) -> bool {
    ours.iter().zip(exact).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6 * inner as f64)
}

/// Whether all versions compute what the reference does.
fn all_agree(weight: &Weight, x: &Activations) -> bool {
    let exact = reference(weight, x);
    let agrees = |y: &[f32]| y.len() == exact.len() && close(y, &exact, weight.inner());
    agrees(&weight.product(x))
        && versions().into_iter().all(|version| {
            let mut y = vec![0.0; x.rows() * weight.columns()];
            version(weight, 0..weight.panels(), x, &Columns::of(&mut y, weight.columns()));
            agrees(&y)
        })
}

proptest! {
    #[test]
    fn products_equal_the_reference(rows in 1usize..15, inner in 1usize..200, columns in 1usize..150, seed in 0u64..99) {
        let weight = Weight::quantise(&numbers(columns * inner, seed), inner);
        prop_assert!(all_agree(&weight, &Activations::quantise(&numbers(rows * inner, seed + 1), inner)));
    }

    #[test]
    fn products_of_a_files_blocks_equal_the_reference(
        format in 0..FORMATS.len(), rows in 1usize..15, blocks in 1usize..5, columns in 1usize..150, seed in 0u64..99,
    ) {
        let format = FORMATS[format].0;
        let inner = blocks * format.together() * BLOCK;
        let weight = Weight::from_blocks(format, &file(format, columns, inner, seed), columns, inner);
        let x = Activations::quantise(&numbers(rows * inner, seed + 1), inner);
        prop_assert!(all_agree(&weight.expect("as many blocks as there are"), &x));
    }

    #[test]
    fn rounding_is_within_half_a_step(inner in 1usize..100, seed in 0u64..99) {
        let exact = numbers(3 * inner, seed);
        let weight = Weight::quantise(&exact, inner);
        let x = Activations::quantise(&exact, inner);
        let mut column = vec![0.0; inner];
        for (row, exact) in exact.chunks_exact(inner).enumerate() {
            weight.column(row, &mut column);
            for (i, exact) in exact.iter().enumerate() {
                // The scale of weights is rounded to 11 bits, which moves the largest number by 127 / 2048 of a step.
                prop_assert!((column[i] - exact).abs() <= 0.57 / 127.0);
                let rounded = x.row(row).scales[i / BLOCK] * f32::from(x.row(row).quants[i]);
                prop_assert!((rounded - exact).abs() <= 0.501 / 127.0);
            }
        }
    }
}

type Panels = fn(&Weight, std::ops::Range<usize>, &Activations, &Columns<'_>);

/// Every version that this processor can run.
fn versions() -> Vec<Panels> {
    let mut versions: Vec<Panels> = vec![|w, panels, x, out| {
        // SAFETY: the test gives all rows and all columns.
        unsafe { tile::plain::panels(w, panels, x, out) }
    }];
    #[cfg(target_arch = "x86_64")]
    if crate::kernel::simd::has_avx2() {
        // SAFETY: as above, and the processor has the features.
        versions.push(|w, panels, x, out| unsafe { tile::avx2::panels(w, panels, x, out) });
    }
    versions
}

/// Bits of products by the instructions of AVX-512 and by emulated tiles.
#[cfg(target_arch = "x86_64")]
fn by_lines_and_by_tiles(weight: &Weight, x: &Activations) -> [Vec<u32>; 2] {
    use crate::kernel::amx::emulated::Emulated;
    let product = |panels: Panels| {
        let mut y = vec![0.0; x.rows() * weight.columns()];
        // In two pieces, of which the first has one panel.
        for piece in [0..1, 1..weight.panels()] {
            panels(weight, piece, x, &Columns::of(&mut y, weight.columns()));
        }
        y.into_iter().map(f32::to_bits).collect()
    };
    // SAFETY: the test gives all rows and all columns, on a processor that has the instructions.
    [
        product(|w, panels, x, out| unsafe { tile::avx512::panels(w, panels, x, out) }),
        product(|w, panels, x, out| unsafe { tile::amx::panels::<Emulated>(w, panels, x, out) }),
    ]
}

#[test]
#[cfg(target_arch = "x86_64")]
fn tiles_have_the_bits_of_lines() {
    if !(std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx512vnni")) {
        return cokv_golden::skip("tiles against AVX-512 with VNNI: this processor has none");
    }
    // Rows fill tiles, or leave some of the last one; blocks are fewer and more than are computed together.
    for (rows, blocks, columns) in [(16, 1, 16), (17, 3, 33), (31, 4, 5), (40, 5, 64), (48, 9, 100)] {
        let inner = blocks * BLOCK;
        let x = Activations::quantise(&numbers(rows * inner, 7), inner);
        for (format, _) in FORMATS.into_iter().filter(|(format, _)| format.together() == 1) {
            let weight = Weight::from_blocks(format, &file(format, columns, inner, 3), columns, inner);
            let [lines, tiles] = by_lines_and_by_tiles(&weight.expect("as many blocks as there are"), &x);
            assert_eq!(lines, tiles, "{format:?}, {rows} rows of {blocks} blocks by {columns} columns");
        }
        // Numbers that fill no block.
        let inner = inner - 5;
        let x = Activations::quantise(&numbers(rows * inner, 7), inner);
        let [lines, tiles] = by_lines_and_by_tiles(&Weight::quantise(&numbers(columns * inner, 9), inner), &x);
        assert_eq!(lines, tiles, "{rows} rows of {inner} numbers by {columns} columns");
    }
    for (format, _) in FORMATS.into_iter().filter(|(format, _)| format.together() > 1) {
        let (rows, inner, columns) = (21, 512, 50);
        let weight = Weight::from_blocks(format, &file(format, columns, inner, 3), columns, inner);
        let x = Activations::quantise(&numbers(rows * inner, 7), inner);
        let [lines, tiles] = by_lines_and_by_tiles(&weight.expect("as many blocks as there are"), &x);
        assert_eq!(lines, tiles, "{format:?}");
    }
}

#[test]
fn a_row_has_the_same_bits_beside_any_others() {
    let (inner, columns) = (96, 40);
    let weight = Weight::quantise(&numbers(columns * inner, 1), inner);
    let x = numbers(13 * inner, 2);
    let together = weight.product(&Activations::quantise(&x, inner));
    for (row, x) in x.chunks_exact(inner).enumerate() {
        assert_eq!(weight.product(&Activations::quantise(x, inner)), together[row * columns..(row + 1) * columns]);
    }
}

#[test]
fn blocks_of_a_file_stand_for_the_numbers_that_candle_reads() -> candle_core::Result<()> {
    let (columns, inner) = (35, 512);
    for (format, dtype) in FORMATS {
        let bytes = file(format, columns, inner, 3);
        let blocks = QStorage::from_data(bytes.clone().into(), &Device::Cpu, dtype)?;
        let exact = QTensor::new(blocks, (columns, inner))?.dequantize(&Device::Cpu)?.to_dtype(DType::F32)?;
        let exact = exact.to_vec2::<f32>()?;
        let weight = Weight::from_blocks(format, &bytes, columns, inner).expect("as many blocks as there are");
        let mut column = vec![0.0; inner];
        for (at, exact) in exact.iter().enumerate() {
            weight.column(at, &mut column);
            // Scales and minima of K-quants are rounded to 11 bits, and so are their largest numbers.
            let largest = exact.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let tolerance = if format.together() > 1 { largest / 1024.0 } else { 0.0 };
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance;
            assert!(column.iter().zip(exact).all(close), "{format:?}");
        }
        assert!(Weight::from_blocks(format, &bytes[1..], columns, inner).is_none());
        assert!(Weight::from_blocks(format, &bytes, columns + 1, inner).is_none());
    }
    Ok(())
}

#[test]
fn a_weight_takes_as_much_memory_as_in_its_file() {
    let numbers = 64 * 256;
    for (format, _) in FORMATS {
        let bytes = file(format, 64, 256, 1);
        let weight = Weight::from_blocks(format, &bytes, 64, 256).expect("as many blocks as there are");
        assert_eq!(weight.bytes(), numbers / BLOCK * format.block_bytes(), "{format:?}");
        // K-quants write scales in 4 to 8 bits, which are 16 here.
        assert!(weight.bytes() == bytes.len() || format.together() > 1, "{format:?}");
    }
}

#[test]
fn what_is_not_finite_shows() {
    let weight = Weight::quantise(&numbers(5 * 64, 1), 64);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = numbers(2 * 64, 2);
        x[70] = bad;
        let product = weight.product(&Activations::quantise(&x, 64));
        assert!(product[..5].iter().all(|y| y.is_finite()) && product[5..].iter().all(|y| y.is_nan()));
    }
    let tiny = vec![f32::MIN_POSITIVE / 100.0; 64];
    assert!(weight.product(&Activations::quantise(&tiny, 64)).iter().all(|y| y.is_finite()));
}
