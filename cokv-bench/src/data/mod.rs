//! What is asked of the model: records, and the tasks that they belong to.

mod description;
mod error;
pub mod json_lines;
pub mod longbench;
mod own;
pub mod prompt;
mod protocol;
mod questions;
mod record;
mod records;
mod settings;
mod source;
mod split;
mod suite;
pub mod synthetic;
pub mod values;

pub use self::description::{Description, Fields};
pub use self::error::{CONFIGURATION_VARIABLE, DataError, SyntheticError};
pub use self::protocol::{Protocol, Protocols};
pub use self::questions::{Question, Questions};
pub use self::record::{Place, Record, TaskProtocol, TaskRecords};
pub use self::records::Records;
pub use self::settings::{ChatUse, DataSettings};
pub use self::source::{SYNTHETIC, SourceKind};
pub use self::split::Split;
pub use self::suite::Suite;
