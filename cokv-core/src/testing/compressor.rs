//! The contract of [`CacheCompressor`].

use super::{ContractViolation, MadeUpPrompt};
use crate::random::{fraction, mix};
use crate::{
    CacheCompressor, Frame, HeadLayout, HeadSelection, ObservationRequest, Pairs, PolicyError, Replay, Replayed,
};

/// Tests of one compressor with its settings, on made-up prompts of 0 to 300 tokens, with and without a chat template's
/// tail.
///
/// Always checked: a finite score for every token of every head, also of prompts that are shorter than a window or
/// empty; the same scores twice; no look at what was not asked for, and an error that names what was asked for and is
/// missing; and that heads which change places take their scores along, up to rounding. Of compressors that rewrite what is kept:
/// a finite pair for every kept token, the same twice, of whatever number of tokens a head keeps. Of those that say how much a layer
/// needs: a finite number that is not below 0, the same twice and wherever a head stands.
#[derive(Debug)]
pub struct CompressorContract<'a> {
    compressor: &'a dyn CacheCompressor,
    equivariant: bool,
}

const LAYOUTS: [HeadLayout; 2] = [
    HeadLayout { layers: 1, query_heads: 6, kv_heads: 3, head_dim: 4 },
    HeadLayout { layers: 1, query_heads: 2, kv_heads: 2, head_dim: 6 },
];
const LENGTHS: [usize; 9] = [0, 1, 2, 4, 5, 9, 17, 64, 300];
const TAILS: [usize; 2] = [0, 5];

impl<'a> CompressorContract<'a> {
    /// What every compressor must keep.
    pub fn new(compressor: &'a dyn CacheCompressor) -> Self {
        Self { compressor, equivariant: true }
    }

    /// Allows scores to depend on a head's place, as draws by its number do.
    pub fn not_equivariant(self) -> Self {
        Self { equivariant: false, ..self }
    }

    /// Runs everything; the same prompts every time.
    pub fn check(&self) -> Result<(), ContractViolation> {
        for layout in LAYOUTS {
            for tokens in LENGTHS {
                let mut prompt = MadeUpPrompt::new(layout, tokens);
                if self.compressor.follows_budget() {
                    prompt = prompt.with_budget(tokens / 3);
                }
                if let Some(replay) = self.compressor.replay() {
                    prompt = replayed(prompt, replay);
                }
                for tail in TAILS.into_iter().filter(|&tail| tail <= tokens) {
                    let case = format!("{tokens} tokens, {tail} of them a tail, {} KV heads", layout.kv_heads);
                    let broken = |(promise, failure): (&'static str, String)| ContractViolation {
                        promise,
                        failure: format!("{failure} ({case})"),
                    };
                    let frame = Frame::with_tail(tail);
                    self.on(&prompt.clone().within(frame), frame).map_err(broken)?;
                }
            }
        }
        Ok(())
    }

    fn on(&self, whole: &MadeUpPrompt, frame: Frame) -> Result<(), (&'static str, String)> {
        let request = self.compressor.observations(frame);
        let asked = whole.clone().showing(request.clone());
        let whole = &whole.clone().showing_also(request.clone());
        let scores = self.scores(&asked)?;
        if self.scores(&asked)? != scores {
            return Err(("the same prompt gets the same scores", "they differ".into()));
        }
        if self.scores(whole)? != scores {
            let failure = "they differ where more was recorded than it asked for".into();
            return Err(("what others ask for does not matter", failure));
        }
        if self.equivariant {
            self.equivariant(whole, &scores)?;
        }
        self.rewritten(&asked)?;
        self.preferred(&asked, whole)?;
        // A short prompt may need no look.
        if whole.view().prompt_len >= LENGTHS[LENGTHS.len() - 1] {
            self.names_what_is_missing(whole, request)?;
        }
        Ok(())
    }

    /// A finite score for every token of every head.
    fn scores(&self, prompt: &MadeUpPrompt) -> Result<Vec<f32>, (&'static str, String)> {
        let promise = "every token of every head has a finite score";
        let view = prompt.view();
        let scores = self.compressor.score(&view).map_err(|error| (promise, error.to_string()))?;
        let expected = view.layout.kv_heads * view.prompt_len;
        if scores.len() != expected {
            return Err((promise, format!("there are {} scores for {expected}", scores.len())));
        }
        match scores.iter().position(|score| !score.is_finite()) {
            None => Ok(scores),
            Some(at) => {
                let (head, token) = (at / view.prompt_len, at % view.prompt_len);
                Err((promise, format!("token {token} of head {head} has {}", scores[at])))
            }
        }
    }

