//! When a prompt is compressed: after its question, or before anybody asks.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// When a prompt is compressed. Results of the two are not comparable, so that rows and tables name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// As a whole, its question included (SnapKV, Ada-KV, CoKV as published).
    #[default]
    QuestionSeen,
    /// Its context alone; question and what a chat template puts behind it are read in full on what is left (KVzip; kvpress'
    /// leaderboards).
    ContextOnly,
}

impl Protocol {
    /// Whether it is the default, which is not said everywhere.
    pub fn is_question_seen(&self) -> bool {
        *self == Self::QuestionSeen
    }

    /// A method's name in tables.
    pub fn label(self, method: &str) -> String {
        match self {
            Self::QuestionSeen => method.to_owned(),
            Self::ContextOnly => format!("{method} ({self})"),
        }
    }

    /// The method's own name of one in tables.
    pub fn method_of(label: &str) -> &str {
        label.strip_suffix(" (context-only)").unwrap_or(label)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QuestionSeen => "question-seen",
            Self::ContextOnly => "context-only",
        })
    }
}

/// The protocols of a run: one by its name, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocols(Vec<Protocol>);

impl Default for Protocols {
    fn default() -> Self {
        Self(vec![Protocol::default()])
    }
}

impl Protocols {
    /// All, in the order of the file.
    pub fn all(&self) -> &[Protocol] {
        &self.0
    }
}

impl Serialize for Protocols {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [only] => only.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Protocols {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Protocols;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"question-seen\", \"context-only\" or a list of both")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Protocols, E> {
                let of = serde::de::value::StrDeserializer::<E>::new(name);
                Ok(Protocols(vec![Protocol::deserialize(of)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut listed: A) -> Result<Protocols, A::Error> {
                let mut protocols: Vec<Protocol> = Vec::new();
                while let Some(protocol) = listed.next_element()? {
                    if protocols.contains(&protocol) {
                        return Err(serde::de::Error::custom(format!("the protocol `{protocol}` is listed twice")));
                    }
                    protocols.push(protocol);
                }
                match protocols.is_empty() {
                    true => Err(serde::de::Error::custom("no protocol: write \"question-seen\" or \"context-only\"")),
                    false => Ok(Protocols(protocols)),
                }
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_tables_are_read_back() {
        for protocol in [Protocol::QuestionSeen, Protocol::ContextOnly] {
            assert_eq!(Protocol::method_of(&protocol.label("snapkv")), "snapkv");
        }
    }

    #[test]
    fn one_or_several_are_read_and_written() {
        #[derive(Serialize, Deserialize)]
        struct Run {
            protocol: Protocols,
        }
        let read = |text: &str| toml::from_str::<Run>(&format!("protocol = {text}"));
        for text in ["\"context-only\"", "[\"context-only\", \"question-seen\"]"] {
            assert_eq!(toml::to_string(&read(text).unwrap()).unwrap(), format!("protocol = {text}\n"));
        }
        let error = |text: &str| read(text).err().unwrap().to_string();
        assert!(error("\"contextonly\"").contains("expected `question-seen` or `context-only`"));
        assert!(error("[]").contains("no protocol"));
        assert!(error("['context-only', 'context-only']").contains("listed twice"));
    }
}
