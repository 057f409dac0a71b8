//! Composed (kvpress's ComposedPress): several compressors, one after the other.

use cokv_core::config::Choice;
use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, Named, ObservationRequest, PolicyError, Protected,
    Replay,
};
use serde::{Deserialize, Serialize};

use super::base::{keys_and_values_suffice, refusal};
use super::part::Part;
use super::ranking::{protected_first, rearrange};

/// Lets each compressor choose among what the one before it left. All keep the same share of what they get, so that the
/// last leaves the budget. Those behind the first must look at keys and values alone: all else that a prefill records
/// is of the whole prompt. What any of them protects is kept.
///
/// A head's scores are the first compressor's, which only change places.
#[derive(Debug, Serialize)]
pub struct Composed {
    /// In their order.
    pub compressors: Vec<Named<dyn CacheCompressor>>,
}

/// Nothing beside the compressors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {}

impl Composed {
    /// Reads the compressors: `compressors = ["snapkv", "keydiff"]` (the default), names or tables with a name.
    pub fn read(settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        let mut rest = settings.clone();
        let named = |name| Choice::named(name, settings);
        let choices = rest.take_choices("compressors")?.unwrap_or_else(|| vec![named("snapkv"), named("keydiff")]);
        let Rest {} = rest.read_beside(&["compressors"])?;
        let registry = crate::registry();
        let compressors = choices.iter().map(|choice| registry.compressor(choice)).collect::<Result<Vec<_>, _>>()?;
        let Some((first, others)) = compressors.split_first() else {
            let message = "composed needs at least one compressor: compressors = [\"snapkv\", \"keydiff\"]";
            return Err(settings.error_at("compressors", message));
        };
        let changes = |compressor: &&Named<dyn CacheCompressor>| compressor.rewrites() || !compressor.evicts();
        if let Some(unfit) = std::iter::once(first).chain(others).find(changes) {
            let message = format!(
                "composed compressors only choose, and `{}` changes what is kept or keeps everything: leave it out, or \
                 write composed as its base",
                unfit.settings().name()
            );
            return Err(settings.error_at("compressors", message));
        }
        for other in others {
            keys_and_values_suffice(&**other).map_err(|more| {
                let message = refusal(other.settings().name(), &more, "what chooses among what others left");
                settings.error_at("compressors", message)
            })?;
        }
        Ok(Self { compressors })
    }

    /// Tokens of a head that are left behind each compressor, the last the budget.
    fn left(&self, tokens: usize, budget: usize) -> Vec<usize> {
        let (of, share) = (self.compressors.len(), budget as f64 / tokens.max(1) as f64);
        let left = |place: usize| (tokens as f64 * share.powf((place + 1) as f64 / of as f64)).round() as usize;
        (0..of).map(|place| if place + 1 == of { budget } else { left(place).clamp(budget, tokens) }).collect()
    }
}

impl CacheCompressor for Composed {
    fn observations(&self, frame: Frame) -> ObservationRequest {
        let asked = self.compressors.iter().map(|compressor| compressor.observations(frame));
        asked.fold(ObservationRequest::default(), ObservationRequest::union)
    }

    fn protected(&self, frame: Frame) -> Protected {
        let all = self.compressors.iter().map(|compressor| compressor.protected(frame));
        all.fold(Protected::default(), |some, other| Protected {
            sinks: some.sinks.max(other.sinks),
            window: some.window.max(other.window),
        })
    }

    fn replay(&self) -> Option<Replay> {
        self.compressors.first().and_then(|first| first.replay())
    }

    fn follows_budget(&self) -> bool {
        true
    }

    fn needs_question(&self) -> bool {
        self.compressors.iter().any(|compressor| compressor.needs_question())
    }

    fn prefers_layers(&self) -> bool {
        self.compressors.first().is_some_and(|first| first.prefers_layers())
    }

