//! Charts as SVG, for documents and web pages.
//!
//! Backgrounds are transparent and texts mid-grey, so that a chart can be read on white and on black. Nothing asks for a
//! font of the system: the reader's sans-serif is named, and its sizes are estimated.

mod heat_map;
mod kept_map;
mod line_chart;
mod number;
mod palette;

use std::error::Error;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{IntoFont, RGBColor, TextStyle};
use thiserror::Error;

pub use heat_map::{correlation_matrix, heat_map, needle_map};
pub use kept_map::kept_map;
pub use line_chart::{Scale, Series, line_chart, line_chart_with_ticks};
pub use number::label;
pub use palette::{ColourScale, Rgb};

/// Why a chart cannot be drawn.
#[derive(Debug, Error)]
pub enum PlotError {
    /// There is nothing to draw.
    #[error("the chart `{0}` has nothing to draw")]
    Empty(String),
    /// A number has no place in the chart.
    #[error("the chart `{title}` cannot show {value} in {place}{hint}")]
    Value {
        /// Title of the chart.
        title: String,
        /// The number.
        value: f64,
        /// Where it is.
        place: String,
        /// What to do.
        hint: &'static str,
    },
    /// A table is not rectangular, or has not the number of names that it needs.
    #[error("the chart `{title}` has {found} cells in row {row}, it needs {expected}")]
    Shape {
        /// Title of the chart.
        title: String,
        /// The row, counted from 0.
        row: usize,
        /// Its cells.
        found: usize,
        /// Cells that it should have.
        expected: usize,
    },
    /// The drawing library failed.
    #[error("the chart could not be drawn: {0}")]
    Drawing(Box<dyn Error + Send + Sync>),
}

/// Pixels of an SVG, from its upper left corner.
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A part of a picture that says something to whoever points at it.
struct Hover {
    /// Upper left and lower right.
    corners: [(i32, i32); 2],
    text: String,
}

impl Hover {
    /// A path that is not seen, with a title.
    fn element(&self) -> String {
        let [(left, top), (right, bottom)] = self.corners;
        let text = self.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!(
            "<path d=\"M{left} {top}H{right}V{bottom}H{left}Z\" fill=\"none\" pointer-events=\"all\"><title>{text}</title></path>\n"
        )
    }
}

/// An SVG of a size in pixels.
fn svg(
    size: (i32, i32),
    hovers: &[Hover],
    draw: impl FnOnce(&Canvas) -> Result<(), PlotError>,
) -> Result<String, PlotError> {
    let mut text = String::new();
    let canvas = SVGBackend::with_string(&mut text, (size.0.unsigned_abs(), size.1.unsigned_abs())).into_drawing_area();
    draw(&canvas)?;
    canvas.present().map_err(drawing)?;
    drop(canvas);
    let end = text.rfind("</svg>").unwrap_or(text.len());
    text.insert_str(end, &hovers.iter().map(Hover::element).collect::<String>());
    Ok(text)
}

/// What the drawing library says, as our error.
fn drawing<E: Error + Send + Sync + 'static>(error: E) -> PlotError {
    PlotError::Drawing(Box::new(error))
}

/// Text and axes: enough contrast on white (4.6) and on black (4.5).
const GREY: RGBColor = RGBColor(118, 118, 118);

/// Lines that guide the eye.
const FAINT: RGBColor = RGBColor(160, 160, 160);

/// Sizes of text as plotters counts them: 1.24 times the pixels of SVG.
const TITLE: u32 = 20;
const TEXT: u32 = 15;

/// Grey text that is anchored at a place of its box.
fn text_style(size: u32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&GREY).pos(Pos::new(horizontal, vertical))
}

/// Width of a text in pixels, estimated: a letter of a wide sans-serif is about 0.62 pixels wide per pixel of its size.
fn text_width(text: &str, size: u32) -> i32 {
    (text.chars().count() as f64 * f64::from(size) * 0.62 / 1.24).ceil() as i32
}
