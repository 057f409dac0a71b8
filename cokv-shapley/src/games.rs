//! Games with known values, and wrappers that make other games of them.

mod closed_form;
mod tabulated;
mod unanimity;
mod wrappers;

pub use closed_form::{Additive, Airport, Coverage, Glove, Majority, Power, Symmetric};
pub use tabulated::Tabulated;
pub use unanimity::Unanimity;
pub use wrappers::{Instances, Noisy, Restricted, RestrictedError, SumOf};
