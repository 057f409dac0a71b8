//! Colours for numbers.

/// An 8-bit red, green and blue.
pub type Rgb = (u8, u8, u8);

/// ColorBrewer's RdBu, which readers with any colour vision can tell apart: blue is low, white the middle, red high.
const DIVERGING: &[Rgb] = &[
    (5, 48, 97),
    (33, 102, 172),
    (67, 147, 195),
    (146, 197, 222),
    (209, 229, 240),
    (247, 247, 247),
    (253, 219, 199),
    (244, 165, 130),
    (214, 96, 77),
    (178, 24, 43),
    (103, 0, 31),
];

/// Matplotlib's viridis, readable without colours too: dark is low, bright is high.
const SEQUENTIAL: &[Rgb] = &[
    (68, 1, 84),
    (72, 40, 120),
    (62, 74, 137),
    (49, 104, 142),
    (38, 130, 142),
    (31, 158, 137),
    (53, 183, 121),
    (110, 206, 88),
    (181, 222, 43),
    (253, 231, 37),
];

/// Maps a range of numbers to colours.
#[derive(Clone, Debug, PartialEq)]
pub struct ColourScale {
    /// Number with the first colour.
    pub low: f64,
    /// Number with the last colour.
    pub high: f64,
    colours: &'static [Rgb],
}

impl ColourScale {
    /// Diverging and symmetric around 0 for numbers of both signs, else sequential from the least to the largest.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let scale = Self::sequential(values);
        if scale.low < 0.0 && scale.high > 0.0 { Self::signed(scale.high.max(-scale.low)) } else { scale }
    }

    /// Sequential from the least to the largest number.
    pub fn sequential(values: impl IntoIterator<Item = f64>) -> Self {
        let fold = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
        let (low, high) = values.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), fold);
        Self { low, high, colours: SEQUENTIAL }
    }

    /// Diverging from `-largest` to `largest`.
    pub fn signed(largest: f64) -> Self {
        Self { low: -largest, high: largest, colours: DIVERGING }
    }

    /// Place of a number between `low` (0) and `high` (1); the middle where there is no range.
    pub fn position(&self, value: f64) -> f64 {
        // Halves, because the range of finite numbers may be infinite.
        let position = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        if position.is_nan() { 0.5 } else { position.clamp(0.0, 1.0) }
    }

    /// Number at a place between 0 and 1.
    pub fn value(&self, position: f64) -> f64 {
        self.low * (1.0 - position) + self.high * position
    }

    /// Colour of a number; numbers outside the range have that of its end.
    pub fn colour(&self, value: f64) -> Rgb {
        let place = self.position(value) * (self.colours.len() - 1) as f64;
        let below = (place as usize).min(self.colours.len() - 2);
        let share = place - below as f64;
        let mix = |low: u8, high: u8| (f64::from(low) + share * (f64::from(high) - f64::from(low))).round() as u8;
        let (low, high) = (self.colours[below], self.colours[below + 1]);
        (mix(low.0, high.0), mix(low.1, high.1), mix(low.2, high.2))
    }
}

/// Whether dark text is easier to read than light text on a colour (relative luminance of ITU-R BT.709).
pub fn is_light((red, green, blue): Rgb) -> bool {
    0.2126 * f64::from(red) + 0.7152 * f64::from(green) + 0.0722 * f64::from(blue) > 127.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_numbers_have_white_at_zero() {
        let scale = ColourScale::of([-1.0, 0.5]);
        assert_eq!((scale.low, scale.high), (-1.0, 1.0));
        assert_eq!(scale.colour(0.0), (247, 247, 247));
        assert_eq!(scale.colour(-1.0), (5, 48, 97));
        assert_eq!(scale.colour(2.0), (103, 0, 31));
        assert!(is_light(scale.colour(0.0)) && !is_light(scale.colour(1.0)));
    }

    #[test]
    fn others_run_from_the_least_to_the_largest() {
        let scale = ColourScale::of([-3.0, -1.0, -2.0]);
        assert_eq!((scale.low, scale.high, scale.value(0.5)), (-3.0, -1.0, -2.0));
        assert_eq!((scale.colour(-3.0), scale.colour(-1.0)), ((68, 1, 84), (253, 231, 37)));
        // All equal, none at all, and a range that overflows.
        assert_eq!(ColourScale::of([2.0, 2.0]).position(2.0), 0.5);
        assert_eq!(ColourScale::of([]).position(0.0), 0.5);
        assert_eq!(ColourScale::of([f64::MIN, f64::MAX]).position(0.0), 0.5);
    }
}
