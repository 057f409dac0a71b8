//! Lines through points.

use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::number::label;
use super::{Canvas, FAINT, GREY, Hover, PlotError, TEXT, TITLE, drawing, svg, text_style, text_width};

/// A named line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points in the order in which the line connects them.
    pub points: Vec<(f64, f64)>,
    /// Lowest and highest y at each point, shaded; none for a line without a band.
    pub band: Option<Vec<(f64, f64)>>,
    /// Lowest and highest y at each point, as bars; of a level, shaded across the chart. Empty for a line without bars.
    pub bars: Vec<(f64, f64)>,
    /// Whether it is a level to compare with, that of its first point: dashed, across the whole chart, without markers.
    pub level: bool,
}

impl Series {
    /// What a point says.
    fn told(&self, place: usize) -> String {
        let (x, y) = self.points[place];
        let number = |value: f64| label(value, y.abs().max(1e-3) / 1000.0);
        let bars = self.bars.get(place).filter(|(low, high)| high > low);
        let ends = bars.map_or(String::new(), |&(low, high)| format!(" ({} … {})", number(low), number(high)));
        format!("{}: {}{ends} at {}", self.name, number(y), label(x, 0.0))
    }
}

/// How x is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally far apart.
    Linear,
    /// Equal ratios are equally far apart.
    Logarithmic,
}

/// A chart of named lines that differ in colour and in marker.
pub fn line_chart(
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[Series],
    scale: Scale,
) -> Result<String, PlotError> {
    line_chart_with_ticks(title, x_label, y_label, series, scale, &[])
}

/// A [`line_chart`] whose x axis has its numbers at these places, where any are named.
pub fn line_chart_with_ticks(
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[Series],
    scale: Scale,
    ticks: &[f64],
) -> Result<String, PlotError> {
    check(title, series, scale)?;
    let all = || series.iter().flat_map(|series| &series.points);
    let bands = series.iter().flat_map(|series| series.band.iter().flatten().chain(&series.bars));
    let bands = bands.flat_map(|&(low, high)| [low, high]);
    let frame = Frame {
        scale,
        x: widened(all().map(|point| point.0).chain(ticks.iter().copied()).map(|x| scale.place(x))),
        y: widened(all().map(|point| point.1).chain(bands)),
    };
    let legend = series.iter().map(|series| text_width(&series.name, TEXT)).max().unwrap_or(0);
    let barred = series.iter().filter(|series| !series.level && !series.bars.is_empty()).count() as i32;
    let width = (RIGHT + 3 * SPACE + SWATCH + legend).max(SPACE + text_width(title, TITLE)) + SPACE;

    let hovers = series.iter().zip(0..).flat_map(|(series, row)| {
        let aside = if barred > 1 { (2 * row - barred + 1) * APART / 2 } else { 0 };
        series.points.iter().enumerate().filter(|_| !series.level).map(move |(place, &point)| {
            let (x, y) = frame.pixel(point);
            Hover { corners: [(x + aside - 6, y - 8), (x + aside + 6, y + 8)], text: series.told(place) }
        })
    });
    let hovers: Vec<Hover> = hovers.collect();

    svg((width, BOTTOM + 54), &hovers, |canvas| {
        let middle = text_style(TEXT, HPos::Center, VPos::Top);
        let title_style = text_style(TITLE, HPos::Left, VPos::Top);
        canvas.draw(&Text::new(title, (SPACE, SPACE), title_style)).map_err(drawing)?;
        let x_label = match scale {
            Scale::Linear => x_label.to_owned(),
            Scale::Logarithmic => format!("{x_label} (logarithmic axis)"),
        };
        canvas.draw(&Text::new(x_label, ((LEFT + RIGHT) / 2, BOTTOM + 32), middle)).map_err(drawing)?;
        let above = text_style(TEXT, HPos::Left, VPos::Bottom);
        canvas.draw(&Text::new(y_label, (SPACE, TOP - SPACE), above)).map_err(drawing)?;
        let own = if ticks.is_empty() { all().map(|point| point.0).collect() } else { ticks.to_vec() };
        frame.draw_axes(canvas, own)?;
        // Bands first: no line is to lie behind the band of another.
        for (series, (colour, _)) in series.iter().zip(styles()) {
            if let Some(band) = &series.band {
                let edge = |value: fn(&(f64, f64)) -> f64| {
                    let at = move |(point, bounds): (&(f64, f64), &(f64, f64))| frame.pixel((point.0, value(bounds)));
                    series.points.iter().zip(band).map(at).collect::<Vec<_>>()
                };
                let outline = [edge(|bounds| bounds.1), edge(|bounds| bounds.0).into_iter().rev().collect()].concat();
                canvas.draw(&Polygon::new(outline, colour.mix(0.25).filled())).map_err(drawing)?;
            }
            if let (true, Some(&(low, high))) = (series.level, series.bars.first()) {
                let [top, bottom] = [high, low].map(|y| frame.pixel((series.points[0].0, y)).1);
                let corners = [(LEFT, top), (RIGHT, bottom)];
                canvas.draw(&Rectangle::new(corners, colour.mix(0.12).filled())).map_err(drawing)?;
            }
        }
        for (row, (series, (colour, marker))) in (0..).zip(series.iter().zip(styles())) {
            // Side by side, where bars of several lines would lie on one another.
            let aside = if barred > 1 && !series.level { (2 * row - barred + 1) * APART / 2 } else { 0 };
            let pixel = |point| {
                let (x, y) = frame.pixel(point);
                (x + aside, y)
            };
            let pixels: Vec<Pixel> = series.points.iter().map(|&point| pixel(point)).collect();
            let (x, y) = (RIGHT + 2 * SPACE, TOP + SPACE + row * (TEXT as i32 + 9));
            if series.level {
                draw_dashes(canvas, (LEFT, RIGHT), pixels[0].1, colour)?;
                draw_dashes(canvas, (x, x + SWATCH), y, colour)?;
            } else {
                for (&(x, _), &(low, high)) in series.points.iter().zip(&series.bars) {
                    draw_bar(canvas, pixel((x, low)), pixel((x, high)), colour)?;
                }
                draw_line(canvas, &pixels, colour)?;
                pixels.iter().try_for_each(|&pixel| marker.draw(canvas, pixel, colour))?;
                draw_line(canvas, &[(x, y), (x + SWATCH, y)], colour)?;
                marker.draw(canvas, (x + SWATCH / 2, y), colour)?;
            }
            let text = text_style(TEXT, HPos::Left, VPos::Center);
            canvas.draw(&Text::new(series.name.as_str(), (x + SWATCH + SPACE, y), text)).map_err(drawing)?;
        }
        Ok(())
    })
}

