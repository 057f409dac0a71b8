//! A second pass over a prompt: the model is made to repeat it, and what it looks at while it does is recorded.

/// How the prompt's text is fed again, behind the prompt itself, on the prompt's full cache (KVzip, arXiv 2505.23416). What was fed
/// is forgotten afterwards.
///
/// The text, without what a chat template put around it, is cut into chunks. Before each comes a request to repeat it, and what
/// the chat template puts between a user's text and an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Tokens of a chunk at most.
    pub chunk: usize,
    /// Whether what a chat template put around the text is fed where it stands, instead of its words before an answer.
    pub verbatim: bool,
    /// Asks for the first chunk.
    pub first: String,
    /// Asks for any other; the last tokens of the chunk before follow it.
    pub further: String,
    /// How many of them.
    pub overlap: usize,
    /// The prompt's first tokens, which fed tokens see beside their chunk.
    pub sinks: usize,
    /// Fed tokens of which queries are kept, evenly spread; 0 keeps none.
    pub queries: usize,
}

impl Replay {
    /// Whether what another asks for is seen in this pass: the same tokens are fed, and the same queries kept if any are wanted.
    pub fn covers(&self, other: &Self) -> bool {
        let fed = |replay: &Self| Self { queries: 0, ..replay.clone() };
        fed(self) == fed(other) && (other.queries == 0 || other.queries == self.queries)
    }

    /// As few passes as show what all ask for.
    pub fn covering(mut asked: Vec<Self>) -> Vec<Self> {
        asked.sort_by_key(|replay| std::cmp::Reverse(replay.queries));
        let mut passes: Vec<Self> = Vec::new();
        for replay in asked {
            if !passes.iter().any(|pass| pass.covers(&replay)) {
                passes.push(replay);
            }
        }
        passes
    }
}

/// What a layer's prompt tokens got of the fed tokens' attention. A fed token sees the prompt's first tokens, the tokens of its chunk,
/// and what was fed before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// The largest weight that any fed token gave: `[query_heads, prompt_len]`; 0 where a token was not fed again.
    pub weights: Vec<f32>,
    /// The largest weight divided by the norm of the fed token's normalised layer input, likewise (KVzip+).
    pub weights_by_input: Vec<f32>,
    /// Queries of fed tokens after RoPE, `[query_heads, queries, head_dim]`.
    pub queries: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_see_needs_no_pass_of_its_own() {
        let replay = |chunk, queries| Replay {
            chunk,
            verbatim: false,
            first: "a".into(),
            further: "b".into(),
            overlap: 8,
            sinks: 4,
            queries,
        };
        let passes = Replay::covering(vec![replay(9, 0), replay(9, 50), replay(7, 0), replay(9, 20), replay(9, 50)]);
        assert_eq!(passes, [replay(9, 50), replay(9, 20), replay(7, 0)]);
        assert!(!replay(9, 0).covers(&replay(9, 1)));
    }
}
