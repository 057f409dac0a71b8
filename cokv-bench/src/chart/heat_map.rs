//! Tables of numbers as coloured cells.

use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, FontTransform, RGBColor};

use super::number::label;
use super::palette::{ColourScale, is_light};
use super::{Canvas, GREY, Hover, PlotError, TEXT, TITLE, drawing, svg, text_style, text_width};

/// A picture of `[layers][kv_heads]` scores with one column per layer and one row per KV head.
///
/// Scores of both signs are blue below 0, white at 0 and red above; others go from dark (lowest) to bright (highest).
pub fn heat_map(title: &str, scores: &[Vec<f64>]) -> Result<String, PlotError> {
    let kv_heads = scores.first().map_or(0, Vec::len);
    check_shape(title, scores, kv_heads)?;
    for (layer, row) in scores.iter().enumerate() {
        if let Some((head, &value)) = row.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            let place = format!("head {head} of layer {layer}");
            return Err(PlotError::Value { title: title.into(), value, place, hint: "" });
        }
    }
    let layers = scores.len();
    let every = |count: usize| if count > 16 { 4 } else { 1 };
    let numbers =
        |count: usize| (0..count).map(move |n| if n % every(count) == 0 { n.to_string() } else { String::new() });
    let grid = Grid {
        title,
        cell: if layers > 48 { 12 } else { 18 },
        scale: ColourScale::of(scores.iter().flatten().copied()),
        columns: numbers(layers).collect(),
        rows: numbers(kv_heads).collect(),
        column_title: "layer",
        row_title: "KV head",
        upright: true,
        told: &|row, column, value| format!("layer {column}, KV head {row}: {}", label(value, value.abs() / 1000.0)),
    };
    grid.draw(|row, column| Some((scores[column][row], String::new())))
}

/// A picture of agreements in [-1, 1] between named things, `[names][names]`, with the numbers in the cells; cells
/// without a number are left out.
pub fn correlation_matrix(title: &str, names: &[String], values: &[Vec<Option<f64>>]) -> Result<String, PlotError> {
    check_shape(title, values, names.len())?;
    if values.len() != names.len() {
        let (row, expected) = (values.len(), names.len());
        return Err(PlotError::Shape { title: title.into(), row, found: 0, expected });
    }
    let grid = Grid {
        title,
        cell: 40,
        scale: ColourScale::signed(1.0),
        columns: names.to_vec(),
        rows: names.to_vec(),
        column_title: "",
        row_title: "",
        upright: false,
        told: &|row, column, value| format!("{} and {}: {}", names[row], names[column], label(value, 0.001)),
    };
    grid.draw(|row, column| values[row][column].map(|value| (value, label(value, 0.01))))
}

/// A picture of scores from 0 to 100 at the places of a needle, `[depths][lengths]`, with the numbers in the cells; places
/// without a number are left out. Dark is lost, bright is found.
pub fn needle_map(
    title: &str,
    lengths: &[String],
    depths: &[String],
    scores: &[Vec<Option<f64>>],
) -> Result<String, PlotError> {
    check_shape(title, scores, lengths.len())?;
    let grid = Grid {
        title,
        cell: 40,
        scale: ColourScale::sequential([0.0, 100.0]),
        columns: lengths.to_vec(),
        rows: depths.to_vec(),
        column_title: "tokens of the prompt",
        row_title: "depth",
        upright: true,
        told: &|row, column, score| format!("{} tokens, depth {}: {score:.1}", lengths[column], depths[row]),
    };
    grid.draw(|row, column| scores[row][column].map(|score| (score, format!("{score:.0}"))))
}

fn check_shape<T>(title: &str, rows: &[Vec<T>], expected: usize) -> Result<(), PlotError> {
    if rows.is_empty() || expected == 0 {
        return Err(PlotError::Empty(title.into()));
    }
    match rows.iter().map(Vec::len).enumerate().find(|&(_, found)| found != expected) {
        Some((row, found)) => Err(PlotError::Shape { title: title.into(), row, found, expected }),
        None => Ok(()),
    }
}

