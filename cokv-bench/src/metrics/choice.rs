//! One of several choices, called A, B, C and so on.

use std::sync::LazyLock;

use regex::Regex;

/// LongBench v2's form of an answer.
static STATED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"The correct answer is \(([A-Z])\)|The correct answer is ([A-Z])").expect("valid"));

/// What else names a choice, surest first: a letter in parentheses, a letter that the answer begins with, "answer is B",
/// and a letter alone at the end.
static NAMED: LazyLock<[Regex; 4]> = LazyLock::new(|| {
    [
        r"\(([A-Z])\)",
        r"^\W*([A-Z])(?:[.):,]|\s*$)",
        r"(?i:answer|choice|option)(?i:\s+is)?:?\s+([A-Z])\b",
        r"\b([A-Z])\W*$",
    ]
    .map(|pattern| Regex::new(pattern).expect("valid"))
});

/// How a choice is called: A for the first.
pub fn letter(place: usize) -> Option<char> {
    u8::try_from(place).ok().filter(|place| *place < 26).map(|place| char::from(b'A' + place))
}

/// Whether the prediction says the right choice in the words that LongBench v2 asks for, as its `extract_answer` reads them:
/// "The correct answer is (B)", asterisks left out.
pub(super) fn stated(prediction: &str, answer: &str) -> f64 {
    right(stated_letter(prediction), answer)
}

/// Whether the prediction names the right choice: as [`stated`], or by its letter in another form, or, where it names none,
/// by the text of one choice and no other.
pub(super) fn score(prediction: &str, answer: &str, choices: &[String]) -> f64 {
    let named = |form: &Regex| form.captures(prediction).and_then(|found| found[1].chars().next());
    let by_letter = || NAMED.iter().filter_map(named).find(|&letter| is_choice(letter, choices));
    let said = stated_letter(prediction).or_else(by_letter).or_else(|| by_text(prediction, choices));
    right(said, answer)
}

/// `answer` is a letter, in parentheses or not.
fn right(said: Option<char>, answer: &str) -> f64 {
    let wanted = answer.chars().find(|character| character.is_ascii_uppercase());
    f64::from(u8::from(said.is_some() && said == wanted))
}

fn is_choice(named: char, choices: &[String]) -> bool {
    choices.is_empty() || (0..choices.len()).any(|place| letter(place) == Some(named))
}

fn stated_letter(prediction: &str) -> Option<char> {
    let prediction = prediction.replace('*', "");
    let found = STATED.captures(&prediction)?;
    found.get(1).or(found.get(2))?.as_str().chars().next()
}

fn by_text(prediction: &str, choices: &[String]) -> Option<char> {
    let prediction = prediction.to_lowercase();
    let occurs = |choice: &String| {
        let choice = choice.trim().to_lowercase();
        !choice.is_empty() && prediction.contains(&choice)
    };
    let mut named = choices.iter().enumerate().filter(|(_, choice)| occurs(choice));
    match (named.next(), named.next()) {
        (Some((place, _)), None) => letter(place),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices() -> Vec<String> {
        ["a red house", "a blue house", "no house", "two houses"].map(str::to_owned).to_vec()
    }

    #[test]
    fn answers_in_longbench_s_words_are_read_as_upstream_reads_them() {
        for said in ["The correct answer is (B)", "**The correct answer is (B).** Because", "The correct answer is B"] {
            assert_eq!((stated(said, "(B)"), stated(said, "(A)")), (1.0, 0.0), "{said}");
        }
        for said in ["B", "(B)", "the correct answer is (B)", ""] {
            assert_eq!(stated(said, "B"), 0.0, "{said}");
        }
    }

    #[test]
    fn a_choice_may_be_named_in_other_forms() {
        for said in [
            "B",
            "B. a blue house",
            "(B) it is",
            " B) yes",
            "Answer: B",
            "I think it is B.",
            "It was a blue house.",
            "The answer is B, not A house",
        ] {
            assert_eq!(score(said, "(B)", &choices()), 1.0, "{said}");
        }
        for said in ["A blue house or a red house", "", "E", "It is (C)", "house"] {
            assert_eq!(score(said, "(B)", &choices()), 0.0, "{said}");
        }
    }

    #[test]
    fn letters_count_from_a() {
        assert_eq!((letter(0), letter(25), letter(26), letter(usize::MAX)), (Some('A'), Some('Z'), None, None));
    }
}
