//! Answers that have to follow something.

use super::*;
use crate::sampling::{Constraint, ConstraintError, End};

/// Ends answers, where they may end.
const STOP: u32 = 7;

/// So many of the tokens 40 to 49 at least and at most.
#[derive(Clone)]
struct Forties {
    least: usize,
    most: usize,
    seen: Vec<u32>,
    /// It fails after so many.
    breaks: usize,
}

impl Forties {
    fn of(least: usize, most: usize) -> Self {
        Self { least, most, seen: Vec::new(), breaks: usize::MAX }
    }
}

impl Constraint for Forties {
    fn mask(&mut self) -> Result<Vec<u32>, ConstraintError> {
        if self.seen.len() >= self.breaks {
            return Err(ConstraintError("it broke".into()));
        }
        assert!(self.seen.len() < self.most, "nobody asks what comes after the end");
        // What it says of the stop token does not count.
        let mut words = vec![1 << STOP, 0];
        (40..50).for_each(|token| words[token / 32] |= 1 << (token % 32));
        Ok(words)
    }

    fn push(&mut self, token: u32) -> Result<(), ConstraintError> {
        assert!((40..50).contains(&token), "{token} was not allowed");
        self.seen.push(token);
        Ok(())
    }

    fn end(&mut self) -> Result<End, ConstraintError> {
        Ok(match self.seen.len() {
            seen if seen >= self.most => End::Must,
            seen if seen >= self.least => End::May,
            _ => End::Not,
        })
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

fn following(constraint: Forties, samplers: usize, sampling: &Sampling, stop: StopRule) -> Request {
    let samplers = (0..samplers).map(|choice| Sampler::new(sampling.clone(), choice, &[]));
    let request = Request { samplers: samplers.collect(), ..prompt(20, stop.max_new_tokens, None) };
    Request { stop, constraint: Some(Box::new(constraint)), ..request }
}

fn stop_at(most: usize, least: usize) -> StopRule {
    StopRule { tokens: vec![STOP], max_new_tokens: most, min_new_tokens: least }
}

type Ends = HashMap<SequenceId, Result<(Why, Vec<u32>), String>>;

fn run(batch: &mut Batch) -> Ends {
    let mut ends = Ends::new();
    while batch
        .step(&mut |id, event| match event {
            Event::Ended { why, answer, .. } => drop(ends.insert(id, Ok((why, answer)))),
            Event::Failed(error) => drop(ends.insert(id, Err(error.to_string()))),
            _ => {}
        })
        .unwrap()
    {}
    ends
}

#[test]
fn answers_follow_their_constraint_and_others_are_free() {
    let warm = Sampling { temperature: 2.0, seed: 3, top_logprobs: Some(2), ..Sampling::default() };
    // However many answers, and however they choose: none is longer than may be, and each ends by itself.
    for (samplers, sampling) in [(0, Sampling::greedy()), (1, Sampling::greedy()), (3, warm)] {
        let mut batch = batch(1 << 20);
        let free = batch.submit(prompt(20, 9, None)).unwrap();
        let first = batch.submit(following(Forties::of(2, 5), samplers, &sampling, stop_at(100, 0))).unwrap();
        let ends = run(&mut batch);
        assert_eq!(ends.len(), 1 + samplers.max(1));
        assert_eq!(ends[&free], Ok((Why::Length, expected(20, 9))));
        for choice in 0..samplers.max(1) as u64 {
            let (why, answer) = ends[&SequenceId(first.0 + choice)].clone().unwrap();
            assert_eq!(why, Why::Stop);
            assert!((2..=5).contains(&answer.len()) && answer.iter().all(|token| (40..50).contains(token)));
        }
        assert_eq!((batch.ledger().held(), batch.ledger().promised()), (0, 0));
    }
}

#[test]
fn an_answer_is_cut_where_it_may_be_no_longer_and_ends_where_it_must() {
    let answer = |constraint, most, least| {
        let mut batch = batch(1 << 20);
        let id = batch.submit(following(constraint, 1, &Sampling::greedy(), stop_at(most, least))).unwrap();
        let (why, answer) = run(&mut batch).remove(&id).unwrap().unwrap();
        (why, answer.len())
    };
    assert_eq!(answer(Forties::of(9, 9), 4, 0), (Why::Length, 4));
    assert_eq!(answer(Forties::of(4, 4), 4, 0), (Why::Stop, 4), "it is whole");
    // The stop token is the lowest of those that are equally likely: it comes as soon as it may.
    assert_eq!(answer(Forties::of(3, 9), 100, 0), (Why::Stop, 3));
    assert_eq!(answer(Forties::of(3, 9), 100, 6), (Why::Stop, 6), "answers have a least length");
    assert_eq!(answer(Forties::of(3, 9), 100, 100), (Why::Stop, 9), "but nothing follows what is over");
    assert_eq!(answer(Forties::of(0, 0), 100, 0), (Why::Stop, 0));
}

#[test]
fn a_constraint_that_breaks_concerns_nobody_else() {
    let mut batch = batch(1 << 20);
    let broken = Forties { breaks: 2, ..Forties::of(5, 5) };
    let broken = batch.submit(following(broken, 1, &Sampling::default(), stop_at(100, 0))).unwrap();
    let sound = batch.submit(following(Forties::of(5, 5), 1, &Sampling::default(), stop_at(100, 0))).unwrap();
    let free = batch.submit(prompt(20, 9, None)).unwrap();
    let ends = run(&mut batch);
    assert!(ends[&broken].clone().unwrap_err().contains("it broke"));
    assert_eq!(ends[&sound].clone().unwrap().1.len(), 5);
    assert_eq!(ends[&free], Ok((Why::Length, expected(20, 9))));
    assert_eq!((batch.ledger().held(), batch.ledger().promised()), (0, 0));
}
