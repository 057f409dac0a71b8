#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod api;
mod text;

#[cfg(test)]
mod testing;
