//! A score file on the terminal.

use clap::ValueEnum;

use super::file::ScoreFile;
use super::statistics::descending;
use crate::chart::{ColourScale, Rgb, label};
use crate::markdown;

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalColours {
    /// Text alone.
    None,
    /// The 256 colours of xterm.
    Indexed,
    /// All colours of 24 bits.
    True,
}

impl TerminalColours {
    /// Asks the environment by the usual rules: none for what is not a terminal and where `NO_COLOR` is set and not
    /// empty (no-color.org), else what `COLORTERM` and `TERM` say.
    pub fn detect(terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name| variable(name).unwrap_or_default();
        if !terminal || !variable("NO_COLOR").is_empty() {
            Self::None
        } else if ["truecolor", "24bit"].contains(&variable("COLORTERM").as_str()) {
            Self::True
        } else if variable("TERM").contains("256color") {
            Self::Indexed
        } else {
            Self::None
        }
    }

    /// A text on a background.
    fn paint(self, text: &str, (red, green, blue): Rgb) -> String {
        match self {
            Self::None => text.into(),
            Self::True => format!("\x1b[48;2;{red};{green};{blue}m{text}\x1b[0m"),
            Self::Indexed => {
                // xterm's cube of six steps per colour begins at 16; its steps are 0, 95, 135, 175, 215 and 255.
                let step = |value: u8| if value < 48 { 0 } else { (u16::from(value.max(75)) - 35) / 40 };
                let index = 16 + 36 * step(red) + 6 * step(green) + step(blue);
                format!("\x1b[48;5;{index}m{text}\x1b[0m")
            }
        }
    }
}

/// What was scored and how well it is known, and where it comes from.
pub fn summary(file: &ScoreFile) -> String {
    let count = |name: &str, value: Option<u64>| value.map(|value| format!("{value} {name}"));
    let share = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {value:.2}"));
    let known = [
        count("samples", file.samples),
        count("evaluations", file.evaluations),
        share("reliability", file.reliability),
        share("without the five strongest", file.reliability_of_others),
        share("rank correlation of two halves", file.split_half),
        share("budgets of two halves apart by", file.allocation_distance),
        share("tokens to move if more were known", file.tokens_to_move),
        file.records_with_signal
            .zip(file.game.as_ref())
            .map(|(with, game)| format!("{with} of {} records carry signal", game.records)),
        (!file.players.is_empty()).then(|| format!("{} heads, the others keep the whole prompt", file.players.len())),
    ];
    let facts = [file.model.to_string(), file.estimator.clone()].into_iter().chain(known.into_iter().flatten());
    let source = file.source.as_ref().map(|source| format!("\n{source}")).unwrap_or_default();
    facts.collect::<Vec<_>>().join(", ") + &source
}

/// The `count` best and the `count` worst heads with their scores ± standard errors, as a Markdown table.
pub fn extremes(file: &ScoreFile, count: usize) -> String {
    let scores = file.flat();
    let errors = file.standard_errors.as_ref().map(|errors| errors.concat());
    let kv_heads = file.model.kv_heads;
    let plays = |flat: &usize| file.players.is_empty() || file.players.contains(&[flat / kv_heads, flat % kv_heads]);
    let order: Vec<usize> = descending(&scores).into_iter().filter(plays).collect();
    let step = resolution(&scores);
    let mut table = markdown::table(["rank", "layer", "KV head", "score", "± standard error"], 0);
    for (rank, &flat) in order.iter().enumerate() {
        if rank < count || rank + count >= order.len() {
            let error = errors.as_ref().and_then(|errors| errors.get(flat));
            table.add_row([
                (rank + 1).to_string(),
                (flat / kv_heads).to_string(),
                (flat % kv_heads).to_string(),
                label(scores[flat], step),
                error
                    .map_or("–".into(), |error| if error.is_finite() { label(*error, step) } else { "unknown".into() }),
            ]);
        } else if rank == count {
            table.add_row(["…"; 5]);
        }
    }
    markdown::text(&table)
}

/// Mean score of every layer, as a Markdown table.
pub fn layer_means(file: &ScoreFile) -> String {
    let step = resolution(&file.flat());
    let mut table = markdown::table(["layer", "mean score", "lowest", "highest"], 0);
    for (layer, row) in file.scores.iter().enumerate() {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let low = row.iter().copied().fold(f64::INFINITY, f64::min);
        let high = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        table.add_row([layer.to_string(), label(mean, step), label(low, step), label(high, step)]);
    }
    markdown::text(&table)
}

