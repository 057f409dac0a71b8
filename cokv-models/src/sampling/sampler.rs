//! One answer's choices.

use super::cuts::{Survivors, likeliest, max, sum};
use super::draw::uniform;
use super::history::History;
use super::{NoTokenLeft, Sampling};
use crate::kernel::exponential::exponentials;

/// Chooses the tokens of one answer.
///
/// ```
/// use cokv_models::sampling::{Sampler, Sampling};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sampling = Sampling { temperature: 0.8, top_p: 0.9, seed: 7, top_logprobs: Some(1), ..Sampling::default() };
/// sampling.check(4)?;
/// let mut sampler = Sampler::new(sampling, 0, &[2, 3]);
/// let chosen = sampler.choose(vec![0.1, 5.0, 0.3, -1.0], &[], None)?;
/// assert_eq!(chosen.token, 1);
/// assert_eq!(chosen.logprobs.unwrap().top[0].0, 1);
/// # Ok(())
/// # }
/// ```
pub struct Sampler {
    sampling: Sampling,
    choice: usize,
    history: History,
}

/// Which tokens may come next: bit `t % 32` of word `t / 32` is the token t's. Tokens behind the last word may not.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a>(pub &'a [u32]);

impl Mask<'_> {
    /// Whether a token may come next.
    pub fn allows(self, token: usize) -> bool {
        self.0.get(token / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }
}

/// The next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Its id.
    pub token: u32,
    /// What the model thought of it, if that was asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// Logarithms of probabilities, in nats, of the model's own distribution: before penalties, bias, bars, temperature and cuts.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Of the chosen token.
    pub logprob: f64,
    /// Of the likeliest, best first; the lowest id first among equals.
    pub top: Vec<(u32, f64)>,
}

impl Sampler {
    /// Nothing is chosen yet. `choice` says which of several answers to the same prompt this is; of the prompt all tokens count,
    /// those that a cache has lost too.
    pub fn new(sampling: Sampling, choice: usize, prompt: &[u32]) -> Self {
        let history = History::new(&sampling, prompt);
        Self { sampling, choice, history }
    }

    /// How it chooses.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Chooses by logits `[vocabulary]` the token that follows those chosen before, and takes note of it. Tokens that are `barred`,
    /// or not `allowed`, are not chosen.
    ///
    /// # Errors
    /// Where no token is left; nothing is noted then.
    pub fn choose(
        &mut self,
        mut logits: Vec<f32>,
        barred: &[u32],
        allowed: Option<Mask<'_>>,
    ) -> Result<Chosen, NoTokenLeft> {
        let own = self.sampling.top_logprobs.map(|count| OwnDistribution::of(&logits, count));
        let max = self.weigh(&mut logits, barred, allowed)?;
        let token = match self.sampling.is_greedy() {
            true => first(&logits, max),
            false => {
                let share = uniform(self.sampling.seed, self.choice, self.history.answered());
                Survivors::of(&logits, max, &self.sampling).at(share).ok_or(NoTokenLeft)?
            }
        };
        self.history.push(token);
        Ok(Chosen { token, logprobs: own.map(|own| own.of_token(token)) })
    }

    /// What the next token would be drawn from: tokens that can come with their probabilities, by ascending id.
    ///
    /// # Errors
    /// Where no token is left.
    pub fn distribution(
        &self,
        mut logits: Vec<f32>,
        barred: &[u32],
        allowed: Option<Mask<'_>>,
    ) -> Result<Vec<(u32, f64)>, NoTokenLeft> {
        let max = self.weigh(&mut logits, barred, allowed)?;
        Ok(match self.sampling.is_greedy() {
            true => vec![(first(&logits, max), 1.0)],
            false => Survivors::of(&logits, max, &self.sampling).probabilities(),
        })
    }

