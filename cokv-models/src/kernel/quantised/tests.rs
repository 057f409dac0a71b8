use proptest::prelude::*;

use super::*;

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    (0..count as u64).map(|i| (((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5) - 1.0).collect()
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

proptest! {
    #[test]
    fn products_equal_the_reference(rows in 1usize..15, inner in 1usize..200, columns in 1usize..150, seed in 0u64..99) {
        let weight = Weight::quantise(&numbers(columns * inner, seed), inner);
        let x = Activations::quantise(&numbers(rows * inner, seed + 1), inner);
        let exact = reference(&weight, &x);
        let product = weight.product(&x);
        prop_assert_eq!(product.len(), exact.len());
        prop_assert!(close(&product, &exact, inner));
        for version in versions() {
            let mut y = vec![0.0; rows * columns];
            version(&weight, 0..weight.panels(), &x, &Columns { data: y.as_mut_ptr(), stride: columns });
            prop_assert!(close(&y, &exact, inner));
        }
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

type Panels = fn(&Weight, std::ops::Range<usize>, &Activations, &Columns);

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
fn blocks_of_a_file_are_taken_as_they_are() {
    let (columns, inner) = (3, 64);
    let mut bytes = Vec::new();
    for block in 0..columns * inner / BLOCK {
        bytes.extend(f16::from_f32(0.5 + block as f32).to_le_bytes());
        bytes.extend((0..BLOCK as u8).map(|i| i.wrapping_mul(37).wrapping_add(block as u8)));
    }
    let weight = Weight::from_blocks(&bytes, columns, inner).unwrap();
    let mut column = vec![0.0; inner];
    weight.column(2, &mut column);
    let meant = |i: usize| {
        (4.5 + (i / BLOCK) as f32)
            * f32::from(((i % BLOCK) as u8).wrapping_mul(37).wrapping_add(4 + (i / BLOCK) as u8) as i8)
    };
    assert!(column.iter().enumerate().all(|(i, &x)| x == meant(i)));
    assert!(Weight::from_blocks(&bytes[1..], columns, inner).is_none());
    assert!(Weight::from_blocks(&bytes, columns + 1, inner).is_none());
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