/// The step between numbers that are to be told apart: a thousandth of the scores' range.
fn resolution(scores: &[f64]) -> f64 {
    let scale = ColourScale::sequential(scores.iter().copied());
    (scale.high - scale.low) / 1000.0
}

/// Colours of the legend.
const LEGEND_CELLS: usize = 20;

/// Characters before a row of cells.
const MARGIN: usize = 9;

/// What the shades of a picture follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shades {
    /// A head's place among all heads: one strong head leaves the others their differences.
    #[default]
    Rank,
    /// The scores themselves.
    Value,
}

/// Scores as a picture of one column per layer and one row per KV head: blocks of colour, or without colours digits
/// from 0 (lowest tenth of the heads, or of the range) to 9.
pub fn heat_map(file: &ScoreFile, colours: TerminalColours, shades: Shades) -> String {
    let values = file.flat();
    if shades == Shades::Rank {
        let ranked = ScoreFile { scores: layers_of(file, &ranks(&values)), ..file.clone() };
        let map = heat_map(&ranked, colours, Shades::Value);
        let step = resolution(&values);
        let ends = values
            .iter()
            .copied()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (value.min(low), value.max(high)));
        let (low, high) = (label(ends.0, step), label(ends.1, step));
        let picture = map.rsplit_once('\n').map_or(&*map, |(picture, _)| picture);
        let legend = match colours {
            TerminalColours::None => "0 is the lowest tenth of the heads, 9 the highest",
            _ => "shaded by rank",
        };
        return format!("{picture}\n{:MARGIN$}{legend}; scores from {low} to {high}", "");
    }
    let scores = values;
    let plain = colours == TerminalColours::None;
    let scale = if plain { ColourScale::sequential(scores) } else { ColourScale::of(scores) };
    let layers = file.scores.len();
    // A terminal has 80 columns, and a character is about twice as high as wide.
    let width = if MARGIN + 2 * layers <= 80 { 2 } else { 1 };
    let cell = |score: f64| match colours {
        TerminalColours::None => format!("{:<width$}", ((10.0 * scale.position(score)) as usize).min(9)),
        _ => colours.paint(&" ".repeat(width), scale.colour(score)),
    };
    let mut lines = vec![format!("{:MARGIN$}{}", "layer", axis(layers, width))];
    for head in 0..file.model.kv_heads {
        let row: String = file.scores.iter().filter_map(|row| row.get(head)).map(|&score| cell(score)).collect();
        lines.push(format!("{:MARGIN$}{}", format!("head {head}"), row.trim_end()));
    }
    let step = (scale.high - scale.low) / 1000.0;
    let (low, high) = (label(scale.low, step), label(scale.high, step));
    lines.push(if plain {
        format!("{:MARGIN$}0 is {low}, 9 is {high}", "")
    } else {
        let colour = |cell: usize| scale.colour(scale.value(cell as f64 / (LEGEND_CELLS - 1) as f64));
        let bar: String = (0..LEGEND_CELLS).map(|cell| colours.paint(" ", colour(cell))).collect();
        format!("{:MARGIN$}{low} {bar} {high}", "")
    });
    lines.join("\n")
}

/// Each value's share of the others below it, in `[0, 1]`; equal ones have the same.
fn ranks(values: &[f64]) -> Vec<f64> {
    let others = values.len().saturating_sub(1).max(1) as f64;
    let below = |value: &f64| values.iter().filter(|other| *other < value).count() as f64;
    values.iter().map(|value| below(value) / others).collect()
}

fn layers_of(file: &ScoreFile, flat: &[f64]) -> Vec<Vec<f64>> {
    flat.chunks(file.model.kv_heads.max(1)).map(<[f64]>::to_vec).collect()
}

