//! What any processor can do: lines are unpacked, and the compiler makes of it what it can.

use std::ops::Range;

use super::super::{Activations, BLOCK, Columns, PANEL, QUAD, QUADS, Weight};

/// # Safety
///
/// As of [`super::panels`].
pub unsafe fn panels(w: &Weight, panels: Range<usize>, x: &Activations, out: &Columns<'_>) {
    for panel in panels {
        for row in 0..x.rows() {
            let values = tile(w, panel, x, row);
            // SAFETY: the caller's promise.
            unsafe { out.write(row, panel * PANEL, &values) };
        }
    }
}

fn tile(w: &Weight, panel: usize, x: &Activations, row: usize) -> [f32; PANEL] {
    let spans = w.format.spans();
    let blocks = w.blocks();
    let row = x.row(row);
    let mut sums = [0.0; PANEL];
    for (block, numbers) in row.quants.as_chunks::<BLOCK>().0.iter().enumerate() {
        let quads = numbers.as_chunks::<QUAD>().0;
        for span in 0..spans {
            let at = panel * blocks + block;
            let of_span = row.sum(block, span, spans);
            let mut dots = [-w.format.offset() * of_span; PANEL];
            for (quad, numbers) in quads.iter().enumerate().skip(span * QUADS / spans).take(QUADS / spans) {
                let line = w.quad(at, quad);
                for (dot, quants) in dots.iter_mut().zip(line.0.as_chunks::<QUAD>().0) {
                    *dot += quants.iter().zip(numbers).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum::<i32>();
                }
            }
            let at = at * spans + span;
            let minima = w.minima.get(at).map_or([0.0; PANEL], |minima| minima.map(|minimum| minimum.to_f32()));
            for (lane, sum) in sums.iter_mut().enumerate() {
                let of_minimum = minima[lane] * of_span as f32;
                *sum += (dots[lane] as f32 * w.scales[at][lane].to_f32() + of_minimum) * row.scales[block];
            }
        }
    }
    sums
}
