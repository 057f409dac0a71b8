//! Questions that users supply, with the paragraphs that answer them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;
use serde::Deserialize;

use super::DataError;
use super::json_lines;
use crate::fingerprint::fingerprint;

/// A question with what answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub text: String,
    /// Which of [`Questions::paragraphs`] answer it, in their order; at least one.
    pub paragraphs: Vec<usize>,
    /// Accepted answers, none of them blank; the first is the reference.
    pub answers: Vec<String>,
}

/// A file of questions.
#[derive(Clone, Debug)]
pub struct Questions {
    asked: Vec<Question>,
    paragraphs: Arc<[String]>,
}

impl Questions {
    /// Reads records of LongBench's layout, one a line, of which `input`, `context` and `answers` count; or, where the file's
    /// name ends in `.json`, SQuAD's `data[].paragraphs[].qas[]`, without the questions that nothing answers.
    ///
    /// Blank lines part a context into paragraphs. Paragraphs that are equal are one. Questions whose reference answer is one
    /// word are not asked, because its only token may be the one that the prefill decides; their paragraphs stay.
    ///
    /// # Errors
    ///
    /// A file that cannot be read; a line, or a question of SQuAD's, that lacks something.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let text = fs::read_to_string(path).map_err(DataError::io(path))?;
        let name = path.display().to_string();
        let supplied = match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
            true => of_squad(&name, &text)?,
            false => json_lines::parse(&name, &text, usize::MAX)?,
        };
        Ok(Self::of(supplied))
    }

    fn of(supplied: Vec<Supplied>) -> Self {
        let mut paragraphs: Vec<String> = Vec::new();
        let mut place_of: HashMap<String, usize> = HashMap::new();
        let mut asked = Vec::new();
        for Supplied { question, context, answers } in supplied {
            let mut places: Vec<usize> = Vec::new();
            for paragraph in paragraphs_of(&context) {
                let place = *place_of.entry(paragraph).or_insert_with_key(|paragraph| {
                    paragraphs.push(paragraph.clone());
                    paragraphs.len() - 1
                });
                if !places.contains(&place) {
                    places.push(place);
                }
            }
            if answers.first().is_some_and(|answer| !is_one_word(answer)) {
                asked.push(Question { text: question, paragraphs: places, answers });
            }
        }
        // Files list the questions of a paragraph one after the other; few records should ask about many paragraphs.
        asked.shuffle(&mut Pcg64::seed_from_u64(0));
        Self { asked, paragraphs: paragraphs.into() }
    }

    /// Questions that can be asked.
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Every paragraph of the file once.
    pub fn paragraphs(&self) -> &Arc<[String]> {
        &self.paragraphs
    }

    /// What the record at an index asks; none where there is nothing to ask. Seeds begin as far apart as they can (0 at the
    /// first question, 1 in the middle, 2 after a quarter, …), so that records of two of them differ where there are enough
    /// questions.
    pub fn of_record(&self, seed: u64, index: u64) -> Option<&Question> {
        let count = self.asked.len() as u128;
        let start = (u128::from(seed.reverse_bits()) * count) >> 64;
        let place = (start + u128::from(index)).checked_rem(count)?;
        self.asked.get(place as usize)
    }

    /// Hash of all that makes a question this one and no other, for a task of this name.
    pub fn fingerprint(&self, task: &str, question: &Question) -> String {
        let paragraphs = question.paragraphs.iter().map(|&place| &self.paragraphs[place]);
        let parts = question.answers.iter().chain(paragraphs);
        fingerprint([format!("supplied {task}"), question.text.clone()].into_iter().chain(parts.cloned()))
    }
}

/// A line of a file.
#[derive(Deserialize)]
#[serde(try_from = "Line")]
struct Supplied {
    question: String,
    context: String,
    answers: Vec<String>,
}

#[derive(Deserialize)]
struct Line {
    input: String,
    context: String,
    answers: Vec<String>,
}

impl TryFrom<Line> for Supplied {
    type Error = &'static str;

    fn try_from(Line { input, context, answers }: Line) -> Result<Self, Self::Error> {
        Self::checked(input, context, answers)
    }
}

