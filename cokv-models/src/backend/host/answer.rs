//! Answers to what rows ask of logits in the host's memory.

use super::distribution::{divergence, log_sum_exp};
use crate::ask::{Along, Answer, Ask, Distributions, Top, likeliest};
use crate::backend::{Result, foreign};
use crate::kernel::pool;

/// Answers some rows, each a question and its tokens, behind the answers of the rows before. `hidden` are
/// `[places, hidden_size]`, `logits` `[places, vocabulary]`.
pub(crate) fn answer(
    hidden: (&[f32], usize),
    logits: (&[f32], usize),
    asks: &[(Ask<'_>, usize)],
    answers: &mut Vec<Answer>,
) -> Result<()> {
    let ((hidden, hidden_size), (logits, vocabulary)) = (hidden, logits);
    let mut place = 0;
    for (ask, tokens) in asks {
        let places = place..place + ask.looks_at(*tokens);
        place = places.end;
        let hidden = &hidden[places.start * hidden_size..places.end * hidden_size];
        let logits = &logits[places.start * vocabulary..places.end * vocabulary];
        // Quantised output layers turn NaN into uniform logits, so that it must be looked for before them, too.
        let finite = hidden.iter().chain(logits).all(|number| number.is_finite());
        let answer = match (finite, ask) {
            (false, _) => Answer::NotFinite,
            (true, Ask::Nothing) => Answer::Nothing,
            (true, &Ask::Top { count, log_sum_exp: wanted }) => {
                Answer::Top(Top { tokens: likeliest(logits, count), log_sum_exp: wanted.then(|| log_sum_exp(logits)) })
            }
            (true, Ask::Logits) => Answer::Logits(logits.to_vec()),
            (true, &Ask::Along { targets, against, keep, .. }) => {
                let other = against.distributions(answers)?;
                let other = other.map(numbers).transpose()?;
                Answer::Along(along(logits, vocabulary, targets, other, keep))
            }
        };
        answers.push(answer);
    }
    Ok(())
}

fn along(logits: &[f32], vocabulary: usize, targets: &[u32], other: Option<&[f32]>, keep: bool) -> Along {
    let places = logits.len() / vocabulary;
    let of_places = pool::map(places, |place| {
        let at = place * vocabulary..(place + 1) * vocabulary;
        let row = &logits[at.clone()];
        let normaliser = log_sum_exp(row);
        let log_likelihood = targets.get(place).map(|&target| f64::from(row[target as usize]) - normaliser);
        (log_likelihood, other.map(|other| divergence(&other[at], row, normaliser)))
    });
    Along {
        log_likelihoods: of_places.iter().filter_map(|(log_likelihood, _)| *log_likelihood).collect(),
        divergences: of_places.iter().filter_map(|(_, divergence)| *divergence).collect(),
        kept: keep.then(|| Distributions::new(logits.to_vec())),
    }
}

fn numbers(distributions: &Distributions) -> Result<&[f32]> {
    let numbers = distributions.held_as::<Vec<f32>>();
    numbers.map(Vec::as_slice).ok_or_else(|| foreign("row's distributions"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Against;

    fn ask(ask: Ask<'_>, tokens: usize, hidden: &[f32], logits: &[f32]) -> Answer {
        let mut answers = Vec::new();
        answer((hidden, 1), (logits, logits.len() / hidden.len()), &[(ask, tokens)], &mut answers).unwrap();
        answers.remove(0)
    }

    #[test]
    fn a_row_that_is_not_finite_says_so_and_no_other() {
        let top = Ask::Top { count: 1, log_sum_exp: false };
        let mut answers = Vec::new();
        let logits = [0.0, 1.0, f32::NAN, 0.0, 2.0, 1.0];
        answer((&[0.0; 3], 1), (&logits, 2), &[(top, 1), (top, 1), (top, 1)], &mut answers).unwrap();
        assert!(matches!(answers[..], [Answer::Top(_), Answer::NotFinite, Answer::Top(_)]));
        let error = answers.remove(1).top(|| "here".into()).unwrap_err();
        assert!(error.to_string().contains("not finite here"));
        assert!(matches!(ask(top, 1, &[f32::INFINITY], &[0.0, 1.0]), Answer::NotFinite), "an output layer may hide it");
    }

    #[test]
    fn rows_are_compared_with_rows_that_keep_their_distributions() {
        let along = |against, keep| Ask::Along { skip: 1, targets: &[1], against, keep };
        let logits = [0.0f32, 1.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0];
        let mut answers = Vec::new();
        let asks = [(along(Against::Nobody, true), 3), (along(Against::Row(0), false), 3)];
        answer((&[0.0; 4], 1), (&logits, 2), &asks, &mut answers).unwrap();
        let second = answers.remove(1).along(String::new).unwrap();
        let first = answers.remove(0).along(String::new).unwrap();
        assert_eq!((first.log_likelihoods.len(), first.divergences.len()), (1, 0));
        assert!((first.log_likelihoods[0] - (1.0 - (1.0 + 1f64.exp()).ln())).abs() < 1e-6);
        assert_eq!((second.divergences.len(), second.divergences[1]), (2, 0.0));
        assert!(second.divergences[0] > 0.5);
        let kept = first.kept.unwrap();
        let mut again = Vec::new();
        answer((&[0.0; 2], 1), (&logits[4..], 2), &[(along(Against::Kept(&kept), false), 3)], &mut again).unwrap();
        assert_eq!(again.remove(0).along(String::new).unwrap().divergences, second.divergences);
        let nobody = answer((&[0.0; 2], 1), (&logits[4..], 2), &[(along(Against::Row(0), false), 3)], &mut again);
        assert!(nobody.unwrap_err().to_string().contains("keeps no distributions"));
    }
}
