//! A document that is read and compressed once, and then asked about any number of times, by this process or another.

mod answer;
mod compress;
mod error;
mod settings;
mod turn;

pub use answer::{Heard, answer, check_question};
pub use compress::{CompressedDocument, Done, check_document, check_method, compress, evicting, window_remark};
pub use error::DocumentError;
pub use settings::{Made, describe, model_settings, prefix_hash};
pub use turn::{OpenTurn, Turn};
