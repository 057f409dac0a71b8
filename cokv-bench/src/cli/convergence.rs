//! `cokv convergence`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cokv_shapley::whole;
use cokv_shapley::{Design, SampleLog, read_log};
use serde_json::json;

use super::estimate::stem;
use super::output::print;
use crate::chart::{Scale, line_chart};
use crate::importance::convergence::{Curve, on_enumerated_game, on_log};
use crate::markdown;
use crate::scores::ScoreFile;

/// The squared correlation that the table counts evaluations to.
const TARGET: f64 = 0.9;

/// Compare how fast the estimators come near the truth on a real game
///
/// Takes the samples that `cokv estimate` wrote. Of a game whose every coalition was evaluated (--estimator exact), all
/// estimators play the recorded game again with several seeds and are compared with the exact values. Other samples are
/// compared with --reference, the scores of a long run with another seed; every estimator that can read a file's samples
/// does, and disjoint stretches of the file count as runs of their own. r² is about the few strong heads: `lower half` is the rank
/// correlation among the weaker half, `tokens moved` the share of a budget that the authors' rule gives to other heads.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv estimate --task passkey --records 4 --estimator exact --heads 18.2,23.0,20.2,17.1 --out exact.scores.json
  cokv convergence exact.samples.jsonl --out convergence
  cokv convergence ssv.samples.jsonl scpr.samples.jsonl --reference long.scores.json --out convergence")]
pub struct Arguments {
    /// Files of samples
    #[arg(required = true)]
    samples: Vec<PathBuf>,
    /// What sampled estimates are compared with
    #[arg(long)]
    reference: Option<PathBuf>,
    /// Seeds that play an enumerated game
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// How many of the highest heads should be found
    #[arg(long, default_value_t = 3)]
    top: usize,
    /// Folder for convergence.csv, squared-correlation.svg and recall.svg
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print all points of all curves as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let read = |path: &PathBuf| -> Result<(String, SampleLog)> {
        let (log, notices) = read_log(path)?;
        notices.iter().for_each(|notice| eprintln!("{}: {notice}", path.display()));
        Ok((stem(path, ".samples.jsonl"), log))
    };
    let logs: Vec<(String, SampleLog)> = arguments.samples.iter().map(read).collect::<Result<_>>()?;
    let enumerated = |log: &SampleLog| log.plan().design == Design::Exhaustive;
    let curves = match (&logs[..], &arguments.reference) {
        ([(_, log)], None) if enumerated(log) => {
            on_enumerated_game(log, arguments.seeds.max(1), arguments.top, |name| eprintln!("{name} done"))?
        }
        (_, None) => bail!("--reference is needed: only one complete file of all coalitions is a reference by itself"),
        (logs, Some(reference)) => against(logs, reference, arguments.top)?,
    };
    if let Some(folder) = &arguments.out {
        write(folder, &curves, arguments.top)?;
    }
    if arguments.json {
        return print(&json(&curves).to_string());
    }
    print(&table(&curves, arguments.top))
}

/// All points of all curves.
fn json(curves: &[Curve]) -> serde_json::Value {
    let of_curve = |curve: &Curve| {
        let points = curve.points.iter().map(|point| {
            json!({
                "evaluations": point.evaluations, "squared_correlation": point.squared_correlation,
                "recall": point.recall, "lower_half": point.lower_half,
                "allocation_distance": point.allocation_distance, "runs": point.runs,
            })
        });
        json!({ "estimator": curve.name, "points": points.collect::<Vec<_>>() })
    };
    curves.iter().map(of_curve).collect()
}

fn against(logs: &[(String, SampleLog)], reference: &Path, top: usize) -> Result<Vec<Curve>> {
    let scores = ScoreFile::read(reference)?;
    let flat = scores.flat();
    let played = |&[layer, head]: &[usize; 2]| flat[layer * scores.model.kv_heads + head];
    let reference_values =
        if scores.players.is_empty() { flat.clone() } else { scores.players.iter().map(played).collect() };
    let mut curves = Vec::new();
    for (name, log) in logs {
        if log.plan().players != reference_values.len() {
            let (players, heads) = (log.plan().players, reference_values.len());
            bail!("{name} has samples of {players} heads, {} has scores of {heads}", reference.display());
        }
        if scores.game.as_ref().is_some_and(|game| game.fingerprint != log.header().game) {
            eprintln!(
                "note: {} is of another game than {name}: other records, another model or utility",
                reference.display()
            );
        }
        curves.extend(on_log(name, log, &reference_values, top));
    }
    Ok(curves)
}

