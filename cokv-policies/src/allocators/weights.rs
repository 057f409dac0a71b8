//! Head scores as weights: none below 0, the largest 1.

use cokv_core::{AllocationRequest, HeadLayout, HeadScores, PolicyError};

/// The head scores of a method that needs them, checked against the model. `allocator` is its name, for the error.
pub fn head_scores<'a>(
    allocator: &str,
    layout: HeadLayout,
    scores: Option<&'a HeadScores>,
) -> Result<&'a HeadScores, PolicyError> {
    let missing = || {
        let message = format!("the allocator `{allocator}` needs a score for every KV head, and the method names none");
        PolicyError::MissingScores(message)
    };
    let scores = scores.ok_or_else(missing)?;
    scores.check_model(layout)?;
    Ok(scores)
}

/// What the compressor says that each layer needs, `[layers]`. `allocator` is the name of who wants to know, for the error.
pub fn layer_preferences<'a>(allocator: &str, request: &AllocationRequest<'a>) -> Result<&'a [f64], PolicyError> {
    let preferences = request.token_scores.layer_preferences();
    if preferences.len() != request.layout.layers {
        return Err(PolicyError::MissingPreferences(format!(
            "the allocator `{allocator}` needs a compressor that says how much each layer needs, such as `cake`: {} of {} \
             layers have such a number",
            preferences.len(),
            request.layout.layers
        )));
    }
    Ok(preferences)
}

/// The weight of its layer for every head.
pub fn by_layer(layout: HeadLayout, of_layer: impl Fn(usize) -> f64) -> Vec<f64> {
    (0..layout.heads()).map(|head| of_layer(layout.place(head).0)).collect()
}

/// What each score has above zero.
pub fn positive_part(scores: &[f64]) -> Vec<f64> {
    above(scores, 0.0)
}

/// What each score has above the `drop_lowest`-th smallest, which is the paper's `min^α`: at least so many heads get
/// nothing. With 0 there is no such border, and it is the positive part.
pub fn above_border(scores: &[f64], drop_lowest: usize) -> Result<Vec<f64>, PolicyError> {
    if drop_lowest >= scores.len() {
        return Err(PolicyError::NothingLeft { drop_lowest, heads: scores.len() });
    }
    let mut ascending = scores.to_vec();
    ascending.sort_by(f64::total_cmp);
    let border = drop_lowest.checked_sub(1).map_or(0.0, |last| ascending[last]);
    Ok(above(scores, border))
}

/// Divided by the largest, so that sums stay finite and small scores do not vanish in 32 bits. A power of two divides
/// first, because the difference of two finite scores need not be finite.
fn above(scores: &[f64], border: f64) -> Vec<f64> {
    let differences: Vec<f64> = scores.iter().map(|score| (score / 2.0 - border / 2.0).max(0.0)).collect();
    let largest = differences.iter().copied().fold(0.0, f64::max);
    differences.iter().map(|difference| if largest > 0.0 { difference / largest } else { 0.0 }).collect()
}
