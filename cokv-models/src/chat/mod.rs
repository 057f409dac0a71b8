//! Chat templates, rendered as Hugging Face does.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, context};
use serde_json::Value as Json;

use crate::config::read_optional;
use crate::error::ModelError;
use crate::tokenizer::Tokenizer;
use crate::weights::Gguf;

/// A model's way to mark up a conversation.
pub struct ChatTemplate {
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// `chat_template.jinja`, or the template in `tokenizer_config.json`; none where the model has neither.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>, ModelError> {
        let path = folder.join("tokenizer_config.json");
        let config: Json = match read_optional(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| ModelError::malformed(&path, error))?,
            None => Json::Null,
        };
        let source = read_optional(&folder.join("chat_template.jinja"))?.or(template_of(&config["chat_template"]));
        // A special token is written as a text or as an object with its content.
        let token = |key: &str| {
            let value = &config[key];
            value.as_str().or(value["content"].as_str()).unwrap_or_default().to_owned()
        };
        Ok(source.map(|source| Self { source, bos_token: token("bos_token"), eos_token: token("eos_token") }))
    }

    /// The template in a GGUF file's metadata.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>, ModelError> {
        let Some(source) = gguf.optional_string("tokenizer.chat_template")? else {
            return Ok(None);
        };
        let token = |key: &str| -> Result<String, ModelError> {
            match gguf.optional_integer(key)? {
                Some(id) => tokenizer.decode(&[id as u32], false),
                None => Ok(String::new()),
            }
        };
        let (bos_token, eos_token) = (token("tokenizer.ggml.bos_token_id")?, token("tokenizer.ggml.eos_token_id")?);
        Ok(Some(Self { source, bos_token, eos_token }))
    }

    /// A conversation of one user message, up to where the model's answer begins.
    pub fn render(&self, message: &str) -> Result<String, ModelError> {
        let failed = |error: minijinja::Error| ModelError::ChatTemplate(format!("{error:#}"));
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .render_str(
                &self.source,
                context! {
                    messages => [context! { role => "user", content => message }],
                    add_generation_prompt => true,
                    enable_thinking => false,
                    bos_token => &self.bos_token,
                    eos_token => &self.eos_token,
                },
            )
            .map_err(failed)
    }
}

/// One template, or a list of named ones of which `default` is meant.
fn template_of(json: &Json) -> Option<String> {
    match json {
        Json::String(source) => Some(source.clone()),
        Json::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default").or(named.first())?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate { source: source.into(), bos_token: "<s>".into(), eos_token: "</s>".into() }
    }

    #[test]
    fn templates_see_messages_and_special_tokens() {
        let source = "{{ bos_token }}{% for m in messages %}\n[INST] {{ m['content'].strip() }} [/INST]\n{% endfor %}";
        assert_eq!(template(source).render(" hello ").unwrap(), "<s>[INST] hello [/INST]\n");
    }

    #[test]
    fn a_template_that_refuses_says_why() {
        let error = template("{{ raise_exception('system role missing') }}").render("x").unwrap_err();
        assert!(error.to_string().contains("system role missing"), "{error}");
    }

    #[test]
    fn named_templates_have_a_default() {
        let json = serde_json::json!([{ "name": "tools", "template": "a" }, { "name": "default", "template": "b" }]);
        assert_eq!(template_of(&json).as_deref(), Some("b"));
    }
}