fn table(curves: &[Curve], top: usize) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let most = points().map(|point| point.evaluations).max().unwrap_or(0);
    let first = points().map(|point| point.evaluations).min().unwrap_or(0);
    // A factor of two apart, as every other point of a curve is.
    let halvings = (0..40).map(|halvings| most >> halvings).take_while(|&budget| budget >= first.max(1));
    let mut budgets: Vec<u64> = halvings.collect();
    budgets.reverse();
    budgets.truncate(6);
    let recalls: Vec<u64> = budgets.iter().copied().step_by(2).collect();
    let mut header = vec!["estimator".to_owned(), format!("evaluations to r² {TARGET}")];
    header.extend(budgets.iter().map(|budget| format!("r² at {budget}")));
    header.push("r² at the end".into());
    header.extend(recalls.iter().map(|budget| format!("top-{top} at {budget}")));
    header.extend(recalls.iter().map(|budget| format!("lower half at {budget}")));
    header.extend(recalls.iter().map(|budget| format!("tokens moved at {budget}")));
    let mut table = markdown::table(header, 1);
    for curve in curves {
        // The point nearest to the budget, if it is within the grid's step.
        let nearest = |budget: u64| {
            let ratio = |evaluations: u64| (evaluations as f64 / budget as f64).ln().abs();
            let points = curve.points.iter().filter(|point| ratio(point.evaluations) < 0.18);
            points.min_by(|left, right| ratio(left.evaluations).total_cmp(&ratio(right.evaluations)))
        };
        let cell = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
        let mut row = vec![curve.name.clone()];
        row.push(curve.evaluations_to(TARGET).map_or("–".into(), |evaluations| evaluations.to_string()));
        row.extend(budgets.iter().map(|&budget| cell(nearest(budget).map(|point| point.squared_correlation))));
        row.push(cell(curve.points.last().map(|point| point.squared_correlation)));
        row.extend(recalls.iter().map(|&budget| cell(nearest(budget).map(|point| point.recall))));
        row.extend(recalls.iter().map(|&budget| cell(nearest(budget).map(|point| point.lower_half))));
        row.extend(recalls.iter().map(|&budget| cell(nearest(budget).map(|point| point.allocation_distance))));
        table.add_row(row);
    }
    markdown::text(&table)
}

fn write(folder: &Path, curves: &[Curve], top: usize) -> Result<()> {
    let save = |name: &str, text: String| {
        let path = folder.join(name);
        whole::write(&path, text).with_context(|| path.display().to_string())
    };
    let rows = curves.iter().flat_map(|curve| {
        curve.points.iter().map(|point| {
            let (evaluations, squared, recall) = (point.evaluations, point.squared_correlation, point.recall);
            let (lower, moved) = (point.lower_half, point.allocation_distance);
            format!("\"{}\",{evaluations},{squared:.4},{recall:.4},{lower:.4},{moved:.4},{}\n", curve.name, point.runs)
        })
    });
    save(
        "convergence.csv",
        "estimator,evaluations,squared_correlation,recall,lower_half,allocation_distance,runs\n".to_owned()
            + &rows.collect::<String>(),
    )?;
    let chart = |title: &str, series: Vec<_>| line_chart(title, "evaluations", title, &series, Scale::Logarithmic);
    let squares: Vec<_> = curves.iter().map(Curve::squared_correlation).collect();
    save("squared-correlation.svg", chart("squared correlation", squares)?)?;
    let recalls: Vec<_> = curves.iter().map(Curve::recall).collect();
    save("recall.svg", chart(&format!("share of the top {top} heads found"), recalls)?)
}