struct Grid<'a> {
    title: &'a str,
    /// Side of a cell in pixels.
    cell: i32,
    scale: ColourScale,
    columns: Vec<String>,
    rows: Vec<String>,
    column_title: &'a str,
    row_title: &'a str,
    /// Whether the columns' names are short enough to be written upright; otherwise they run upwards.
    upright: bool,
    /// What a cell says, by row and column.
    told: &'a dyn Fn(usize, usize, f64) -> String,
}

/// Free space around and between the parts.
const SPACE: i32 = 10;
/// Height of a line of text.
const LINE: i32 = TEXT as i32 + 4;
/// Width of the colour bar.
const BAR: i32 = 14;

impl Grid<'_> {
    /// Draws title, cells, names and colour bar; a cell has a number and a text, or is left out.
    fn draw(&self, cell: impl Fn(usize, usize) -> Option<(f64, String)>) -> Result<String, PlotError> {
        let (columns, rows) = (self.columns.len() as i32, self.rows.len() as i32);
        let longest = |names: &[String]| names.iter().map(|name| text_width(name, TEXT)).max().unwrap_or(0);
        let title_line = |title: &str| if title.is_empty() { 0 } else { LINE };
        let left = SPACE + title_line(self.row_title) + longest(&self.rows) + 6;
        let top = SPACE + TITLE as i32 + SPACE;
        let (right, bottom) = (left + columns * self.cell, top + rows * self.cell);
        let names = if self.upright { LINE } else { longest(&self.columns) + 6 };
        let bar_height = (bottom - top).max(4 * LINE);
        let height = (bottom + names + title_line(self.column_title)).max(top + bar_height) + SPACE;
        let bar = right + 2 * SPACE;
        let width =
            (bar + BAR + 6 + text_width("-0.0000", TEXT)).max(text_width(self.title, TITLE) + 2 * SPACE) + SPACE;

        let mut hovers = Vec::new();
        for row in 0..rows {
            for column in 0..columns {
                if let Some((value, _)) = cell(row as usize, column as usize) {
                    let (x, y) = (left + column * self.cell, top + row * self.cell);
                    let text = (self.told)(row as usize, column as usize, value);
                    hovers.push(Hover { corners: [(x, y), (x + self.cell, y + self.cell)], text });
                }
            }
        }
        svg((width, height), &hovers, |canvas| {
            let write = |text: &str, at: (i32, i32), horizontal, vertical| {
                canvas.draw(&Text::new(text, at, text_style(TEXT, horizontal, vertical))).map_err(drawing)
            };
            let title = text_style(TITLE, HPos::Left, VPos::Top);
            canvas.draw(&Text::new(self.title, (SPACE, SPACE), title)).map_err(drawing)?;
            for (row, name) in (0..).zip(&self.rows) {
                let middle = top + row * self.cell + self.cell / 2;
                write(name, (left - 6, middle), HPos::Right, VPos::Center)?;
                for column in 0..columns {
                    if let Some((value, text)) = cell(row as usize, column as usize) {
                        self.draw_cell(canvas, (left + column * self.cell, top + row * self.cell), value, &text)?;
                    }
                }
            }
            let upwards = text_style(TEXT, HPos::Right, VPos::Center).transform(FontTransform::Rotate270);
            for (column, name) in (0..).zip(&self.columns) {
                let at = (left + column * self.cell + self.cell / 2, bottom + 6);
                if self.upright {
                    write(name, at, HPos::Center, VPos::Top)?;
                } else {
                    canvas.draw(&Text::new(name.as_str(), at, upwards.clone())).map_err(drawing)?;
                }
            }
            write(self.column_title, ((left + right) / 2, bottom + 6 + names), HPos::Center, VPos::Top)?;
            let sideways = text_style(TEXT, HPos::Center, VPos::Center).transform(FontTransform::Rotate270);
            let at = (SPACE + LINE / 2, (top + bottom) / 2);
            canvas.draw(&Text::new(self.row_title, at, sideways)).map_err(drawing)?;
            self.draw_bar(canvas, (bar, top), bar_height)
        })
    }

    fn draw_cell(&self, canvas: &Canvas, (x, y): (i32, i32), value: f64, text: &str) -> Result<(), PlotError> {
        let colour = self.scale.colour(value);
        // One pixel under the cells that are drawn next: edges that only meet show gaps at other scales.
        let corners = [(x, y), (x + self.cell + 1, y + self.cell + 1)];
        canvas.draw(&Rectangle::new(corners, rgb(colour).filled())).map_err(drawing)?;
        let ink = if is_light(colour) { RGBColor(30, 30, 30) } else { RGBColor(245, 245, 245) };
        let style = text_style(TEXT - 1, HPos::Center, VPos::Center).color(&ink);
        canvas.draw(&Text::new(text, (x + self.cell / 2, y + self.cell / 2), style)).map_err(drawing)
    }

    /// The colours from high (top) to low with numbers beside them.
    fn draw_bar(&self, canvas: &Canvas, (x, top): (i32, i32), height: i32) -> Result<(), PlotError> {
        for line in 0..height {
            let value = self.scale.value(1.0 - f64::from(line) / f64::from(height - 1));
            // Down to the end, to be painted over by the next, for the same reason.
            let corners = [(x, top + line), (x + BAR, top + height)];
            canvas.draw(&Rectangle::new(corners, rgb(self.scale.colour(value)).filled())).map_err(drawing)?;
        }
        canvas.draw(&Rectangle::new([(x, top), (x + BAR, top + height)], GREY)).map_err(drawing)?;
        let step = (self.scale.high - self.scale.low) / 100.0;
        for position in [0.0, 0.5, 1.0] {
            let y = top + ((1.0 - position) * f64::from(height)).round() as i32;
            let text = label(self.scale.value(position), step);
            let style = text_style(TEXT, HPos::Left, VPos::Center);
            canvas.draw(&Text::new(text, (x + BAR + 6, y), style)).map_err(drawing)?;
        }
        Ok(())
    }
}

