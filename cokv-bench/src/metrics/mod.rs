//! The metrics of LongBench v1, equal to upstream's `metrics.py` and `eval.py` score for score, those of RULER, and some for
//! records of one's own.
//!
//! A score compares one prediction with one accepted answer and lies in `[0, 1]`; published tables
//! show its mean over a task's records times 100. Parity includes upstream's accidents (set-based
//! Rouge-L, list edited while read, recursion limit), because published numbers contain them. The
//! versions that parity refers to are jieba 0.42.1, rouge 1.0.1 and fuzzywuzzy 0.18.0 without
//! python-Levenshtein, under CPython 3.11.

mod by_length;
mod choice;
mod classification;
mod code;
mod exact;
mod number;
mod python_text;
mod qa;
mod retrieval;
mod rouge;
mod segmentation;
mod sequence_matcher;
mod string_match;

pub use by_length::{BUCKETS, Bucket, bucket, by_length, mean_percent};
pub use choice::letter;
pub use number::is_number;
pub use rouge::PYTHON_RECURSION_LIMIT;
use serde::{Deserialize, Serialize};
pub use string_match::SEPARATOR;

/// How a task's predictions are compared with its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// F1 over the words of English text (`qa_f1_score`).
    #[serde(rename = "f1")]
    QaF1,
    /// F1 over the words of segmented Chinese text (`qa_f1_zh_score`).
    #[serde(rename = "f1-zh")]
    QaF1Zh,
    /// Rouge-L F-measure over space-separated words (`rouge_score`).
    RougeL,
    /// Rouge-L F-measure over the words of segmented Chinese text (`rouge_zh_score`).
    RougeLZh,
    /// Whether the prediction names the right class, shared among the classes that it names
    /// (`classification_score`).
    Classification,
    /// Share of the prediction's numbers that are the answer's paragraph (`retrieval_score`).
    Retrieval,
    /// As [`Metric::Retrieval`], for Chinese answers (`retrieval_zh_score`).
    RetrievalZh,
    /// Share of the prediction's numbers that equal the answer (`count_score`).
    Count,
    /// Edit similarity of the first line of code (`code_sim_score`).
    CodeSimilarity,
    /// Share of the answer's values, which [`SEPARATOR`] joins, that occur in the prediction (RULER's `string_match_all`).
    #[serde(rename = "contains-all")]
    StringMatchAll,
    /// Whether the answer occurs in the prediction (RULER's `string_match_part`).
    #[serde(rename = "contains")]
    StringMatchPart,
    /// Whether the words are the answer's (SQuAD's `exact_match_score`).
    Exact,
    /// Edit similarity of the whole texts, without whitespace around them (`fuzz.ratio`).
    EditSimilarity,
    /// Whether the prediction names the right one of several choices, which are the record's classes; the answer is a letter.
    Choice,
    /// As [`Metric::Choice`], in LongBench v2's words only (`extract_answer`).
    ChoiceStated,
    /// Whether the prediction's last number is the answer's.
    Number,
}

impl Metric {
    /// Scores one prediction against one answer, in `[0, 1]`.
    ///
    /// Only [`Metric::Classification`] and [`Metric::Choice`] look at `all_classes`, the labels that the task knows.
    /// Argument order matters: several metrics are asymmetric. Most callers want
    /// [`score_prediction`], which applies a task's own rules first.
    pub fn score(self, prediction: &str, answer: &str, all_classes: &[String]) -> f64 {
        match self {
            Self::QaF1 => qa::f1(prediction, answer),
            Self::QaF1Zh => qa::f1_zh(prediction, answer),
            Self::RougeL => rouge::rouge_l(prediction, answer),
            Self::RougeLZh => rouge::rouge_l_zh(prediction, answer),
            Self::Classification => classification::score(prediction, answer, all_classes),
            Self::Retrieval => retrieval::retrieval(prediction, answer),
            Self::RetrievalZh => retrieval::retrieval_zh(prediction, answer),
            Self::Count => retrieval::count(prediction, answer),
            Self::CodeSimilarity => code::similarity(prediction, answer),
            Self::StringMatchAll => string_match::all(prediction, answer),
            Self::StringMatchPart => string_match::part(prediction, answer),
            Self::Exact => exact::score(prediction, answer),
            Self::EditSimilarity => code::edit_similarity(prediction, answer),
            Self::Choice => choice::score(prediction, answer, all_classes),
            Self::ChoiceStated => choice::stated(prediction, answer),
            Self::Number => number::score(prediction, answer),
        }
    }

