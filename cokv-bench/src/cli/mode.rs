//! What a command does with a configuration.

/// What a command does with a configuration beside running it.
#[derive(Clone, Copy)]
pub struct Mode {
    /// Measure nothing that takes long.
    pub plan: bool,
    /// Run on records that head scores may have been made from.
    pub choosing: bool,
    /// Say nothing but what must be said.
    pub quiet: bool,
}
