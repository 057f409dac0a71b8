//! A record that does not have its length yet, and how it gets it.

use std::collections::VecDeque;

use rand::RngExt;
use rand_pcg::Pcg64;

/// A place in a context: 0 is its beginning, 2^64 would be its end.
///
/// An integer, because the same record must come out on every platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Depth(u64);

impl Depth {
    /// Where the record at this index has what is asked for.
    ///
    /// The van der Corput sequence (1/2, 1/4, 3/4, 1/8, …): the first records of a task are spread
    /// evenly, however many they are.
    pub(super) fn of_record(index: u64) -> Self {
        Self(index.wrapping_add(1).reverse_bits())
    }

    /// This part of the context, 100 being its end.
    pub(super) fn percent(percent: u32) -> Self {
        Self((u128::from(u64::MAX) * u128::from(percent.min(100)) / 100) as u64)
    }

    /// Anywhere.
    pub(super) fn random(random: &mut Pcg64) -> Self {
        Self(random.random())
    }

    /// `count` depths at equal distances, the first of them this one, the others wrapped around.
    pub(super) fn spread(self, count: u32) -> impl Iterator<Item = Self> {
        let distance = u64::MAX / u64::from(count.max(1));
        (0..count).map(move |step| Self(self.0.wrapping_add(distance.wrapping_mul(u64::from(step)))))
    }

    /// How many of `total` pieces lie before this depth.
    fn pieces_before(self, total: usize) -> usize {
        ((u128::from(self.0) * (total as u128 + 1)) >> 64) as usize
    }
}

/// A part of the context that a record cannot do without.
pub(super) struct Planted {
    pub(super) depth: Depth,
    pub(super) text: String,
}

/// A part of the context that only makes it longer, with its size estimated on its own.
pub(super) struct Piece {
    text: String,
    tokens: usize,
}

/// Draws the next piece of filler; none where there is no more.
pub(super) type Filler = Box<dyn FnMut() -> Option<String>>;

/// Filler that never ends.
pub(super) fn endless(mut draw: impl FnMut() -> String + 'static) -> Filler {
    Box::new(move || Some(draw()))
}

/// Questions about one context, of tasks that ask several.
pub(super) const QUESTIONS: usize = 5;

/// A question.
pub(super) struct Asked {
    pub(super) input: String,
    /// Accepted answers; the first is the reference.
    pub(super) answers: Vec<String>,
}

impl Asked {
    /// The one question about a context.
    pub(super) fn only(input: impl Into<String>, answers: Vec<String>) -> Vec<Self> {
        vec![Self { input: input.into(), answers }]
    }
}

/// A context that can still be of any length, with what is asked about it.
///
/// All texts bring the white space that separates them from what follows.
pub(super) struct Draft {
    /// What is asked about the context, at least one question.
    pub(super) asked: Vec<Asked>,
    pub(super) classes: Vec<String>,
    /// In the order in which those at the same place are to appear.
    pub(super) planted: Vec<Planted>,
    pub(super) filler: Filler,
    /// What becomes of the planted texts and the filler once all of them are there, of about the same size.
    pub(super) arrange: Option<fn(&[&str]) -> String>,
}

/// A context of the length asked for.
pub(super) struct Fitted {
    pub(super) context: String,
    /// The size of the whole prompt.
    pub(super) tokens: usize,
}

/// How often the estimated sizes are corrected by a count of the whole prompt.
const ROUNDS: usize = 8;
/// How many of the last pieces are exchanged for others that fill the context better.
const TAIL: usize = 3;
/// How many such exchanges are tried.
const TRIES: usize = 32;
/// How many pieces in a row may turn out too long before a tail is taken as full.
const MISSES: usize = 4;

impl Draft {
    /// The context without filler.
    pub(super) fn bare(&self) -> String {
        context(&self.planted, &[], self.arrange)
    }