    fn preferred(&self, asked: &MadeUpPrompt, whole: &MadeUpPrompt) -> Result<(), (&'static str, String)> {
        if !self.compressor.prefers_layers() {
            return Ok(());
        }
        let promise = "a layer needs a finite number that is not below 0";
        let preference = |prompt: &MadeUpPrompt| match self.compressor.layer_preference(&prompt.view()) {
            Ok(preference) if preference.is_finite() && preference >= 0.0 => Ok(preference),
            Ok(preference) => Err((promise, format!("it is {preference}"))),
            Err(error) => Err((promise, error.to_string())),
        };
        let first = preference(asked)?;
        for again in [preference(asked)?, preference(whole)?, preference(&whole.rotated())?] {
            // A sum over all heads may add up in another order.
            if (again - first).abs() > 1e-5 * first.abs() {
                return Err(("a layer always needs the same", format!("it is {first}, and then {again}")));
            }
        }
        Ok(())
    }

    /// What becomes of tokens that heads keep, each another number of them.
    fn rewrite(&self, prompt: &MadeUpPrompt) -> Result<(Vec<HeadSelection>, Vec<Pairs>), PolicyError> {
        let view = prompt.view();
        let of_head = |head: usize| match head {
            0 => HeadSelection::Everything,
            _ => HeadSelection::Tokens((0..view.prompt_len as u32).filter(|at| at % 4 == head as u32).collect()),
        };
        let kept: Vec<HeadSelection> = (0..view.layout.kv_heads).map(of_head).collect();
        let pairs = self.compressor.rewrite(&view, &kept)?;
        Ok((kept, pairs))
    }

    fn rewritten(&self, prompt: &MadeUpPrompt) -> Result<(), (&'static str, String)> {
        if !self.compressor.rewrites() {
            return Ok(());
        }
        let promise = "every kept token becomes a finite pair";
        let broken = |failure: String| Err((promise, failure));
        let rewritten = self.rewrite(prompt).map_err(|error| (promise, error.to_string()))?;
        let (view, (kept, pairs)) = (prompt.view(), &rewritten);
        if pairs.len() != kept.len() {
            return broken(format!("there are pairs for {} heads of {}", pairs.len(), kept.len()));
        }
        for (head, (kept, pairs)) in kept.iter().zip(pairs).enumerate() {
            let rows = kept.len(view.prompt_len);
            let biases = if self.compressor.adds_biases() { rows } else { 0 };
            let (found, numbers) = ([&pairs.keys, &pairs.values, &pairs.biases], rows * view.layout.head_dim);
            if found.map(|part| part.len()) != [numbers, numbers, biases] {
                return broken(format!("head {head} keeps {rows} tokens and has {:?} numbers", found.map(|p| p.len())));
            }
            if found.into_iter().flatten().any(|number| !number.is_finite()) {
                return broken(format!("head {head} has a number that is not finite"));
            }
        }
        match self.rewrite(prompt) {
            Ok(again) if again == rewritten => Ok(()),
            _ => Err(("the same kept tokens become the same pairs", "they differ".into())),
        }
    }

    fn equivariant(&self, prompt: &MadeUpPrompt, scores: &[f32]) -> Result<(), (&'static str, String)> {
        let (tokens, mut expected) = (prompt.view().prompt_len, scores.to_vec());
        expected.rotate_right(tokens);
        let rotated = self.scores(&prompt.rotated())?;
        for (at, (found, expected)) in rotated.iter().zip(&expected).enumerate() {
            // A mean over all heads may add up in another order.
            if (found - expected).abs() > 1e-5 * expected.abs() {
                let failure = format!("token {} of head {}: {found} and not {expected}", at % tokens, at / tokens);
                return Err(("a head's place does not matter", failure));
            }
        }
        Ok(())
    }

