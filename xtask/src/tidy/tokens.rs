//! Rust as a list of names and signs: without comments, literals and what is compiled for tests only.

/// A name, `::`, or one other sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// Counted from 1.
    pub line: usize,
}

/// The tokens of a file.
pub fn tokens(text: &str) -> Vec<Token> {
    without_tests(all_tokens(text))
}

fn all_tokens(text: &str) -> Vec<Token> {
    let letters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < letters.len() {
        let rest = &letters[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|&letter| letter == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r' | 'b', 'r', '"' | '#', ..] | ['r', '"', ..] | ['r', '#', '"' | '#', ..] => raw_string(rest),
            ['b', '"', ..] => 1 + string(&rest[1..]),
            ['"', ..] => string(rest),
            ['\'', '\\', ..] => 2 + rest[3..].iter().position(|&letter| letter == '\'').map_or(0, |end| end + 2),
            ['\'', _, '\'', ..] => 3,
            [first, ..] if is_name(*first) => rest.iter().position(|&letter| !is_name(letter)).unwrap_or(rest.len()),
            [':', ':', ..] => 2,
            _ => 1,
        };
        let length = length.min(rest.len());
        let is_token = match rest[0] {
            '/' => length == 1,
            '"' | '\'' => false,
            first if first.is_whitespace() => false,
            _ => !rest[..length].contains(&'"'),
        };
        if is_token {
            tokens.push(Token { text: rest[..length].iter().collect(), line });
        }
        line += rest[..length].iter().filter(|&&letter| letter == '\n').count();
        at += length;
    }
    tokens
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string(rest: &[char]) -> usize {
    let start = rest.iter().position(|letter| !['r', 'b'].contains(letter)).unwrap_or(0);
    let hashes = rest[start..].iter().take_while(|&&letter| letter == '#').count();
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = start + hashes + 1;
    rest[body.min(rest.len())..]
        .windows(end.len())
        .position(|window| window == end)
        .map_or(rest.len(), |at| body + at + end.len())
}

/// Leaves out the items behind `#[cfg(test)]` and `#[cfg(all(test, …))]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = |pattern: &[&str]| pattern.iter().enumerate().all(|(place, sign)| text(at + place) == *sign);
        if starts(&["#", "[", "cfg", "(", "test"]) || starts(&["#", "[", "cfg", "(", "all", "(", "test"]) {
            at = item_end(&tokens, at);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Where the item ends that begins here with its attributes.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    while tokens.get(at).is_some_and(|token| token.text == "#") {
        at = group_end(tokens, at + 1);
    }
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            // A list of imports goes on behind its braces.
            "{" if at > 0 && tokens[at - 1].text != "::" => return group_end(tokens, at),
            "(" | "[" | "{" => at = group_end(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// Behind the bracket that closes the one at `start`.
pub fn group_end(tokens: &[Token], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        tokens(text).iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_left_out() {
        assert_eq!(words("a // b\n/* c /* d */ e */ f"), "a f");
        assert_eq!(words(r##"a("b \" c", r#"d "e" f"#, b"g", 'h', '\'', '"', &'i j)"##), "a ( , , , , , , & i j )");
        assert_eq!(words("r#type::x 1.5"), "r # type :: x 1 . 5");
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let text = "/*\n*/ \"\n\\\n\" a\nb";
        assert_eq!(tokens(text).iter().map(|token| token.line).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn what_is_compiled_for_tests_is_left_out() {
        assert_eq!(words("#[cfg(test)]\nmod tests { fn f() {} }\na"), "a");
        assert_eq!(words("#[cfg(all(test, unix))]\n#[x(y)]\npub(crate) use a::{b, c};\nd"), "d");
        assert_eq!(
            words("#[cfg(test)]\nfn f() -> [u8; 2] { }\n#[cfg(unix)] fn g() {}"),
            "# [ cfg ( unix ) ] fn g ( ) { }"
        );
    }
}
