//! Estimators on games that a real model played.

use cokv_shapley::estimators::{Prior, Scpr};
use cokv_shapley::statistics::mean;
use cokv_shapley::{Estimate, Estimator, SampleLog, read_log};

fn game(name: &str) -> Option<SampleLog> {
    Some(read_log(cokv_golden::find(&format!("games/{name}"))?).unwrap().0)
}

/// Four runs of 1,080 evaluations against what another seed's samples say.
#[test]
fn third_order_halves_the_error_on_ninety_heads() {
    let (Some(log), Some(other)) = (game("mkn-long.samples.jsonl"), game("mkn-scpr.samples.jsonl")) else { return };
    let truth = Scpr { prior: Prior::ThirdOrder }.fit(&other).unwrap();
    let runs: Vec<SampleLog> = (0..4).map(|run| log.slice(540 * run..540 * (run + 1))).collect();
    let estimates = |prior| -> Vec<Estimate> { runs.iter().map(|run| Scpr { prior }.fit(run).unwrap()).collect() };
    let (auto, before) = (estimates(Prior::Auto), estimates(Prior::Ard));
    let square = |estimates: &[Estimate]| {
        let of = |estimate: &Estimate| {
            let both = estimate.values.iter().zip(&truth.values);
            mean(&both.map(|(value, truth)| (value - truth).powi(2)).collect::<Vec<_>>())
        };
        mean(&estimates.iter().map(of).collect::<Vec<_>>())
    };
    let (error, error_before) = (square(&auto), square(&before));
    assert!(error < 0.6 * error_before, "{error} {error_before}");
    let covered = auto.iter().flat_map(|estimate| {
        (0..90).map(|head| {
            let error = estimate.standard_errors[head].hypot(truth.standard_errors[head]);
            f64::from(u8::from((estimate.values[head] - truth.values[head]).abs() <= 1.96 * error))
        })
    });
    let covered = mean(&covered.collect::<Vec<_>>());
    assert!((0.92..0.995).contains(&covered), "{covered}");
}
