//! Requests and answers as JSON, with what they may say. Nothing here knows HTTP or a model.

pub mod answer;
pub mod chat;
pub mod completions;
pub mod documents;
pub mod error;
pub mod extension;
pub mod fields;
pub mod form;
pub mod message;
pub mod texts;
pub mod tools;
pub mod wanted;
