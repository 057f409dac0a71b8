//! From the form that an answer is to have to what may come next in it. Grammars are llguidance's, behind the feature `structured`; a
//! build without it refuses whatever needs one.

#[cfg(not(feature = "structured"))]
mod absent;
#[cfg(feature = "structured")]
mod compile;
#[cfg(feature = "structured")]
mod follow;
#[cfg(feature = "structured")]
mod lark;
#[cfg(feature = "structured")]
mod vocabulary;

#[cfg(not(feature = "structured"))]
pub use absent::Grammars;
#[cfg(feature = "structured")]
pub use compile::Grammars;

#[cfg(all(test, feature = "structured"))]
mod tests;
