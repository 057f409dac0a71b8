//! How good the readings of the samples are on recorded games of a real model.
//!
//! ```text
//! cargo run --release -p cokv-shapley --example recorded -- ../shared/games [passkey.samples.jsonl]
//! ```
//!
//! With a third log, of another task on the same model (`cokv estimate --task passkey`), its values are what some readings expect.
//!
//! Of the games of 90 heads (`mkn-long`, `mkn-scpr`), disjoint stretches are runs of their own, held against third-order `scpr` on all
//! other samples. Of the game of 12 heads whose coalitions are all known (`mkn-exact`), every design is drawn anew with 100
//! seeds and held against the exact values, one record a sample.

use std::error::Error;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use cokv_core::Game;
use cokv_shapley::diagnostics::Allocation;
use cokv_shapley::estimators::{Exact, KernelShap, Permutation, Prior, Scpr};
use cokv_shapley::games::Tabulated;
use cokv_shapley::statistics::{mean, pearson, spearman};
use cokv_shapley::{
    Design, Estimate, Estimator, LogHeader, PlaySettings, SampleLog, SamplingPlan, Stop, play, read_log,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const RUNS: usize = 16;
const SEEDS: u64 = 100;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or("the folder of the recorded games?")?;
    let game = |name: &str| Ok::<_, Box<dyn Error>>(read_log(Path::new(&folder).join(name))?.0);
    let logs = [game("mkn-long.samples.jsonl")?, game("mkn-scpr.samples.jsonl")?];
    let expected =
        std::env::args().nth(2).map(|path| Ok::<_, Box<dyn Error>>(scpr(Prior::Auto).fit(&read_log(path)?.0)?.values));
    sampled(&logs, expected.transpose()?)?;
    enumerated(&game("mkn-exact.samples.jsonl")?)
}

const MEASURES: &str = "MSE e-6 | r² | r² without 5 | rank r, lower half | coverage | with the truth's errors | reliability | share \
                        of tokens moved, and foreseen over moved: proportional | 8 % dropped | 22 % dropped";

/// What is to be known of an estimate, in the order of [`MEASURES`].
fn measures(estimate: &Estimate, truth: &Estimate) -> Vec<f64> {
    let (values, expected) = (&estimate.values, &truth.values);
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&left, &right| expected[left].total_cmp(&expected[right]));
    let of = |places: &[usize]| -> (Vec<f64>, Vec<f64>) { places.iter().map(|&at| (values[at], expected[at])).unzip() };
    let (lower, expected_lower) = of(&order[..order.len() / 2]);
    let (rest, expected_rest) = of(&order[..order.len() - 5]);
    let errors: Vec<f64> = values.iter().zip(expected).map(|(value, expected)| value - expected).collect();
    let squares: Vec<f64> = errors.iter().map(|error| 1e6 * error * error).collect();
    let covered = |more: &dyn Fn(usize) -> f64| {
        let inside = |(player, error): (usize, &f64)| {
            f64::from(u8::from(error.abs() <= 1.96 * estimate.standard_errors[player].hypot(more(player))))
        };
        mean(&errors.iter().enumerate().map(inside).collect::<Vec<_>>())
    };
    let of_rule = |share: f64| {
        let rule = Allocation { drop_lowest: (share * values.len() as f64).round() as usize };
        let moved = rule.distance(values, expected);
        [moved, rule.foreseen(estimate) / moved]
    };
    let all = [
        mean(&squares),
        pearson(values, expected).powi(2),
        pearson(&rest, &expected_rest).powi(2),
        spearman(&lower, &expected_lower),
        covered(&|_| 0.0),
        covered(&|player| truth.standard_errors[player]),
        estimate.reliability,
    ];
    all.into_iter().chain([0.0, 0.08, 0.22].into_iter().flat_map(of_rule)).collect()
}

fn print(title: &str, rows: &[Vec<f64>]) {
    let column = |column: usize| mean(&rows.iter().map(|row| row[column]).collect::<Vec<_>>());
    let cells: Vec<String> = (0..rows[0].len()).map(|place| format!("{:7.3}", column(place))).collect();
    println!("{title:36} {}", cells.join(" "));
}

fn scpr(prior: Prior) -> Box<dyn Estimator> {
    Box::new(Scpr { prior })
}