    /// Adds filler until the whole prompt has nearly, and at most, `limit` tokens, or until there is no more.
    ///
    /// `prompt_tokens` counts the whole prompt of a context and is called a few times only;
    /// `piece_tokens` counts one piece of filler. The prompt without filler must fit.
    pub(super) fn fit(
        &mut self,
        limit: usize,
        prompt_tokens: &dyn Fn(&str) -> usize,
        piece_tokens: &dyn Fn(&str) -> usize,
    ) -> Fitted {
        let slack = limit / 100;
        let bare = self.bare();
        let mut best = Fitted { tokens: prompt_tokens(&bare), context: bare };
        let mut room = limit.saturating_sub(best.tokens);
        let mut pieces = Vec::new();
        let mut supply = Supply { filler: &mut self.filler, spare: VecDeque::new(), piece_tokens };
        for _ in 0..ROUNDS {
            supply.fill(&mut pieces, room, slack / 2);
            let context = context(&self.planted, &pieces, self.arrange);
            let tokens = prompt_tokens(&context);
            if (best.tokens..=limit).contains(&tokens) {
                best = Fitted { context, tokens };
            }
            if best.tokens + slack >= limit {
                break;
            }
            // Pieces side by side do not have quite the tokens they have alone, but the difference
            // hardly changes from one round to the next.
            room = (room + limit).saturating_sub(tokens);
        }
        best
    }
}

/// Planted texts at their depths among pieces of filler.
fn context(planted: &[Planted], filler: &[Piece], arrange: Option<fn(&[&str]) -> String>) -> String {
    let mut planted: Vec<&Planted> = planted.iter().collect();
    planted.sort_by_key(|planted| planted.depth);
    let mut planted = planted.into_iter().peekable();

    let mut parts: Vec<&str> = Vec::with_capacity(planted.len() + filler.len());
    for (before, piece) in filler.iter().enumerate() {
        while let Some(next) = planted.next_if(|next| next.depth.pieces_before(filler.len()) <= before) {
            parts.push(&next.text);
        }
        parts.push(&piece.text);
    }
    parts.extend(planted.map(|rest| rest.text.as_str()));
    let mut context = match arrange {
        Some(arrange) => arrange(&parts),
        None => parts.concat(),
    };
    context.truncate(context.trim_end().len());
    context
}

/// Where pieces come from.
struct Supply<'a> {
    filler: &'a mut Filler,
    /// Drawn and not used: what there is once the filler has ended.
    spare: VecDeque<Piece>,
    piece_tokens: &'a dyn Fn(&str) -> usize,
}

