//! Which tokens every head keeps.

use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, RGBColor};

use super::{Canvas, GREY, Hover, PlotError, TEXT, TITLE, drawing, svg, text_style, text_width};

/// Free space around the parts, and the height of a head's row in pixels.
const SPACE: i32 = 10;
const ROW: i32 = 7;
/// Pixels of a stretch of the prompt.
const COLUMN: i32 = 4;
/// Shares are told apart in this many steps.
const STEPS: f64 = 8.0;
/// Opacity that every stretch has of which anything is kept: less of it would not be seen on black.
const FAINTEST: f64 = 0.2;
/// Blue of ColorBrewer, seen on white and on black.
const KEPT: RGBColor = RGBColor(33, 102, 172);

/// A row for each head, from the prompt's first token on the left to its last: the more of a stretch is kept, the
/// stronger its colour. `shares` are `[heads][stretches]` in [0, 1].
pub fn kept_map(title: &str, heads: &[String], shares: &[Vec<f64>], tokens: usize) -> Result<String, PlotError> {
    let stretches = shares.first().map_or(0, Vec::len);
    if stretches == 0 || heads.len() != shares.len() {
        return Err(PlotError::Empty(title.into()));
    }
    if let Some(row) = shares.iter().position(|row| row.len() != stretches) {
        let found = shares[row].len();
        return Err(PlotError::Shape { title: title.into(), row, found, expected: stretches });
    }
    let left = SPACE + heads.iter().map(|name| text_width(name, TEXT)).max().unwrap_or(0) + 6;
    let top = SPACE + TITLE as i32 + SPACE;
    let (right, bottom) = (left + stretches as i32 * COLUMN, top + heads.len() as i32 * ROW);
    let size = (right.max(left + text_width(title, TITLE)) + 2 * SPACE, bottom + TEXT as i32 + 2 * SPACE);
    let hovers: Vec<Hover> = heads
        .iter()
        .zip(shares)
        .zip(0..)
        .map(|((head, shares), row)| {
            let y = top + row * ROW;
            let share = shares.iter().sum::<f64>() / stretches as f64;
            Hover { corners: [(left, y), (right, y + ROW)], text: format!("head {head}: {:.0} % kept", 100.0 * share) }
        })
        .collect();
    svg(size, &hovers, |canvas| {
        let write = |text: &str, at: (i32, i32), size, horizontal, vertical| {
            canvas.draw(&Text::new(text.to_owned(), at, text_style(size, horizontal, vertical))).map_err(drawing)
        };
        write(title, (left, SPACE), TITLE, HPos::Left, VPos::Top)?;
        // A name every few rows, where there is room for its letters.
        let every = (TEXT as i32 / ROW + 1) as usize;
        for (row, (name, shares)) in heads.iter().zip(shares).enumerate() {
            let y = top + row as i32 * ROW;
            if row % every == 0 {
                write(name, (left - 6, y + ROW / 2), TEXT, HPos::Right, VPos::Center)?;
            }
            draw_row(canvas, (left, y), shares)?;
        }
        canvas.draw(&Rectangle::new([(left, top), (right, bottom)], GREY)).map_err(drawing)?;
        write("token 0", (left, bottom + 4), TEXT, HPos::Left, VPos::Top)?;
        write(&tokens.to_string(), (right, bottom + 4), TEXT, HPos::Right, VPos::Top)
    })
}

/// Neighbours of the same step are one rectangle.
fn draw_row(canvas: &Canvas, (left, y): (i32, i32), shares: &[f64]) -> Result<(), PlotError> {
    let step = |share: &f64| (share * STEPS).ceil() as i32;
    let mut x = left;
    for run in shares.chunk_by(|a, b| step(a) == step(b)) {
        let width = run.len() as i32 * COLUMN;
        if step(&run[0]) > 0 {
            let colour = KEPT.mix(FAINTEST + (1.0 - FAINTEST) * f64::from(step(&run[0])) / STEPS).filled();
            canvas.draw(&Rectangle::new([(x, y), (x + width, y + ROW - 1)], colour)).map_err(drawing)?;
        }
        x += width;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_and_misfits_refused() {
        let names = ["0.0".to_owned(), "0.1".to_owned()];
        let picture = kept_map("snapkv at 64", &names, &[vec![1.0, 1.0, 0.0], vec![0.0, 0.3, 0.3]], 300).unwrap();
        assert_eq!(picture.matches("<rect").count(), 3, "a run each, and the frame");
        assert!(picture.contains("snapkv at 64") && picture.contains("300"));
        assert!(kept_map("x", &names, &[vec![1.0], vec![]], 1).is_err());
        assert!(kept_map("x", &[], &[], 1).is_err());
    }
}
