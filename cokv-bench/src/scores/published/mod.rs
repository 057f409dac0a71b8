//! Scores that others published, read into [`ScoreFile`], and ours written for their programs.

mod cokv;
mod cokv_npy;
mod duo_attention;
mod headkv;
mod kvpress;

pub use cokv::import_cokv;
pub use cokv_npy::{Contributions, read_contributions};
pub use duo_attention::{export_duo_attention, import_duo_attention};
pub use headkv::{export_headkv, import_headkv};
pub use kvpress::{export_kvpress, import_kvpress};

use super::ScoreFile;

/// A published file in our format.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The scores.
    pub file: ScoreFile,
    /// What a user should know of the published data, one sentence each.
    pub notices: Vec<String>,
}
