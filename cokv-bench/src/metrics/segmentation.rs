//! Chinese word segmentation as Python's `jieba.cut` does it.

use std::sync::LazyLock;

use jieba_rs::Jieba;
use regex::Regex;

static JIEBA: LazyLock<Jieba> = LazyLock::new(Jieba::new);

/// The characters that Python's jieba segments. jieba-rs takes more (rare ideographs), which
/// would join blocks that Python keeps apart.
static BLOCK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\x{4E00}-\x{9FD5}a-zA-Z0-9+#&._%-]+").expect("valid"));

/// What Python's jieba takes as one word of Latin letters and digits.
static LATIN_WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[a-zA-Z0-9]+(?:\.[0-9]+)?%?").expect("valid"));

/// The words of a text in order, as Python's `jieba.cut(text)` gives them, with the default
/// dictionary and the hidden Markov model for unknown words.
///
/// Nothing is lost: the words together are the text. One difference is left, which no metric can
/// see: Python gives "\r\n" as one word.
pub(super) fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (is_block, piece) in pieces(&BLOCK, text) {
        if !is_block {
            words.extend(piece.split_inclusive(|_| true));
            continue;
        }
        for token in JIEBA.cut(piece, true) {
            if is_joined_by_jieba_rs(token.word) {
                words.extend(pieces(&LATIN_WORD, token.word).map(|(_, word)| word));
            } else {
                words.push(token.word);
            }
        }
    }
    words
}

/// jieba-rs keeps "one-two" and "1.2.3" whole where Python splits them. No entry of the
/// dictionary looks like that, so none is split by mistake.
fn is_joined_by_jieba_rs(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphanumeric()) && word.contains(['.', '_', '-'])
}

/// Cuts a text into the matches of a pattern (`true`) and what lies between them (`false`).
fn pieces<'t>(pattern: &Regex, text: &'t str) -> impl Iterator<Item = (bool, &'t str)> {
    let mut pieces = Vec::new();
    let mut end = 0;
    for found in pattern.find_iter(text) {
        pieces.push((false, &text[end..found.start()]));
        pieces.push((true, found.as_str()));
        end = found.end();
    }
    pieces.push((false, &text[end..]));
    pieces.into_iter().filter(|(_, piece)| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn segments_as_python_does() {
        assert_eq!(words("我来到北京清华大学"), ["我", "来到", "北京", "清华大学"]);
        assert_eq!(words("他来到了网易杭研大厦"), ["他", "来到", "了", "网易", "杭研", "大厦"]);
        assert_eq!(words("很好。 \n！"), ["很", "好", "。", " ", "\n", "！"]);
    }

    #[test]
    fn latin_words_end_where_python_ends_them() {
        assert_eq!(words("one-two_3"), ["one", "-", "two", "_", "3"]);
        assert_eq!(words("1.2.3 a.b 95.5%x"), ["1.2", ".", "3", " ", "a", ".", "b", " ", "95.5%", "x"]);
        assert_eq!(words("1.2a AT&T c++"), ["1.2", "a", " ", "AT&T", " ", "c++"]);
        assert_eq!(words("a-.b"), ["a", "-.", "b"]);
    }

    #[test]
    fn rare_ideographs_stand_alone() {
        assert_eq!(words("㐀㐁中国\u{9fd6}人"), ["㐀", "㐁", "中国", "\u{9fd6}", "人"]);
    }

    proptest! {
        #[test]
        fn words_together_are_the_text(text in "(\\PC|[a-c1.%_-]|[的一是在北京大学]){0,40}") {
            prop_assert_eq!(words(&text).concat(), text);
        }
    }
}
