//! `rope.scaling` of GGUF metadata.

use super::super::{RopeScaling, context_length};
use super::{BETA_FAST, BETA_SLOW, LongRope, Stretch, Unstretched, Yarn, mscale, rope_factor, unknown};
use crate::error::ModelError;
use crate::weights::Gguf;

/// Metadata of one architecture.
#[derive(Clone, Copy)]
struct Said<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

/// Divisors of each frequency.
const DIVISORS: &str = "rope_freqs.weight";

impl Unstretched {
    /// With llama.cpp's defaults: a factor without a type is linear, 0 is none, and files of 2023 call it `rope.scale_linear`.
    /// Divisors of each frequency are stretched by it too.
    pub fn stretched_by_gguf(self, gguf: &Gguf, architecture: &str) -> Result<Stretch, ModelError> {
        let (path, said) = (gguf.path(), Said { gguf, architecture });
        let kind = gguf.optional_string(&said.key("scaling.type"))?;
        let stretch = match kind.as_deref() {
            None | Some("linear") => self.plain(said.linear(self, said.factor()?)?),
            Some("none") => self.plain(said.linear(self, None)?),
            Some("yarn") => self.yarn(path, said.yarn(self)?)?,
            Some("longrope") => self.longrope(path, said.longrope(self)?)?,
            Some(other) => return Err(unknown(path, other, "none, linear, yarn, longrope")),
        };
        let more = said.number("scaling.attn_factor")?.unwrap_or(1.0);
        Ok(Stretch { attention_factor: stretch.attention_factor * more, ..stretch })
    }
}

impl Said<'_> {
    fn linear(self, of: Unstretched, factor: Option<f32>) -> Result<RopeScaling, ModelError> {
        if self.gguf.contains(DIVISORS) {
            return Ok(RopeScaling::Divisors(self.divisors(of, DIVISORS, factor)?));
        }
        Ok(factor.map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor }))
    }

    /// An attention factor that is stated is the model's own, as it is to transformers; llama.cpp computes another.
    fn yarn(self, of: Unstretched) -> Result<Yarn, ModelError> {
        let unsupported = |message: String| Err(ModelError::unsupported(self.gguf.path(), message));
        if self.gguf.contains(DIVISORS) {
            return unsupported(format!("YaRN with divisors of frequencies (`{DIVISORS}`) is not implemented"));
        }
        // A negative number says that nothing is said.
        let share = self.gguf.optional_float(&self.key("scaling.yarn_ext_factor"))?;
        if let Some(share) = share.filter(|&share| share >= 0.0 && share != 1.0) {
            return unsupported(format!("YaRN to a part (yarn_ext_factor {share}) is not implemented"));
        }
        let factor = self.factor()?.unwrap_or(1.0);
        let stated = self.number("scaling.yarn_attn_factor")?;
        let attention_factor = match (stated, self.number("scaling.yarn_log_multiplier")?) {
            (Some(stated), _) => f64::from(stated),
            (None, Some(of_all)) => mscale(factor, 1.0) / mscale(factor, f64::from(of_all)),
            (None, None) => mscale(factor, 1.0),
        };
        Ok(Yarn {
            factor,
            attention_factor,
            original_context: self.original_context(of)?,
            beta_fast: self.number("scaling.yarn_beta_fast")?.unwrap_or(BETA_FAST),
            beta_slow: self.number("scaling.yarn_beta_slow")?.unwrap_or(BETA_SLOW),
            truncate: true,
        })
    }

    /// llama.cpp divides by the long factors where it was given room for a long text, and we where the text is long, as
    /// transformers does.
    fn longrope(self, of: Unstretched) -> Result<LongRope, ModelError> {
        let factor = self.factor()?;
        Ok(LongRope {
            factor: factor.unwrap_or(1.0),
            attention_factor: 1.0,
            original_context: self.original_context(of)?,
            short: self.divisors(of, "rope_factors_short.weight", factor)?,
            long: self.divisors(of, "rope_factors_long.weight", factor)?,
        })
    }

    fn divisors(self, of: Unstretched, tensor: &str, factor: Option<f32>) -> Result<Vec<f32>, ModelError> {
        let divisors = of.divisors(self.gguf.path(), tensor, self.gguf.dense(tensor)?)?;
        Ok(divisors.into_iter().map(|divisor| divisor * factor.unwrap_or(1.0)).collect())
    }

    fn factor(self) -> Result<Option<f32>, ModelError> {
        match self.gguf.optional_float(&self.key("scaling.factor"))? {
            None => self.number("scale_linear"),
            Some(_) => self.number("scaling.factor"),
        }
    }

    fn original_context(self, of: Unstretched) -> Result<usize, ModelError> {
        let key = self.key("scaling.original_context_length");
        let stated = self.gguf.optional_integer(&key)?.filter(|&original| original > 0);
        stated.map_or(Ok(of.context_length), |original| context_length(self.gguf.path(), &key, original))
    }

    /// None where it is 0.
    fn number(self, suffix: &str) -> Result<Option<f32>, ModelError> {
        let key = self.key(suffix);
        let number = self.gguf.optional_float(&key)?.filter(|&number| number != 0.0);
        number.map(|number| rope_factor(self.gguf.path(), &key, f64::from(number))).transpose()
    }

    fn key(self, suffix: &str) -> String {
        format!("{}.rope.{suffix}", self.architecture)
    }
}
