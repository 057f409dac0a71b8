//! Texts at which an answer ends, found across tokens.

/// Looks for texts in what comes piece by piece, and holds back what may become one.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    /// None is empty.
    stops: Vec<String>,
    held: String,
}

/// What may be told of a text so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// No part of a stop string, whatever comes next.
    pub text: String,
    /// Whether one was found; it is no part of the text.
    pub stopped: bool,
}

impl StopStrings {
    /// Looks for these.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Hears what comes next. Of several stop strings the one that begins first is found.
    pub fn push(&mut self, text: &str) -> Told {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.held.truncate(at);
            return Told { text: std::mem::take(&mut self.held), stopped: true };
        }
        let free = self.held.len() - begun(&self.held, &self.stops);
        let rest = self.held.split_off(free);
        Told { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What was held back, once nothing follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes at the end of a text that one of these, none of which is empty, may begin with.
pub fn begun(text: &str, stops: &[impl AsRef<str>]) -> usize {
    let longest = stops.iter().map(|stop| stop.as_ref().len() - 1).max().unwrap_or(0);
    let starts = (text.len().saturating_sub(longest)..text.len()).filter(|&at| text.is_char_boundary(at));
    let mut ends = starts.map(|at| &text[at..]).filter(|end| stops.iter().any(|stop| stop.as_ref().starts_with(end)));
    ends.next().map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut strings = StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut texts = Vec::new();
        for piece in pieces {
            let Told { text, stopped } = strings.push(piece);
            texts.push(text);
            if stopped {
                return (texts, true);
            }
        }
        texts.push(strings.finish());
        (texts, false)
    }

    #[test]
    fn what_may_begin_a_stop_string_is_held_back() {
        assert_eq!(told(&["END"], &["a E", "N", "x"]), (vec!["a ".into(), "".into(), "ENx".into(), "".into()], false));
        assert_eq!(told(&["END"], &["a E", "N", "D b"]), (vec!["a ".into(), "".into(), "".into()], true));
        assert_eq!(told(&["END"], &["a E"]), (vec!["a ".into(), "E".into()], false));
        assert_eq!(told(&[], &["a"]), (vec!["a".into(), "".into()], false));
    }

    #[test]
    fn the_first_of_several_ends_it() {
        assert_eq!(
            told(&["bc", "abcd"], &["xab", "cd"]),
            (vec!["x".into(), "".into()], true),
            "the one that begins first"
        );
        assert_eq!(told(&["b", "a"], &["xab"]), (vec!["x".into()], true));
    }

    #[test]
    fn characters_are_never_cut() {
        assert_eq!(told(&["éa"], &["xé", "b"]), (vec!["x".into(), "éb".into(), "".into()], false));
        assert_eq!(told(&["aab"], &["aa", "ab"]), (vec!["".into(), "a".into()], true));
    }

    #[test]
    fn however_a_text_is_cut_it_is_the_same() {
        let (text, stops) = ("abababaXé!abab", ["abaX", "éé"]);
        let whole = told(&stops, &[text]);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let (texts, stopped) = told(&stops, &letters.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((texts.concat(), stopped), (whole.0.concat(), whole.1));
        assert_eq!(whole.0.concat(), "ababab".get(..4).map(|_| "abab").unwrap());
    }
}
