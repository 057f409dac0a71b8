//! `cokv mask`

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use cokv_core::{Evidence, Game, Registry};
use cokv_models::game::{GameRules, HeadMaskGame};
use cokv_shapley::whole;
use serde_json::json;

use super::bar::{bar, fetching};
use super::choice::refused;
use super::data::of_configuration;
use super::estimate::stem;
use super::load::{load, outline};
use super::measure::{Wanted, look_up, measure};
use super::output::print;
use crate::chart::{Scale, line_chart};
use crate::config::check_unseen;
use crate::data::longbench::Fetcher;
use crate::importance::mask::{MaskConfig, MaskCurve, MaskOrder, MaskSettings, mask};
use crate::importance::{Calibration, ImportanceSettings};
use crate::markdown;
use crate::model::{Beside, Loaded, ModelSettings};
use crate::scores::{FittedScores, ModelStamp, ScoreFile};

/// Orders that the random curve averages.
const RANDOM_ORDERS: usize = 8;

/// Mask the heads that scores call strong, or weak, and see what is lost
///
/// A masked head sees the last tokens of the prompt and what is generated, all others the whole prompt. For each score
/// file, heads are masked from the highest score down and from the lowest up; random orders are there to compare with.
/// Scores of one task can be tried on another. Records that scores were made from are refused.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv mask --task passkey --scores passkey.scores.json r2.scores.json --out passkey-mask
  cokv mask --task passkey --scores key-value.scores.json --counts 4,8,16,32,45 --utility metric
  cokv mask --config configs/experiments/mask-heads.toml

A configuration has these options as keys of [mask], beside [model], and its scores may be measured on the way:
  name = \"mask-passkey\"            # tables and charts are written to runs/mask-passkey
  [mask]
  tasks = [\"passkey\"]
  [importance.cokv]                 # every such table is an order, beside the files under `scores`
  tasks = [\"passkey\"]")]
