//! Methods that requests name.

use cokv_core::{Budget, ConfigTable, HeadLayout, Method, Registry};
use serde_json::{Map, Value as Json};

/// Makes methods of what requests say of them. What they do not say is as it was said at the start.
pub struct Methods {
    registry: Registry,
    layout: HeadLayout,
    /// A table, as a line of TOML for each key.
    defaults: toml::Table,
    /// With the head scores and what was learned, which serve every method that wants some.
    fitted: Method,
    budget: Budget,
}

impl Methods {
    /// `fitted` is the method of the start, with its head scores and what was learned of the model.
    pub fn new(registry: Registry, layout: HeadLayout, defaults: toml::Table, fitted: Method, budget: Budget) -> Self {
        Self { registry, layout, defaults, fitted, budget }
    }

    /// The method of the start.
    pub fn default(&self) -> (Method, Budget) {
        (self.fitted.clone(), self.budget)
    }

    /// A method such as `{"compressor": "keydiff", "allocator": "ada-kv", "budget": "10%"}`. Where a compressor is named, its
    /// allocator is its own unless that is named, too.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub fn make(&self, said: &Map<String, Json>) -> Result<(Method, Budget), String> {
        let mut table = toml::Table::new();
        for (key, value) in said.iter().filter(|(key, _)| *key != "budget") {
            let value = toml::Value::try_from(value).map_err(|error| format!("`{key}`: {error}"))?;
            table.insert(key.clone(), value);
        }
        if !table.contains_key("compressor") {
            for (key, value) in &self.defaults {
                table.entry(key).or_insert_with(|| value.clone());
            }
        }
        let line = table.to_string();
        let parsed = ConfigTable::parse("the method", &line).and_then(|table| self.registry.method(table));
        let mut method = parsed.map_err(|error| cokv_core::ConfigError { line: None, ..error }.to_string())?;
        self.fitted.head_scores().into_iter().for_each(|scores| method.set_head_scores(scores.clone()));
        self.fitted.learned().into_iter().for_each(|learned| method.set_learned(learned.clone()));
        method.check(self.layout).map_err(|error| error.to_string())?;
        let budget = match said.get("budget") {
            None => self.budget,
            Some(Json::String(text)) => text.parse().map_err(|error| format!("`budget`: {error}"))?,
            Some(Json::Number(tokens)) => tokens.to_string().parse().map_err(|error| format!("`budget`: {error}"))?,
            Some(other) => {
                return Err(format!("`budget`: {other} is no budget: \"10%\", 128 (tokens per head) or \"8 MiB\""));
            }
        };
        match method.evicts() && (said.contains_key("budget") || budget != Budget::Share(1.0)) {
            true => Ok((method, budget)),
            false => {
                Err("this would keep everything: say what is kept, such as keydiff, and how much, such as 30%".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(said: Json) -> Result<(String, Budget), String> {
        let registry = cokv_policies::registry();
        let defaults: toml::Table = toml::from_str("compressor = 'keydiff'\nallocator = 'ada-kv'").unwrap();
        let line = defaults.to_string();
        let fitted = registry.method(ConfigTable::parse("test", &line).unwrap()).unwrap();
        let layout = HeadLayout::new(2, 4, 2, 8).unwrap();
        let methods = Methods::new(registry, layout, defaults, fitted, Budget::Share(0.5));
        let (method, budget) = methods.make(said.as_object().unwrap())?;
        Ok((method.settings().to_string(), budget))
    }

    #[test]
    fn what_is_not_said_is_as_at_the_start() {
        let (settings, budget) = made(json!({})).unwrap();
        assert!(settings.contains("keydiff") && settings.contains("ada-kv") && budget == Budget::Share(0.5));
        let (settings, budget) =
            made(json!({ "compressor": { "name": "snapkv", "window": 8 }, "budget": 128 })).unwrap();
        assert!(settings.contains("snapkv") && settings.contains("window = 8") && settings.contains("uniform"));
        assert_eq!(budget, Budget::Tokens(128));
        assert_eq!(made(json!({ "budget": "8 MiB" })).unwrap().1, Budget::Bytes(8 << 20));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (said, named) in [
            (json!({ "compressor": "snapvk" }), "snapvk"),
            (json!({ "compressor": "snapkv", "widnow": 8 }), "widnow"),
            (json!({ "budget": "much" }), "budget"),
            (json!({ "budget": [1] }), "no budget"),
            (json!({ "compressor": null }), "compressor"),
            (json!({ "compressor": "full", "budget": "30%" }), "keep everything"),
            (json!({ "compressor": "knorm", "allocator": "cokv" }), "needs a score"),
        ] {
            let error = made(said).unwrap_err();
            assert!(error.contains(named) && !error.contains('\n'), "{error}");
        }
    }
}
