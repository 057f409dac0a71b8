//! `cokv mask`

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use cokv_core::Game;
use cokv_models::game::{GameRules, HeadMaskGame};

use super::bar::bar;
use super::estimate::stem;
use super::load::{Loaded, load};
use super::output::print;
use crate::calibration::{Calibration, UtilityChoice};
use crate::config::{ModelSettings, SYNTHETIC, by_name, check_unseen};
use crate::data::Split;
use crate::importance::ImportanceSettings;
use crate::markdown;
use crate::mask::{MaskCurve, MaskOrder, mask};
use crate::run::memory::bytes_for_a_game;
use crate::scores::plot::{Scale, line_chart};
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
  cokv mask --task passkey --scores passkey.scores.json r2.scores.json --svg mask.svg
  cokv mask --task passkey --scores key-value.scores.json --counts 4,8,16,32,45 --utility metric --csv mask.csv")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    /// Score files of this model's heads
    #[arg(long, required = true, num_args = 1..)]
    scores: Vec<PathBuf>,
    /// How many heads are masked; by default up to half of them, in eighths of that
    #[arg(long, value_delimiter = ',')]
    counts: Vec<usize>,
    /// Where records come from: synthetic, hub:THUDM/LongBench, or its archive or folder
    #[arg(long, default_value = SYNTHETIC)]
    data: String,
    /// Tasks that utilities are averaged over
    #[arg(long = "task", required = true)]
    tasks: Vec<String>,
    /// Records of each task
    #[arg(long, default_value_t = 8)]
    records: usize,
    /// Tokens of a synthetic prompt
    #[arg(long, default_value_t = 1000)]
    context_tokens: usize,
    /// Which synthetic records
    #[arg(long, default_value_t = 0)]
    data_seed: u64,
    /// Which part of LongBench's records: test, validation or all
    #[arg(long, value_parser = by_name::<Split>, default_value = "test")]
    split: Split,
    /// Longer prompts lose their middle
    #[arg(long)]
    max_prompt_tokens: Option<usize>,
    /// answer-probability, log-likelihood, agreement or metric
    #[arg(long, value_parser = by_name::<UtilityChoice>, default_value_t = UtilityChoice::default())]
    utility: UtilityChoice,
    /// Last prompt tokens that a masked head sees
    #[arg(long, default_value_t = 8)]
    window: usize,
    /// Write the curves as a chart
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Write the curves as numbers
    #[arg(long)]
    csv: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let settings = ImportanceSettings {
        source: arguments.data.clone(),
        tasks: arguments.tasks.clone(),
        records: arguments.records,
        context_tokens: arguments.context_tokens,
        data_seed: arguments.data_seed,
        split: arguments.split,
        max_prompt_tokens: arguments.max_prompt_tokens,
        ..ImportanceSettings::default()
    };
    settings.check().map_err(|(key, message)| anyhow!("--{}: {message}", key.replace('_', "-")))?;
    let Loaded { model, fingerprint } = load(&arguments.model)?;
    let layout = model.config().layout;
    let stamp = ModelStamp::of(&arguments.model.source, &fingerprint, layout);
    let heads = layout.heads();
    let counts: Vec<usize> = match arguments.counts.is_empty() {
        true => (0..=8).map(|eighth| eighth * (heads / 2) / 8).collect(),
        false => arguments.counts.clone(),
    };
    if let Some(count) = counts.iter().find(|&&count| count > heads) {
        bail!("--counts: {count} heads cannot be masked, the model has {heads}");
    }

    let rules = GameRules { window: arguments.window, memory_bytes: bytes_for_a_game(), ..GameRules::default() };
    let calibration = Calibration::open(&model, &settings.data(), arguments.utility, &rules, settings.answer_tokens)?;
    calibration.notices.iter().for_each(|notice| eprintln!("note: {notice}"));
    let played: HashSet<String> = calibration.seen().into_iter().collect();
    let mut orders = Vec::new();
    for path in &arguments.scores {
        let FittedScores { scores, seen, notice } = ScoreFile::read_for(path, &stamp)?;
        check_unseen(&path.display().to_string(), &seen, &played)?;
        notice.iter().for_each(|notice| eprintln!("note: {notice}"));
        orders.extend(MaskOrder::of_scores(&stem(path, ".scores.json"), scores.values()));
    }
    orders.extend(MaskOrder::random(heads, RANDOM_ORDERS, 0));

    let records = calibration.game_records();
    let tokens: usize = records.iter().map(|record| record.prompt.len()).sum();
    let bar = bar(false, "{msg} {wide_bar} {pos}/{len}, {eta} left", tokens);
    bar.set_message("prefill, tokens");
    let utility = calibration.utility(arguments.utility, &model);
    let mut game = HeadMaskGame::prepare(&model, records, utility, rules, |done| bar.set_position(done.tokens as u64))?;
    bar.set_message("masking, records");
    bar.set_length(game.instances() as u64);
    bar.set_position(0);
    let curves =
        mask(&mut game, &orders, &counts, |done| bar.set_position(done as u64)).map_err(|error| anyhow!(error))?;
    bar.finish_and_clear();

    let title = format!("{} by masked heads, {}", arguments.utility, arguments.tasks.join(", "));
    if let Some(path) = &arguments.svg {
        let series: Vec<_> = curves.iter().map(MaskCurve::series).collect();
        let chart = line_chart(&title, "masked heads", arguments.utility.name(), &series, Scale::Linear)?;
        std::fs::write(path, chart).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &arguments.csv {
        let rows = curves.iter().flat_map(|curve| {
            curve.points.iter().map(|(masked, utility)| format!("\"{}\",{masked},{utility}\n", curve.name))
        });
        let text = "order,masked,utility\n".to_owned() + &rows.collect::<String>();
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    let header: Vec<String> =
        std::iter::once(title).chain(counts.iter().map(|count| format!("{count} masked"))).collect();
    let mut table = markdown::table(header, 1);
    for curve in &curves {
        let utilities = curve.points.iter().map(|(_, utility)| format!("{utility:.3}"));
        table.add_row(std::iter::once(curve.name.clone()).chain(utilities));
    }
    print(&markdown::text(&table))
}
