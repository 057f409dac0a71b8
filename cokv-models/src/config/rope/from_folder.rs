//! `rope_scaling` or `rope_parameters` of config.json.

use super::super::fields::Fields;
use super::super::{RopeScaling, context_length};
use super::{BETA_FAST, BETA_SLOW, LongRope, Stretch, Unstretched, Yarn, mscale, rope_factor, unknown};
use crate::error::ModelError;

/// The two objects that say it.
#[derive(Clone, Copy)]
struct Said<'a> {
    config: Fields<'a>,
    rope: Fields<'a>,
}

impl Unstretched {
    /// With the defaults of transformers 5. Files say `rope_type` since 2024 and `type` before; those that were read and
    /// written again since then say both.
    pub fn stretched_by_folder(self, config: Fields<'_>, rope: Option<Fields<'_>>) -> Result<Stretch, ModelError> {
        let Some(rope) = rope else { return Ok(self.plain(RopeScaling::None)) };
        let (path, said) = (rope.path, Said { config, rope });
        if ["full_attention", "sliding_attention"].iter().any(|kind| rope.get(kind).is_some()) {
            return Err(ModelError::unsupported(path, "RoPE that differs between layers is not implemented"));
        }
        let kind = rope.optional_text("rope_type")?;
        match if kind.is_some() { kind } else { rope.optional_text("type")? } {
            None | Some("default") => Ok(self.plain(RopeScaling::None)),
            Some("linear") => Ok(self.plain(RopeScaling::Linear { factor: said.factor("factor")? })),
            Some("llama3") => said.llama3().map(|scaling| self.plain(scaling)),
            Some("dynamic") => self.dynamic(path, said.factor("factor")?),
            Some("yarn") => self.yarn(path, said.yarn(self)?),
            Some("longrope") => self.longrope(path, said.longrope(self)?),
            Some(other) => Err(unknown(path, other, "default, linear, llama3, dynamic, yarn, longrope")),
        }
    }
}

impl Said<'_> {
    fn llama3(self) -> Result<RopeScaling, ModelError> {
        let (low, high) = (self.factor("low_freq_factor")?, self.factor("high_freq_factor")?);
        if low >= high {
            let message = format!("`low_freq_factor` is {low}; it must be below `high_freq_factor`, which is {high}");
            return Err(ModelError::malformed(self.rope.path, message));
        }
        let original = self.stated_context()?.ok_or_else(|| self.rope.missing(ORIGINAL))?;
        Ok(RopeScaling::Llama3 {
            factor: self.factor("factor")?,
            low_frequency_factor: low,
            high_frequency_factor: high,
            original_context: original as f32,
        })
    }

    fn yarn(self, of: Unstretched) -> Result<Yarn, ModelError> {
        let original_context = self.stated_context()?.unwrap_or(of.context_length);
        let factor = self.factor_or_ratio(of, original_context)?;
        let beta = |key: &str, usual: f32| {
            self.nonzero(key)?.map_or(Ok(usual), |number| rope_factor(self.rope.path, key, number))
        };
        let attention_factor = self.optional_factor("attention_factor")?.map(f64::from);
        let attention_factor = match (attention_factor, self.nonzero("mscale")?, self.nonzero("mscale_all_dim")?) {
            (Some(stated), ..) => stated,
            (None, Some(scale), Some(of_all)) => mscale(factor, scale) / mscale(factor, of_all),
            _ => mscale(factor, 1.0),
        };
        Ok(Yarn {
            factor,
            attention_factor,
            original_context,
            beta_fast: beta("beta_fast", BETA_FAST)?,
            beta_slow: beta("beta_slow", BETA_SLOW)?,
            truncate: self.rope.optional_flag("truncate")?.unwrap_or(true),
        })
    }

    fn longrope(self, of: Unstretched) -> Result<LongRope, ModelError> {
        let original_context = self.stated_context()?.unwrap_or(of.context_length);
        let factor = self.factor_or_ratio(of, original_context)?;
        let attention_factor = match self.optional_factor("attention_factor")? {
            Some(stated) => f64::from(stated),
            None if factor <= 1.0 => 1.0,
            None => (1.0 + f64::from(factor).ln() / (original_context as f64).ln()).sqrt(),
        };
        let divisors = |key: &str| of.divisors(self.rope.path, key, self.rope.numbers(key)?);
        let (short, long) = (divisors("short_factor")?, divisors("long_factor")?);
        Ok(LongRope { factor, attention_factor, original_context, short, long })
    }

    fn factor(self, key: &str) -> Result<f32, ModelError> {
        self.optional_factor(key)?.ok_or_else(|| self.rope.missing(key))
    }

    fn optional_factor(self, key: &str) -> Result<Option<f32>, ModelError> {
        self.rope.optional_number(key)?.map(|number| rope_factor(self.rope.path, key, number)).transpose()
    }

    /// 0 is as if nothing were said.
    fn nonzero(self, key: &str) -> Result<Option<f64>, ModelError> {
        Ok(self.rope.optional_number(key)?.filter(|&number| number != 0.0))
    }

    fn factor_or_ratio(self, of: Unstretched, original_context: usize) -> Result<f32, ModelError> {
        let ratio = of.context_length as f64 / original_context as f64;
        Ok(self.optional_factor("factor")?.unwrap_or(ratio as f32))
    }

    /// The context that the model was first made for. Where it stands outside of the object, that counts.
    fn stated_context(self) -> Result<Option<usize>, ModelError> {
        let stated = match self.config.optional_integer(ORIGINAL)? {
            None => self.rope.optional_integer(ORIGINAL)?,
            outside => outside,
        };
        stated.map(|original| context_length(self.rope.path, ORIGINAL, original)).transpose()
    }
}

const ORIGINAL: &str = "original_max_position_embeddings";
