//! Text to token ids and back.

mod bytes;
mod config;
mod from_gguf;
mod stream;

use std::path::Path;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tokenizers::{AddedToken, Model, Normalizer, OffsetType, PreTokenizedString, PreTokenizer};

pub(crate) use self::config::TokenizerConfig;
pub use self::stream::TextStream;
use crate::error::ModelError;
use crate::weights::Gguf;

/// A model's tokenizer, with the rules that lie around it: the tokens before and after a text, and the special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The tokens that open every text.
    opening: Vec<u32>,
    /// The tokens that close every text.
    closing: Vec<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and what transformers reads beside it: tokens that `tokenizer_config.json`,
    /// `special_tokens_map.json` and `added_tokens.json` add, and `add_bos_token` and `add_eos_token` of Llama's classes.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        if !path.is_file() {
            return Err(ModelError::malformed(path, "the tokenizer is missing; a model folder needs a tokenizer.json"));
        }
        let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
        check_json(&bytes).map_err(|problem| {
            ModelError::malformed(path, format!("this is no valid tokenizer ({problem}); fetch it again"))
        })?;
        let malformed = |error| ModelError::malformed(path, error);
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(malformed)?;
        // Files saved after training may cut or pad every text.
        inner.with_truncation(None).map_err(malformed)?.with_padding(None);
        let (opening, closing) = added_by_post_processor(&inner).map_err(malformed)?;
        let mut tokenizer = Self { inner, opening, closing };
        TokenizerConfig::beside(path)?.apply(&mut tokenizer)?;
        Ok(tokenizer)
    }

    /// Builds the tokenizer that a GGUF file describes.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        from_gguf::build(gguf)
    }

    /// Token ids of a text. Special tokens written in the text (`<|im_start|>`) are recognised; with `add_special`, those
    /// that open and close every text are added, but no second opening to a text that is written with one.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        match add_special {
            true => Ok([self.encode_conversation(text)?, self.closing.clone()].concat()),
            false => self.encode_part(text),
        }
    }

    /// Token ids of what a chat template has rendered: opened as every text is, where the template has not done so, and never
    /// closed, because the answer follows.
    pub fn encode_conversation(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        Ok(self.open(self.encode_part(text)?))
    }

    /// Puts before a text's tokens what opens every text, where they do not begin with it.
    pub(crate) fn open(&self, ids: Vec<u32>) -> Vec<u32> {
        if ids.starts_with(&self.opening) { ids } else { [&self.opening[..], &ids].concat() }
    }

    /// Token ids of words that somebody said: whatever they are, no special token is among them, nor any that was added to the
    /// tokenizer's own.
    ///
    /// # Errors
    /// Where the tokenizer's own rules make a special token of a text.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let ids = self.encode_plainly(text).map_err(|error| ModelError::Tokenizer(error.to_string()))?;
        let added = self.inner.get_added_tokens_decoder();
        match ids.iter().find_map(|id| added.get(id).filter(|token| token.special)) {
            Some(AddedToken { content, .. }) => {
                Err(ModelError::Tokenizer(format!("`{content}` in a text cannot be told apart from the special token")))
            }
            None => Ok(ids),
        }
    }

    /// What the tokenizer does to what lies between added tokens.
    fn encode_plainly(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let mut text = PreTokenizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            text.normalize(|text| normalizer.normalize(text))?;
        }
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut text)?;
        }
        text.tokenize(|text| self.inner.get_model().tokenize(text.get()))?;
        Ok(text.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// Texts of all special tokens.
    pub(crate) fn special_texts(&self) -> impl Iterator<Item = &str> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder().values();
        added.filter(|token| token.special && !token.content.is_empty()).map(|token| token.content.as_str())
    }

    fn encode_part(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode(text, false).map_err(|error| ModelError::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of token ids, as it is: `clean_up_tokenization_spaces`, which would join words and the marks behind them, is not
    /// followed.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        self.inner.decode(ids, skip_special).map_err(|error| ModelError::Tokenizer(error.to_string()))
    }

    /// Id of a control token by its exact text. Ordinary tokens may be spelt alike: `</s>` is HTML to Qwen.
    pub fn special_token(&self, text: &str) -> Option<u32> {
        let added = self.inner.get_added_tokens_decoder();
        self.inner.token_to_id(text).filter(|id| added.get(id).is_some_and(|token| token.special))
    }

    /// Identifies how text becomes tokens: a hash of all rules and words.
    pub fn fingerprint(&self) -> Result<String, ModelError> {
        let rules = self.inner.to_string(false).map_err(|error| ModelError::Tokenizer(error.to_string()))?;
        let around = format!("{:?} {:?}", self.opening, self.closing);
        let hash = Sha256::new().chain_update(around).chain_update(rules).finalize();
        Ok(hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Decodes a growing sequence piece by piece, control tokens left out.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self, true)
    }

    /// The text that every token adds, control tokens included: together they are the text of all. Where a character has
    /// several tokens, the last one adds it.
    pub fn pieces(&self, ids: &[u32]) -> Result<Vec<String>, ModelError> {
        let mut stream = TextStream::new(self, false);
        let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect::<Result<_, _>>()?;
        let rest = stream.finish()?;
        if let Some(last) = pieces.last_mut() {
            last.push_str(&rest);
        }
        Ok(pieces)
    }
}

