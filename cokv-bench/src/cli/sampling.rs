//! How answers are drawn, on the command line.

use anyhow::{Result, anyhow, bail};
use cokv_models::sampling::Sampling;

/// What draws the tokens of an answer.
#[derive(clap::Args)]
pub struct SamplingArguments {
    /// Draw tokens: above 1 unlikely ones come more often, below 1 less often, up to 2; at 0 the likeliest comes
    #[arg(long)]
    temperature: Option<f64>,
    /// Draw from so many of the likeliest tokens
    #[arg(long)]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that have this probability together
    #[arg(long)]
    top_p: Option<f64>,
    /// Draw no token that has less than this share of the likeliest one's probability
    #[arg(long)]
    min_p: Option<f64>,
    /// The same seed draws the same answer
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// Above 1, tokens of the prompt and the answer come less often
    #[arg(long)]
    repetition_penalty: Option<f64>,
    /// What a token loses each time that it comes, -2 to 2
    #[arg(long, allow_negative_numbers = true)]
    frequency_penalty: Option<f64>,
    /// What a token loses once it has come, -2 to 2
    #[arg(long, allow_negative_numbers = true)]
    presence_penalty: Option<f64>,
}

impl SamplingArguments {
    /// The settings of one answer, of a model of so many tokens: without a temperature the likeliest tokens.
    pub fn sampling(&self, vocabulary: usize) -> Result<Sampling> {
        let drawing = [
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--min-p", self.min_p.is_some()),
            ("--seed", self.seed.is_some()),
        ];
        if self.temperature.is_none()
            && let Some((flag, _)) = drawing.iter().find(|(_, given)| *given)
        {
            bail!("{flag} says how tokens are drawn, and without --temperature the likeliest is taken");
        }
        self.over(&Sampling::greedy(), vocabulary)
    }

    /// What is said here, and the rest as it is in `default`.
    pub fn over(&self, default: &Sampling, vocabulary: usize) -> Result<Sampling> {
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            seed: self.seed.unwrap_or(default.seed),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            ..default.clone()
        };
        sampling.check(vocabulary).map_err(|error| {
            let flag = format!("--{}", error.parameter.replace('_', "-"));
            match default.check(vocabulary) == Err(error.clone()) {
                true => anyhow!("the model's generation_config.json has {error}; give {flag}"),
                false => anyhow!("{flag}: {}", error.message),
            }
        })?;
        Ok(sampling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: SamplingArguments = SamplingArguments {
        temperature: None,
        top_k: None,
        top_p: None,
        min_p: None,
        seed: None,
        repetition_penalty: None,
        frequency_penalty: None,
        presence_penalty: None,
    };

    #[test]
    fn what_is_said_comes_before_what_the_model_suggests() {
        let suggested = Sampling { temperature: 0.7, top_k: 20, ..Sampling::default() };
        assert_eq!(NOTHING.over(&suggested, 10).unwrap(), suggested);
        let said = SamplingArguments { temperature: Some(0.0), ..NOTHING };
        assert_eq!(said.over(&suggested, 10).unwrap(), Sampling { temperature: 0.0, ..suggested });
        assert_eq!(NOTHING.sampling(10).unwrap(), Sampling::greedy());
    }

    #[test]
    fn whoever_is_wrong_is_named() {
        let suggested = Sampling { temperature: 3.0, ..Sampling::default() };
        let error = |arguments: &SamplingArguments| arguments.over(&suggested, 10).unwrap_err().to_string();
        let told = error(&NOTHING);
        assert!(told.contains("generation_config.json") && told.contains("give --temperature"), "{told}");
        let hot = SamplingArguments { temperature: Some(4.0), ..NOTHING };
        assert_eq!(error(&hot), "--temperature: 4 is not between 0 and 2");
    }
}