fn check(title: &str, series: &[Series], scale: Scale) -> Result<(), PlotError> {
    if series.is_empty() || series.iter().any(|series| series.points.is_empty()) {
        return Err(PlotError::Empty(title.into()));
    }
    for (row, Series { name, points, band, bars, .. }) in series.iter().enumerate() {
        if let Some(band) = band.as_ref().filter(|band| band.len() != points.len()) {
            return Err(PlotError::Shape { title: title.into(), row, found: band.len(), expected: points.len() });
        }
        if !bars.is_empty() && bars.len() != points.len() {
            return Err(PlotError::Shape { title: title.into(), row, found: bars.len(), expected: points.len() });
        }
        let unsound = |value: f64, hint| PlotError::Value { title: title.into(), value, place: name.clone(), hint };
        let pairs = points.iter().chain(band.iter().flatten()).chain(bars);
        if let Some(value) = pairs.flat_map(|&(a, b)| [a, b]).find(|value| !value.is_finite()) {
            return Err(unsound(value, ""));
        }
        if let Some((value, _)) = points.iter().find(|(x, _)| scale == Scale::Logarithmic && *x <= 0.0) {
            return Err(unsound(*value, "; a logarithmic axis has only positive numbers, take a linear one"));
        }
    }
    Ok(())
}

type Pixel = (i32, i32);

/// Edges of the plotting area.
const LEFT: i32 = 70;
const RIGHT: i32 = LEFT + 500;
const TOP: i32 = 66;
const BOTTOM: i32 = TOP + 300;
const SPACE: i32 = 10;
/// Pixels between the bars of two lines at the same x.
const APART: i32 = 6;
/// Length of a line in the legend.
const SWATCH: i32 = 28;

/// Wong's colours (Nature Methods 8, 441), told apart with any colour vision, without those that white or black hides.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

const MARKERS: [Marker; 6] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Cross, Marker::Plus];

/// Pairs of colour and marker; all 36 come before one is repeated.
fn styles() -> impl Iterator<Item = (RGBColor, Marker)> {
    (0..).map(|line| (COLOURS[line % COLOURS.len()], MARKERS[(line + line / COLOURS.len()) % MARKERS.len()]))
}

#[derive(Clone, Copy)]
enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
    Plus,
}