fn rgb((red, green, blue): (u8, u8, u8)) -> RGBColor {
    RGBColor(red, green, blue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_is_a_cell() {
        let scores = vec![vec![-1.0, 0.5], vec![0.25, 0.0], vec![1.0, -0.5]];
        let picture = heat_map("toy & co", &scores).unwrap();
        assert!(picture.starts_with("<svg ") && picture.contains("toy &amp; co"), "{picture}");
        assert!(picture.contains("KV head") && picture.contains("layer"));
        // White only at 0: one cell, and the middle of the colour bar has no line of exactly 0.
        assert_eq!(picture.matches("#F7F7F7").count(), 1);
        // 6 cells, the bar's lines and its frame.
        assert_eq!(picture.matches("<rect").count(), 6 + 4 * LINE as usize + 1);
        assert_eq!(picture, heat_map("toy & co", &scores).unwrap());
    }

    #[test]
    fn matrices_name_their_numbers() {
        let names = ["qasper".into(), "lcc".into()];
        let picture = correlation_matrix("tasks", &names, &[vec![Some(1.0), Some(-0.25)], vec![None, None]]).unwrap();
        assert_eq!(picture.matches("\nqasper\n").count(), 2);
        assert!(picture.contains("<title>qasper and lcc: -0.250</title>"), "{picture}");
        assert!(picture.contains("-0.25"));
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        for (error, message) in [
            (heat_map("t", &[]), "`t` has nothing to draw"),
            (heat_map("t", &[vec![]]), "`t` has nothing to draw"),
            (heat_map("t", &[vec![1.0], vec![]]), "0 cells in row 1, it needs 1"),
            (heat_map("t", &[vec![1.0], vec![f64::NAN]]), "cannot show NaN in head 0 of layer 1"),
            (correlation_matrix("t", &["a".into()], &[vec![None], vec![None]]), "0 cells in row 2"),
        ] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
