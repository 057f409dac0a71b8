//! Whether a model fits into memory, said before it is loaded.

use cokv_models::WeightType;
use cokv_models::outline::WeightKinds;
use thiserror::Error;

use crate::machine::memory::mebibytes;

/// What will lie in memory beside the weights, at least.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Bytes.
    pub bytes: u64,
    /// What takes them, such as `a prompt with its 3 cells`.
    pub what: String,
    /// What to do where that is too much.
    pub advice: &'static str,
}

/// A model does not fit.
#[derive(Debug, Error)]
#[error("{source_text}: {needed}, and {free} are free: {advice}")]
pub struct NoRoom {
    source_text: String,
    /// What takes how much.
    needed: String,
    free: String,
    advice: String,
}

/// Bits of a number, scales included, in a GGUF file of each kind as it lies in memory.
const GGUF: [(usize, f64); 3] = [(8, 8.5), (5, 6.0), (4, 5.0)];

impl Beside {
    /// Refuses weights held like this that leave no room; `held` is none where they take no memory of the host. `free` are
    /// the bytes that the process may still take, where that is known.
    pub(super) fn check(
        &self,
        source: &str,
        weights: &WeightKinds,
        held: Option<WeightType>,
        free: Option<u64>,
    ) -> Result<(), NoRoom> {
        let (Some(free), taken) = (free, held.map_or(0, |held| weights.bytes(held))) else { return Ok(()) };
        let advice = || match held.filter(|_| taken > free) {
            Some(held) => smaller(weights, held, free.saturating_sub(self.bytes)),
            None => self.advice.to_owned(),
        };
        self.fits(source, taken, free, advice)
    }

    /// The same on a GPU, whose free bytes are known once it is open.
    #[cfg(any(feature = "cuda", test))]
    pub(super) fn check_gpu(
        &self,
        source: &str,
        weights: &WeightKinds,
        held: WeightType,
        free: Option<u64>,
    ) -> Result<(), NoRoom> {
        let (Some(free), taken) = (free, weights.widened_bytes(held)) else { return Ok(()) };
        let advice = || match taken > free {
            true if held == WeightType::F32 && weights.widened_bytes(WeightType::Stored) <= free => {
                "weights = \"stored\" takes half of that".to_owned()
            }
            true => {
                "quantised weights are held in 16 bits there; take a smaller model, another GPU, or device = \"cpu\""
                    .into()
            }
            false => self.advice.to_owned(),
        };
        self.fits(source, taken, free, advice)
    }

    fn fits(&self, source: &str, taken: u64, free: u64, advice: impl FnOnce() -> String) -> Result<(), NoRoom> {
        if taken.saturating_add(self.bytes) <= free {
            return Ok(());
        }
        let needed = match (taken, self.bytes) {
            (0, beside) => format!("{} takes {}", self.what, mebibytes(beside)),
            (weights, 0) => format!("the weights take {}", mebibytes(weights)),
            (weights, beside) => {
                format!("the weights take {} and {} {}", mebibytes(weights), self.what, mebibytes(beside))
            }
        };
        Err(NoRoom { source_text: source.into(), needed, free: mebibytes(free), advice: advice() })
    }
}

/// How the same model would take less, and how much.
fn smaller(weights: &WeightKinds, held: WeightType, room: u64) -> String {
    let stored = weights.bytes(WeightType::Stored);
    if held == WeightType::F32 && stored <= room {
        return format!("weights = \"stored\" takes about {}", mebibytes(stored));
    }
    let of_bits = |bits: f64| (weights.numbers() as f64 * bits / 8.0) as u64;
    let fitting = GGUF.iter().find(|(_, bits)| of_bits(*bits) <= room.min(stored));
    match (fitting, GGUF.last()) {
        (Some(&(kind, bits)), _) => {
            format!("a GGUF of {kind} bits of this model takes about {}", mebibytes(of_bits(bits)))
        }
        (None, Some(&(kind, bits))) if of_bits(bits) < stored => format!(
            "even a GGUF of {kind} bits of this model takes about {}; take a smaller model, or a machine with more memory",
            mebibytes(of_bits(bits))
        ),
        _ => "take a smaller model, or a machine with more memory".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::config;

    /// Llama 3 of 8B: 8.03 billion numbers.
    fn llama() -> WeightKinds {
        WeightKinds::dense(&config([32, 32, 8, 128], 4096, 14336, 128_256), false)
    }

    fn check(held: Option<WeightType>, beside: u64, free: u64) -> Result<(), String> {
        let beside = Beside { bytes: beside << 30, what: "a prompt with its 3 cells".into(), advice: "run fewer" };
        beside.check("llama", &llama(), held, Some(free << 30)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers_and_what_would() {
        let (stored, f32) = (Some(WeightType::Stored), Some(WeightType::F32));
        assert_eq!(llama().numbers(), 8_029_995_008);
        assert!(check(stored, 1, 16).is_ok() && check(f32, 1, 31).is_ok());
        let eight_bits = "llama: the weights take 15.0 GiB and a prompt with its 3 cells 1024 MiB, and 9216 MiB are free: a GGUF \
                          of 8 bits of this model takes about 8137 MiB";
        assert_eq!(check(stored, 1, 9).unwrap_err(), eight_bits);
        assert!(
            check(stored, 0, 5).unwrap_err().ends_with("are free: a GGUF of 4 bits of this model takes about 4786 MiB")
        );
        let nothing = check(stored, 2, 4).unwrap_err();
        assert!(
            nothing.contains("even a GGUF of 4 bits of this model takes about 4786 MiB; take a smaller"),
            "{nothing}"
        );
        assert!(check(f32, 1, 20).unwrap_err().ends_with("weights = \"stored\" takes about 15.0 GiB"));
    }

    #[test]
    fn a_gpu_holds_weights_in_16_bits() {
        let check = |held, beside: u64, free: u64| {
            let beside = Beside { bytes: beside << 30, what: "a prompt".into(), advice: "run fewer" };
            beside.check_gpu("llama", &llama(), held, Some(free << 30)).map_err(|error| error.to_string())
        };
        assert!(check(WeightType::Stored, 8, 23).is_ok() && check(WeightType::F32, 1, 31).is_ok());
        let error = check(WeightType::Stored, 8, 20).unwrap_err();
        assert_eq!(error, "llama: the weights take 15.0 GiB and a prompt 8192 MiB, and 20.0 GiB are free: run fewer");
        assert!(check(WeightType::Stored, 0, 8).unwrap_err().ends_with("another GPU, or device = \"cpu\""));
        assert!(check(WeightType::F32, 0, 20).unwrap_err().contains("weights = \"stored\""));
    }

    #[test]
    fn where_the_weights_fit_less_must_lie_beside_them() {
        let error = check(Some(WeightType::Stored), 4, 16).unwrap_err();
        assert!(error.ends_with("a prompt with its 3 cells 4096 MiB, and 16.0 GiB are free: run fewer"), "{error}");
        // On an accelerator the weights take nothing of what the host has.
        assert!(check(None, 4, 5).is_ok());
        let error = check(None, 6, 5).unwrap_err();
        assert_eq!(error, "llama: a prompt with its 3 cells takes 6144 MiB, and 5120 MiB are free: run fewer");
        let beside = Beside { bytes: u64::MAX, ..Beside::default() };
        assert!(beside.check("llama", &llama(), Some(WeightType::Stored), None).is_ok(), "where nothing is known");
    }
}