    fn layer_preference(&self, layer: &LayerView<'_>) -> Result<f64, PolicyError> {
        match self.compressors.first() {
            Some(first) => first.layer_preference(layer),
            None => layer.recorded("how much a layer needs", None),
        }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (tokens, kv_heads) = (layer.prompt_len, layer.layout.kv_heads);
        let protected = self.protected(layer.frame);
        let budget = layer.recorded("the budget", layer.kept)?.min(tokens);
        let mut scores = vec![0.0; kv_heads * tokens];
        // Best first: those that are still there, then those that went last.
        let mut rankings: Vec<Vec<usize>> = vec![(0..tokens).collect(); kv_heads];
        let mut there = tokens;
        for (place, (compressor, left)) in self.compressors.iter().zip(self.left(tokens, budget)).enumerate() {
            rankings.iter_mut().for_each(|ranking| ranking[..there].sort_unstable());
            let of_stage = match place {
                0 => {
                    scores = compressor.score(layer)?;
                    scores.clone()
                }
                _ => {
                    let positions: Vec<Vec<usize>> = rankings.iter().map(|ranking| ranking[..there].to_vec()).collect();
                    compressor.score(&Part::of(layer, &positions).view(layer))?
                }
            };
            for (ranking, of_head) in rankings.iter_mut().zip(of_stage.chunks_exact(there.max(1))) {
                let best: Vec<usize> = protected_first(of_head, protected).into_iter().map(|at| ranking[at]).collect();
                ranking[..there].copy_from_slice(&best);
            }
            there = left;
        }
        for (head, ranking) in scores.chunks_exact_mut(tokens.max(1)).zip(&rankings) {
            rearrange(head, protected.candidates(tokens), ranking);
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::Prompt;

    #[test]
    fn one_alone_is_itself() {
        let prompt = Prompt::new(16);
        for budget in 4..=16 {
            let snapkv = "{ name = 'snapkv', window = 4 }";
            let alone = prompt.kept(&format!("{{ name = 'composed', compressors = [{snapkv}] }}"), budget);
            assert_eq!(alone, prompt.kept(snapkv, budget), "{budget} tokens");
        }
    }

    /// 4 of 16 tokens are half of a half: the best of KeyDiff among the 8 shortest keys.
    #[test]
    fn each_chooses_among_what_the_one_before_left() {
        let prompt = Prompt::new(16);
        let kept = prompt.kept("{ name = 'composed', compressors = ['knorm', 'keydiff'] }", 4);
        let shortest = prompt.kept("'knorm'", 8);
        let view = prompt.view();
        for (head, (kept, shortest)) in kept.iter().zip(shortest).enumerate() {
            let positions: Vec<usize> = shortest.iter().map(|&token| token as usize).collect();
            let part = Part::of(&view, &[positions.clone(), positions.clone()]);
            let keydiff = crate::registry();
            let table = ConfigTable::parse("test", "").unwrap();
            let keydiff = keydiff.compressor(&Choice::named("keydiff", &table)).unwrap();
            let scores = keydiff.score(&part.view(&view)).unwrap();
            let best = super::super::ranking::best_first(&scores[head * 8..][..8]);
            let mut expected: Vec<u32> = best[..4].iter().map(|&at| shortest[at]).collect();
            expected.sort_unstable();
            assert_eq!(*kept, expected, "head {head}");
        }
    }

    #[test]
    fn shares_are_the_same_for_all() {
        let left = |count: usize, tokens, budget| {
            let table = ConfigTable::parse("test", "").unwrap();
            let knorm = crate::registry().compressor(&Choice::named("knorm", &table)).unwrap();
            Composed { compressors: vec![knorm; count] }.left(tokens, budget)
        };
        assert_eq!(left(2, 16, 4), [8, 4]);
        assert_eq!(left(3, 1000, 1), [100, 10, 1]);
        assert_eq!(left(2, 10, 10), [10, 10]);
        assert_eq!(left(2, 10, 0), [0, 0]);
        assert_eq!(left(2, 0, 0), [0, 0]);
    }

    #[test]
    fn what_any_protects_is_kept() {
        let composed =
            "{ name = 'composed', compressors = [{ name = 'snapkv', window = 4 }, { name = 'cur', sinks = 2 }] }";
        let kept = Prompt::new(40).kept(composed, 12);
        assert!(kept.iter().all(|head| head.starts_with(&[0, 1]) && head.ends_with(&[36, 37, 38, 39])), "{kept:?}");
    }
}