impl Marker {
    fn draw(self, canvas: &Canvas, (x, y): Pixel, colour: RGBColor) -> Result<(), PlotError> {
        let polygon = |corners: &[Pixel]| {
            let corners: Vec<Pixel> = corners.iter().map(|(right, down)| (x + right, y + down)).collect();
            canvas.draw(&Polygon::new(corners, colour.filled())).map_err(drawing)
        };
        let strokes = |ends: [Pixel; 2]| {
            ends.into_iter().try_for_each(|(right, down)| {
                draw_line(canvas, &[(x - right, y - down), (x + right, y + down)], colour)
            })
        };
        match self {
            Self::Circle => canvas.draw(&Circle::new((x, y), 5, colour.filled())).map_err(drawing),
            Self::Square => polygon(&[(-4, -4), (4, -4), (4, 4), (-4, 4)]),
            Self::Triangle => polygon(&[(0, -6), (5, 4), (-5, 4)]),
            Self::Diamond => polygon(&[(0, -6), (6, 0), (0, 6), (-6, 0)]),
            Self::Cross => strokes([(5, 5), (5, -5)]),
            Self::Plus => strokes([(6, 0), (0, 6)]),
        }
    }
}

fn draw_line(canvas: &Canvas, pixels: &[Pixel], colour: RGBColor) -> Result<(), PlotError> {
    let style = ShapeStyle::from(colour).stroke_width(2);
    canvas.draw(&PathElement::new(pixels, style)).map_err(drawing)
}

/// A bar between two ends, fainter than the line.
fn draw_bar(canvas: &Canvas, (x, low): Pixel, (_, high): Pixel, colour: RGBColor) -> Result<(), PlotError> {
    let style = ShapeStyle::from(colour.mix(0.8)).stroke_width(1);
    let lines = [[(x, low), (x, high)], [(x - 3, low), (x + 3, low)], [(x - 3, high), (x + 3, high)]];
    lines.into_iter().try_for_each(|line| canvas.draw(&PathElement::new(line.to_vec(), style)).map_err(drawing))
}

/// Dashes from one end to the other at a height.
fn draw_dashes(canvas: &Canvas, (from, to): (i32, i32), y: i32, colour: RGBColor) -> Result<(), PlotError> {
    let (dash, step) = (6, 11);
    let mut starts = (from..to).step_by(step);
    starts.try_for_each(|x| draw_line(canvas, &[(x, y), ((x + dash).min(to), y)], colour))
}

impl Scale {
    /// Where a number lies on the axis.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
        }
    }
}

/// Maps numbers to pixels.
#[derive(Clone, Copy)]
struct Frame {
    scale: Scale,
    /// Ends of the axes, those of x as [`Scale::place`] has them.
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn pixel(&self, (x, y): (f64, f64)) -> Pixel {
        let along = |value: f64, (low, high): (f64, f64), (from, to): (i32, i32)| {
            from + ((value - low) / (high - low) * f64::from(to - from)).round() as i32
        };
        (along(self.scale.place(x), self.x, (LEFT, RIGHT)), along(y, self.y, (BOTTOM, TOP)))
    }

    /// Axes with numbers: round ones, but on a logarithmic x the points' own where they are few.
    fn draw_axes(&self, canvas: &Canvas, mut own: Vec<f64>) -> Result<(), PlotError> {
        let line = |from: Pixel, to: Pixel, colour: ShapeStyle| {
            canvas.draw(&PathElement::new(vec![from, to], colour)).map_err(drawing)
        };
        let y_step = round_step(self.y);
        for y in multiples(self.y, y_step) {
            let (_, y_pixel) = self.pixel((1.0, y));
            line((LEFT, y_pixel), (RIGHT, y_pixel), FAINT.mix(0.4).into())?;
            let style = text_style(TEXT, HPos::Right, VPos::Center);
            canvas.draw(&Text::new(label(y, y_step), (LEFT - 8, y_pixel), style)).map_err(drawing)?;
        }
        own.sort_by(f64::total_cmp);
        own.dedup();
        let ticks: Vec<(f64, String)> = match self.scale {
            Scale::Linear => {
                let step = round_step(self.x);
                multiples(self.x, step).map(|x| (x, label(x, step))).collect()
            }
            Scale::Logarithmic if own.len() <= 12 => own.into_iter().map(|x| (x, x.to_string())).collect(),
            Scale::Logarithmic => one_two_five(self.x).map(|x| (x, x.to_string())).collect(),
        };
        let mut free_from = i32::MIN;
        for (x, text) in ticks {
            let (x_pixel, _) = self.pixel((x, 0.0));
            line((x_pixel, BOTTOM), (x_pixel, BOTTOM + 5), GREY.into())?;
            let half = text_width(&text, TEXT) / 2;
            if x_pixel - half >= free_from {
                free_from = x_pixel + half + SPACE;
                let style = text_style(TEXT, HPos::Center, VPos::Top);
                canvas.draw(&Text::new(text, (x_pixel, BOTTOM + 9), style)).map_err(drawing)?;
            }
        }
        line((LEFT, TOP), (LEFT, BOTTOM), GREY.into())?;
        line((LEFT, BOTTOM), (RIGHT, BOTTOM), GREY.into())
    }
}

/// Least and largest number with a margin, never equal.
fn widened(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let fold = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), fold);
    let margin = if high > low { 0.05 * (high - low) } else { (0.1 * low.abs()).max(1e-6) };
    (low - margin, high + margin)
}

