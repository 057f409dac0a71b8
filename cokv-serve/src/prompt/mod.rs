//! From what was said to tokens. Nothing here waits or is heard: long texts are cut on other threads than connections live on.

mod document;
mod prepared;
mod template;

pub use document::open;
pub use prepared::{Prepared, prepare};
pub use template::{Mark, Prompts};