impl Supplied {
    /// Refuses what could be neither asked nor scored.
    fn checked(question: String, context: String, answers: Vec<String>) -> Result<Self, &'static str> {
        if question.trim().is_empty() {
            return Err("the question (`input`) is empty");
        }
        if context.trim().is_empty() {
            return Err("`context` is empty: nothing would answer the question");
        }
        if answers.is_empty() {
            return Err("`answers` is empty: the record could not be scored; remove it, or give it one");
        }
        if answers.iter().any(|answer| answer.trim().is_empty()) {
            return Err("an answer is empty, which occurs in every prediction");
        }
        let mut once: Vec<String> = Vec::with_capacity(answers.len());
        for answer in answers.iter().map(|answer| answer.trim()) {
            if !once.iter().any(|other| other == answer) {
                once.push(answer.to_owned());
            }
        }
        Ok(Self { question: question.trim().to_owned(), context, answers: once })
    }
}

#[derive(Deserialize)]
struct Squad {
    data: Vec<SquadArticle>,
}

#[derive(Deserialize)]
struct SquadArticle {
    paragraphs: Vec<SquadParagraph>,
}

#[derive(Deserialize)]
struct SquadParagraph {
    context: String,
    qas: Vec<SquadQuestion>,
}

#[derive(Deserialize)]
struct SquadQuestion {
    question: String,
    answers: Vec<SquadAnswer>,
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct SquadAnswer {
    text: String,
}

fn of_squad(name: &str, text: &str) -> Result<Vec<Supplied>, DataError> {
    let squad: Squad = serde_json::from_str(text).map_err(|error| DataError::Line {
        path: name.to_owned(),
        line: error.line(),
        message: format!("{error} (a .json file is read as SQuAD's; records, one a line, belong into a .jsonl file)"),
    })?;
    let mut supplied = Vec::new();
    for SquadParagraph { context, qas } in squad.data.into_iter().flat_map(|article| article.paragraphs) {
        for SquadQuestion { question, answers, .. } in qas.into_iter().filter(|question| !question.is_impossible) {
            let failed = |problem| DataError::File {
                path: name.to_owned(),
                message: format!("the question `{question}`: {problem}"),
            };
            let answers = answers.into_iter().map(|answer| answer.text).collect();
            supplied.push(Supplied::checked(question.clone(), context.clone(), answers).map_err(failed)?);
        }
    }
    Ok(supplied)
}

/// Runs of lines between blank ones.
fn paragraphs_of(context: &str) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in context.lines().map(str::trim_end) {
        match paragraphs.last_mut().filter(|_| goes_on) {
            Some(paragraph) if !line.is_empty() => *paragraph += &format!("\n{line}"),
            _ if !line.is_empty() => paragraphs.push(line.trim_start().to_owned()),
            _ => {}
        }
        goes_on = !line.is_empty();
    }
    paragraphs
}