/// 1, 2 or 5 times a power of ten, of which four to nine fit between two numbers.
fn round_step((low, high): (f64, f64)) -> f64 {
    let rough = (high - low) / 8.0;
    let power = 10f64.powf(rough.log10().floor());
    power * [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0)
}

/// Multiples of a step between two numbers.
fn multiples((low, high): (f64, f64), step: f64) -> impl Iterator<Item = f64> {
    let first = (low / step).ceil();
    let count = ((high / step).floor() - first).max(0.0) as usize;
    (0..=count).map(move |number| (first + number as f64) * step)
}

/// 1, 2 and 5 times powers of ten between two decimal logarithms.
fn one_two_five((low, high): (f64, f64)) -> impl Iterator<Item = f64> {
    let decades = low.floor() as i32..=high.ceil() as i32;
    // Parsed rather than multiplied, so that 0.002 is 0.002.
    let numbers = decades.flat_map(|decade| [1, 2, 5].map(|digit| format!("{digit}e{decade}").parse().unwrap_or(0.0)));
    numbers.filter(move |number: &f64| (low..=high).contains(&number.log10()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        Series { name: name.into(), points: points.into(), ..Series::default() }
    }

    #[test]
    fn lines_have_markers_and_names() {
        let one = Series { band: Some(vec![(0.2, 0.4), (0.4, 0.8)]), ..series("CoKV", &[(64.0, 0.3), (1024.0, 0.6)]) };
        let chart = line_chart("t", "tokens", "score", &[one, series("a < b", &[(128.0, 0.1)])], Scale::Logarithmic);
        let chart = chart.unwrap();
        assert!(chart.contains("a &lt; b") && chart.contains("CoKV"));
        // Two points and the legend of the first, one point and the legend of the second; a band and two squares.
        assert_eq!((chart.matches("<circle").count(), chart.matches("<polygon").count()), (3, 3));
        for tick in ["64", "128", "1024"] {
            assert!(chart.contains(&format!("\n{tick}\n")), "{tick}: {chart}");
        }
    }

    #[test]
    fn a_level_is_dashed_and_has_no_marker() {
        let chart = |level| {
            let series = Series { level, ..series("full cache", &[(64.0, 0.5)]) };
            line_chart("t", "x", "y", &[series], Scale::Logarithmic).unwrap()
        };
        let count = |chart: String, what: &str| chart.matches(what).count();
        assert_eq!((count(chart(true), "<circle"), count(chart(false), "<circle")), (0, 2));
        // Of one point too there is a line to compare with: dashes of the chart's whole width.
        assert!(count(chart(true), "<polyline") > count(chart(false), "<polyline") + 40);
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        let chart = |series: &[Series], scale| line_chart("t", "x", "y", series, scale).unwrap_err().to_string();
        assert_eq!(chart(&[], Scale::Linear), "the chart `t` has nothing to draw");
        assert_eq!(chart(&[series("a", &[])], Scale::Linear), "the chart `t` has nothing to draw");
        assert!(chart(&[series("a", &[(0.0, 1.0)])], Scale::Logarithmic).contains("0 in a; a logarithmic axis"));
        assert!(chart(&[series("a", &[(0.0, f64::NAN)])], Scale::Linear).contains("cannot show NaN in a"));
        let band = Series { band: Some(vec![]), ..series("a", &[(0.0, 1.0)]) };
        assert!(chart(&[band], Scale::Linear).contains("0 cells in row 0, it needs 1"));
    }

    #[test]
    fn no_two_lines_look_alike() {
        let styles: Vec<_> =
            styles().take(36).map(|(colour, marker)| (colour.0, colour.1, colour.2, marker as u8)).collect();
        assert_eq!(styles.iter().collect::<std::collections::BTreeSet<_>>().len(), 36);
    }

    #[test]
    fn ticks_are_round() {
        let ticks =
            |range| multiples(range, round_step(range)).map(|y| label(y, round_step(range))).collect::<Vec<_>>();
        assert_eq!(ticks((0.0, 1.0)), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(ticks((-0.011, 0.012)).first().map(String::as_str), Some("-0.010"));
        assert_eq!(
            one_two_five((-2.0, 0.0)).map(|x| x.to_string()).collect::<Vec<_>>(),
            ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]
        );
    }

    #[test]
    fn one_point_is_a_chart() {
        for (x, y) in [(1.0, 0.0), (1e-9, 1e9), (1e12, -3.0)] {
            for scale in [Scale::Linear, Scale::Logarithmic] {
                let chart = line_chart("t", "x", "y", &[series("a", &[(x, y)])], scale).unwrap();
                assert!(chart.matches("<text").count() >= 5, "{chart}");
            }
        }
    }
}
