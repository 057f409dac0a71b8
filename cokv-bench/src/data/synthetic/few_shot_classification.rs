//! Labelled texts, then one without its label.
//!
//! Labels have several words, and each class of a record has at least one example.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, Planted, QUESTIONS, endless};
use super::words::pick;
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "few-shot-classification",
    template: "Label each text with its topic.\n\n{context}\n\n{input}",
    max_new_tokens: 16,
    metric: Metric::Classification,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(|random, depth| asking(random, depth, 1)),
};

/// Several texts are without their labels, of different topics.
pub(super) const SHARED: Definition = Definition {
    name: "shared-classification",
    draft: Some(|random, depth| asking(random, depth, QUESTIONS)),
    ..DEFINITION
};

/// Classes of one record.
const CLASSES: usize = 6;

/// A topic, with the parts of the sentences about it.
struct Topic {
    label: &'static str,
    subjects: [&'static str; 6],
    predicates: [&'static str; 6],
    endings: [&'static str; 6],
}

static TOPICS: [Topic; 8] = [
    Topic {
        label: "travel and places",
        subjects: [
            "The night train",
            "A small hotel by the lake",
            "The coastal road",
            "Our guide",
            "The ferry",
            "The old harbour town",
        ],
        predicates: [
            "is popular with tourists",
            "was fully booked",
            "leads to the southern islands",
            "welcomes visitors from abroad",
            "offers a view of the mountains",
            "made the journey worthwhile",
        ],
        endings: [
            "during the holiday season",
            "for the third summer in a row",
            "according to every travel guide",
            "even without a passport",
            "on the way to the border",
            "with a stop at the castle",
        ],
    },
    Topic {
        label: "food and cooking",
        subjects: [
            "The soup",
            "A simple tomato sauce",
            "The chef",
            "This apple cake",
            "Fresh bread",
            "The new restaurant",
        ],
        predicates: [
            "needs a pinch of salt",
            "tastes best with butter",
            "was served with rice and beans",
            "takes an hour in the oven",
            "goes well with roasted onions",
            "is made with lemon and garlic",
        ],
        endings: [
            "for a quick dinner",
            "as in grandmother's recipe",
            "before the guests sit down",
            "with a little olive oil",
            "when the dough has rested",
            "on a very hot pan",
        ],
    },
    Topic {
        label: "sports and games",
        subjects: [
            "The home team",
            "The young goalkeeper",
            "The champion",
            "Our chess club",
            "The referee",
            "The relay runners",
        ],
        predicates: [
            "won the final match",
            "trained hard for the cup",
            "scored twice in the second half",
            "lost by a single point",
            "set a new record",
            "celebrated the victory",
        ],
        endings: [
            "in front of a full stadium",
            "after extra time",
            "against a stronger opponent",
            "in the last round",
            "to the joy of the fans",
            "before the season ended",
        ],
    },
    Topic {
        label: "health and medicine",
        subjects: [
            "The nurse",
            "A good night's sleep",
            "The new vaccine",
            "The patient",
            "Regular exercise",
            "The hospital",
        ],
        predicates: [
            "helps against headaches",
            "recovered from a high fever",
            "lowers the blood pressure",
            "was tested by several doctors",
            "prevents many diseases",
            "recommended a different treatment",
        ],
        endings: [
            "without any side effects",
            "after a short illness",
            "in most adults",
            "according to the clinic",
            "with plenty of rest",
            "when the symptoms return",
        ],
    },
    Topic {
        label: "money and business",
        subjects: [
            "The bank",
            "A family company",
            "The share price",
            "The accountant",
            "The car maker",
            "The central budget",
        ],
        predicates: [
            "raised its interest rates",
            "reported higher profits",
            "cut costs by a tenth",
            "signed a large contract",
            "borrowed money from investors",
            "fell on the stock market",
        ],
        endings: [
            "in the last quarter",
            "despite rising taxes",
            "after the merger",
            "to pay its debts",
            "for the first time in years",
            "as sales went up",
        ],
    },
    Topic {
        label: "science and space",
        subjects: [
            "The telescope",
            "A team of physicists",
            "The space probe",
            "The laboratory",
            "A young astronomer",
            "The experiment",
        ],
        predicates: [
            "discovered a distant planet",
            "measured the speed of light",
            "studied the atoms of a rare metal",
            "proved the theory right",
            "sent back pictures of the moon",
            "explained how stars are born",
        ],
        endings: [
            "with a new instrument",
            "after years of research",
            "as the journal reported",
            "in a series of tests",
            "far beyond our galaxy",
            "to the surprise of other scientists",
        ],
    },
    Topic {
        label: "music and theatre",
        subjects: [
            "The orchestra",
            "A famous singer",
            "The new play",
            "The pianist",
            "The opera house",
            "The drummer of the band",
        ],
        predicates: [
            "played to a full house",
            "opened with a slow melody",
            "rehearsed the second act",
            "received long applause",
            "recorded another album",
            "performed a song from the musical",
        ],
        endings: [
            "on the main stage",
            "under a young conductor",
            "at the summer festival",
            "before the curtain fell",
            "with violins and a choir",
            "in the first concert of the year",
        ],
    },
    Topic {
        label: "weather and seasons",
        subjects: ["Heavy rain", "A cold front", "The first snow", "Thick fog", "The summer heat", "A strong wind"],
        predicates: [
            "is expected in the north",
            "will last until Thursday",
            "came earlier than usual",
            "kept temperatures below freezing",
            "moved in from the west",
            "brought clouds and thunder",
        ],
        endings: [
            "according to the forecast",
            "with frost at night",
            "and sunshine later on",
            "over the whole coast",
            "before spring arrives",
            "as the storm passes",
        ],
    },
];

fn asking(mut random: Pcg64, depth: Depth, questions: usize) -> Draft {
    let mut topics: Vec<&Topic> = TOPICS.iter().collect();
    topics.shuffle(&mut random);
    topics.truncate(CLASSES);
    let queries: Vec<String> = topics.iter().take(questions).map(|topic| text(&mut random, topic)).collect();
    let asked = |(query, topic): (&String, &&Topic)| Asked {
        input: format!("Text: {query}\nLabel:"),
        answers: vec![topic.label.to_owned()],
    };
    let planted = depth
        .spread(CLASSES as u32)
        .zip(&topics)
        .map(|(depth, topic)| Planted { depth, text: example(&mut random, topic, &queries) });
    Draft {
        planted: planted.collect(),
        asked: queries.iter().zip(&topics).map(asked).collect(),
        classes: topics.iter().map(|topic| topic.label.to_owned()).collect(),
        arrange: None,
        filler: endless(move || {
            let topic = pick(&mut random, &topics);
            example(&mut random, topic, &queries)
        }),
    }
}

/// A labelled text that is none of those asked about.
fn example(random: &mut Pcg64, topic: &Topic, queries: &[String]) -> String {
    let mut example = text(random, topic);
    while queries.contains(&example) {
        example = text(random, topic);
    }
    format!("Text: {example}\nLabel: {}\n\n", topic.label)
}

fn text(random: &mut Pcg64, topic: &Topic) -> String {
    let subject = pick(random, &topic.subjects);
    let predicate = pick(random, &topic.predicates);
    let ending = pick(random, &topic.endings);
    match random.random_range(0..3_u32) {
        0 => format!("{subject} {predicate}."),
        _ => format!("{subject} {predicate} {ending}."),
    }
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, TOPICS};
    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn every_class_has_an_example_and_the_query_has_none() {
        for record in records(Task::FewShotClassification) {
            assert_eq!(record.all_classes.len(), CLASSES);
            assert!(record.all_classes.contains(&record.answers[0]));
            for class in &record.all_classes {
                assert!(record.context.contains(&format!("\nLabel: {class}")), "{class}");
            }
            let query = record.input.strip_suffix("\nLabel:").unwrap();
            assert!(!record.context.lines().any(|line| line == query));
        }
    }

    #[test]
    fn the_query_is_about_the_topic_it_is_labelled_with() {
        for record in records(Task::FewShotClassification) {
            let topic = TOPICS.iter().find(|topic| topic.label == record.answers[0]).unwrap();
            assert!(topic.subjects.iter().any(|subject| record.input.contains(subject)));
            assert!(topic.predicates.iter().any(|predicate| record.input.contains(predicate)));
        }
    }

    #[test]
    fn no_label_is_part_of_another() {
        // The metric looks for labels in the answer, so one inside another would count twice.
        for topic in &TOPICS {
            let holders = TOPICS.iter().filter(|other| other.label.contains(topic.label)).count();
            assert_eq!(holders, 1, "{}", topic.label);
        }
    }
}