/// `tokenizers` panics on some files: where the text ends within its decoder, and where a `Precompiled` normalizer is none.
fn check_json(bytes: &[u8]) -> Result<(), serde_json::Error> {
    fn check_normalizer(json: &Json) -> Result<(), serde_json::Error> {
        if json["type"] == "Precompiled" {
            serde_json::from_value::<tokenizers::normalizers::Precompiled>(json.clone())?;
        }
        json["normalizers"].as_array().into_iter().flatten().try_for_each(check_normalizer)
    }
    let json: Json = serde_json::from_slice(bytes)?;
    check_normalizer(&json["normalizer"])
}

/// What a post-processor puts before and behind every text: what it marks as special around one that has none.
fn added_by_post_processor(inner: &tokenizers::Tokenizer) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
    let encoding = inner.encode("a", true)?;
    let (ids, marks) = (encoding.get_ids(), encoding.get_special_tokens_mask());
    let opening = marks.iter().take_while(|&&mark| mark == 1).count();
    let closing = marks[opening..].iter().rev().take_while(|&&mark| mark == 1).count();
    Ok((ids[..opening].to_vec(), ids[ids.len() - closing..].to_vec()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenizers::models::wordlevel::WordLevel;
    use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

    use super::*;

    fn tokenizer(opening: &[u32], closing: &[u32]) -> Tokenizer {
        let words = ["<s>", "a", "b", "?", "</s>"].iter().zip(0..).map(|(word, id)| ((*word).to_owned(), id));
        let model = WordLevel::builder().vocab(words.collect()).unk_token("?".into()).build().unwrap();
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_pre_tokenizer(Some(WhitespaceSplit));
        Tokenizer { inner, opening: opening.to_vec(), closing: closing.to_vec() }
    }

    #[test]
    fn texts_open_with_one_opening_token() {
        let with = tokenizer(&[0], &[]);
        assert_eq!(with.encode("a b", true).unwrap(), [0, 1, 2]);
        assert_eq!(with.encode("<s> a", true).unwrap(), [0, 1]);
        assert_eq!(with.encode("a", false).unwrap(), [1]);
        assert_eq!(with.encode("", true).unwrap(), [0]);
        assert_eq!(tokenizer(&[], &[]).encode("a a", true).unwrap(), [1, 1]);
    }

    #[test]
    fn what_closes_a_text_is_not_what_opens_it() {
        assert_eq!(tokenizer(&[], &[4]).encode("a b", true).unwrap(), [1, 2, 4]);
        assert_eq!(tokenizer(&[0], &[4]).encode("<s> a", true).unwrap(), [0, 1, 4]);
        assert_eq!(tokenizer(&[0], &[4]).encode("a", false).unwrap(), [1]);
        for conversation in ["a", "<s> a"] {
            assert_eq!(tokenizer(&[0], &[4]).encode_conversation(conversation).unwrap(), [0, 1]);
        }
    }

    #[test]
    fn words_are_no_special_tokens() {
        let mut with = tokenizer(&[], &[]);
        with.inner.add_special_tokens([AddedToken::from("<end>", true), AddedToken::from("</s>", true)]).unwrap();
        assert_eq!(with.encode("a <end>", false).unwrap(), [1, 5]);
        assert_eq!(with.encode_text("a <end> b").unwrap(), [1, 3, 2]);
        // Here the tokenizer's own words have it, too.
        assert!(with.encode_text("</s>").unwrap_err().to_string().contains("cannot be told apart"));
    }

    /// A folder with a tokenizer.json of the words `<s>`, `a`, `b`, `?` and `</s>` and the given post-processor.
    fn written(post_processor: Json) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let words = json!({ "<s>": 0, "a": 1, "b": 2, "?": 3, "</s>": 4 });
        let json = json!({
            "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": post_processor, "model": { "type": "WordLevel", "vocab": words, "unk_token": "?" },
        });
        std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
        folder
    }

    fn read(folder: &tempfile::TempDir) -> Result<Tokenizer, ModelError> {
        Tokenizer::from_file(&folder.path().join("tokenizer.json"))
    }

    #[test]
    fn post_processors_open_and_close_texts() {
        let special = |text: &str| json!({ "SpecialToken": { "id": text, "type_id": 0 } });
        let (text, pair) = (json!({ "Sequence": { "id": "A", "type_id": 0 } }), json!([]));
        let tokens = json!({
            "<s>": { "id": "<s>", "ids": [0], "tokens": ["<s>"] }, "</s>": { "id": "</s>", "ids": [4], "tokens": ["</s>"] },
        });
        let mut template = json!({ "type": "TemplateProcessing", "pair": pair, "special_tokens": tokens });
        for (single, expected) in [
            (json!([text, special("</s>")]), vec![1, 2, 4]),
            (json!([special("<s>"), text, special("</s>")]), vec![0, 1, 2, 4]),
            (json!([special("<s>"), special("<s>"), text]), vec![0, 0, 1, 2]),
            (json!([text]), vec![1, 2]),
        ] {
            template["single"] = single;
            // Llama 3 has one among several.
            let bytes =
                json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true });
            let several = json!({ "type": "Sequence", "processors": [bytes, template] });
            for post_processor in [template.clone(), several] {
                let tokenizer = read(&written(post_processor)).unwrap();
                assert_eq!(tokenizer.encode("a b", true).unwrap(), expected);
                assert_eq!(tokenizer.encode("a b", false).unwrap(), [1, 2]);
            }
        }
    }

    #[test]
    fn damaged_files_are_errors_wherever_they_are_cut() {
        let folder = written(json!(null));
        let path = folder.path().join("tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap().replacen('{', r#"{"decoder":{"type":"Fuse"},"#, 1);
        assert!((0..text.len()).all(|end| {
            std::fs::write(&path, &text[..end]).unwrap();
            read(&folder).is_err()
        }));
        let precompiled =
            r#"{"normalizer":{"type":"Sequence","normalizers":[{"type":"Precompiled","precompiled_charsmap":"?"}]},"#;
        for text in [r#"{"decoder":{"#.to_owned(), text.replacen('{', precompiled, 1)] {
            std::fs::write(&path, text).unwrap();
            assert!(read(&folder).err().unwrap().to_string().contains("no valid tokenizer"));
        }
    }
}
