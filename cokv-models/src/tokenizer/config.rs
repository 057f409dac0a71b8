//! What stands beside tokenizer.json and changes what becomes of a text. It is read as transformers 4 reads it
//! (`PreTrainedTokenizerBase._from_pretrained` and `LlamaTokenizerFast`), but for ids, which are checked.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};
use tokenizers::AddedToken;

use super::Tokenizer;
use crate::error::ModelError;
use crate::files::read_optional;

/// Tokens that have a name.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Lists of special tokens without one.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];
/// Classes that decide by `add_bos_token` and `add_eos_token`, whatever the post-processor of tokenizer.json does.
const LLAMA_CLASSES: [&str; 2] = ["LlamaTokenizer", "CodeLlamaTokenizer"];

/// `tokenizer_config.json`, with what older files keep beside it.
pub(crate) struct TokenizerConfig {
    path: PathBuf,
    json: Map<String, Json>,
    /// Of `added_tokens.json`: ids under their texts.
    added: Map<String, Json>,
}

impl TokenizerConfig {
    /// Reads the files beside a tokenizer.json.
    pub(crate) fn beside(tokenizer: &Path) -> Result<Self, ModelError> {
        let path = tokenizer.with_file_name("tokenizer_config.json");
        let mut json = read_object(&path)?;
        let mut added = Map::new();
        // Files since 2023 say everything in one place.
        if !json.contains_key("added_tokens_decoder") {
            json.extend(read_object(&tokenizer.with_file_name("special_tokens_map.json"))?);
            added = read_object(&tokenizer.with_file_name("added_tokens.json"))?;
        }
        if json.get("tokenizer_class").and_then(Json::as_str).is_some_and(is_llama) {
            for (name, text) in [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")] {
                json.entry(name).or_insert_with(|| text.into());
            }
        }
        Ok(Self { path, json, added })
    }

    /// The chat template: one, or `default` of several.
    pub(crate) fn chat_template(&self) -> Option<String> {
        match self.json.get("chat_template")? {
            Json::String(source) => Some(source.clone()),
            Json::Array(named) => {
                let default = named.iter().find(|entry| entry["name"] == "default").or(named.first())?;
                default["template"].as_str().map(str::to_owned)
            }
            _ => None,
        }
    }

    /// The texts of the tokens that have a name, under their names.
    pub(crate) fn named_tokens(&self) -> Map<String, Json> {
        let named = NAMES.iter().filter_map(|&name| Some((name.to_owned(), text(self.json.get(name)?)?.into())));
        named.collect()
    }

    /// Gives a tokenizer what tokenizer.json lacks.
    pub(super) fn apply(&self, tokenizer: &mut Tokenizer) -> Result<(), ModelError> {
        let numbered = self.numbered_tokens(tokenizer)?;
        let known = |text: &str| {
            numbered.iter().any(|(_, token)| token.content == text)
                || tokenizer.inner.get_added_tokens_decoder().values().any(|token| token.content == text)
        };
        let special: Vec<AddedToken> = self.special_tokens().filter_map(|json| added_token(json, true)).collect();
        let unnumbered = special.into_iter().filter(|token| !known(&token.content));
        let all: Vec<AddedToken> = numbered.iter().map(|(_, token)| token.clone()).chain(unnumbered).collect();
        tokenizer.inner.add_tokens(all).map_err(|error| ModelError::malformed(&self.path, error))?;
        for (id, token) in numbered {
            let found = tokenizer.inner.token_to_id(&token.content);
            if found != Some(id) {
                let message = format!(
                    "`{}` is token {id} here and token {} of tokenizer.json, so that the two are not of one model; fetch \
                     both again",
                    token.content,
                    found.map_or("none".into(), |found| found.to_string())
                );
                return Err(ModelError::malformed(&self.path, message));
            }
        }
        if self.json.get("tokenizer_class").and_then(Json::as_str).is_some_and(is_llama) {
            tokenizer.opening = self.end(tokenizer, "add_bos_token", true, "bos_token")?;
            tokenizer.closing = self.end(tokenizer, "add_eos_token", false, "eos_token")?;
        }
        Ok(())
    }

