//! Merging on eviction (kvpress's MergingPress, after D2O, Wan et al., arXiv 2406.13035): what is evicted lives on in
//! what is like it.

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, HeadSelection, LayerView, ObservationRequest, Pairs, PolicyError,
};
use serde::{Deserialize, Serialize};

use super::base::OnBase;
use super::group::norm;
use super::linear_algebra::dot;
use super::ranking::best_first;
use super::rewriting::pairs_of;
use crate::settings::Share;

const ALL: Share = Share::new(1.0).unwrap();

/// Keeps what another compressor keeps, and folds the value of every evicted token into that of the kept token whose
/// key is most like its own: `v ← (v + Σ ω v_e) / (1 + Σ ω)` with `ω = similarity · ‖v_e‖ / (‖v_e‖ + ‖v‖)`, where the
/// similarity is the cosine of the prompt's keys. Keys stay.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Merging {
    /// Least similarity of a token that is folded in; none below 0 ever is.
    pub threshold: f64,
    /// Part of the evicted tokens that is folded in, the most similar ones.
    pub share: Share,
}

impl Default for Merging {
    fn default() -> Self {
        Self { threshold: 0.0, share: ALL }
    }
}

impl OnBase<Merging> {
    /// Refuses a threshold that no similarity can be compared with.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        let threshold = self.settings.threshold;
        match (-1.0..=1.0).contains(&threshold) {
            true => Ok(self),
            false => {
                let message = format!("threshold is a cosine, from -1 to 1; got {threshold}");
                Err(settings.error_at("threshold", message))
            }
        }
    }
}

/// An evicted token.
struct Evicted {
    position: usize,
    /// Which of the kept ones is most like it.
    target: usize,
    similarity: f32,
}

impl Merging {
    /// Who is folded into whom, from a head's keys, `[tokens, head_dim]`, and the positions that it keeps.
    fn folded(&self, keys: &[f32], kept: &[usize], dim: usize) -> Vec<Evicted> {
        let direction = |position: usize| {
            let key = &keys[position * dim..][..dim];
            let length = norm(key).max(f32::MIN_POSITIVE);
            key.iter().map(|x| x / length).collect::<Vec<f32>>()
        };
        let kept_directions: Vec<f32> = kept.iter().flat_map(|&position| direction(position)).collect();
        let nearest = |position: usize| {
            let own = direction(position);
            let similarities = kept_directions.chunks_exact(dim).map(|other| dot(&own, other)).enumerate();
            let first_of_equals = |best: (usize, f32), next: (usize, f32)| if next.1 > best.1 { next } else { best };
            similarities.reduce(first_of_equals).map(|(target, similarity)| Evicted { position, target, similarity })
        };
        let evicted = (0..keys.len() / dim).filter(|position| kept.binary_search(position).is_err());
        let evicted: Vec<Evicted> = evicted.filter_map(nearest).collect();
        let similarities: Vec<f32> = evicted.iter().map(|evicted| evicted.similarity).collect();
        let mut chosen = vec![false; evicted.len()];
        let most = self.share.of(evicted.len());
        best_first(&similarities).into_iter().take(most).for_each(|place| chosen[place] = true);
        let similar = |similarity: f32| similarity > 0.0 && f64::from(similarity) >= self.threshold;
        let folded = evicted.into_iter().zip(chosen).filter(|(evicted, chosen)| *chosen && similar(evicted.similarity));
        folded.map(|(evicted, _)| evicted).collect()
    }

    /// Values of the kept tokens of a head, `[kept, head_dim]`, once `evicted` are folded into them.
    fn fold(&self, kept_values: &mut [f32], values: &[f32], evicted: &[Evicted], dim: usize) {
        let lengths: Vec<f32> = kept_values.chunks_exact(dim).map(norm).collect();
        let mut weights = vec![1.0; lengths.len()];
        for &Evicted { position, target, similarity } in evicted {
            let value = &values[position * dim..][..dim];
            let length = norm(value);
            let weight = similarity * length / (length + lengths[target] + 1e-6);
            weights[target] += weight;
            let into = &mut kept_values[target * dim..][..dim];
            into.iter_mut().zip(value).for_each(|(sum, x)| *sum += weight * x);
        }
        for (value, weight) in kept_values.chunks_exact_mut(dim).zip(weights) {
            value.iter_mut().for_each(|x| *x /= weight);
        }
    }
}

impl CacheCompressor for OnBase<Merging> {
    fn base(&self) -> Option<&dyn CacheCompressor> {
        Some(&*self.base)
    }

    fn observations(&self, frame: Frame) -> ObservationRequest {
        self.base.observations(frame).union(ObservationRequest { keys: true, values: true, ..Default::default() })
    }

    fn rewrites(&self) -> bool {
        true
    }

