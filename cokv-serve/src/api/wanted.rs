//! What is wanted of an answer, whichever endpoint is asked: its length, its end, and how its tokens are chosen.

use cokv_models::sampling::Sampling;
use serde_json::{Map, Value as Json};

use super::error::ApiError;
use super::fields::Fields;

/// Stop strings of a request, and bytes of each.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 256;
/// Answers to one prompt.
const MOST_CHOICES: u64 = 8;

/// Fields that clients send and that mean nothing here: they are said once, and the answer is the same.
const MEANINGLESS: [&str; 7] =
    ["user", "metadata", "store", "service_tier", "safety_identifier", "verbosity", "parallel_tool_calls"];

/// What an answer is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Tokens at most, where the request says so.
    pub max_tokens: Option<usize>,
    /// Tokens at least.
    pub min_tokens: usize,
    /// Answers to each prompt.
    pub choices: usize,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// Whether the model's own stop tokens end nothing.
    pub ignore_eos: bool,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Whether it is told as it is made.
    pub stream: bool,
    /// Whether the last chunk of a stream says what it took.
    pub include_usage: bool,
    /// Fields that mean nothing here.
    pub meaningless: Vec<&'static str>,
}

impl Wanted {
    /// Takes the fields that all endpoints share. `defaults` is how tokens are chosen where nobody says it; log-probabilities
    /// are each endpoint's own.
    pub fn take(fields: &mut Fields, defaults: &Sampling, drawn: u64) -> Result<Self, ApiError> {
        let stream = fields.or("stream", false)?;
        let include_usage = match fields.object("stream_options")? {
            Some(_) if !stream => {
                return Err(ApiError::value("stream_options", "`stream_options` says something of streams alone"));
            }
            Some(mut options) => options.or("include_usage", false)?,
            None => false,
        };
        let max_tokens = max_tokens(fields)?;
        let min_tokens = fields.integer("min_tokens", 0..=u32::MAX.into())?.unwrap_or(0) as usize;
        if max_tokens.is_some_and(|most| most < min_tokens) {
            return Err(ApiError::value("min_tokens", "`min_tokens` is more than the answer may have at all"));
        }
        Ok(Self {
            max_tokens,
            min_tokens,
            choices: fields.integer("n", 1..=MOST_CHOICES)?.unwrap_or(1) as usize,
            stop: stop(fields)?,
            ignore_eos: fields.or("ignore_eos", false)?,
            sampling: sampling(fields, defaults, drawn)?,
            stream,
            include_usage,
            meaningless: MEANINGLESS.into_iter().filter(|name| fields.json(name).is_some()).collect(),
        })
    }
}

/// OpenAI's two names of one number.
fn max_tokens(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let range = 1..=u32::MAX.into();
    let (new, old) = (fields.integer("max_completion_tokens", range.clone())?, fields.integer("max_tokens", range)?);
    match (new, old) {
        (Some(new), Some(old)) if new != old => {
            let message = format!("`max_completion_tokens` is {new} and `max_tokens` is {old}: they mean the same");
            Err(ApiError::value("max_tokens", message))
        }
        _ => Ok(new.or(old).map(|tokens| tokens as usize)),
    }
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = match fields.json("stop") {
        None => Vec::new(),
        Some(Json::String(stop)) => vec![stop],
        Some(other) => {
            let stops = serde_json::from_value::<Vec<String>>(other);
            stops.map_err(|_| ApiError::value("stop", "`stop` must be a string or an array of strings"))?
        }
    };
    if stops.len() > MOST_STOPS {
        return Err(ApiError::value("stop", format!("`stop` may have {MOST_STOPS} strings")));
    }
    match stops.iter().all(|stop| (1..=LONGEST_STOP).contains(&stop.len())) {
        true => Ok(stops),
        false => Err(ApiError::value("stop", format!("every string of `stop` must have 1 to {LONGEST_STOP} bytes"))),
    }
}

