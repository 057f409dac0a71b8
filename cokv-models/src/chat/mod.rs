//! Chat templates, rendered as Hugging Face does.

mod conversation;
mod jinja;
mod json;
mod marks;
mod secret;
mod tokens;
mod tools;

use std::path::Path;

use serde_json::{Map, Value as Json};

pub use self::conversation::Conversation;
use self::conversation::up_to_tag;
use self::secret::Secret;
pub use self::tokens::{Breakpoint, Rendered};
pub use self::tools::{ToolCall, ToolSyntax};
use crate::error::ModelError;
use crate::files::read_optional;
use crate::tokenizer::{Tokenizer, TokenizerConfig};
use crate::weights::Gguf;

/// Stands between a document and what is asked about it in a user's message, whoever puts them together: a cache of the document
/// serves all of them.
pub const BEHIND_DOCUMENT: &str = "\n\n";

/// A model's way to mark up a conversation.
///
/// A template sees what transformers' `apply_chat_template` shows it: `messages`, `add_generation_prompt`, the special
/// tokens by their names (`bos_token`), and `tools` and `documents`, which are none. Whatever else it asks for
/// (`enable_thinking`, `date_string`) is undefined until [`with_kwargs`](Self::with_kwargs) says it.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    /// What it sees beside the messages.
    context: Map<String, Json>,
}