    fn rewrite(&self, layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
        let (tokens, dim) = (layer.prompt_len, layer.layout.head_dim);
        let keys = layer.recorded("keys", layer.keys)?;
        let values = layer.recorded("values", layer.values)?;
        let mut pairs = pairs_of(&*self.base, layer, kept)?;
        for (head, (kept, pairs)) in kept.iter().zip(&mut pairs).enumerate() {
            let of_head = head * tokens * dim..(head + 1) * tokens * dim;
            let evicted = self.settings.folded(&keys[of_head.clone()], &kept.positions(tokens), dim);
            self.settings.fold(&mut pairs.values, &values[of_head], &evicted, dim);
        }
        Ok(pairs)
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        self.base.score(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::{Prompt, method};

    /// Of Knorm at half of the prompt: evicted token, the kept token that it is folded into, and its weight.
    #[test]
    fn evicted_tokens_of_the_closed_form() {
        let expected: [&[(usize, usize, f64)]; 2] = [
            &[
                (1, 9, 0.2095),
                (2, 10, 0.6308),
                (4, 11, 0.3173),
                (5, 12, 0.2388),
                (7, 14, 0.4995),
                (8, 0, 0.2425),
                (13, 6, 0.4230),
                (15, 0, 0.4630),
            ],
            &[
                (0, 10, 0.5343),
                (1, 10, 0.1230),
                (2, 13, 0.3968),
                (5, 6, 0.2847),
                (8, 14, 0.2214),
                (9, 4, 0.1016),
                (11, 10, 0.3643),
                (12, 10, 0.1829),
            ],
        ];
        let prompt = Prompt::new(16);
        let view = prompt.view();
        let (keys, values) = (view.keys.unwrap(), view.values.unwrap());
        for (head, (kept, expected)) in prompt.kept("'knorm'", 8).into_iter().zip(expected).enumerate() {
            let kept: Vec<usize> = kept.into_iter().map(|token| token as usize).collect();
            let (keys, values) = (&keys[head * 64..][..64], &values[head * 64..][..64]);
            let folded = Merging::default().folded(keys, &kept, 4);
            assert_eq!(folded.len(), expected.len());
            for (Evicted { position, target, similarity }, expected) in folded.into_iter().zip(expected) {
                assert_eq!((position, kept[target]), (expected.0, expected.1));
                let [evicted, into] = [position, kept[target]].map(|token| norm(&values[token * 4..][..4]));
                let weight = f64::from(similarity * evicted / (evicted + into));
                assert!((weight - expected.2).abs() < 5.1e-5, "token {position}: {weight} and not {}", expected.2);
            }
        }
    }

    #[test]
    fn merged_values_of_the_closed_form() {
        let (prompt, merging) = (Prompt::new(16), method("{ name = 'merging', base = 'knorm' }"));
        let kept = prompt.kept("{ name = 'merging', base = 'knorm' }", 8);
        assert_eq!(kept, prompt.kept("'knorm'", 8));
        let selection = kept.map(HeadSelection::Tokens);
        let pairs = merging.rewrite(&prompt.shown_to(&merging).view(), &selection).unwrap();
        for (head, first, second) in [
            (0, [0.3759681, 0.5713678, 0.2414546, -0.3104509], [1.1366218, 0.1764, -0.9460031, -1.1986553]),
            (1, [0.28224, -1.513605, -1.9178485, -0.558831], [-0.4302506, -1.03346, -0.686511, 0.2916131]),
        ] {
            for (ours, expected) in pairs[head].values.iter().zip([first, second].as_flattened()) {
                assert!((ours - expected).abs() < 1e-6, "head {head}: {ours} and not {expected}");
            }
        }
    }

    #[test]
    fn who_is_unlike_all_others_is_gone() {
        let keys = [1.0, 0.0, 0.6, 0.8, -1.0, 0.0, 0.0, 1.0, 1.0, 0.1];
        let folded = |threshold, share| {
            let merging = Merging { threshold, share: Share::new(share).unwrap() };
            merging.folded(&keys, &[0], 2).into_iter().map(|evicted| evicted.position).collect::<Vec<_>>()
        };
        assert_eq!(folded(0.0, 1.0), [1, 4], "opposite and at right angles");
        assert_eq!(folded(-1.0, 1.0), [1, 4]);
        assert_eq!(folded(0.7, 1.0), [4]);
        assert_eq!(folded(0.0, 0.25), [4], "one of four");
        assert!(Merging::default().folded(&keys, &[], 2).is_empty(), "nobody to fold into");
    }

    /// Keys are those of the base, here turned.
    #[test]
    fn another_rewriting_comes_first() {
        let (prompt, turned) = (Prompt::new(16), "{ name = 'key-rerotation', base = 'knorm' }");
        let both = method(&format!("{{ name = 'merging', base = {turned} }}"));
        let (turned, merged) = (method(turned), method("{ name = 'merging', base = 'knorm' }"));
        let kept = [HeadSelection::Tokens(vec![3, 8, 9]), HeadSelection::Everything];
        let rewrite = |method: &cokv_core::Method| method.rewrite(&prompt.shown_to(method).view(), &kept).unwrap();
        for ((both, turned), merged) in rewrite(&both).into_iter().zip(rewrite(&turned)).zip(rewrite(&merged)) {
            assert_eq!((both.keys, both.values), (turned.keys, merged.values));
        }
    }
}
