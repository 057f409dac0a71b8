//! The pictures of a report.

use std::collections::BTreeSet;

use super::run::ModelRun;
use super::{Figure, ReportError};
use crate::chart::{Scale, Series, heat_map, kept_map, line_chart_with_ticks, needle_map};
use crate::run::{Cell, CellBudget, Kept, KeptCell, Manifest, ManifestMethod, Measure, STRETCHES, cells, mean};
use crate::statistics::Estimate;

/// All pictures of a run on one model.
pub fn of_model(model: &ModelRun, record: Option<&str>) -> Result<Vec<Figure>, ReportError> {
    let cells = cells(&model.rows);
    let mut figures = curves(&cells)?;
    figures.extend(needles(&cells)?);
    if let Some(manifest) = &model.manifest {
        figures.extend(head_scores(manifest)?);
        let kept: Vec<&Kept> = model.kept.iter().collect();
        figures.extend(budgets(manifest, &kept)?);
        let chosen = kept.iter().find(|kept| record.is_none_or(|task| kept.task == task));
        if let Some(chosen) = chosen {
            figures.extend(positions(manifest, chosen)?);
        }
    }
    Ok(figures)
}

/// Score and log-likelihood against tokens, and score against bytes.
fn curves(cells: &[Cell<'_>]) -> Result<Vec<Figure>, ReportError> {
    let tokens = |cell: &Cell<'_>| cell.mean(|row| row.kept_share * row.compressed_tokens() as f64);
    let mebibytes = |cell: &Cell<'_>| cell.mean(|row| row.cache_bytes as f64) / f64::from(1 << 20);
    let nominal = nominal_tokens(cells);
    let mut figures = Vec::new();
    let mut draw = |id: &str,
                    measure: Measure,
                    x_label: &str,
                    x: &dyn Fn(&Cell<'_>) -> f64|
     -> Result<(), ReportError> {
        let series = lines(cells, measure, x);
        if series.iter().all(|line| line.level) {
            return Ok(());
        }
        let ticks = if id.ends_with("-by-budget") { &nominal[..] } else { &[] };
        let svg = line_chart_with_ticks("", x_label, measure.title(), &series, Scale::Logarithmic, ticks)?;
        let named = if ticks.is_empty() { "" } else { " with the budgets named as configured" };
        let caption = format!(
            "Means over tasks: {}, against {x_label}, on a logarithmic axis{named}, with 95 % intervals over \
                     records. Where those of two methods overlap the methods may yet surely differ: they are compared record \
                     by record in a table.",
            measure.title()
        );
        figures.push(Figure { id: id.into(), caption, svg });
        Ok(())
    };
    draw("score-by-budget", Measure::Score, "tokens kept per KV head", &tokens)?;
    draw("score-by-bytes", Measure::Score, "MiB of the compressed prompt's buffers, as measured", &mebibytes)?;
    draw("likelihood-by-budget", Measure::LogLikelihood, "tokens kept per KV head", &tokens)?;
    draw("divergence-by-budget", Measure::Divergence, "tokens kept per KV head", &tokens)?;
    Ok(figures)
}

/// The budgets as they were configured, where all are tokens; none otherwise.
fn nominal_tokens(cells: &[Cell<'_>]) -> Vec<f64> {
    let evicting = cells.iter().filter(|cell| !cell.budget.is_full());
    let budgets: Option<Vec<f64>> = evicting.map(|cell| cell.budget.tokens().map(|tokens| tokens as f64)).collect();
    budgets.unwrap_or_default()
}

/// A line for every method, and a level for the full cache, which has no budget to stand at.
fn lines(cells: &[Cell<'_>], measure: Measure, x: &dyn Fn(&Cell<'_>) -> f64) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    let mut evicting: Vec<(f64, &Cell<'_>)> =
        cells.iter().filter(|cell| !cell.budget.is_full()).map(|cell| (three_digits(x(cell)), cell)).collect();
    evicting.retain(|(x, _)| *x > 0.0);
    // Lines in the order of the configuration, points from left to right.
    let names: Vec<&str> = evicting.iter().map(|(_, cell)| cell.method).collect();
    evicting.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    for name in names {
        let points = evicting.iter().filter(|(_, cell)| cell.method == name);
        let estimates = points.filter_map(|(x, cell)| Some((*x, cell.estimate(measure)?)));
        let (points, bars): (Vec<_>, Vec<_>) =
            estimates.map(|(x, estimate)| ((x, estimate.mean), bounds(estimate))).unzip();
        if !points.is_empty() && series.iter().all(|line: &Series| line.name != name) {
            series.push(Series { name: name.into(), points, bars, ..Series::default() });
        }
    }
    let ends = series.iter().flat_map(|line| &line.points).map(|point| point.0);
    let (low, high) = ends.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
    let full = cells.iter().find(|cell| cell.budget.is_full()).and_then(|cell| cell.estimate(measure));
    if let Some(full) = full.filter(|_| low <= high) {
        let (name, points) = ("full cache".into(), vec![(low, full.mean)]);
        series.push(Series { name, points, bars: vec![bounds(full)], level: true, ..Series::default() });
    }
    series
}

/// The ends of an interval; the mean where they are not known.
fn bounds(estimate: Estimate) -> (f64, f64) {
    if estimate.low.is_nan() { (estimate.mean, estimate.mean) } else { (estimate.low, estimate.high) }
}

/// A number as an axis should say it.
fn three_digits(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(x)
}

/// Where needles are found, for every cell whose rows have places.
fn needles(cells: &[Cell<'_>]) -> Result<Vec<Figure>, ReportError> {
    let places =
        |cell: &Cell<'_>| cell.rows().filter_map(|row| row.place.map(|place| (place, row.score))).collect::<Vec<_>>();
    let mut figures = Vec::new();
    for cell in cells {
        let places = places(cell);
        if places.is_empty() {
            continue;
        }
        let lengths: BTreeSet<usize> = places.iter().map(|(place, _)| place.context_tokens).collect();
        let depths: BTreeSet<_> = places.iter().map(|(place, _)| place.depth_percent).collect();
        let at = |length: usize, depth| {
            let here =
                places.iter().filter(|(place, _)| (place.context_tokens, place.depth_percent) == (length, depth));
            mean(here.map(|(_, score)| 100.0 * score))
        };
        let scores: Vec<Vec<Option<f64>>> =
            depths.iter().map(|&depth| lengths.iter().map(|&length| at(length, depth)).collect()).collect();
        let names = |numbers: Vec<String>, unit: &str| numbers.into_iter().map(|n| n + unit).collect::<Vec<_>>();
        let svg = needle_map(
            &format!("{} at {}", cell.method, cell.budget),
            &names(lengths.iter().map(ToString::to_string).collect(), ""),
            &names(depths.iter().map(ToString::to_string).collect(), " %"),
            &scores,
        )?;
        let caption = format!(
            "Needles that {} finds at {}: scores from 0 (dark) to 100 (bright) by length of the prompt and depth of the needle.",
            cell.method, cell.budget
        );
        figures.push(Figure { id: format!("needles-of-{}-{}", cell.method, cell.budget), caption, svg });
    }
    Ok(figures)
}

/// What each head is worth to each method; methods with the same scores share a picture.
fn head_scores(manifest: &Manifest) -> Result<Vec<Figure>, ReportError> {
    let mut pictured: Vec<(&Vec<f64>, Vec<&ManifestMethod>)> = Vec::new();
    for method in &manifest.methods {
        let Some(scores) = &method.head_scores else { continue };
        match pictured.iter_mut().find(|(other, _)| *other == scores) {
            Some((_, methods)) => methods.push(method),
            None => pictured.push((scores, vec![method])),
        }
    }
    let draw = |(scores, methods): &(&Vec<f64>, Vec<&ManifestMethod>)| -> Result<Figure, ReportError> {
        let names: Vec<&str> = methods.iter().map(|method| method.name.as_str()).collect();
        let worth = methods.iter().find_map(|method| method.head_scores_worth.as_ref());
        let worth = worth.map_or("not known".into(), ToString::to_string);
        Ok(Figure {
            id: format!("scores-of-{}", names[0]),
            caption: format!(
                "What the KV heads are worth to {}. How far that can be trusted: {worth}.",
                names.join(", ")
            ),
            svg: heat_map(&format!("head scores of {}", names[0]), &by_layer(manifest, scores))?,
        })
    };
    pictured.iter().map(draw).collect()
}

fn by_layer(manifest: &Manifest, heads: &[f64]) -> Vec<Vec<f64>> {
    heads.chunks(manifest.kv_heads.max(1)).map(<[f64]>::to_vec).collect()
}

/// Methods at the middle one of their budgets, in order.
fn at_middle_budget<'a>(kept: &[&'a Kept]) -> Vec<(&'a str, CellBudget)> {
    let mut methods: Vec<(&str, Vec<CellBudget>)> = Vec::new();
    for cell in kept.iter().flat_map(|kept| &kept.cells) {
        match methods.iter_mut().find(|(name, _)| *name == cell.method) {
            Some((_, budgets)) if budgets.contains(&cell.budget) => {}
            Some((_, budgets)) => budgets.push(cell.budget),
            None => methods.push((&cell.method, vec![cell.budget])),
        }
    }
    methods.into_iter().map(|(name, budgets)| (name, budgets[budgets.len() / 2])).collect()
}

/// Mean tokens of every head, for methods that do not give all heads the same.
fn budgets(manifest: &Manifest, kept: &[&Kept]) -> Result<Vec<Figure>, ReportError> {
    let mut figures = Vec::new();
    for (method, budget) in at_middle_budget(kept) {
        let is_ours = |cell: &&KeptCell| cell.method == method && cell.budget == budget;
        let cells: Vec<&KeptCell> = kept.iter().flat_map(|kept| &kept.cells).filter(is_ours).collect();
        let mut means = vec![0.0; manifest.layers * manifest.kv_heads];
        for cell in &cells {
            for (mean, tokens) in means.iter_mut().zip(cell.budgets()) {
                *mean += f64::from(tokens) / cells.len() as f64;
            }
        }
        if means.iter().all(|mean| *mean == means[0]) {
            continue;
        }
        figures.push(Figure {
            id: format!("budgets-of-{method}"),
            caption: format!(
                "Tokens that {method} gives to each KV head at {budget}, mean over the first record of {} tasks.",
                cells.len()
            ),
            svg: heat_map(&format!("budgets of {method} at {budget}"), &by_layer(manifest, &means))?,
        });
    }
    Ok(figures)
}

/// Where in a prompt lie the tokens that heads keep.
fn positions(manifest: &Manifest, kept: &Kept) -> Result<Vec<Figure>, ReportError> {
    let names: Vec<String> = (0..manifest.layers * manifest.kv_heads)
        .map(|head| format!("{}.{}", head / manifest.kv_heads, head % manifest.kv_heads))
        .collect();
    let stretch = (kept.prompt_tokens as f64 / STRETCHES as f64).max(1.0);
    let draw = |(method, budget): (&str, CellBudget)| -> Option<Result<Figure, ReportError>> {
        let cell = kept.cells.iter().find(|cell| cell.method == method && cell.budget == budget)?;
        let share = |tokens: &u32| (f64::from(*tokens) / stretch).min(1.0);
        // Three columns of the picture for every stretch, so that it is wide enough to be read.
        let shares: Vec<Vec<f64>> =
            cell.heads.iter().map(|head| head.iter().flat_map(|tokens| [share(tokens); 3]).collect()).collect();
        let caption = format!(
            "Where the tokens lie that {method} keeps at {budget}: {}, record {}, {} tokens. A row is a KV head, its \
             colour the stronger the more of a stretch is kept.",
            kept.task, kept.record, kept.prompt_tokens
        );
        let title = format!("{method} at {budget}");
        let svg = kept_map(&title, &names, &shares, kept.prompt_tokens);
        Some(svg.map(|svg| Figure { id: format!("positions-of-{method}"), caption, svg }).map_err(ReportError::from))
    };
    at_middle_budget(&[kept]).into_iter().filter_map(draw).collect()
}