fn sampling(fields: &mut Fields, defaults: &Sampling, drawn: u64) -> Result<Sampling, ApiError> {
    let seed: Option<i64> = fields.optional("seed")?;
    let top_k = fields.integer("top_k", 0..=u32::MAX.into())?;
    Ok(Sampling {
        temperature: fields.or("temperature", defaults.temperature)?,
        top_k: top_k.map_or(defaults.top_k, |count| count as usize),
        top_p: fields.or("top_p", defaults.top_p)?,
        min_p: fields.or("min_p", defaults.min_p)?,
        repetition_penalty: fields.or("repetition_penalty", defaults.repetition_penalty)?,
        frequency_penalty: fields.or("frequency_penalty", defaults.frequency_penalty)?,
        presence_penalty: fields.or("presence_penalty", defaults.presence_penalty)?,
        logit_bias: logit_bias(fields)?.unwrap_or_else(|| defaults.logit_bias.clone()),
        // Two's complement: a seed below zero is one as any other.
        seed: seed.map_or(drawn, |seed| seed as u64),
        top_logprobs: None,
    })
}

fn logit_bias(fields: &mut Fields) -> Result<Option<Vec<(u32, f32)>>, ApiError> {
    let Some(biases) = fields.optional::<Map<String, Json>>("logit_bias")? else { return Ok(None) };
    let wrong =
        |token: &str| ApiError::value("logit_bias", format!("`logit_bias` has no token id and number in `{token}`"));
    let read = |(token, bias): (&String, &Json)| {
        let parsed = token.parse().ok().zip(bias.as_f64());
        parsed.map(|(id, bias)| (id, bias as f32)).ok_or_else(|| wrong(token))
    };
    biases.iter().map(read).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(body: Json) -> Result<Wanted, ApiError> {
        Wanted::take(&mut Fields::read(body.to_string().as_bytes())?, &Sampling::default(), 7)
    }

    #[test]
    fn what_nobody_says_has_a_default() {
        let wanted = wanted(json!({ "user": "x", "store": true, "n": null })).unwrap();
        assert_eq!((wanted.choices, wanted.max_tokens, wanted.stream, wanted.sampling.seed), (1, None, false, 7));
        assert_eq!(wanted.meaningless, ["user", "store"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (json!({ "n": 0 }), "n"),
            (json!({ "n": 9 }), "n"),
            (json!({ "max_tokens": 0 }), "max_tokens"),
            (json!({ "max_tokens": 1, "max_completion_tokens": 2 }), "max_tokens"),
            (json!({ "max_tokens": 1, "min_tokens": 2 }), "min_tokens"),
            (json!({ "stop": "" }), "stop"),
            (json!({ "stop": [1] }), "stop"),
            (json!({ "stop": vec!["x"; 17] }), "stop"),
            (json!({ "stop": "x".repeat(257) }), "stop"),
            (json!({ "temperature": "hot" }), "temperature"),
            (json!({ "seed": 1.5 }), "seed"),
            (json!({ "logit_bias": { "x": 1 } }), "logit_bias"),
            (json!({ "logit_bias": { "1": "x" } }), "logit_bias"),
            (json!({ "stream": 1 }), "stream"),
            (json!({ "stream_options": { "include_usage": true } }), "stream_options"),
            (json!({ "stream": true, "stream_options": { "include_usage": 1 } }), "stream_options.include_usage"),
        ] {
            let error = wanted(body.clone()).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{body}");
        }
    }

    #[test]
    fn what_is_said_is_heard() {
        let wanted = wanted(json!({
            "max_tokens": 5, "max_completion_tokens": 5, "stop": ["a", "b"], "seed": -1, "logit_bias": { "3": -100 }, "top_k": 4,
            "stream": true, "stream_options": { "include_usage": true },
        }));
        let wanted = wanted.unwrap();
        assert_eq!((wanted.max_tokens, wanted.stop.len(), wanted.sampling.seed), (Some(5), 2, u64::MAX));
        assert_eq!((wanted.sampling.logit_bias, wanted.sampling.top_k), (vec![(3, -100.0)], 4));
        assert!(wanted.stream && wanted.include_usage);
    }
}
