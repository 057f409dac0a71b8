//! Linear regression of utilities on who is in the coalition.

use crate::linear_algebra::{Cholesky, Matrix, Tridiagonal, dot};

/// A response and the features that explain it: `[samples, features]`, row-major.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub(crate) response: Vec<f64>,
    pub(crate) features: Vec<f64>,
    pub(crate) width: usize,
}

impl Data {
    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.features.chunks_exact(self.width.max(1))
    }

    /// Takes what some curves (`[samples]` each) explain out of the response and of every feature, so that regression
    /// on what is left is regression on both (Frisch, Waugh 1933; Lovell 1963). Returns the number of dimensions
    /// taken; curves that earlier ones explain take none.
    pub(crate) fn project_out(&mut self, curves: impl IntoIterator<Item = Vec<f64>>) -> usize {
        let mut basis: Vec<Vec<f64>> = Vec::new();
        for mut curve in curves {
            let before = dot(&curve, &curve);
            // Twice is enough (Kahan; Parlett 1980) against the loss of orthogonality.
            for _ in 0..2 {
                basis.iter().for_each(|unit| subtract_along(&mut curve, unit));
            }
            let norm = dot(&curve, &curve).sqrt();
            if norm > 1e-7 * before.sqrt() {
                curve.iter_mut().for_each(|value| *value /= norm);
                basis.push(curve);
            }
        }
        for unit in &basis {
            subtract_along(&mut self.response, unit);
            let mut along = vec![0.0; self.width];
            for (row, &weight) in self.rows().zip(unit) {
                along.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
            }
            for (row, &weight) in self.features.chunks_exact_mut(self.width.max(1)).zip(unit) {
                row.iter_mut().zip(&along).for_each(|(value, along)| *value -= weight * along);
            }
        }
        basis.len()
    }

    /// Takes what a ridge regression on other features of the same samples explains out of the response.
    pub(crate) fn subtract_fit(&mut self, features: Vec<f64>, width: usize) {
        let other = Self { response: self.response.clone(), features, width };
        let Some(fit) = Ridge::new(&other, 0).fit() else { return };
        let fitted: Vec<f64> = other.rows().map(|row| dot(row, &fit.mean)).collect();
        self.response.iter_mut().zip(fitted).for_each(|(value, fitted)| *value -= fitted);
    }

    /// `Fᵀ y`.
    pub(crate) fn moment(&self) -> Vec<f64> {
        let mut moment = vec![0.0; self.width];
        for (row, &value) in self.rows().zip(&self.response) {
            moment.iter_mut().zip(row).for_each(|(sum, feature)| *sum += feature * value);
        }
        moment
    }

    /// What a linear function of the features leaves of the response.
    pub(crate) fn residuals(&self, coefficients: &[f64]) -> Vec<f64> {
        self.rows().zip(&self.response).map(|(row, value)| value - dot(row, coefficients)).collect()
    }
}

fn subtract_along(values: &mut [f64], unit: &[f64]) {
    let along = dot(values, unit);
    values.iter_mut().zip(unit).for_each(|(value, unit)| *value -= along * unit);
}

/// Bayesian regression whose coefficients are normal with mean 0 and one variance for all: all that it needs to know
/// of the samples.
#[derive(Clone, Debug)]
pub(crate) struct Ridge {
    gram: Matrix,
    moment: Vec<f64>,
    energy: f64,
    degrees: f64,
}

/// What the samples say about the coefficients.
#[derive(Clone, Debug)]
pub(crate) struct Posterior {
    pub(crate) mean: Vec<f64>,
    pub(crate) variance: Vec<f64>,
    /// Variance of a coefficient before any sample.
    pub(crate) prior_variance: f64,
    /// Logarithm of the probability of the response under the model, up to what all models of it share.
    pub(crate) log_evidence: f64,
    /// Noise variance over prior variance.
    penalty: f64,
}

/// What automatic relevance determination finds.
#[derive(Clone, Debug)]
pub(crate) struct Relevance {
    pub(crate) posterior: Posterior,
    /// How variable each coefficient is before any sample, as a standard deviation relative to a common one.
    pub(crate) scales: Vec<f64>,
}

impl Ridge {
    /// `projected` dimensions of the data have been taken out.
    pub(crate) fn new(data: &Data, projected: usize) -> Self {
        Self {
            gram: Matrix::gram(data.width, &data.features, |_| 1.0),
            moment: data.moment(),
            energy: dot(&data.response, &data.response),
            degrees: data.response.len().saturating_sub(projected) as f64,
        }
    }

    /// The same regression where coefficient i is `scales[i]` times as variable as before.
    fn scaled(&self, scales: &[f64]) -> Self {
        let moment = self.moment.iter().zip(scales).map(|(moment, scale)| moment * scale).collect();
        Self { gram: self.gram.clone().scaled(scales), moment, ..*self }
    }

