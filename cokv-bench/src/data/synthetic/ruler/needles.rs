//! Magic values of keys, hidden in prose or among one another.
//!
//! RULER's needles: one key (niah_single), one of very many (niah_multikey), one with several values (niah_multivalue),
//! and several that are all asked for (niah_multiquery).

use rand::RngExt;
use rand_pcg::Pcg64;

use crate::data::synthetic::draft::{Asked, Depth, Draft, Planted, endless};
use crate::data::synthetic::{Definition, filler, words};
use crate::metrics::{Metric, SEPARATOR};

/// What the four have in common.
const COMMON: Definition = Definition {
    name: "",
    template: "Some special magic values are hidden in the text below. Remember them. \
               You will be asked about them afterwards.\n\n{context}\n\n{input}",
    max_new_tokens: 64,
    metric: Metric::StringMatchAll,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(single),
};

pub(in crate::data::synthetic) const SINGLE: Definition = Definition { name: "ruler-single", ..COMMON };

pub(in crate::data::synthetic) const MULTI_KEY: Definition =
    Definition { name: "ruler-multi-key", draft: Some(multi_key), ..COMMON };

pub(in crate::data::synthetic) const MULTI_VALUE: Definition =
    Definition { name: "ruler-multi-value", draft: Some(multi_value), ..COMMON };

pub(in crate::data::synthetic) const MULTI_QUERY: Definition =
    Definition { name: "ruler-multi-query", draft: Some(multi_query), ..COMMON };

/// Values that are asked for at once.
const SEVERAL: u32 = 4;

/// What the value of a key is called and looks like.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    Word,
    Identifier,
}

impl Kind {
    fn random(random: &mut Pcg64) -> Self {
        [Self::Number, Self::Word, Self::Identifier][random.random_range(0..3_usize)]
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Word => "word",
            Self::Identifier => "identifier",
        }
    }

    fn value(self, random: &mut Pcg64) -> String {
        match self {
            Self::Number => words::number(random, 7).to_string(),
            Self::Word => words::codename(random, "-"),
            Self::Identifier => {
                let digits = format!("{:032x}", random.random::<u128>());
                let (parts, last) = digits.split_at(20);
                format!("{}-{}-{}-{}-{last}", &parts[..8], &parts[8..12], &parts[12..16], &parts[16..])
            }
        }
    }
}

fn key(random: &mut Pcg64) -> String {
    words::codename(random, " ")
}

fn needle(kind: Kind, key: &str, value: &str) -> String {
    format!("One of the special magic {}s for the {key} is: {value}.\n\n", kind.noun())
}

fn question_for_one(kind: Kind, key: &str) -> String {
    let asked = format!("the special magic {} for the {key}", kind.noun());
    format!("What is {asked}? T{} is:", &asked[1..])
}

fn single(mut random: Pcg64, depth: Depth) -> Draft {
    let kind = Kind::random(&mut random);
    let key = key(&mut random);
    let value = words::distinct_from(&mut random, &key.replace(' ', "-"), |random| kind.value(random));
    Draft {
        planted: vec![Planted { depth, text: needle(kind, &key, &value) }],
        asked: Asked::only(question_for_one(kind, &key), vec![value]),
        classes: Vec::new(),
        arrange: None,
        filler: endless(move || filler::prose(&mut random)),
    }
}

/// Most of the context is needles, as in niah_multikey_2: only the key tells which of them matters. Prose between them
/// fills a context better than pieces that are all as long as a needle.
fn multi_key(mut random: Pcg64, depth: Depth) -> Draft {
    let wanted = key(&mut random);
    let value = Kind::Number.value(&mut random);
    Draft {
        planted: vec![Planted { depth, text: needle(Kind::Number, &wanted, &value) }],
        asked: Asked::only(question_for_one(Kind::Number, &wanted), vec![value]),
        classes: Vec::new(),
        arrange: None,
        filler: endless(move || {
            if random.random_range(0..4_u32) == 0 {
                return filler::sentence(&mut random) + "\n\n";
            }
            let other = words::distinct_from(&mut random, &wanted, key);
            needle(Kind::Number, &other, &Kind::Number.value(&mut random))
        }),
    }
}

