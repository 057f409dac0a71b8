//! How answers are drawn, on the command line.

use anyhow::{Result, anyhow};
use cokv_models::sampling::Sampling;

/// What draws the tokens of an answer.
#[derive(clap::Args)]
pub struct SamplingArguments {
    /// Draw tokens: above 1 unlikely ones come more often, below 1 less often, up to 2; at 0 the likeliest comes
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Draw from so many of the likeliest tokens
    #[arg(long, requires = "temperature")]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that have this probability together
    #[arg(long, requires = "temperature")]
    top_p: Option<f64>,
    /// Draw no token that has less than this share of the likeliest one's probability
    #[arg(long, requires = "temperature")]
    min_p: Option<f64>,
    /// The same seed draws the same answer [default: 0]
    #[arg(long, requires = "temperature")]
    seed: Option<u64>,
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
    /// The settings for a model of so many tokens.
    pub fn sampling(&self, vocabulary: usize) -> Result<Sampling> {
        let default = Sampling::default();
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            seed: self.seed.unwrap_or(default.seed),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            ..default
        };
        let named = |parameter: &str| format!("--{}", parameter.replace('_', "-"));
        sampling.check(vocabulary).map_err(|error| anyhow!("{}: {}", named(error.parameter), error.message))?;
        Ok(sampling)
    }
}