    /// [`Ridge::fit`] where coefficient i has a prior standard deviation of `scales[i]` times a common one, which is what
    /// [`Posterior::prior_variance`] says.
    pub(crate) fn fit_scaled(&self, scales: &[f64]) -> Option<Posterior> {
        let mut posterior = self.scaled(scales).fit()?;
        for (place, scale) in scales.iter().enumerate() {
            posterior.mean[place] *= scale;
            posterior.variance[place] *= scale * scale;
        }
        Some(posterior)
    }

    /// Posterior standard deviations of linear combinations of the coefficients, `[combinations, features]`, where
    /// `posterior` is [`Ridge::fit_scaled`] by the same scales.
    pub(crate) fn deviations(
        &self,
        posterior: &Posterior,
        scales: &[f64],
        combinations: impl Iterator<Item = Vec<f64>>,
    ) -> Option<Vec<f64>> {
        let cholesky = Cholesky::new(self.gram.clone().scaled(scales).plus_diagonal(posterior.penalty))?;
        let noise = posterior.prior_variance * posterior.penalty;
        let deviation = |mut combination: Vec<f64>| {
            combination.iter_mut().zip(scales).for_each(|(weight, scale)| *weight *= scale);
            (noise * cholesky.inverse_form(combination)).sqrt()
        };
        Some(combinations.map(deviation).collect())
    }

    /// Empirical Bayes: the penalty λ (noise variance over prior variance) and the noise that make the response most
    /// probable (MacKay 1992), and the posterior under them. None without any feature that varies.
    pub(crate) fn fit(&self) -> Option<Posterior> {
        let width = self.gram.order() as f64;
        let scale = self.gram.trace() / width;
        if !(scale > 0.0 && scale.is_finite() && self.energy.is_finite()) {
            return None;
        }
        let tridiagonal = Tridiagonal::new(self.gram.clone(), self.moment.clone());
        let model = |log_penalty: f64| {
            let penalty = scale * log_penalty.exp();
            let shifted = tridiagonal.shifted(penalty);
            // Below this, what is left of the response is rounding.
            let left = (self.energy - shifted.quadratic_form).max(1e-15 * self.energy).max(f64::MIN_POSITIVE);
            let noise = left / self.degrees;
            let complexity = shifted.log_determinant - width * penalty.ln();
            (-0.5 * (self.degrees * noise.ln() + complexity), penalty, noise)
        };
        let (log_evidence, penalty, noise) = model(maximum(|log_penalty| model(log_penalty).0));
        let cholesky = Cholesky::new(self.gram.clone().plus_diagonal(penalty))?;
        let variance = cholesky.inverse_diagonal().into_iter().map(|entry| noise * entry).collect();
        let mean = cholesky.solve(&self.moment);
        Some(Posterior { mean, variance, prior_variance: noise / penalty, log_evidence, penalty })
    }

    /// Automatic relevance determination (MacKay 1994): a prior variance of its own for every coefficient, for
    /// effects of which few are large. Each of six steps moves it halfway, on a logarithmic scale, from the common one
    /// to what the posterior says.
    pub(crate) fn fit_relevance(&self, start: &Posterior) -> Option<Relevance> {
        let mut found = Relevance { posterior: start.clone(), scales: vec![1.0; start.mean.len()] };
        for _ in 0..6 {
            let Posterior { mean, variance, .. } = &found.posterior;
            let sizes: Vec<f64> = mean.iter().zip(variance).map(|(m, v)| m * m + v).collect();
            let mean_size = sizes.iter().sum::<f64>() / sizes.len() as f64;
            let squares: Vec<f64> = sizes.iter().map(|size| (size * mean_size).sqrt()).collect();
            let mean_square = squares.iter().sum::<f64>() / squares.len() as f64;
            if !(mean_square > 0.0 && mean_square.is_finite()) {
                return Some(found);
            }
            let scales: Vec<f64> = squares.iter().map(|square| (square / mean_square).sqrt()).collect();
            found = Relevance { posterior: self.fit_scaled(&scales)?, scales };
        }
        Some(found)
    }
}

/// Where a function of the logarithm of the relative penalty is largest: the best of a grid, refined by golden section.
/// A penalty below 1e-10 would let rounding decide about directions that no sample is about.
fn maximum(value: impl Fn(f64) -> f64) -> f64 {
    const STEPS: i32 = 4;
    let at = |place: i32| f64::from(place) / f64::from(STEPS) * std::f64::consts::LN_10;
    let (best, _) = (-10 * STEPS..=6 * STEPS)
        .map(|place| (place, value(at(place))))
        .fold((0, f64::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best });
    let (mut low, mut high) = (at(best - 1), at(best + 1));
    let golden = 0.5 * (5.0f64.sqrt() - 1.0);
    for _ in 0..30 {
        let (left, right) = (high - golden * (high - low), low + golden * (high - low));
        if value(left) < value(right) { low = left } else { high = right }
    }
    0.5 * (low + high)
}
