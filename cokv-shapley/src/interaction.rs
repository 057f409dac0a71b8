//! Which heads work together, from the samples that the values came from.

use crate::linear_algebra::{Cholesky, Matrix};
use crate::pairs::{pairs, size_curves, subtract_instance_effects};
use crate::regression::Data;
use crate::{FitError, SampleLog};

/// What two heads achieve together beyond what they achieve apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interaction {
    /// One head, the lower index.
    pub first: usize,
    /// The other.
    pub second: usize,
    /// The mean of U(T+i+j) - U(T+i) - U(T+j) + U(T) over coalitions T of the others: the pairwise interaction index
    /// (Grabisch, Roubens 1999), in units of utility. Positive heads cooperate: each is worth more next to the other.
    /// Negative heads are substitutes: each is worth less.
    pub effect: f64,
    /// The effect over its standard error.
    pub t: f64,
}

/// The interactions among the `heads` heads of the largest values (14 is usual; at most all but one), most certain
/// first.
///
/// Shapley values of pairs only use the odd part of the utility; interactions of two are in the even part,
/// e(S) = (U(S) + U(N∖S))/2, and so cost no evaluation more. e is regressed on all products s_i s_j of the chosen heads
/// (s = 1 for members, -1 for others), next to a curve in the size (1, c², …, c⁸). A synergy of unit size moves e by 1/4.
///
/// Limits: the effects are about coalitions as large as the design draws them; interactions with a head that is not
/// among the chosen ones are noise; among `heads (heads - 1) / 2` pairs some reach |t| = 2 by chance, so that only
/// |t| above 3.5 or so means something; and substitutes can both have small values and then are not looked at.
///
/// A log needs one and a half times as many pairs of coalitions as there are pairs of heads, and ten more.
pub fn interactions(log: &SampleLog, values: &[f64], heads: usize) -> Result<Vec<Interaction>, FitError> {
    const NAME: &str = "interactions";
    let mut strongest: Vec<usize> = (0..values.len().min(log.plan().players)).collect();
    strongest.sort_by(|&left, &right| values[right].abs().total_cmp(&values[left].abs()));
    // The products of all players sum to a function of the size, which the curve takes up.
    strongest.truncate(heads.min(log.plan().players - 1));
    strongest.sort_unstable();
    let couples: Vec<(usize, usize)> = strongest
        .iter()
        .enumerate()
        .flat_map(|(place, &first)| strongest[place + 1..].iter().map(move |&second| (first, second)))
        .collect();
    let width = couples.len();
    let pairs = pairs(log, NAME, width + width / 2 + 10)?;
    if couples.is_empty() {
        return Ok(Vec::new());
    }
    let features = pairs
        .iter()
        .flat_map(|pair| couples.iter().map(|&(first, second)| pair.sign(first) * pair.sign(second)))
        .collect();
    let mut data = Data { response: pairs.iter().map(|pair| pair.even).collect(), features, width };
    subtract_instance_effects(&mut data, &pairs, log, |_| 1.0);
    let projected = data.project_out(size_curves(&pairs, 0));
    let too_few = FitError::TooFewSamples { estimator: NAME, found: log.len(), needed: 2 * log.len() };
    let cholesky = Cholesky::new(Matrix::gram(width, &data.features, |_| 1.0)).ok_or(too_few)?;
    let coefficients = cholesky.solve(&data.moment());
    let squares: f64 = data.residuals(&coefficients).iter().map(|residual| residual * residual).sum();
    let noise = squares / (pairs.len() - width - projected) as f64;
    let mut interactions: Vec<Interaction> = couples
        .into_iter()
        .zip(coefficients.iter().zip(cholesky.inverse_diagonal()))
        .map(|((first, second), (coefficient, variance))| {
            let t = coefficient / (noise * variance).sqrt();
            Interaction { first, second, effect: 4.0 * coefficient, t: if t.is_nan() { 0.0 } else { t } }
        })
        .collect();
    interactions.sort_by(|left, right| right.t.abs().total_cmp(&left.t.abs()));
    Ok(interactions)
}
