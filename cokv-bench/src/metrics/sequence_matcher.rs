//! `SequenceMatcher.ratio` of Python's `difflib`: Ratcliff and Obershelp's similarity of texts.

use std::collections::HashMap;
use std::ops::Range;

/// From this many characters on, `difflib` ignores frequent characters ("autojunk").
const AUTOJUNK_LENGTH: usize = 200;

/// Similarity of two texts in `[0, 1]`: twice the matched characters over all characters.
///
/// Characters are Unicode code points. Autojunk is on, as in `SequenceMatcher(None, first, second)`,
/// and looks at `second` only, so the order of the arguments matters. Two empty texts give 1.
pub(super) fn ratio(first: &str, second: &str) -> f64 {
    let first: Vec<char> = first.chars().collect();
    let second: Vec<char> = second.chars().collect();
    let length = first.len() + second.len();
    if length == 0 {
        return 1.0;
    }
    2.0 * Matcher::new(&first, &second).matched_characters() as f64 / length as f64
}

struct Matcher<'t> {
    first: &'t [char],
    second: &'t [char],
    /// Where each character occurs in `second`, in order; frequent characters are left out.
    positions: HashMap<char, Vec<usize>>,
}

struct Match {
    first: usize,
    second: usize,
    length: usize,
}

impl<'t> Matcher<'t> {
    fn new(first: &'t [char], second: &'t [char]) -> Self {
        let mut positions: HashMap<char, Vec<usize>> = HashMap::new();
        for (position, &character) in second.iter().enumerate() {
            positions.entry(character).or_default().push(position);
        }
        if second.len() >= AUTOJUNK_LENGTH {
            let frequent = second.len() / 100 + 1;
            positions.retain(|_, occurrences| occurrences.len() <= frequent);
        }
        Self { first, second, positions }
    }

    /// Takes the longest match, then does the same on its left and on its right.
    fn matched_characters(&self) -> usize {
        let mut matched = 0;
        let mut regions = vec![(0..self.first.len(), 0..self.second.len())];
        while let Some((first, second)) = regions.pop() {
            let longest = self.longest_match(&first, &second);
            if longest.length == 0 {
                continue;
            }
            matched += longest.length;
            let first_end = longest.first + longest.length;
            let second_end = longest.second + longest.length;
            regions.push((first.start..longest.first, second.start..longest.second));
            regions.push((first_end..first.end, second_end..second.end));
        }
        matched
    }

    /// The longest common run within the two ranges, the earliest of several.
    ///
    /// Frequent characters start no run, but a run found without them grows over them on both
    /// sides. With no run at all, the empty one at the ranges' start may still grow.
    fn longest_match(&self, first: &Range<usize>, second: &Range<usize>) -> Match {
        let mut best = Match { first: first.start, second: second.start, length: 0 };
        // Length of the run that ends at the previous character of `first` and at each position
        // of `second`.
        let mut ending: HashMap<usize, usize> = HashMap::new();
        for position in first.clone() {
            let mut ending_here = HashMap::new();
            for &other in self.occurrences(self.first[position], second) {
                let before = other.checked_sub(1).and_then(|previous| ending.get(&previous));
                let length = before.map_or(1, |length| length + 1);
                ending_here.insert(other, length);
                if length > best.length {
                    best = Match { first: position + 1 - length, second: other + 1 - length, length };
                }
            }
            ending = ending_here;
        }
        while best.first > first.start
            && best.second > second.start
            && self.first[best.first - 1] == self.second[best.second - 1]
        {
            best.first -= 1;
            best.second -= 1;
            best.length += 1;
        }
        while best.first + best.length < first.end
            && best.second + best.length < second.end
            && self.first[best.first + best.length] == self.second[best.second + best.length]
        {
            best.length += 1;
        }
        best
    }

    fn occurrences(&self, character: char, range: &Range<usize>) -> &[usize] {
        let all = self.positions.get(&character).map_or(&[][..], Vec::as_slice);
        let start = all.partition_point(|&position| position < range.start);
        let end = all.partition_point(|&position| position < range.end);
        &all[start..end]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documented_cases() {
        assert_eq!(ratio("abcd", "bcde"), 0.75);
        assert_eq!(ratio("", ""), 1.0);
        assert_eq!(ratio("", "a"), 0.0);
        assert_eq!(ratio("é中", "中"), 2.0 / 3.0);
    }

    #[test]
    fn order_matters() {
        assert_eq!(ratio("tide", "diet"), 0.25);
        assert_eq!(ratio("diet", "tide"), 0.5);
    }

    #[test]
    fn autojunk_starts_at_two_hundred_characters() {
        let text = "ab".repeat(100);
        assert_eq!(ratio(&format!("x{text}"), &text[1..]), 398.0 / 400.0);
        assert_eq!(ratio(&format!("x{text}"), &text), 0.0);
        assert_eq!(ratio(&text, &format!("x{}", &text[1..])), 0.0);
        assert_eq!(ratio(&format!("{text}x"), &text), 400.0 / 401.0);
    }

    proptest! {
        #[test]
        fn a_text_matches_itself(text in "[ab]{0,250}|\\PC{0,50}|[a-z ]{190,210}") {
            prop_assert_eq!(ratio(&text, &text), 1.0);
        }
    }
}
