//! Rules at the very beginning, as of a system prompt, then much prose; what the rules say is asked at the end.
//!
//! What stands first is what an eviction policy has the longest time to lose, and what nobody forgives: a model that forgets the text
//! says that it does not know, one that forgets its rules does not know that it had some.

use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, Planted, QUESTIONS, endless};
use super::{filler, words};
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "instruction-guard",
    template: "{context}\n\n{input}",
    max_new_tokens: 24,
    metric: Metric::QaF1,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(draft),
};

fn draft(mut random: Pcg64, _: Depth) -> Draft {
    let subjects = words::distinct(&mut random, QUESTIONS + 1, |random| words::codename(random, " "));
    let signatures: Vec<String> = subjects.iter().map(|_| signature(&mut random)).collect();
    let rules = subjects.iter().zip(&signatures);
    let rules = rules.map(|(subject, signature)| format!("A letter about the {subject} is signed: {signature}.\n"));
    let opening = "These rules hold for every letter that you write, to the end.\n".to_owned();
    let closing = "\nWhat follows was read aloud meanwhile.\n\n".to_owned();
    let at_the_beginning = |text: String| Planted { depth: Depth::percent(0), text };
    let asked = |(subject, signature): (&String, &String)| Asked {
        input: format!("Now write a letter about the {subject}. By the rules, a letter about the {subject} is signed:"),
        answers: vec![signature.clone()],
    };
    Draft {
        asked: subjects.iter().zip(&signatures).take(QUESTIONS).map(asked).collect(),
        classes: Vec::new(),
        arrange: None,
        planted: [opening].into_iter().chain(rules).chain([closing]).map(at_the_beginning).collect(),
        filler: endless(move || filler::prose(&mut random)),
    }
}

fn signature(random: &mut Pcg64) -> String {
    let name = words::codename(random, " ");
    format!("{name} {}", words::number(random, 3))
}

#[cfg(test)]
mod tests {
    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn rules_stand_first_and_each_is_asked_once() {
        for record in records(Task::InstructionGuard) {
            assert!(record.context.starts_with("These rules hold"));
            let (rules, prose) = record.context.split_once("What follows").unwrap();
            let asked: Vec<&str> = rules
                .lines()
                .filter_map(|rule| rule.split_once(" is signed: "))
                .filter(|(rule, _)| record.input.contains(&rule.replace("A letter", "a letter")))
                .map(|(_, signature)| signature.trim_end_matches('.'))
                .collect();
            assert_eq!(asked, record.answers);
            assert!(!prose.contains("signed"));
        }
    }
}
