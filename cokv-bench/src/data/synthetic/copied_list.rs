//! A list to be written again: an answer as long as what it is about, every line of which has to be found in the text.

use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, Planted, endless};
use super::{filler, words};
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "copied-list",
    template: "Somewhere in the text below there is a numbered list. Remember it.\n\n{context}\n\n{input}",
    max_new_tokens: 320,
    metric: Metric::EditSimilarity,
    chat: false,
    stops_at_newline: false,
    language: "en",
    draft: Some(draft),
};

/// Items of the list.
const ITEMS: usize = 32;

fn draft(mut random: Pcg64, depth: Depth) -> Draft {
    let items = words::distinct(&mut random, ITEMS, |random| words::word(random).to_owned());
    let lines: Vec<String> = items.iter().enumerate().map(|(place, item)| format!("{}. {item}", place + 1)).collect();
    let list = lines.join("\n");
    Draft {
        asked: Asked::only(
            "Write the whole list again, from the first item to the last.\n\n1.".to_owned(),
            vec![list["1. ".len()..].to_owned()],
        ),
        classes: Vec::new(),
        arrange: None,
        planted: vec![Planted { depth, text: format!("{list}\n\n") }],
        filler: endless(move || filler::prose(&mut random)),
    }
}

#[cfg(test)]
mod tests {
    use super::ITEMS;
    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn the_list_is_there_once_and_is_the_answer() {
        for record in records(Task::CopiedList) {
            let list = format!("1. {}", record.answers[0]);
            assert_eq!(record.context.matches(&list).count(), 1);
            assert_eq!(list.lines().count(), ITEMS);
        }
    }
}