    /// Tokens whose ids are written down, in order of those. Of older files, tokenizer.json knows better.
    fn numbered_tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<(u32, AddedToken)>, ModelError> {
        let is_special = |content: &str| self.special_tokens().any(|json| text(json) == Some(content));
        let id = |json: u64, text: &str| {
            let message = || format!("`{text}` has the id {json}, which no token can have");
            u32::try_from(json).map_err(|_| ModelError::malformed(&self.path, message()))
        };
        let mut tokens = Vec::new();
        let decoder = self.json.get("added_tokens_decoder").and_then(Json::as_object);
        // A token without a text is never met.
        for (key, json) in decoder.into_iter().flatten().filter(|(_, json)| json["content"] != "") {
            let wrong =
                || ModelError::malformed(&self.path, format!("added_tokens_decoder: `{key}`: {json} is no token"));
            let mut token = added_token(json, false).ok_or_else(wrong)?;
            token.special |= is_special(&token.content);
            tokens.push((id(key.parse().map_err(|_| wrong())?, &token.content)?, token));
        }
        let known = tokenizer.inner.get_added_tokens_decoder();
        for (content, json) in &self.added {
            let wrong =
                || ModelError::malformed(&self.path, format!("added_tokens.json: `{content}` has the id {json}"));
            let id = id(json.as_u64().ok_or_else(wrong)?, content)?;
            if !known.contains_key(&id) {
                tokens.push((id, AddedToken::from(content, is_special(content))));
            }
        }
        tokens.sort_by_key(|(id, _)| *id);
        Ok(tokens)
    }

    fn special_tokens(&self) -> impl Iterator<Item = &Json> {
        let named = NAMES.iter().filter_map(|&name| self.json.get(name));
        let listed = LISTS.iter().filter_map(|&name| self.json.get(name)).flat_map(members);
        named.chain(listed)
    }

    /// The token at one end of every text, where a setting asks for it.
    fn end(&self, tokenizer: &Tokenizer, setting: &str, default: bool, name: &str) -> Result<Vec<u32>, ModelError> {
        if !self.json.get(setting).and_then(Json::as_bool).unwrap_or(default) {
            return Ok(Vec::new());
        }
        let id = self.json.get(name).and_then(text).and_then(|text| tokenizer.inner.token_to_id(text));
        let message = || format!("`{setting}` is true, and `{name}` names no token");
        id.map(|id| vec![id]).ok_or_else(|| ModelError::malformed(&self.path, message()))
    }
}

fn is_llama(class: &str) -> bool {
    LLAMA_CLASSES.contains(&class.trim_end_matches("Fast"))
}