/// Numbers of the layers above their columns, every tenth character at most.
fn axis(layers: usize, width: usize) -> String {
    (0..layers).step_by(10 / width).map(|layer| format!("{layer:<10}")).collect::<String>().trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::model;
    use super::*;

    fn file() -> ScoreFile {
        ScoreFile::new(model("toy", 3, 1, 2), "scpr", &[0.0, 0.9, -0.1, 0.45, 0.2, 0.3]).with_standard_errors(&[
            0.01,
            0.02,
            f64::INFINITY,
            0.04,
            0.05,
            0.06,
        ])
    }

    #[test]
    fn colours_follow_the_environment() {
        use TerminalColours::{Indexed, None, True};
        for (terminal, variables, expected) in [
            (true, &[("COLORTERM", "truecolor"), ("TERM", "xterm")][..], True),
            (true, &[("TERM", "xterm-256color")], Indexed),
            (true, &[("TERM", "dumb")], None),
            (true, &[("COLORTERM", "24bit"), ("NO_COLOR", "1")], None),
            (true, &[("COLORTERM", "24bit"), ("NO_COLOR", "")], True),
            (false, &[("COLORTERM", "24bit")], None),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
            assert_eq!(TerminalColours::detect(terminal, variable), expected, "{variables:?}");
        }
    }

    #[test]
    fn plain_heat_maps_are_digits() {
        let expected = "\
layer    0
head 0   1 0 3
head 1   9 5 4
         0 is -0.100, 9 is 0.900";
        assert_eq!(heat_map(&file(), TerminalColours::None, Shades::Value), expected);
        // Regression: of one strong head and many weak ones, the picture was a map of zeros.
        let strong = ScoreFile::new(model("toy", 3, 1, 2), "scpr", &[0.0, 0.9, -0.01, 0.004, 0.002, 0.003]);
        let expected = "\
layer    0
head 0   2 0 4
head 1   9 8 6
         0 is the lowest tenth of the heads, 9 the highest; scores from -0.0100 to 0.9000";
        assert_eq!(heat_map(&strong, TerminalColours::None, Shades::Rank), expected);
    }

    #[test]
    fn coloured_heat_maps_have_a_block_for_each_head() {
        let map = heat_map(&file(), TerminalColours::True, Shades::Value);
        assert_eq!(map.matches("\x1b[48;2;").count(), 6 + LEGEND_CELLS);
        assert!(map.contains("-0.900 ") && map.ends_with(" 0.900"), "{map}");
        // White is the corner of the cube.
        assert_eq!(TerminalColours::Indexed.paint(" ", (247, 247, 247)), "\x1b[48;5;231m \x1b[0m");
        assert_eq!(TerminalColours::Indexed.paint(" ", (0, 95, 135)), "\x1b[48;5;24m \x1b[0m");
    }

    #[test]
    fn large_models_fit_a_terminal() {
        let colourless =
            |text: &str| text.split('\x1b').map(|part| part.split_once('m').map_or(part, |p| p.1)).collect::<String>();
        for (layers, kv_heads) in [(64, 8), (32, 8), (30, 3), (1, 1)] {
            let scores: Vec<f64> = (0..layers * kv_heads).map(|flat| flat as f64).collect();
            let file = ScoreFile::new(model("large", layers, 1, kv_heads), "test", &scores);
            for colours in [TerminalColours::None, TerminalColours::Indexed] {
                let map = heat_map(&file, colours, Shades::Rank);
                assert_eq!(map.lines().count(), kv_heads + 2);
                assert!(map.lines().all(|line| colourless(line).chars().count() <= 80), "{map}");
            }
        }
    }

    #[test]
    fn tables_show_both_ends() {
        let expected = "\
| rank | layer | KV head |  score | ± standard error |
|------|-------|---------|--------|------------------|
|    1 |     0 |       1 |  0.900 |            0.020 |
|    … |     … |       … |      … |                … |
|    6 |     1 |       0 | -0.100 |          unknown |";
        assert_eq!(extremes(&file(), 1), expected);
        assert_eq!(extremes(&file(), 9).lines().count(), 8);
        assert!(layer_means(&file()).contains("|     1 |      0.175 | -0.100 |   0.450 |"), "{}", layer_means(&file()));
    }

    #[test]
    fn summaries_tell_what_is_known() {
        assert_eq!(summary(&file()), "toy (3 layers × 2 KV heads), scpr");
        let known = ScoreFile { samples: Some(960), reliability: Some(0.912), source: Some("CoKV".into()), ..file() };
        assert_eq!(summary(&known), "toy (3 layers × 2 KV heads), scpr, 960 samples, reliability 0.91\nCoKV");
    }
}
