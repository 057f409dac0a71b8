//! Jobs whose answers have to follow something.

use cokv_models::sampling::{Constraint, ConstraintError, End};

use super::*;

/// One token, so many times; it breaks after some.
#[derive(Clone)]
struct Again {
    token: u32,
    left: usize,
    breaks: bool,
}

impl Constraint for Again {
    fn mask(&mut self) -> Result<Vec<u32>, ConstraintError> {
        let mut words = vec![0; self.token as usize / 32 + 1];
        words[self.token as usize / 32] = 1 << (self.token % 32);
        Ok(words)
    }

    fn push(&mut self, token: u32) -> Result<(), ConstraintError> {
        assert_eq!(token, self.token);
        self.left -= 1;
        if self.breaks { Err(ConstraintError("it broke".into())) } else { Ok(()) }
    }

    fn end(&mut self) -> Result<End, ConstraintError> {
        Ok(if self.left == 0 { End::Must } else { End::Not })
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

fn following(constraint: Again, choices: usize) -> Job {
    Job { constraint: Some(Box::new(constraint)), choices, ..job(0, text(2, 20), 8) }
}

#[test]
fn every_answer_follows_what_the_job_says_and_no_other_does() {
    let mut world = World::of_tokens(1000);
    let (_ticket, free) = world.run(job(0, text(1, 20), 8));
    let heard = world.answer(following(Again { token: 40, left: 3, breaks: false }, 2));
    assert_eq!(heard.tokens, HashMap::from([(0, vec![40; 3]), (1, vec![40; 3])]));
    assert!(heard.ended.iter().all(|(_, why)| *why == Why::Stop));
    while !free.lock().unwrap().is_over() {
        world.step();
    }
    assert_eq!(free.lock().unwrap().tokens[&0], alone(&text(1, 20), 8));
    // What was written is kept as it is: the next prompt goes on from it, but for the last token, which nobody has read.
    let again = world.answer(job(0, [text(2, 20), vec![40; 3], vec![7]].concat(), 1));
    assert_eq!(again.done.unwrap().cached_tokens, 22);
}

#[test]
fn a_constraint_that_breaks_ends_its_job_alone() {
    let mut world = World::of_tokens(1000);
    let (_ticket, free) = world.run(job(0, text(1, 20), 8));
    let heard = world.answer(following(Again { token: 40, left: 3, breaks: true }, 2));
    assert_eq!(heard.refused, Some(ConstraintError("it broke".into()).into()));
    while !free.lock().unwrap().is_over() {
        world.step();
    }
    assert_eq!(free.lock().unwrap().tokens[&0], alone(&text(1, 20), 8));
    assert_eq!(world.scheduler.ledger.promised(), world.scheduler.ledger.held());
}
