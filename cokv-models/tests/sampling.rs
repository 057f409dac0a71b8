//! Distributions and draws from outside: against transformers (data: `tests/data/transformers/sampling.json`), and by their frequencies.

use cokv_models::sampling::{Sampler, Sampling, uniform};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

#[derive(Deserialize)]
struct Case {
    name: String,
    settings: Map<String, Json>,
    prompt: Vec<u32>,
    logits: Vec<f32>,
    /// Tokens that may come, with their probabilities.
    left: Vec<(u32, f64)>,
}

#[test]
fn every_rule_is_that_of_transformers() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("data/transformers/sampling.json")).unwrap();
    for Case { name, mut settings, prompt, logits, left } in cases {
        let barred: Vec<u32> =
            serde_json::from_value(settings.remove("barred").unwrap_or_else(|| Json::Array(vec![]))).unwrap();
        let sampling: Sampling = serde_json::from_value(Json::Object(settings)).unwrap();
        sampling.check(logits.len()).unwrap();
        let ours = Sampler::new(sampling, 0, &prompt).distribution(logits, &barred, None).unwrap();
        let tokens = |pairs: &[(u32, f64)]| pairs.iter().map(|pair| pair.0).collect::<Vec<_>>();
        assert_eq!(tokens(&ours), tokens(&left), "{name}");
        // Theirs are divided in f32.
        for (ours, theirs) in ours.iter().zip(&left) {
            assert!((ours.1 / theirs.1 - 1.0).abs() < 1e-5, "{name}: {ours:?} {theirs:?}");
        }
    }
}

/// Pearson's χ² of 10⁵ draws, whose bounds are exceeded once in 10⁶ times.
#[test]
fn tokens_come_as_often_as_they_should() {
    let draws = 100_000;
    let logits: Vec<f32> = (0..12).map(|i| (i as f32 * 1.7).sin() * 2.0).collect();
    for sampling in [
        Sampling::default(),
        Sampling { temperature: 0.5, seed: 1, ..Sampling::default() },
        Sampling { top_k: 5, seed: 2, ..Sampling::default() },
        Sampling { top_p: 0.8, seed: 3, ..Sampling::default() },
        Sampling { min_p: 0.2, temperature: 1.5, seed: u64::MAX, ..Sampling::default() },
    ] {
        let mut sampler = Sampler::new(sampling, 0, &[]);
        let expected = sampler.distribution(logits.clone(), &[], None).unwrap();
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..draws {
            counts[sampler.choose(logits.clone(), &[], None).unwrap().token as usize] += 1.0;
        }
        assert_eq!(counts.iter().filter(|&&count| count > 0.0).count(), expected.len());
        let of_token = |&(token, probability): &(u32, f64)| {
            let expected = probability * f64::from(draws);
            (counts[token as usize] - expected).powi(2) / expected
        };
        let chi_squared: f64 = expected.iter().map(of_token).sum();
        // Wilson and Hilferty's cube, at 4.75 standard deviations.
        let freedom = (expected.len() - 1) as f64;
        let bound = freedom * (1.0 - 2.0 / (9.0 * freedom) + 4.75 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
        assert!(chi_squared < bound, "{chi_squared} {bound} {:?}", sampler.sampling());
    }
}

/// What comes is a function of seed, choice and place: it is the token at which the walk passes `uniform`.
#[test]
fn draws_walk_the_distribution_by_ascending_id() {
    let logits: Vec<f32> = (0..300).map(|i| (i as f32 * 0.7).cos() * 3.0).collect();
    let sampling = Sampling { temperature: 0.9, top_p: 0.95, seed: 12, ..Sampling::default() };
    let mut sampler = Sampler::new(sampling, 3, &[]);
    let distribution = sampler.distribution(logits.clone(), &[], None).unwrap();
    for place in 0..500 {
        let share = uniform(12, 3, place);
        let mut reached = 0.0;
        let walked = distribution.iter().find(|(_, probability)| {
            reached += probability;
            reached > share
        });
        assert_eq!(sampler.choose(logits.clone(), &[], None).unwrap().token, walked.unwrap().0);
    }
}