    /// Why no prediction could score with these answers and labels, where none could: upstream stops with an error there, and
    /// a score of 0 would say something of the model.
    pub fn unscorable(self, answers: &[String], all_classes: &[String]) -> Option<&'static str> {
        let no_answer = |names: fn(&str) -> bool| !answers.iter().any(|answer| names(answer));
        match self {
            Self::Classification | Self::Choice | Self::ChoiceStated if all_classes.is_empty() => {
                Some("it has no classes (`all_classes`, or choices), which this metric needs")
            }
            Self::Retrieval if no_answer(retrieval::names_paragraph) => {
                Some("its answer names no paragraph, such as `Paragraph 7`, which this metric needs")
            }
            Self::RetrievalZh if no_answer(retrieval::names_paragraph_zh) => {
                Some("its answer names no paragraph, such as `段落7`, which this metric needs")
            }
            Self::Number if no_answer(|answer| number::score(answer, answer) == 1.0) => {
                Some("its answer is no number, which this metric needs")
            }
            _ => None,
        }
    }

    /// The name of the function in upstream's `metrics.py`, or in RULER's `constants.py`; of the others, one like those.
    pub fn name(self) -> &'static str {
        match self {
            Self::QaF1 => "qa_f1_score",
            Self::QaF1Zh => "qa_f1_zh_score",
            Self::RougeL => "rouge_score",
            Self::RougeLZh => "rouge_zh_score",
            Self::Classification => "classification_score",
            Self::Retrieval => "retrieval_score",
            Self::RetrievalZh => "retrieval_zh_score",
            Self::Count => "count_score",
            Self::CodeSimilarity => "code_sim_score",
            Self::StringMatchAll => "string_match_all",
            Self::StringMatchPart => "string_match_part",
            Self::Exact => "exact_match",
            Self::EditSimilarity => "edit_similarity",
            Self::Choice => "choice",
            Self::ChoiceStated => "choice_stated",
            Self::Number => "number",
        }
    }
}

/// The metric of a LongBench task, or `None` for a name that is none of the 21 tasks.
///
/// Names of LongBench-E (`qasper_e`) stand for the same task.
pub fn of_task(task: &str) -> Option<Metric> {
    Some(match base_name(task) {
        "narrativeqa" | "qasper" | "multifieldqa_en" | "hotpotqa" | "2wikimqa" | "musique" | "triviaqa" => Metric::QaF1,
        "multifieldqa_zh" => Metric::QaF1Zh,
        "gov_report" | "qmsum" | "multi_news" | "samsum" => Metric::RougeL,
        "dureader" | "vcsum" => Metric::RougeLZh,
        "trec" | "lsht" => Metric::Classification,
        "passage_retrieval_en" => Metric::Retrieval,
        "passage_retrieval_zh" => Metric::RetrievalZh,
        "passage_count" => Metric::Count,
        "lcc" | "repobench-p" => Metric::CodeSimilarity,
        _ => return None,
    })
}

/// Whether only the first line of a prediction counts for this task.
///
/// It does for the few-shot tasks, where a model tends to go on with an example of its own.
pub fn first_line_only(task: &str) -> bool {
    matches!(base_name(task), "trec" | "triviaqa" | "samsum" | "lsht")
}

/// Scores a prediction: the best score over all accepted answers, in `[0, 1]`, and 0 where there is none (the inner loop of
/// `eval.py`'s `scorer`). With `first_line_only`, what follows the prediction's first line does not count.
pub fn score_prediction(
    metric: Metric,
    first_line_only: bool,
    prediction: &str,
    answers: &[String],
    all_classes: &[String],
) -> f64 {
    let prediction = if first_line_only { first_line(prediction) } else { prediction };
    answers.iter().map(|answer| metric.score(prediction, answer, all_classes)).fold(0.0, f64::max)
}

