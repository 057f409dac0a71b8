//! Files that say what each KV head is worth: ours, the published ones, and how to look at them.
//!
//! [`ScoreFile`] is our format; [`published`] reads those of CoKV, HeadKV and DuoAttention into it. [`compare`] measures
//! how far files agree, [`show`] draws one on the terminal.

mod check;
pub mod compare;
mod error;
mod file;
mod head_name;
mod pickle;
pub mod published;
mod row_format;
pub mod show;
mod stamp;
pub mod statistics;
mod storage;
mod worth;

pub use error::{Problem, ScoreFileError};
pub use file::{FittedScores, Format, Interaction, ScoreFile, Version};
pub use head_name::{HeadName, NoSuchHead};
pub use stamp::{GameStamp, ModelStamp};
pub use worth::HeadScoresWorth;