/// Whether a text may be a single token. Scripts that do not part words are taken at their length.
fn is_one_word(text: &str) -> bool {
    text.is_ascii() && !text.contains(char::is_whitespace) || text.chars().nth(1).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(question: &str, context: &str, answers: &[&str]) -> String {
        serde_json::json!({"input": question, "context": context, "answers": answers, "_id": 1, "length": 7})
            .to_string()
    }

    fn read(ending: &str, text: &str) -> Result<Questions, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("questions.{ending}"));
        fs::write(&path, text).unwrap();
        Questions::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn paragraphs_are_parted_by_blank_lines_and_kept_once() {
        let lines = [
            line("Who?", " One\n goes on \r\n \r\n\r\nTwo", &["Ada  Lovelace", "Lady Ada", "Ada  Lovelace "]),
            line("When?", "Two\n\nThree\n", &["in 1843"]),
        ];
        let questions = read("jsonl", &lines.join("\n\n")).unwrap();
        assert_eq!(questions.paragraphs()[..], ["One\n goes on", "Two", "Three"]);
        let asked = |text: &str| questions.asked.iter().find(|question| question.text == text).unwrap();
        assert_eq!(asked("Who?").paragraphs, [0, 1]);
        assert_eq!(asked("Who?").answers, ["Ada  Lovelace", "Lady Ada"]);
        assert_eq!(asked("When?").paragraphs, [1, 2]);
    }

    #[test]
    fn answers_of_one_word_are_not_asked_for_and_their_paragraphs_stay() {
        let lines = [
            line("Where?", "Here.", &["France", "in France"]),
            line("Who?", "She.", &["Ada Lovelace", "Ada"]),
            line("谁？", "她。", &["洛夫莱斯"]),
            line("什么？", "是。", &["是"]),
        ];
        let questions = read("jsonl", &lines.join("\n")).unwrap();
        let mut asked: Vec<&str> = questions.asked.iter().map(|question| question.text.as_str()).collect();
        asked.sort_unstable();
        assert_eq!(asked, ["Who?", "谁？"]);
        assert_eq!(questions.paragraphs().len(), 4);
    }

    #[test]
    fn seeds_ask_other_questions() {
        let lines: Vec<String> = (0..20).map(|at| line(&format!("{at}?"), &format!("P{at}"), &["a b"])).collect();
        let questions = read("jsonl", &lines.join("\n")).unwrap();
        let of_seed = |seed| -> Vec<&str> {
            (0..5).map(|index| questions.of_record(seed, index).unwrap().text.as_str()).collect()
        };
        let mut all = [0, 1, 2, 3].map(of_seed).concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20);
        assert!(!of_seed(0).is_sorted_by_key(|text| text.trim_end_matches('?').parse::<usize>().unwrap()));
        assert_eq!(questions.of_record(0, 3), questions.of_record(0, 23));
        assert_eq!(read("jsonl", "").unwrap().of_record(0, 0), None);
    }

    #[test]
    fn another_question_is_another_record() {
        let of = |question: &str, context: &str, answers: &[&str]| {
            let questions = read("jsonl", &line(question, context, answers)).unwrap();
            questions.fingerprint("t", &questions.asked[0])
        };
        let first = of("Who?", "She.\n\nHe.", &["Ada Lovelace"]);
        assert_eq!(first, of("Who?", "She.\n\nHe.\n", &["Ada Lovelace"]));
        for other in [
            of("Who then?", "She.\n\nHe.", &["Ada Lovelace"]),
            of("Who?", "She.\n\nHim.", &["Ada Lovelace"]),
            of("Who?", "She.\n\nHe.", &["Ada Lovelace", "Lady Ada"]),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn squad_is_read_as_it_is_published() {
        let squad = serde_json::json!({"version": "v2.0", "data": [{"title": "T", "paragraphs": [
            {"context": "In France.", "qas": [
                {"question": "Where?", "id": "1", "answers": [{"text": "In France", "answer_start": 0},
                    {"text": "In France", "answer_start": 0}], "is_impossible": false},
                {"question": "Why?", "id": "2", "answers": [], "is_impossible": true}]},
            {"context": "Other.", "qas": [{"question": "What?", "id": "3", "answers": [{"text": "Other"}]}]}]}]});
        let questions = read("json", &squad.to_string()).unwrap();
        assert_eq!(questions.len(), 1);
        assert_eq!(questions.asked[0].answers, ["In France"]);
        assert_eq!(questions.paragraphs()[..], ["In France.", "Other."]);
        let error = read("json", &squad.to_string().replace("In France\"", " \"")).unwrap_err();
        assert!(
            error.ends_with(
                "questions.json: the question `Where?`: an answer is empty, which occurs in every prediction"
            ),
            "{error}"
        );
        let error = read("json", &line("Who?", "She.", &["Ada Lovelace"])).unwrap_err();
        assert!(error.contains("missing field `data`") && error.contains("belong into a .jsonl file"), "{error}");
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_its_line() {
        let good = line("Who?", "She.", &["Ada Lovelace"]);
        let error = |bad: &str| read("jsonl", &format!("{good}\n\n{bad}\n")).unwrap_err();
        assert!(error(&good[..20]).contains("questions.jsonl:3: "), "{}", error(&good[..20]));
        assert!(error("{\"input\": \"a\", \"answers\": []}").contains("questions.jsonl:3: missing field `context`"));
        assert!(error(&line("Who?", "She.", &[])).contains(":3: `answers` is empty"));
        assert!(error(&line("Who?", "She.", &["a b", ""])).contains(":3: an answer is empty"));
        assert!(error(&line("Who?", "\n ", &["a b"])).contains(":3: `context` is empty"));
        assert!(error(&line(" ", "She.", &["a b"])).contains(":3: the question (`input`) is empty"));
        let missing = Questions::read(Path::new("nowhere.jsonl")).unwrap_err().to_string();
        assert!(missing.starts_with("nowhere.jsonl: "), "{missing}");
    }
}
