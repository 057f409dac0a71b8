//! A model's tokens as llguidance wants them: a tree of their bytes.

use std::sync::Arc;

use cokv_models::Outline;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

/// Bytes of a token at most: the tree is no deeper. A token that is longer never comes.
const LONGEST: usize = 1000;

/// All tokens of a model. Those that have no text, or that control it, are part of no text.
pub fn vocabulary(outline: &Outline) -> TokEnv {
    let tokenizer = outline.tokenizer();
    let bytes = |token: u32| match tokenizer.special_text(token) {
        Some(text) => [&[TokTrie::SPECIAL_TOKEN_MARKER], text.as_bytes()].concat(),
        None => tokenizer.token_bytes(token).unwrap_or_default(),
    };
    let tokens = outline.config().vocabulary as u32;
    let words: Vec<Vec<u8>> =
        (0..tokens).map(bytes).map(|word| if word.len() <= LONGEST { word } else { Vec::new() }).collect();
    let stops = outline.stop_tokens();
    let info = TokRxInfo::new(tokens, stops.first().copied().unwrap_or_default());
    let trie = TokTrie::from(&info, &words);
    Arc::new(ApproximateTokEnv::new(if stops.is_empty() { trie } else { trie.with_eos_tokens(stops) }))
}