impl Supply<'_> {
    /// Brings the pieces' estimated sizes as close to `room` as it can without exceeding it.
    fn fill(&mut self, pieces: &mut Vec<Piece>, room: usize, slack: usize) {
        let mut total: usize = pieces.iter().map(|piece| piece.tokens).sum();
        while let Some(piece) = self.draw() {
            if total + piece.tokens > room {
                self.spare.push_back(piece);
                break;
            }
            total += piece.tokens;
            pieces.push(piece);
        }
        while total > room {
            let Some(piece) = pieces.pop() else { break };
            total -= piece.tokens;
            self.spare.push_back(piece);
        }
        let tail = pieces.split_off(pieces.len().saturating_sub(TAIL));
        let tail_room = room - total + tail.iter().map(|piece| piece.tokens).sum::<usize>();
        pieces.extend(self.fullest_tail(tail, tail_room, slack));
    }

    /// The fullest of some random runs of pieces, and of `tail`, none of them larger than `room`.
    fn fullest_tail(&mut self, tail: Vec<Piece>, room: usize, slack: usize) -> Vec<Piece> {
        let mut best_left = room - tail.iter().map(|piece| piece.tokens).sum::<usize>();
        let mut best = tail;
        for _ in 0..TRIES {
            if best_left <= slack {
                break;
            }
            let mut run = Vec::new();
            let mut left = room;
            let mut misses = 0;
            while misses < MISSES {
                let Some(piece) = self.draw() else { break };
                if piece.tokens <= left {
                    left -= piece.tokens;
                    run.push(piece);
                    misses = 0;
                } else {
                    self.spare.push_back(piece);
                    misses += 1;
                }
            }
            if left < best_left {
                best_left = left;
                std::mem::swap(&mut best, &mut run);
            }
            self.spare.extend(run);
        }
        best
    }

    fn draw(&mut self) -> Option<Piece> {
        let Some(text) = (self.filler)() else { return self.spare.pop_front() };
        // At least one, so that filling ends whatever the counter says.
        let tokens = (self.piece_tokens)(&text).max(1);
        Some(Piece { text, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::{Depth, Draft, Fitted, Planted, endless};

    fn draft(planted: &[(Depth, &str)]) -> Draft {
        Draft {
            asked: Vec::new(),
            classes: Vec::new(),
            arrange: None,
            planted: planted.iter().map(|&(depth, text)| Planted { depth, text: text.to_owned() }).collect(),
            filler: endless(|| "filler ".to_owned()),
        }
    }

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn depths_of_the_first_records_are_spread_evenly() {
        for count in [4, 16, 20, 100] {
            let mut per_quarter = [0; 4];
            for index in 0..count {
                per_quarter[Depth::of_record(index).pieces_before(3)] += 1;
            }
            assert!(per_quarter.iter().all(|&records| records * 5 >= count), "{per_quarter:?}");
        }
    }

    #[test]
    fn percents_go_from_the_beginning_to_the_end() {
        let before = |percent| Depth::percent(percent).pieces_before(8);
        assert_eq!([0, 25, 50, 75, 100].map(before), [0, 2, 4, 6, 8]);
    }

    #[test]
    fn planted_texts_stand_at_their_depths_and_in_their_order() {
        let middle = Depth::of_record(0);
        let mut draft = draft(&[(middle, "first "), (middle, "second ")]);
        let fitted = draft.fit(22, &words, &words);
        let position = |word| fitted.context.split(' ').position(|other| other == word);
        assert_eq!(fitted.tokens, 22);
        assert_eq!(position("first"), Some(10));
        assert_eq!(position("second"), Some(11));
    }

    #[test]
    fn a_wrong_estimate_is_corrected() {
        for factor in [1, 2] {
            let fitted = draft(&[]).fit(1000, &words, &|piece| words(piece) * factor);
            assert!((970..=1000).contains(&fitted.tokens), "{}", fitted.tokens);
        }
        let fitted = draft(&[]).fit(1000, &|text| words(text) * 3 / 2, &words);
        assert!((970..=1000).contains(&fitted.tokens), "{}", fitted.tokens);
    }

    #[test]
    fn filler_that_ends_is_there_once() {
        let numbers = |limit| {
            let mut left = (0..40).map(|number| format!("{} {number} ", "filler ".repeat(number % 7)));
            let mut draft = Draft { filler: Box::new(move || left.next()), ..draft(&[]) };
            let Fitted { context, tokens } = draft.fit(limit, &words, &words);
            let mut numbers: Vec<usize> = context.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            numbers.sort_unstable();
            assert!(numbers.is_sorted_by(|a, b| a < b), "none twice: {numbers:?}");
            (tokens, numbers.len())
        };
        assert_eq!(numbers(100).0, 100, "what was tried and left out is not lost");
        let all = 40 + (0..40).map(|number| number % 7).sum::<usize>();
        assert_eq!(numbers(all), (all, 40));
        assert_eq!(numbers(1000), (all, 40), "no more than there is");
    }

    #[test]
    fn a_counter_that_counts_nothing_does_not_hang() {
        let fitted = draft(&[]).fit(100, &|_| 0, &|_| 0);
        assert_eq!(fitted.tokens, 0);
    }
}
