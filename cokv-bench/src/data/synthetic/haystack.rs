//! Prose of one's own to hide things in.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cokv_core::random::mix;

use super::draft::Filler;
use crate::data::DataError;

/// Words of a piece at most: what has no ends of sentences is cut.
const WORDS: usize = 60;

/// Pieces at least: fewer would say the same again and again.
const FEWEST: usize = 20;

/// A text, sentence by sentence.
#[derive(Clone, Debug)]
pub struct Haystack {
    sentences: Arc<[String]>,
}

impl Haystack {
    /// Reads a text file.
    ///
    /// # Errors
    /// Where it cannot be read, or has few sentences.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let text = fs::read_to_string(path).map_err(DataError::io(path))?;
        let sentences = sentences(&text);
        if sentences.len() < FEWEST {
            let message =
                format!("a haystack needs a text of at least {FEWEST} sentences, and this has {}", sentences.len());
            return Err(DataError::File { path: path.display().to_string(), message });
        }
        Ok(Self { sentences: sentences.into() })
    }

    /// The text from a sentence on that follows from the number, from the beginning again after its end.
    pub(super) fn from(&self, number: u64) -> Filler {
        let sentences = Arc::clone(&self.sentences);
        let mut next = (mix(number) % sentences.len() as u64) as usize;
        Box::new(move || {
            let sentence = sentences.get(next)?.clone();
            next = (next + 1) % sentences.len();
            Some(sentence)
        })
    }
}

/// Sentences, or pieces of [`WORDS`] words, each with a space or the paragraph's end behind it.
fn sentences(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut words: Vec<&str> = Vec::new();
        for word in paragraph.split_whitespace() {
            words.push(word);
            let ends = word.trim_end_matches(['"', '\'', '”', '’', ')']).ends_with(['.', '!', '?', '。', '！', '？']);
            if ends || words.len() == WORDS {
                sentences.push(words.join(" ") + " ");
                words.clear();
            }
        }
        if !words.is_empty() {
            sentences.push(words.join(" ") + " ");
        }
        if let Some(last) = sentences.last_mut().filter(|last| last.ends_with(' ')) {
            last.pop();
            last.push_str("\n\n");
        }
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_the_ends_of_sentences() {
        let text = "One. “Two!” she\nsaid. Three\n\nFour? Yes.\n\n\n\n";
        assert_eq!(sentences(text), ["One. ", "“Two!” ", "she said. ", "Three\n\n", "Four? ", "Yes.\n\n"]);
        assert_eq!(sentences(&"word ".repeat(150)).len(), 3);
    }

    #[test]
    fn a_haystack_begins_anywhere_and_never_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.txt");
        fs::write(&path, "Too short.").unwrap();
        assert!(Haystack::read(&path).unwrap_err().to_string().contains("at least 20 sentences, and this has 1"));
        fs::write(&path, (0..25).map(|at| format!("Sentence {at}. ")).collect::<String>()).unwrap();
        let haystack = Haystack::read(&path).unwrap();
        let first = |number: u64| haystack.from(number)().unwrap();
        assert!((0..20).any(|number| first(number) != first(0)));
        let mut filler = haystack.from(3);
        let all: Vec<String> = (0..50).map_while(|_| filler()).collect();
        assert_eq!(all[..25], all[25..]);
    }
}
