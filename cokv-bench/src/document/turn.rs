//! The user's turn of a conversation, which stays open behind a document until somebody asks.

use cokv_core::Frame;
use cokv_models::chat::{BEHIND_DOCUMENT, ChatTemplate};
use cokv_models::tokenizer::Tokenizer;
use cokv_models::{ModelError, Outline};

/// Stands for the question until there is one. A document may say it too: the question's is the last.
const QUESTION: &str = "__cokv_question__";

/// How a model is given a document and a question, one after the other: what is read of a document never depends on what is asked.
pub struct Turn<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    /// What the template puts behind a user's text.
    tail: String,
}

/// A document as a model reads it, up to its last letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTurn {
    /// The document with all that the chat template puts before it.
    pub text: String,
    /// The same in tokens.
    pub tokens: Vec<u32>,
    /// What of them the template added.
    pub frame: Frame,
}

impl<'a> Turn<'a> {
    /// That of a model, of which no weights are needed.
    ///
    /// # Errors
    /// Where its chat template fails, or leaves a user's text out.
    pub fn of(model: &'a Outline) -> Result<Self, ModelError> {
        let (tokenizer, template) = (model.tokenizer(), model.chat_template());
        let tail = match template {
            Some(template) => parted(&template.render(QUESTION)?)?.1.to_owned(),
            None => String::new(),
        };
        Ok(Self { tokenizer, template, tail })
    }

    /// Puts a document into the turn. White space at its end is left out: a question brings its own.
    ///
    /// # Errors
    /// Where the chat template fails, or writes something else than the user's text.
    pub fn open(&self, document: &str) -> Result<OpenTurn, ModelError> {
        let text = self.text(document)?;
        let tokens = self.tokenizer.encode_conversation(&text)?;
        let Some(_) = self.template else { return Ok(OpenTurn { text, tokens, frame: Frame::default() }) };
        // Whatever begins alike where the document does not is the template's.
        let other = self.text(if document.trim_start().starts_with('a') { "b" } else { "a" })?;
        let other = self.tokenizer.encode_conversation(&other)?;
        let head = tokens.iter().zip(&other).take_while(|(ours, others)| ours == others).count();
        Ok(OpenTurn { text, tokens, frame: Frame { head, question: 0, tail: 0 } })
    }

    /// The document with all that stands before it.
    fn text(&self, document: &str) -> Result<String, ModelError> {
        let document = document.trim_end();
        let Some(template) = self.template else { return Ok(document.to_owned()) };
        let whole = template.render(&format!("{document}{BEHIND_DOCUMENT}{QUESTION}"))?;
        let before = parted(&whole)?.0.strip_suffix(BEHIND_DOCUMENT);
        let changed = "the model's template changes the white space of a user's text, so that a document cannot be read by itself";
        before.map(str::to_owned).ok_or_else(|| ModelError::ChatTemplate(changed.into()))
    }

    /// What follows the document's tokens where a question is asked: the question, and all up to where the answer begins.
    pub fn ask(&self, question: &str) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode(&format!("{BEHIND_DOCUMENT}{}{}", question.trim(), self.tail), false)
    }

    /// What the template puts between a user's text and the answer.
    pub fn close(&self) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode(&self.tail, false)
    }

    /// Whether a document would be read otherwise on another day.
    pub fn is_dated(&self) -> bool {
        self.template.is_some_and(ChatTemplate::asks_for_the_date)
    }
}

/// What stands before the question, and behind it.
fn parted(rendered: &str) -> Result<(&str, &str), ModelError> {
    let lost = || ModelError::ChatTemplate("the model's template does not write what the user says".into());
    rendered.rsplit_once(QUESTION).ok_or_else(lost)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cokv_models::source::ModelFiles;
    use serde_json::json;

    use super::*;

    const CHAT: &str = "<start>user {{ messages[0]['content'] }}<end> <start>assistant ";

    /// An outline of a model with this template, whose words are few.
    fn outline(template: Option<&str>) -> (tempfile::TempDir, Outline) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let special = |id: usize, content: &str| {
            json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false })
        };
        let vocabulary = ["<end>", "<start>", "?", "user", "assistant", "a", "b", "banana", "who"];
        let vocabulary: serde_json::Map<_, _> =
            vocabulary.iter().zip(0..).map(|(word, id)| ((*word).into(), json!(id))).collect();
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [special(0, "<end>"), special(1, "<start>")],
            "pre_tokenizer": { "type": "WhitespaceSplit" },
            "model": { "type": "WordLevel", "unk_token": "?", "vocab": vocabulary },
        });
        write("tokenizer.json", &tokenizer.to_string());
        let config = json!({
            "model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 9, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        });
        write("config.json", &config.to_string());
        if let Some(template) = template {
            write("chat_template.jinja", template);
        }
        let outline = Outline::open(&ModelFiles::Random(folder.path().to_path_buf())).unwrap();
        (folder, outline)
    }

    #[test]
    fn document_and_question_make_the_prompt_that_the_template_makes_of_both() {
        for template in [CHAT.to_owned(), CHAT.replace("'] }}", "'].strip() }}")] {
            let (_folder, outline) = outline(Some(&template));
            let turn = Turn::of(&outline).unwrap();
            // Also where the document says what stands for the question, or what the template says.
            for document in ["a b", "banana\n", " b a", "__cokv_question__ a", "<end> <start>assistant"] {
                let opened = turn.open(document).unwrap();
                let whole = [opened.tokens.clone(), turn.ask(" who ?\n").unwrap()].concat();
                let text = format!("{}\n\nwho ?", document.trim_end());
                let rendered = outline.chat_template().unwrap().render(&text).unwrap();
                assert_eq!(whole, outline.tokenizer().encode_conversation(&rendered).unwrap(), "{document:?}");
                assert!(rendered.starts_with(&opened.text));
                assert_eq!(opened.frame, Frame { head: 2, question: 0, tail: 0 }, "{document:?}");
                assert_eq!(turn.close().unwrap(), [0, 1, 4]);
            }
        }
    }

    #[test]
    fn a_model_without_a_template_goes_on_with_the_text() {
        let (_folder, outline) = outline(None);
        let turn = Turn::of(&outline).unwrap();
        assert_eq!(
            turn.open("a b \n").unwrap(),
            OpenTurn { text: "a b".into(), tokens: vec![5, 6], frame: Frame::default() }
        );
        assert_eq!((turn.ask("who").unwrap(), turn.close().unwrap()), (vec![8], vec![]));
    }

    #[test]
    fn templates_that_lose_a_text_are_refused() {
        let error = |template: &str| {
            let (_folder, outline) = outline(Some(template));
            Turn::of(&outline).and_then(|turn| turn.open("a")).unwrap_err().to_string()
        };
        assert!(error("<start>user<end>").contains("does not write what the user says"));
        let joined = "{{ messages[0]['content'].split() | join(' ') }}";
        assert!(error(joined).contains("changes the white space"));
    }
}