fn multi_value(mut random: Pcg64, depth: Depth) -> Draft {
    let key = key(&mut random);
    let values = words::distinct(&mut random, SEVERAL as usize, |random| Kind::Number.value(random));
    // In the order in which they stand in the text.
    let mut depths: Vec<Depth> = depth.spread(SEVERAL).collect();
    depths.sort_unstable();
    let text = |value: &String| needle(Kind::Number, &key, value);
    let planted = depths.into_iter().zip(&values).map(|(depth, value)| Planted { depth, text: text(value) }).collect();
    let asked = format!("he special magic numbers for the {key}");
    Draft {
        planted,
        asked: Asked::only(format!("What are all t{asked}? T{asked} are:"), vec![values.join(SEPARATOR)]),
        classes: Vec::new(),
        arrange: None,
        filler: endless(move || filler::prose(&mut random)),
    }
}

fn multi_query(mut random: Pcg64, depth: Depth) -> Draft {
    let keys = words::distinct(&mut random, SEVERAL as usize, key);
    let values = words::distinct(&mut random, SEVERAL as usize, |random| Kind::Number.value(random));
    let pairs = keys.iter().zip(&values);
    let planted = depth.spread(SEVERAL).zip(pairs);
    let planted = planted.map(|(depth, (key, value))| Planted { depth, text: needle(Kind::Number, key, value) });
    let keys: Vec<String> = keys.iter().map(|key| format!("the {key}")).collect();
    let asked = format!("he special magic numbers for {}", keys.join(", "));
    Draft {
        planted: planted.collect(),
        asked: Asked::only(format!("What are t{asked}? In this order, t{asked} are:"), vec![values.join(SEPARATOR)]),
        classes: Vec::new(),
        arrange: None,
        filler: endless(move || filler::prose(&mut random)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::data::Record;
    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    /// Keys and values of all needles, in order.
    fn needles(record: &Record) -> Vec<(&str, &str)> {
        let needles = record.context.split("One of the special magic ").skip(1);
        needles
            .map(|rest| rest.split_once(" for the ").unwrap().1.split_once('.').unwrap().0.split_once(" is: ").unwrap())
            .collect()
    }

    /// Values of the keys that are asked for.
    fn found(record: &Record) -> Vec<&str> {
        let asked = |key: &str| record.input.contains(&format!("the {key}"));
        needles(record).into_iter().filter(|(key, _)| asked(key)).map(|(_, value)| value).collect()
    }

    #[test]
    fn one_needle_of_each_kind_answers() {
        let mut lengths = BTreeSet::new();
        for record in records(Task::RulerSingle) {
            assert_eq!(needles(&record).len(), 1);
            assert_eq!(found(&record), record.answers);
            assert_eq!(record.context.matches(&record.answers[0]).count(), 1);
            let dashes = record.answers[0].matches('-').count();
            assert!(dashes != 4 || record.answers[0].len() == 36);
            lengths.insert(dashes);
        }
        assert_eq!(lengths, BTreeSet::from([0, 1, 4]), "numbers, words and identifiers");
    }

    #[test]
    fn one_of_many_keys_is_asked_for() {
        for record in records(Task::RulerMultiKey) {
            assert!(needles(&record).len() > 20);
            assert_eq!(found(&record), record.answers);
        }
    }

    #[test]
    fn all_values_of_the_key_answer_in_their_order() {
        for record in records(Task::RulerMultiValue) {
            assert_eq!(found(&record).len(), 4);
            assert_eq!([found(&record).join(", ")], record.answers[..]);
        }
    }

    #[test]
    fn values_answer_in_the_order_of_the_question() {
        for record in records(Task::RulerMultiQuery) {
            let mut needles = needles(&record);
            needles.sort_by_key(|(key, _)| record.input.find(key));
            assert_eq!(found(&record).len(), 4);
            let values: Vec<&str> = needles.into_iter().map(|(_, value)| value).collect();
            assert_eq!([values.join(", ")], record.answers[..]);
        }
    }
}
