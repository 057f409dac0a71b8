//! A model's tokens as llguidance wants them: a tree of their bytes, and how a text is cut into them.

use std::sync::Arc;

use cokv_models::Outline;
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

/// Bytes of a token at most: the tree is no deeper. A token that is longer never comes.
const LONGEST: usize = 1000;

struct Vocabulary {
    outline: Arc<Outline>,
    trie: TokTrie,
}

/// All tokens of a model. Those that have no text, or that control it, are part of no text.
pub fn vocabulary(outline: &Arc<Outline>) -> TokEnv {
    let tokenizer = outline.tokenizer();
    let bytes = |token: u32| match tokenizer.special_text(token) {
        Some(text) => [&[TokTrie::SPECIAL_TOKEN_MARKER], text.as_bytes()].concat(),
        None => tokenizer.token_bytes(token).unwrap_or_default(),
    };
    let fits = |word: Vec<u8>| if word.len() <= LONGEST { word } else { Vec::new() };
    let tokens = outline.config().vocabulary as u32;
    let words: Vec<Vec<u8>> = (0..tokens).map(bytes).map(fits).collect();
    let stops = outline.stop_tokens();
    let info = TokRxInfo::new(tokens, stops.first().copied().unwrap_or_default());
    let trie = TokTrie::from(&info, &words);
    let trie = if stops.is_empty() { trie } else { trie.with_eos_tokens(stops) };
    Arc::new(Vocabulary { outline: Arc::clone(outline), trie })
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// What a grammar leaves no choice of is cut as the model has learned it, and not letter by letter.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let text = std::str::from_utf8(bytes).ok();
        let tokens = text.and_then(|text| self.outline.tokenizer().encode_text(text).ok());
        // Some tokenizers put a space before a text, which is none in its midst.
        let is_same = |tokens: &Vec<TokenId>| self.trie.decode_raw(tokens) == bytes;
        tokens.filter(is_same).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}