/// Members of a list or, as some files have it, of a table.
fn members(json: &Json) -> Box<dyn Iterator<Item = &Json> + '_> {
    match json {
        Json::Array(list) => Box::new(list.iter()),
        Json::Object(table) => Box::new(table.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// A token is written as a text or as an object with its content.
fn text(json: &Json) -> Option<&str> {
    json.as_str().or(json["content"].as_str()).filter(|text| !text.is_empty())
}

fn added_token(json: &Json, special: bool) -> Option<AddedToken> {
    let flag = |key: &str, default: bool| json[key].as_bool().unwrap_or(default);
    let special = flag("special", special) || special;
    Some(AddedToken {
        content: text(json)?.to_owned(),
        single_word: flag("single_word", false),
        lstrip: flag("lstrip", false),
        rstrip: flag("rstrip", false),
        normalized: flag("normalized", !special),
        special,
    })
}

/// An object that may be missing.
fn read_object(path: &Path) -> Result<Map<String, Json>, ModelError> {
    match read_optional(path)? {
        Some(text) => serde_json::from_str(&text).map_err(|error| ModelError::malformed(path, error)),
        None => Ok(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A tokenizer of the words `<s>`, `</s>`, `?`, `a` and `b` (ids 0 to 4), none of them special, with files beside it.
    fn tokenizer(files: &[(&str, Json)]) -> Result<Tokenizer, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        let words = json!({ "<s>": 0, "</s>": 1, "?": 2, "a": 3, "b": 4 });
        let json = json!({
            "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "WhitespaceSplit" },
            "model": { "type": "WordLevel", "vocab": words, "unk_token": "?" },
        });
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        for (name, json) in files {
            std::fs::write(folder.path().join(name), json.to_string()).unwrap();
        }
        Tokenizer::from_file(&path)
    }

    fn ids(files: &[(&str, Json)], text: &str) -> Vec<u32> {
        tokenizer(files).unwrap().encode(text, true).unwrap()
    }

    #[test]
    fn tokens_of_the_decoder_table_are_added_in_order_of_their_ids() {
        let config = json!({
            "eos_token": "<|out|>",
            "added_tokens_decoder": {
                "10": { "content": "<|ten|>" }, "5": { "content": "<|in|>", "special": false },
                "6": { "content": "<|out|>" }, "7": { "content": "7" }, "8": { "content": "8" }, "9": { "content": "9" },
                "0": { "content": "<s>", "special": true }, "11": { "content": "" },
            },
        });
        let files = [("tokenizer_config.json", config)];
        assert_eq!(ids(&files, "a<|in|>b<|out|><|ten|>"), [3, 5, 4, 6, 10]);
        let tokenizer = tokenizer(&files).unwrap();
        assert_eq!(tokenizer.special_token("<|out|>"), Some(6), "it is named");
        assert_eq!(tokenizer.special_token("<s>"), Some(0));
        assert_eq!(tokenizer.special_token("<|in|>"), None);
    }

    #[test]
    fn older_files_have_tables_of_their_own() {
        let files = [
            ("tokenizer_config.json", json!({ "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast" })),
            (
                "special_tokens_map.json",
                json!({ "eos_token": { "content": "<|out|>", "lstrip": false }, "bos_token": "<s>" }),
            ),
            ("added_tokens.json", json!({ "<|out|>": 6, "<|in|>": 5 })),
        ];
        assert_eq!(ids(&files, "a<|in|>b<|out|><s>b"), [3, 5, 4, 6, 0, 4]);
        let tokenizer = tokenizer(&files).unwrap();
        assert_eq!((tokenizer.special_token("<|out|>"), tokenizer.special_token("<|in|>")), (Some(6), None));
        assert_eq!(tokenizer.special_token("</s>"), None, "the map's end of a text is another");
        // Newer files say all in one place, and the others are leftovers.
        let newer = [("tokenizer_config.json", json!({ "added_tokens_decoder": {} })), files[2].clone()];
        assert_eq!(ids(&newer, "a <|in|>"), [3, 2]);
    }

    #[test]
    fn named_and_listed_tokens_are_special() {
        let config = json!({
            "bos_token": { "__type": "AddedToken", "content": "<s>" }, "pad_token": null,
            "additional_special_tokens": ["<|x|>", { "content": "<|y|>" }],
        });
        let files = [("tokenizer_config.json", config)];
        assert_eq!(ids(&files, "a<s>b<|x|><|y|>"), [3, 0, 4, 5, 6]);
    }

    #[test]
    fn classes_of_llama_open_and_close_texts_as_their_settings_say() {
        let with = |settings: Json| {
            let mut config = json!({ "tokenizer_class": "LlamaTokenizerFast" });
            config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
            [("tokenizer_config.json", config)]
        };
        assert_eq!(ids(&with(json!({})), "a"), [0, 3]);
        assert_eq!(ids(&with(json!({ "add_bos_token": false })), "a"), [3]);
        assert_eq!(ids(&with(json!({ "add_eos_token": true })), "a"), [0, 3, 1]);
        assert_eq!(ids(&with(json!({ "add_bos_token": false, "add_eos_token": true, "eos_token": "b" })), "a"), [3, 4]);
        let error = tokenizer(&with(json!({ "bos_token": null }))).err().unwrap().to_string();
        assert!(error.contains("`add_bos_token` is true, and `bos_token` names no token"), "{error}");
        // Other classes leave it to the post-processor, which this file has none of.
        let other = [("tokenizer_config.json", json!({ "tokenizer_class": "GPT2Tokenizer", "add_bos_token": true }))];
        assert_eq!(ids(&other, "a"), [3]);
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        let error = |name: &'static str, json: Json| tokenizer(&[(name, json)]).err().unwrap().to_string();
        let decoder = |id: &str, token: Json| json!({ "added_tokens_decoder": { id: token } });
        let gap = error("tokenizer_config.json", decoder("9", json!({ "content": "<|in|>" })));
        assert!(gap.contains("`<|in|>` is token 9 here and token 5 of tokenizer.json"), "{gap}");
        for (id, token) in
            [("x", json!({ "content": "y" })), ("5", json!({})), ("99999999999", json!({ "content": "y" }))]
        {
            assert!(error("tokenizer_config.json", decoder(id, token)).contains("tokenizer_config.json"));
        }
        assert!(error("added_tokens.json", json!({ "<|in|>": "5" })).contains("`<|in|>` has the id \"5\""));
        assert!(error("tokenizer_config.json", json!([])).contains("tokenizer_config.json"));
    }
}
