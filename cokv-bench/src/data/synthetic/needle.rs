//! One number hidden in prose at a given depth: a needle in a haystack.
//!
//! The one task whose records are a grid of lengths and depths. Records that differ only in their place hide the same
//! number in the same prose, so that a difference between two places is a difference of places.

use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, Planted, endless};
use super::{filler, words};
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "needle",
    template: "A magic number is hidden in the text below. Find it and remember it.\n\n{context}\n\n{input}",
    max_new_tokens: 16,
    metric: Metric::StringMatchAll,
    chat: false,
    stops_at_newline: true,
    language: "en",
    draft: Some(draft),
};

/// Depths beyond one of each percent would have the same names.
pub const MOST_DEPTHS: usize = 101;

fn draft(mut random: Pcg64, depth: Depth) -> Draft {
    let key = words::codename(&mut random, " ");
    let number = words::number(&mut random, 7);
    Draft {
        asked: Asked::only(
            format!("What is the magic number of the {key}? The magic number of the {key} is"),
            vec![number.to_string()],
        ),
        classes: Vec::new(),
        arrange: None,
        planted: vec![Planted { depth, text: format!("The magic number of the {key} is {number}.\n\n") }],
        filler: endless(move || filler::prose(&mut random)),
    }
}

/// Depths in percent, evenly spaced from 0 to 100; one alone is the middle.
pub(super) fn depths(count: usize) -> Vec<u32> {
    match count.min(MOST_DEPTHS) as u32 {
        1 => vec![50],
        count => (0..count).map(|at| (200 * at + count - 1) / (2 * (count - 1))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::depths;
    use crate::data::Place;
    use crate::data::synthetic::tests::tokens;
    use crate::data::synthetic::{Task, generate_grid};

    #[test]
    fn depths_are_evenly_spaced() {
        assert_eq!(depths(0), [0; 0]);
        assert_eq!(depths(1), [50]);
        assert_eq!(depths(2), [0, 100]);
        assert_eq!(depths(4), [0, 33, 67, 100]);
        assert_eq!(depths(5), [0, 25, 50, 75, 100]);
        assert_eq!(depths(101), (0..=100).collect::<Vec<u32>>());
        assert_eq!(depths(usize::MAX), depths(101));
    }

    #[test]
    fn the_needle_is_where_its_record_says() {
        let records = generate_grid(Task::Needle, 2000, 5, 2, 0, None, &tokens).unwrap();
        assert_eq!(records.len(), 10);
        for record in &records {
            let Some(Place { context_tokens: 2000, depth_percent }) = record.place else {
                panic!("{:?}", record.place)
            };
            let position = record.context.find("The magic number of the ").unwrap();
            let needle = record.context[position..].split("\n\n").next().unwrap();
            assert!(needle.ends_with(&format!(" is {}.", record.answers[0])), "{needle}");
            let percent = 100 * position / (record.context.len() - needle.len());
            assert!((percent as u32).abs_diff(depth_percent) <= 3, "{}: {percent}", record.id);
        }
        assert_eq!(records[3].id, "needle-2000-0-d25-1");
        assert_eq!((records[0].place.unwrap().depth_percent, records[9].place.unwrap().depth_percent), (0, 100));
        assert!(records[8].context.ends_with(&format!("{}.", records[8].answers[0])));
    }

    #[test]
    fn only_the_place_tells_records_of_a_repetition_apart() {
        let short = generate_grid(Task::Needle, 500, 3, 2, 0, None, &tokens).unwrap();
        let long = generate_grid(Task::Needle, 900, 5, 2, 0, None, &tokens).unwrap();
        for record in short.iter().chain(&long) {
            let first = &short[usize::from(record.id.ends_with("-1"))];
            assert_eq!((&record.input, &record.answers), (&first.input, &first.answers));
            assert_eq!(record.fingerprint, first.fingerprint);
        }
        assert_ne!(short[0].answers, short[1].answers);
    }
}