    fn names_what_is_missing(
        &self,
        prompt: &MadeUpPrompt,
        request: ObservationRequest,
    ) -> Result<(), (&'static str, String)> {
        let without = [
            ("window attention", ObservationRequest { window: 0, ..request.clone() }),
            ("window sums", ObservationRequest { window_sums: Vec::new(), ..request.clone() }),
            ("column sums", ObservationRequest { column_sums: false, ..request.clone() }),
            ("block sums", ObservationRequest { block_sums: Vec::new(), ..request.clone() }),
            ("query statistics", ObservationRequest { query_statistics: false, ..request.clone() }),
            ("keys", ObservationRequest { keys: false, ..request.clone() }),
            ("values", ObservationRequest { values: false, ..request.clone() }),
            ("value output norms", ObservationRequest { value_output_norms: false, ..request.clone() }),
            ("output grams", ObservationRequest { output_grams: false, ..request.clone() }),
            ("inputs", ObservationRequest { inputs: false, ..request.clone() }),
        ];
        for (what, less) in without.into_iter().filter(|(_, less)| *less != request) {
            let shown = prompt.clone().showing(less);
            let looked = self.compressor.score(&shown.view()).map(|_| ());
            let rewritten = || self.rewrite(&shown).map(|_| ());
            let failure = match if self.compressor.rewrites() { looked.and_then(|()| rewritten()) } else { looked } {
                Err(PolicyError::MissingObservation { .. }) => continue,
                Ok(()) => format!("it asks for {what} and does without"),
                Err(error) => format!("without {what}: {error}"),
            };
            return Err(("an observation that is missing is named", failure));
        }
        Ok(())
    }
}