    /// Penalties, bias and bars; returns the largest logit that is left.
    fn weigh(&self, logits: &mut [f32], barred: &[u32], allowed: Option<Mask<'_>>) -> Result<f32, NoTokenLeft> {
        self.history.penalise(&self.sampling, logits);
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if let Some(allowed) = allowed {
            let not_allowed = logits.iter_mut().enumerate().filter(|&(token, _)| !allowed.allows(token));
            not_allowed.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
        for &token in barred {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Some(max(logits)).filter(|max| max.is_finite()).ok_or(NoTokenLeft)
    }
}

fn first(logits: &[f32], max: f32) -> u32 {
    logits.iter().position(|&logit| logit == max).unwrap_or_default() as u32
}

/// What the model itself says, kept while its logits are changed.
struct OwnDistribution {
    logits: Vec<f32>,
    log_sum_exp: f64,
    count: usize,
}

impl OwnDistribution {
    fn of(logits: &[f32], count: usize) -> Self {
        let max = max(logits);
        let mut weights = vec![0.0; logits.len()];
        exponentials(logits, max, 1.0, &mut weights);
        Self { logits: logits.to_vec(), log_sum_exp: f64::from(max) + sum(&weights).ln(), count }
    }

    fn of_token(&self, token: u32) -> TokenLogprobs {
        let logprob = |logit: f64| logit - self.log_sum_exp;
        let top = likeliest(&self.logits, self.count).into_iter().map(|(token, logit)| (token, logprob(logit)));
        TokenLogprobs { logprob: logprob(self.logits[token as usize].into()), top: top.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(sampling: Sampling) -> Sampler {
        Sampler::new(sampling, 0, &[])
    }

    fn tokens(sampler: &mut Sampler, logits: &[f32], count: usize) -> Vec<u32> {
        (0..count).map(|_| sampler.choose(logits.to_vec(), &[], None).unwrap().token).collect()
    }

    #[test]
    fn greedy_is_the_lowest_of_the_largest() {
        for sampling in [Sampling::greedy(), Sampling { top_k: 1, ..Sampling::default() }] {
            assert_eq!(tokens(&mut sampler(sampling), &[1.0, 3.0, 3.0], 2), [1, 1]);
        }
    }

    #[test]
    fn penalties_turn_greedy_answers() {
        let logits = [1.0, 0.9, 0.0];
        let presence = Sampling { presence_penalty: 0.5, ..Sampling::greedy() };
        assert_eq!(tokens(&mut sampler(presence), &logits, 4), [0, 1, 0, 0]);
        let frequency = Sampling { frequency_penalty: 0.5, ..Sampling::greedy() };
        assert_eq!(tokens(&mut sampler(frequency), &logits, 5), [0, 1, 0, 1, 0]);
        let repetition = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
        assert_eq!(tokens(&mut Sampler::new(repetition, 0, &[0]), &logits, 2), [1, 0]);
    }

    #[test]
    fn bars_masks_and_biases_decide_what_is_left() {
        let logits = || vec![3.0, 2.0, 1.0, 0.0];
        let mut greedy = sampler(Sampling { logit_bias: vec![(3, 1.5), (3, 1.0)], ..Sampling::greedy() });
        let mut token = |barred: &[u32], words: Option<&[u32]>| {
            greedy.choose(logits(), barred, words.map(Mask)).map(|chosen| chosen.token)
        };
        assert_eq!(token(&[], None), Ok(0));
        assert_eq!(token(&[0, 77], None), Ok(3));
        assert_eq!(token(&[], Some(&[0b0110])), Ok(1));
        assert_eq!(token(&[1], Some(&[0b0110])), Ok(2));
        assert_eq!(token(&[1, 2], Some(&[0b0110])), Err(NoTokenLeft));
        assert_eq!(token(&[], Some(&[])), Err(NoTokenLeft));
        let drawn = sampler(Sampling::default()).distribution(logits(), &[0], Some(Mask(&[0b1001])));
        assert_eq!(drawn, Ok(vec![(3, 1.0)]));
        assert_eq!(sampler(Sampling::default()).choose(vec![f32::NAN; 3], &[], None), Err(NoTokenLeft));
    }

    #[test]
    fn logprobs_are_the_models_own() {
        let logits = vec![3.0f32.ln(), 0.0, 2.0f32.ln(), 2.0f32.ln()];
        let sampling = Sampling {
            repetition_penalty: 1.7,
            logit_bias: vec![(1, 50.0)],
            top_logprobs: Some(3),
            ..Sampling::greedy()
        };
        let chosen = Sampler::new(sampling, 0, &[0, 2]).choose(logits, &[0], None).unwrap();
        let logprobs = chosen.logprobs.unwrap();
        assert_eq!(chosen.token, 1);
        assert!((logprobs.logprob - 0.125f64.ln()).abs() < 1e-7);
        assert_eq!(logprobs.top.iter().map(|pair| pair.0).collect::<Vec<_>>(), [0, 2, 3]);
        assert!((logprobs.top[0].1 - 0.375f64.ln()).abs() < 1e-7);
        for (count, told) in [(0, 0), (20, 4)] {
            let sampling = Sampling { top_logprobs: Some(count), ..Sampling::greedy() };
            let chosen = sampler(sampling).choose(vec![0.0; 4], &[], None).unwrap();
            assert_eq!(chosen.logprobs.map(|logprobs| logprobs.top.len()), Some(told));
        }
    }

    #[test]
    fn a_seed_is_an_answer() {
        let logits = [0.3, 0.1, -0.2, 0.0, 0.5];
        let with = |seed, choice| {
            tokens(&mut Sampler::new(Sampling { seed, ..Sampling::default() }, choice, &[]), &logits, 40)
        };
        assert_eq!(with(3, 0), with(3, 0));
        assert!(with(3, 0) != with(3, 1) && with(3, 0) != with(4, 0));
    }
}