/// Runs of the large games.
fn sampled(logs: &[SampleLog; 2], expected: Option<Vec<f64>>) -> Result<()> {
    println!("90 heads: {MEASURES}");
    for evaluations in [180, 360, 1080, 2000, 4000, 8000] {
        let samples = evaluations / 2;
        let runs: Vec<(usize, Range<usize>)> = (0..2)
            .flat_map(|log| (0..logs[log].len() / samples).map(move |run| (log, run * samples..(run + 1) * samples)))
            .take(RUNS)
            .collect();
        let truth = |(log, run): &(usize, Range<usize>)| {
            let mut rest = logs[*log].slice(0..run.start);
            rest.merge(logs[*log].slice(run.end..usize::MAX))?;
            both(&rest, &logs[1 - log])
        };
        let truths: Vec<Estimate> = runs.iter().map(truth).collect::<Result<_>>()?;
        let mut readings = vec![
            ("auto", scpr(Prior::Auto)),
            ("third-order", scpr(Prior::ThirdOrder)),
            ("ard", scpr(Prior::Ard)),
            ("ridge", scpr(Prior::Ridge)),
            ("size-modulated", scpr(Prior::SizeModulated)),
        ];
        if let Some(expected) = &expected {
            let mut reversed = expected.clone();
            reversed.reverse();
            readings.extend(scpr(Prior::Auto).informed(expected).map(|informed| ("auto, with a prior", informed)));
            readings.extend(scpr(Prior::Auto).informed(&reversed).map(|informed| ("auto, unrelated prior", informed)));
        }
        for (name, estimator) in readings {
            let row = |((log, run), truth): (&(usize, Range<usize>), &Estimate)| {
                Ok(measures(&estimator.fit(&logs[*log].slice(run.clone()))?, truth))
            };
            let rows: Vec<Vec<f64>> = runs.iter().zip(&truths).map(row).collect::<Result<_>>()?;
            print(&format!("{evaluations}, {} runs, {name}", rows.len()), &rows);
        }
    }
    Ok(())
}

/// What two logs of one game say together: the mean of what each says, by their samples.
fn both(first: &SampleLog, second: &SampleLog) -> Result<Estimate> {
    let reference = Scpr { prior: Prior::ThirdOrder };
    let (Ok(left), right) = (reference.fit(first), reference.fit(second)?) else { return Ok(reference.fit(second)?) };
    let share = left.samples as f64 / (left.samples + right.samples) as f64;
    let pairs = |left: &[f64], right: &[f64], of: &dyn Fn(f64, f64) -> f64| {
        left.iter().zip(right).map(|(left, right)| of(share * left, (1.0 - share) * right)).collect::<Vec<f64>>()
    };
    let values = pairs(&left.values, &right.values, &|left, right| left + right);
    let standard_errors = pairs(&left.standard_errors, &right.standard_errors, &f64::hypot);
    Ok(Estimate { values, standard_errors, ..left })
}

/// The small game, drawn anew.
fn enumerated(log: &SampleLog) -> Result<()> {
    let truth = Exact {}.fit(log)?;
    let game = Tabulated::new(log)?;
    for (title, per_sample) in [("one record a sample", 1), ("the mean over records a sample", game.instances() as u64)]
    {
        println!("12 heads, all coalitions known, {title}: {MEASURES}");
        for evaluations in [100, 200, 400, 800, 3200] {
            let rows: [(&str, Box<dyn Estimator>, Option<Design>); 8] = [
                ("scpr", scpr(Prior::Auto), None),
                ("scpr, third-order", scpr(Prior::ThirdOrder), None),
                ("scpr, ard", scpr(Prior::Ard), None),
                ("scpr, size-modulated", scpr(Prior::SizeModulated), None),
                ("kernel-shap", Box::new(KernelShap {}), None),
                ("kernel-shap, kernel-sizes", Box::new(KernelShap {}), Some(Design::KernelSizes)),
                ("Leverage SHAP", Box::new(KernelShap {}), Some(Design::AllSizes)),
                ("permutation, antithetic", Box::new(Permutation { antithetic: true }), None),
            ];
            for (name, estimator, design) in rows {
                let design = design.unwrap_or_else(|| estimator.design(game.players()));
                let fit = |seed| {
                    let log = drawn(&game, estimator.as_ref(), &design, [evaluations, per_sample], seed)?;
                    Ok(measures(&estimator.fit(&log)?, &truth))
                };
                print(&format!("{evaluations}, {name}"), &(1..=SEEDS).map(fit).collect::<Result<Vec<_>>>()?);
            }
        }
    }
    Ok(())
}

fn drawn(
    game: &Tabulated,
    estimator: &dyn Estimator,
    design: &Design,
    [evaluations, instances_per_sample]: [u64; 2],
    seed: u64,
) -> Result<SampleLog> {
    let (players, instances) = (game.players(), game.instances());
    let plan = SamplingPlan {
        players,
        instances,
        instances_per_sample: instances_per_sample as usize,
        seed,
        design: design.clone(),
    };
    let mut log = SampleLog::new(LogHeader::new("recorded", plan))?;
    let stop = Stop {
        reliability: None,
        evaluations: Some(evaluations * instances_per_sample + 2 * instances as u64),
        ..Stop::default()
    };
    let settings = PlaySettings { stop, batch: 1024, round: 1 << 16, ..PlaySettings::default() };
    play(&mut game.clone(), &mut log, estimator, &settings, &mut |_| Ok(()), &mut |_| ControlFlow::Continue(()))?;
    Ok(log)
}