/// The same prompt as if it had been read twice.
fn replayed(prompt: MadeUpPrompt, replay: Replay) -> MadeUpPrompt {
    let view = prompt.view();
    let places = (view.layout.query_heads * view.prompt_len) as u64;
    let weights: Vec<f32> = (0..places).map(|at| fraction(mix(at))).collect();
    let weights_by_input = weights.iter().map(|weight| weight / 3.0).collect();
    let queries = (0..places * (replay.queries * view.layout.head_dim) as u64).map(|at| (at as f32 * 0.3).sin());
    let queries = queries.take(view.layout.query_heads * replay.queries * view.layout.head_dim).collect();
    prompt.replayed(replay, Replayed { weights, weights_by_input, queries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerView, WindowSum};

    /// A compressor made of what it asks for and a function of the layer.
    struct Invented<F>(ObservationRequest, F);

    impl<F> std::fmt::Debug for Invented<F> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Invented")
        }
    }

    impl<F> CacheCompressor for Invented<F>
    where
        F: Fn(&LayerView<'_>) -> Result<Vec<f32>, PolicyError> + Send + Sync,
    {
        fn observations(&self, _frame: Frame) -> ObservationRequest {
            self.0.clone()
        }

        fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            (self.1)(layer)
        }
    }

    fn flat(layer: &LayerView<'_>) -> Vec<f32> {
        vec![0.5; layer.layout.kv_heads * layer.prompt_len]
    }

    /// The promise that it breaks, none where it keeps all.
    fn broken<F>(request: &ObservationRequest, score: F) -> Option<&'static str>
    where
        F: Fn(&LayerView<'_>) -> Result<Vec<f32>, PolicyError> + Send + Sync,
    {
        CompressorContract::new(&Invented(request.clone(), score)).check().err().map(|violation| violation.promise)
    }

    #[test]
    fn what_breaks_a_promise_is_found() {
        let (nothing, keys) = (ObservationRequest::default(), ObservationRequest { keys: true, ..Default::default() });
        assert_eq!(broken(&nothing, |layer| Ok(flat(layer))), None);

        let finite = Some("every token of every head has a finite score");
        assert_eq!(broken(&nothing, |layer| Ok(vec![0.0; layer.prompt_len])), finite);
        assert_eq!(broken(&nothing, |layer| Ok(vec![f32::NAN; flat(layer).len()])), finite);
        assert_eq!(broken(&nothing, |layer| layer.recorded("keys", layer.keys).map(|_| flat(layer))), finite);

        let calls = std::sync::atomic::AtomicU32::new(0);
        let moody = |layer: &LayerView<'_>| {
            let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(flat(layer).iter().map(|score| score + call as f32).collect())
        };
        assert_eq!(broken(&nothing, moody), Some("the same prompt gets the same scores"));
        let curious = |layer: &LayerView<'_>| {
            let first = layer.values.and_then(|values| values.first()).copied().unwrap_or(0.0);
            Ok(flat(layer).iter().map(|score| score + first).collect())
        };
        assert_eq!(broken(&nothing, curious), Some("what others ask for does not matter"));

        let by_place = |layer: &LayerView<'_>| Ok((0..flat(layer).len()).map(|at| at as f32).collect());
        assert_eq!(broken(&nothing, by_place), Some("a head's place does not matter"));
        CompressorContract::new(&Invented(nothing, by_place)).not_equivariant().check().unwrap();

        let named = Some("an observation that is missing is named");
        assert_eq!(broken(&keys, |layer| Ok(flat(layer))), named);
        assert_eq!(broken(&keys, |layer| layer.recorded("keys", layer.keys).map(|_| flat(layer))), None);

        let [sum, other] = [0, 1].map(|tail| WindowSum { rows: 32, tail });
        let sums = ObservationRequest { window_sums: vec![sum], ..Default::default() };
        let scores = |sum| move |layer: &LayerView<'_>| layer.window_sum(0, sum).map(|_| flat(layer));
        assert_eq!(broken(&sums, scores(sum)), None);
        assert_eq!(broken(&sums, scores(other)), finite);
        assert_eq!(broken(&sums, |layer| Ok(flat(layer))), named);
    }

    /// A window's rows are asked for without a look at how long the prompt is.
    #[test]
    fn a_window_longer_than_the_prompt_is_no_error() {
        let request = ObservationRequest { window: 32, ..Default::default() };
        let mean = |layer: &LayerView<'_>| {
            let mut scores = vec![0.0; layer.layout.kv_heads * layer.prompt_len];
            for query_head in 0..layer.layout.query_heads {
                let rows = layer.last_rows(query_head, 32)?;
                let head = query_head / layer.layout.group();
                for row in rows.chunks_exact(layer.prompt_len.max(1)) {
                    let scores = &mut scores[head * layer.prompt_len..][..layer.prompt_len];
                    scores.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight);
                }
            }
            Ok(scores)
        };
        assert_eq!(broken(&request, mean), None);
    }

    type Rewriting = fn(&LayerView<'_>, &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError>;

    /// A compressor that asks for keys when it rewrites.
    #[derive(Debug)]
    struct Rewriter(Rewriting);

    impl CacheCompressor for Rewriter {
        fn observations(&self, _frame: Frame) -> ObservationRequest {
            ObservationRequest { keys: true, ..Default::default() }
        }

        fn rewrites(&self) -> bool {
            true
        }

        fn rewrite(&self, layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
            (self.0)(layer, kept)
        }

        fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Ok(flat(layer))
        }
    }

    /// As many pairs as tokens are kept, of these numbers.
    fn filled(layer: &LayerView<'_>, kept: &[HeadSelection], with: f32) -> Vec<Pairs> {
        let numbers = |kept: &HeadSelection| vec![with; kept.len(layer.prompt_len) * layer.layout.head_dim];
        kept.iter().map(|kept| Pairs { keys: numbers(kept), values: numbers(kept), biases: Vec::new() }).collect()
    }

    #[test]
    fn what_is_rewritten_must_be_whole_finite_and_looked_at() {
        let broken = |rewrite: Rewriting| CompressorContract::new(&Rewriter(rewrite)).check().err().map(|v| v.promise);
        let whole = Some("every kept token becomes a finite pair");
        assert_eq!(broken(|layer, kept| layer.recorded("keys", layer.keys).map(|_| filled(layer, kept, 1.0))), None);
        assert_eq!(broken(|layer, kept| Ok(filled(layer, &kept[1..], 1.0))), whole);
        assert_eq!(broken(|_, kept| Ok(vec![Pairs::default(); kept.len()])), whole);
        assert_eq!(broken(|layer, kept| Ok(filled(layer, kept, f32::NAN))), whole);
        let careless = Some("an observation that is missing is named");
        assert_eq!(broken(|layer, kept| Ok(filled(layer, kept, 1.0))), careless);
    }

    /// A compressor that says this of every layer.
    #[derive(Debug)]
    struct Preferring(fn(&LayerView<'_>) -> f64);

    impl CacheCompressor for Preferring {
        fn prefers_layers(&self) -> bool {
            true
        }

        fn layer_preference(&self, layer: &LayerView<'_>) -> Result<f64, PolicyError> {
            Ok((self.0)(layer))
        }

        fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Ok(flat(layer))
        }
    }

    #[test]
    fn what_a_layer_needs_must_be_a_number_that_lasts() {
        let broken = |of: fn(&LayerView<'_>) -> f64| CompressorContract::new(&Preferring(of)).check().err();
        assert!(broken(|layer| layer.prompt_len as f64).is_none());
        let promise = "a layer needs a finite number that is not below 0";
        assert_eq!(broken(|_| f64::NAN).unwrap().promise, promise);
        assert_eq!(broken(|layer| -(layer.prompt_len as f64)).unwrap().promise, promise);
        let curious = |layer: &LayerView<'_>| layer.keys.map_or(0.0, |keys| keys.len() as f64);
        assert_eq!(broken(curious).unwrap().promise, "a layer always needs the same");
    }
}
