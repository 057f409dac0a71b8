//! What a server or a conversation needs beside a model: methods by name, and files that say where a document comes from.

mod files;
mod methods;
mod talk;

pub use files::Describing;
pub use methods::Methods;
pub use talk::{Answering, Reading, Talk, TalkError};
