//! The families of RULER (Hsieh et al., arXiv 2404.06654) that the other tasks do not cover.
//!
//! Made by our own code, with our own words and filler, and asked as all generated tasks are: the prompt ends in the
//! beginning of its answer. What RULER calls variable tracking is [`super::variable_tracking`]; its question answering asks
//! what users supply, because cokv brings no questions of its own, and asks it as LongBench would.

pub(super) mod common_words;
pub(super) mod frequent_words;
pub(super) mod needles;
pub(super) mod question_answering;
