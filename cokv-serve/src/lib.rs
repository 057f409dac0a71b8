#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod api;
mod grammar;
mod http;
mod listen;
mod metrics;
mod page;
mod prompt;
mod random;
mod serve;
mod server;
mod text;

#[cfg(test)]
mod testing;

pub use api::documents::is_document_name;
pub use listen::Listener;
pub use serve::{ServeError, Shutdown, run, serve};
pub use server::{Compress, FileWriter, Files, Logged, MethodMaker, Mode, RequestLine, Served, Server, Settings};
