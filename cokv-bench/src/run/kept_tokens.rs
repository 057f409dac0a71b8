//! Which tokens of a text every KV head keeps, as people look at it.

use crate::scores::HeadName;

/// Which tokens of a text every KV head keeps.
#[derive(Clone, Debug)]
pub struct KeptTokens<'a> {
    /// Tokens of the text.
    pub length: usize,
    /// Positions of the tokens that each head keeps, ascending.
    pub heads: Vec<(HeadName, &'a [u32])>,
}

impl KeptTokens<'_> {
    /// Share of tokens kept in each of `bins` equal stretches of the text: `[heads][bins]`.
    pub fn shares(&self, bins: usize) -> Vec<Vec<f64>> {
        let bins = bins.clamp(1, self.length.max(1));
        let start = |bin: usize| bin * self.length / bins;
        let shares = |kept: &[u32]| {
            let share = |bin: usize| {
                let (from, to) = (start(bin) as u32, start(bin + 1) as u32);
                let count = kept.partition_point(|&at| at < to) - kept.partition_point(|&at| at < from);
                count as f64 / f64::from(to - from)
            };
            (0..bins).map(share).collect()
        };
        self.heads.iter().map(|(_, kept)| shares(kept)).collect()
    }

    /// The map on a terminal: a line for each head, a character for each stretch of the text, darker where more is kept.
    pub fn map(&self, bins: usize) -> String {
        const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
        let shade = |share: &f64| SHADES[(share * 4.0).ceil() as usize];
        let lines = self.heads.iter().zip(self.shares(bins)).map(|((head, kept), shares)| {
            format!("{:>6} {:>6} {}", head.to_string(), kept.len(), shares.iter().map(shade).collect::<String>())
        });
        format!("  head   kept  from the first token to the last\n{}", lines.collect::<Vec<_>>().join("\n"))
    }
}

/// A text, token by token, in which each stretch that is kept is passed to the one and each that is evicted to the other.
pub fn marked(
    tokens: &[String],
    kept: &[u32],
    of_kept: impl Fn(&str) -> String,
    of_evicted: impl Fn(&str) -> String,
) -> String {
    let is_kept = |at: usize| kept.binary_search(&(at as u32)).is_ok();
    let mut text = String::new();
    let mut from = 0;
    while from < tokens.len() {
        let state = is_kept(from);
        let to = (from..tokens.len()).find(|&at| is_kept(at) != state).unwrap_or(tokens.len());
        let stretch = tokens[from..to].concat();
        text += &if state { of_kept(&stretch) } else { of_evicted(&stretch) };
        from = to;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_shades_count_what_is_kept() {
        let kept = KeptTokens { length: 6, heads: vec![(HeadName::of(0, 1), &[0, 1, 5])] };
        assert_eq!(kept.shares(3), [[1.0, 0.0, 0.5]]);
        assert_eq!(kept.shares(100)[0].len(), 6, "no more stretches than tokens");
        assert!(kept.map(3).ends_with("     3 █ ▒"), "{}", kept.map(3));
        let nothing = KeptTokens { length: 3, heads: vec![(HeadName::of(0, 1), &[])] };
        assert_eq!(nothing.shares(3), [[0.0; 3]]);
    }

    #[test]
    fn kept_and_evicted_text_is_the_whole() {
        let tokens = ["a", "b", "c", "d", "e", "f"].map(str::to_owned);
        let text = marked(&tokens, &[0, 1, 5], |kept| kept.into(), |evicted| format!("[{evicted}]"));
        assert_eq!(text, "ab[cde]f");
    }
}