impl ChatTemplate {
    /// `chat_template.jinja`, or the template in `tokenizer_config.json`; none where the model has neither.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>, ModelError> {
        let config = TokenizerConfig::beside(&folder.join("tokenizer.json"))?;
        let source = read_optional(&folder.join("chat_template.jinja"))?.or(config.chat_template());
        Ok(source.map(|source| Self::new(source, config.named_tokens())))
    }

    /// The template in a GGUF file's metadata.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>, ModelError> {
        let Some(source) = gguf.optional_string("tokenizer.chat_template")? else {
            return Ok(None);
        };
        let mut tokens = Map::new();
        for name in ["bos_token", "eos_token"] {
            if let Some(id) = gguf.optional_integer(&format!("tokenizer.ggml.{name}_id"))? {
                tokens.insert(name.into(), tokenizer.decode(&[id as u32], false)?.into());
            }
        }
        Ok(Some(Self::new(source, tokens)))
    }

    fn new(source: String, special_tokens: Map<String, Json>) -> Self {
        let mut context = special_tokens;
        context.extend([("tools".into(), Json::Null), ("documents".into(), Json::Null)]);
        context.insert("add_generation_prompt".into(), true.into());
        Self { source, context }
    }

    /// What else the template sees, as keyword arguments of `apply_chat_template` or `chat_template_kwargs` of servers.
    ///
    /// # Errors
    ///
    /// The template does not ask for one of them, or cannot be read.
    pub fn with_kwargs(mut self, kwargs: Map<String, Json>) -> Result<Self, ModelError> {
        let asked = if kwargs.is_empty() { Vec::new() } else { jinja::variables(&self.source)? };
        match kwargs.keys().find(|name| *name == "messages" || !asked.contains(name)) {
            Some(name) => Err(ModelError::ChatTemplate(format!(
                "the model's template has no `{name}` to set; it asks for {}",
                asked.join(", ")
            ))),
            None => {
                self.context.extend(kwargs);
                Ok(self)
            }
        }
    }

    /// Whether prompts may change with the day on which they are made.
    pub fn asks_for_the_date(&self) -> bool {
        self.source.contains("strftime_now") && !self.context.contains_key("date_string")
    }

    /// A conversation of one user message, up to where the model's answer begins.
    pub fn render(&self, message: &str) -> Result<String, ModelError> {
        self.render_conversation(&Conversation::of_user(message))
    }

    /// A conversation, up to where the model's answer begins or goes on.
    ///
    /// # Errors
    /// Where the template refuses, in its words, or cannot be read; where a last message that is to be continued is not written as
    /// it is, or is to be answered, too.
    pub fn render_conversation(&self, conversation: &Conversation) -> Result<String, ModelError> {
        let mut conversation = conversation.for_templates();
        if !conversation.continue_final_message {
            return self.write(conversation);
        }
        if conversation.add_generation_prompt {
            let message = "continue_final_message and add_generation_prompt exclude each other";
            return Err(ModelError::ChatTemplate(message.into()));
        }
        let tag = Secret::draw();
        let text = conversation.tag_end(&tag)?;
        up_to_tag(&self.write(conversation)?, &tag, &text)
    }

    /// What the template writes of a conversation.
    fn write(&self, conversation: Conversation) -> Result<String, ModelError> {
        let Conversation { messages, tools, kwargs, add_generation_prompt, .. } = conversation;
        let mut context = self.context.clone();
        context.extend(kwargs);
        context.extend(tools.map(|tools| ("tools".into(), tools)));
        context.insert("messages".into(), messages.into());
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        jinja::render(&self.source, context)
    }

    /// How the model writes calls of tools, which its template shows it; none where it shows none that is known.
    pub fn tool_syntax(&self) -> Option<ToolSyntax> {
        ToolSyntax::of_template(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(source: &str) -> ChatTemplate {
        let tokens = json!({ "bos_token": "<s>", "eos_token": "</s>" }).as_object().unwrap().clone();
        ChatTemplate::new(source.into(), tokens)
    }

    fn render(source: &str) -> String {
        template(source).render("hi").unwrap()
    }

    fn kwargs(json: Json) -> Map<String, Json> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn templates_see_messages_and_special_tokens() {
        let source = "{{ bos_token }}{% for m in messages %}\n[INST] {{ m['content'].strip() }} [/INST]\n{% endfor %}";
        assert_eq!(template(source).render(" hello ").unwrap(), "<s>[INST] hello [/INST]\n");
        assert_eq!(render("{{ pad_token is defined }} {{ eos_token }}"), "False </s>");
    }

    #[test]
    fn a_template_that_refuses_says_why() {
        let error = template("{{ raise_exception('system role missing') }}").render("x").unwrap_err();
        assert!(error.to_string().contains("system role missing"), "{error}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }

    #[test]
    fn what_nobody_says_is_undefined_or_none_as_in_transformers() {
        assert_eq!(render("{% if tools is none and documents is none %}neither{% endif %}"), "neither");
        assert_eq!(render("{% if tools is not none %}tools{% endif %}"), "");
        let thinks = "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}";
        assert_eq!(render(thinks), "");
        let quiet = template(thinks).with_kwargs(kwargs(json!({ "enable_thinking": false }))).unwrap();
        assert_eq!(quiet.render("hi").unwrap(), "<think></think>");
    }

    #[test]
    fn kwargs_that_a_template_does_not_read_are_refused() {
        let source = "{% if enable_thinking %}{{ messages[0].content }}{% endif %}";
        for name in ["enable_thinkng", "messages"] {
            let error = template(source).with_kwargs(kwargs(json!({ name: true }))).unwrap_err().to_string();
            assert!(error.contains(&format!("no `{name}` to set")) && error.contains("enable_thinking"), "{error}");
        }
        assert!(template("{% if %}").with_kwargs(Map::new()).is_ok(), "a template that nobody uses may be anything");
        assert!(template("{% if %}").with_kwargs(kwargs(json!({ "x": 1 }))).is_err());
    }

    #[test]
    fn dates_are_noticed_until_they_are_set() {
        let source = "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}\
                      {{ date_string }}";
        assert!(template(source).asks_for_the_date());
        let set = template(source).with_kwargs(kwargs(json!({ "date_string": "26 Jul 2024" }))).unwrap();
        assert!(!set.asks_for_the_date());
        assert_eq!(set.render("hi").unwrap(), "26 Jul 2024");
        assert!(!template("{{ messages }}").asks_for_the_date());
    }

    #[test]
    fn named_templates_have_a_default() {
        let folder = tempfile::tempdir().unwrap();
        let named = json!([{ "name": "tools", "template": "a" }, { "name": "default", "template": "b" }]);
        let config = json!({ "chat_template": named }).to_string();
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let template = ChatTemplate::from_folder(folder.path()).unwrap().unwrap();
        assert_eq!(template.render("hi").unwrap(), "b");
    }
}