fn base_name(task: &str) -> &str {
    task.strip_suffix("_e").unwrap_or(task)
}

/// The first line after leading newlines; other leading whitespace is part of the line, and a
/// carriage return does not end it.
fn first_line(text: &str) -> &str {
    let text = text.trim_start_matches('\n');
    text.split_once('\n').map_or(text, |(line, _)| line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Metric; 16] = [
        Metric::QaF1,
        Metric::QaF1Zh,
        Metric::RougeL,
        Metric::RougeLZh,
        Metric::Classification,
        Metric::Retrieval,
        Metric::RetrievalZh,
        Metric::Count,
        Metric::CodeSimilarity,
        Metric::StringMatchAll,
        Metric::StringMatchPart,
        Metric::Exact,
        Metric::EditSimilarity,
        Metric::Choice,
        Metric::ChoiceStated,
        Metric::Number,
    ];

    #[test]
    fn every_task_has_its_metric() {
        assert_eq!(of_task("hotpotqa"), Some(Metric::QaF1));
        assert_eq!(of_task("hotpotqa_e"), Some(Metric::QaF1));
        assert_eq!(of_task("repobench-p_e"), Some(Metric::CodeSimilarity));
        assert_eq!(of_task("passage_retrieval_zh"), Some(Metric::RetrievalZh));
        assert_eq!(of_task("hotpotqa_e_e"), None);
        assert_eq!(of_task(""), None);
    }

    #[test]
    fn few_shot_predictions_are_cut_to_their_first_line() {
        let answers = ["Paris".to_string()];
        let prediction = "\n\n Paris\nQuestion: next";
        let score = |task| score_prediction(Metric::QaF1, first_line_only(task), prediction, &answers, &[]);
        assert_eq!(score("triviaqa"), 1.0);
        assert_eq!(score("triviaqa_e"), 1.0);
        assert_eq!(score("hotpotqa"), 0.5);
    }

    #[test]
    fn the_best_answer_counts() {
        let answers = ["Rome".to_string(), "New York".to_string()];
        assert_eq!(score_prediction(Metric::QaF1, false, "new york", &answers, &[]), 1.0);
        assert_eq!(score_prediction(Metric::QaF1, false, "new york", &[], &[]), 0.0);
    }

    #[test]
    fn what_nothing_could_score_on_is_told_apart() {
        let unscorable = |metric: Metric, answer: &str, classes: &[&str]| {
            let classes: Vec<String> = classes.iter().map(|class| (*class).to_owned()).collect();
            metric.unscorable(&[answer.to_owned()], &classes).is_some()
        };
        assert!(unscorable(Metric::Classification, "a", &[]) && !unscorable(Metric::Classification, "a", &["a"]));
        assert!(unscorable(Metric::Choice, "A", &[]) && !unscorable(Metric::Choice, "A", &["x", "y"]));
        assert!(unscorable(Metric::Retrieval, "7", &[]) && !unscorable(Metric::Retrieval, "Paragraph 7", &[]));
        assert!(unscorable(Metric::RetrievalZh, "7", &[]) && !unscorable(Metric::RetrievalZh, "段落7", &[]));
        assert!(unscorable(Metric::Number, "many", &[]) && !unscorable(Metric::Number, "about 7", &[]));
        assert!(!unscorable(Metric::QaF1, "", &[]));
    }

    proptest! {
        #[test]
        fn scores_lie_between_zero_and_one(
            prediction in "(\\PC|[ab .1-]|[的一是段落。]|[\n\r\t]){0,40}",
            answer in "(\\PC|[ab .1-]|[的一是段落。]|[\n\r\t]|Paragraph 1|段落1){0,40}",
            classes in prop::collection::vec("[ab]{0,2}", 0..6),
        ) {
            for metric in ALL {
                let score = metric.score(&prediction, &answer, &classes);
                prop_assert!((0.0..=1.0).contains(&score), "{}: {score}", metric.name());
            }
        }
    }
}