pub struct Arguments {
    /// A TOML file instead of the options
    #[arg(long, conflicts_with_all = [
        "model", "weights", "cache", "scores", "counts", "data", "tasks", "records", "context_tokens", "data_seed", "questions", "split",
        "max_prompt_tokens", "utility", "window",
    ])]
    config: Option<PathBuf>,
    #[command(flatten)]
    model: ModelSettings,
    #[command(flatten)]
    settings: MaskSettings,
    /// Write the table, the curves as CSV, and a chart into this folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the curves as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let MaskConfig { model: model_settings, settings, importance, folder } = match &arguments.config {
        Some(path) => {
            let file = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| file.clone())?;
            let config = MaskConfig::parse(&file, &text, registry)?;
            MaskConfig { folder: arguments.out.clone().or(config.folder), ..config }
        }
        None => MaskConfig {
            model: arguments.model.clone(),
            settings: MaskSettings {
                records: of_configuration(&arguments.settings.records)?,
                ..arguments.settings.clone()
            },
            importance: BTreeMap::new(),
            folder: arguments.out.clone(),
        },
    };
    settings.check().map_err(refused)?;
    let outlined = outline(&model_settings, false)?;
    let Loaded { model, fingerprint } = load(&outlined, &Beside::default())?;
    let layout = model.config().layout;
    let stamp = ModelStamp::of(&model_settings.source, Some(&fingerprint), layout);
    let heads = layout.heads();
    let counts: Vec<usize> = match settings.counts.is_empty() {
        true => (0..=8).map(|eighth| eighth * (heads / 2) / 8).collect(),
        false => settings.counts.clone(),
    };
    if let Some(count) = counts.iter().find(|&&count| count > heads) {
        bail!("{count} heads cannot be masked, the model has {heads}");
    }

    let rules = GameRules {
        utility: settings.utility,
        window: settings.window,
        memory_bytes: GameRules::memory_of(&model),
        ..GameRules::default()
    };
    let fetcher = Fetcher::from_env(fetching());
    let answer_tokens = ImportanceSettings::default().answer_tokens;
    let calibration =
        Calibration::open(&outlined.outline, &settings.data(), &fetcher, &rules, answer_tokens, Evidence::Coalitions)?;
    calibration.notices.iter().for_each(|notice| eprintln!("note: {notice}"));
    let played: HashSet<String> = calibration.seen().into_iter().collect();
    let mut orders = Vec::new();
    for path in &settings.scores {
        let FittedScores { scores, seen, notice, worth: _ } = ScoreFile::read_for(path, &stamp)?;
        check_unseen(&path.display().to_string(), &seen, &played)?;
        notice.iter().for_each(|notice| eprintln!("note: {notice}"));
        orders.extend(MaskOrder::of_scores(&stem(path, ".scores.json"), scores.values()));
    }
    let wanted: Vec<Wanted> = importance.into_iter().map(|(name, importance)| ((name, None), importance)).collect();
    let scores = Path::new("runs/importance");
    let (mut measured, missing) = look_up(&wanted, scores, &outlined, Some(&fingerprint), &played)?;
    measured.extend(measure(&missing, &model, false)?);
    for ((name, _), scores) in measured {
        orders.extend(MaskOrder::of_scores(&name, scores.scores.values()));
    }
    let names: Vec<&str> = orders.iter().map(|order| order.name.as_str()).collect();
    if let Some(place) = (1..names.len()).find(|&place| names[..place].contains(&names[place])) {
        bail!("two sets of scores give the curve `{}`: rename one of them", names[place]);
    }
    orders.extend(MaskOrder::random(heads, RANDOM_ORDERS, 0));

    let prompts = calibration.game_records();
    let tokens: usize = prompts.iter().map(|record| record.prompt.len()).sum();
    let bar = bar(false, "{msg} {wide_bar} {pos}/{len}, {eta} left", tokens);
    bar.set_message("prefill, tokens");
    let scorer = Some(calibration.scorer(&outlined.outline));
    let mut game = HeadMaskGame::prepare(&model, prompts, rules, scorer, |done| bar.set_position(done.tokens as u64))?;
    bar.set_message("masking, records");
    bar.set_length(game.instances() as u64);
    bar.set_position(0);
    let curves =
        mask(&mut game, &orders, &counts, |done| bar.set_position(done as u64)).map_err(|error| anyhow!(error))?;
    bar.finish_and_clear();

    let title = format!("{} by masked heads, {}", settings.utility, settings.records.tasks.join(", "));
    let table = table(&title, &counts, &curves);
    if let Some(folder) = &folder {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            whole::write(&path, text).with_context(|| path.display().to_string())
        };
        let series: Vec<_> = curves.iter().map(MaskCurve::series).collect();
        write("mask.svg", &line_chart(&title, "masked heads", settings.utility.name(), &series, Scale::Linear)?)?;
        let rows = curves.iter().flat_map(|curve| {
            curve.points.iter().map(|(masked, utility)| format!("\"{}\",{masked},{utility}\n", curve.name))
        });
        write("mask.csv", &("order,masked,utility\n".to_owned() + &rows.collect::<String>()))?;
        write("mask.md", &format!("{table}\n"))?;
        eprintln!("mask.md, mask.csv and mask.svg are in {}", folder.display());
    }
    if arguments.json {
        let of_curve = |curve: &MaskCurve| {
            let points = curve.points.iter().map(|(masked, utility)| json!({ "masked": masked, "utility": utility }));
            json!({ "order": curve.name, "points": points.collect::<Vec<_>>() })
        };
        let curves: Vec<_> = curves.iter().map(of_curve).collect();
        return print(&json!({ "utility": settings.utility.name(), "curves": curves }).to_string());
    }
    print(&table)
}

fn table(title: &str, counts: &[usize], curves: &[MaskCurve]) -> String {
    let header: Vec<String> =
        std::iter::once(title.to_owned()).chain(counts.iter().map(|count| format!("{count} masked"))).collect();
    let mut table = markdown::table(header, 1);
    for curve in curves {
        let utilities = curve.points.iter().map(|(_, utility)| format!("{utility:.3}"));
        table.add_row(std::iter::once(curve.name.clone()).chain(utilities));
    }
    markdown::text(&table)
}
