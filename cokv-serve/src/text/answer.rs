//! The text of an answer as its tokens come.

use cokv_models::ModelError;
use cokv_models::sampling::TokenLogprobs;
use cokv_models::tokenizer::{TextStream, Tokenizer};

use super::stop::{StopStrings, Told};
use crate::api::answer::{Likely, Line, Piece};

/// One answer: its tokens become whole characters, and what may be a stop string's beginning is held back.
pub struct AnswerText<'a> {
    tokenizer: &'a Tokenizer,
    /// None once nothing follows.
    stream: Option<TextStream<'a>>,
    stops: StopStrings,
    /// Bytes of text that the tokens have given, and of them those that were told.
    given: usize,
    told: usize,
    /// Tokens whose text was not told yet, with where it ends; none where their characters are not whole yet.
    waiting: Vec<(Line, Option<usize>)>,
}

impl<'a> AnswerText<'a> {
    /// One that these texts end.
    pub fn new(tokenizer: &'a Tokenizer, stops: Vec<String>) -> Self {
        let (stream, stops) = (Some(tokenizer.stream()), StopStrings::new(stops));
        Self { tokenizer, stream, stops, given: 0, told: 0, waiting: Vec::new() }
    }

    /// Hears the next token, and says what may be told now and whether a stop string ended it all.
    pub fn push(&mut self, token: u32, logprobs: Option<&TokenLogprobs>) -> Result<(Piece, bool), ModelError> {
        let Some(stream) = &mut self.stream else { return Ok((Piece::default(), false)) };
        let text = stream.push(token)?;
        if let Some(logprobs) = logprobs {
            self.waiting.push((self.line(token, logprobs)?, None));
        }
        let Told { text, stopped } = self.give(&text);
        if stopped {
            self.stream = None;
        }
        Ok((self.tell(text, stopped), stopped))
    }

    /// What was held back, once no token follows.
    pub fn finish(&mut self) -> Result<Piece, ModelError> {
        let Some(stream) = self.stream.take() else { return Ok(Piece::default()) };
        let rest = stream.finish()?;
        let Told { mut text, stopped } = self.give(&rest);
        if !stopped {
            text.push_str(&self.stops.finish());
        }
        // Tokens without any text, such as control tokens at the end, belong to it all the same.
        let given = self.given;
        self.waiting.iter_mut().for_each(|(_, end)| *end = end.or(Some(given)));
        Ok(self.tell(text, stopped))
    }

    fn give(&mut self, text: &str) -> Told {
        self.given += text.len();
        if !text.is_empty() {
            let end = Some(self.given);
            self.waiting.iter_mut().filter(|(_, known)| known.is_none()).for_each(|(_, known)| *known = end);
        }
        self.stops.push(text)
    }

    /// What is told, with the tokens that it ends; behind a stop string nothing comes, and the token that begins within the text is
    /// the last.
    fn tell(&mut self, text: String, stopped: bool) -> Piece {
        let before = self.told;
        self.told += text.len();
        let told = self.told;
        let whole = self.waiting.iter().take_while(|(_, end)| end.is_some_and(|end| end <= told)).count();
        let begun = |place: usize| match place.checked_sub(1) {
            Some(last) => self.waiting[last].1.unwrap_or(told),
            None => before,
        };
        let cut = usize::from(stopped && whole < self.waiting.len() && begun(whole) < told);
        let lines = self.waiting.drain(..whole + cut).map(|(line, _)| line).collect();
        if stopped {
            self.waiting.clear();
        }
        Piece { text, lines }
    }

    fn line(&self, token: u32, logprobs: &TokenLogprobs) -> Result<Line, ModelError> {
        let likely = |token: u32, logprob: f64| {
            let text = self.tokenizer.decode(&[token], false)?;
            Ok::<_, ModelError>(Likely { text, bytes: self.tokenizer.token_bytes(token)?, logprob })
        };
        let top = logprobs.top.iter().map(|&(token, logprob)| likely(token, logprob)).collect::<Result<_, _>>()?;
        Ok(Line { chosen: likely(token, logprobs.logprob)?, top })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::outline;

    /// Of each letter its piece: text and tokens.
    fn told(stops: &[&str], text: &str) -> (Vec<(String, usize)>, bool) {
        let outline = outline();
        let mut answer = AnswerText::new(outline.tokenizer(), stops.iter().map(|stop| (*stop).into()).collect());
        let logprobs = TokenLogprobs { logprob: -1.0, top: Vec::new() };
        let (mut pieces, mut ended) = (Vec::new(), false);
        for token in outline.tokenizer().encode(text, false).unwrap() {
            let (piece, stopped) = answer.push(token, Some(&logprobs)).unwrap();
            pieces.push((piece.text, piece.lines.len()));
            ended |= stopped;
        }
        let Piece { text, lines } = answer.finish().unwrap();
        pieces.push((text, lines.len()));
        (pieces, ended)
    }

    fn piece(text: &str, lines: usize) -> (String, usize) {
        (text.into(), lines)
    }

    #[test]
    fn characters_are_whole_and_have_all_their_tokens() {
        assert_eq!(told(&[], "aé"), (vec![piece("a", 1), piece("", 0), piece("é", 2), piece("", 0)], false));
    }

    #[test]
    fn what_is_held_back_has_its_tokens_held_back() {
        let (pieces, ended) = told(&["bcd"], "abcx");
        assert_eq!(pieces, [piece("a", 1), piece("", 0), piece("", 0), piece("bcx", 3), piece("", 0)]);
        assert!(!ended);
        assert_eq!(told(&["bcd"], "abc").0, [piece("a", 1), piece("", 0), piece("", 0), piece("bc", 2)]);
    }

    #[test]
    fn a_stop_string_and_what_follows_is_not_told() {
        let (pieces, ended) = told(&["bc"], "abcd");
        assert_eq!(pieces, [piece("a", 1), piece("", 0), piece("", 0), piece("", 0), piece("", 0)]);
        assert!(ended);
    }

    #[test]
    fn half_a_character_is_told_at_the_end() {
        let outline = outline();
        let mut answer = AnswerText::new(outline.tokenizer(), Vec::new());
        let first = outline.tokenizer().encode("é", false).unwrap()[0];
        assert_eq!(answer.push(first, None).unwrap().0.text, "");
        assert_eq!(answer.finish().unwrap().text, "\u{fffd}");
    }
}
