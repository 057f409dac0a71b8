//! `cokv scores`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use cokv_shapley::whole;

use super::estimate::as_json;
use super::output::print;
use crate::chart;
use crate::scores::compare::{ComparisonMatrix, Measure};
use crate::scores::published::{
    Imported, export_duo_attention, export_headkv, export_kvpress, import_cokv, import_duo_attention, import_headkv,
    import_kvpress,
};
use crate::scores::show::{Shades, TerminalColours, extremes, heat_map, layer_means, summary};
use crate::scores::{Interaction, ModelStamp, ScoreFile};

/// Look at head scores, compare them, and convert published ones
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a score file: a heat map, the highest and lowest heads, pairs that cooperate or replace each other
    Show {
        /// The score file
        file: PathBuf,
        /// Heads shown at each end
        #[arg(long, default_value_t = 10)]
        heads: usize,
        /// What the shades of the picture follow
        #[arg(long, default_value = "rank")]
        shades: Shades,
        /// Also write the heat map as SVG
        #[arg(long)]
        svg: Option<PathBuf>,
        /// Print the file's facts and scores as JSON
        #[arg(long)]
        json: bool,
    },
    /// Correlations between score files of models of one shape
    Compare {
        /// Score files
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
        /// Also write the rank correlations as SVG
        #[arg(long)]
        svg: Option<PathBuf>,
    },
    /// Read published scores into our format
    Import {
        /// Whose format
        #[arg(long)]
        from: Published,
        /// A file; for cokv, the folder of cc_TASK_SIZE.npy files
        path: PathBuf,
        /// The task, for cokv
        #[arg(long)]
        task: Option<String>,
        /// Whose heads: LAYERSxQUERY_HEADSxKV_HEADSxHEAD_DIM, such as 32x32x8x128
        #[arg(long, value_parser = shape)]
        shape: Option<[usize; 4]>,
        /// Name of the model
        #[arg(long)]
        model: Option<String>,
        /// The score file to write
        #[arg(long)]
        out: PathBuf,
    },
    /// Write scores in a published format
    Export {
        /// Whose format
        #[arg(long)]
        to: Published,
        /// The score file
        file: PathBuf,
        /// The file to write
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Published {
    /// cc_TASK_SIZE.npy of CoKV's authors (import only)
    Cokv,
    /// HeadKV's JSON of query heads
    Headkv,
    /// DuoAttention's table of KV heads
    DuoAttention,
    /// JSON of KV heads, for a press of kvpress's (docs/python.md)
    Kvpress,
}

fn shape(text: &str) -> Result<[usize; 4], String> {
    let counts: Option<Vec<usize>> = text.split('x').map(|count| count.parse().ok()).collect();
    counts
        .and_then(|counts| counts.try_into().ok())
        .ok_or_else(|| format!("`{text}` is no shape: write LAYERSxQUERY_HEADSxKV_HEADSxHEAD_DIM, such as 32x32x8x128"))
}

pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Show { file, json: true, .. } => print(&as_json(&ScoreFile::read(file)?).to_string()),
        Command::Show { file, heads, shades, svg, .. } => show(file, *heads, *shades, svg.as_deref()),
        Command::Compare { files, svg } => compare(files, svg.as_deref()),
        Command::Import { from, path, task, shape, model, out } => {
            let stamp = shape.map(|[layers, query_heads, kv_heads, head_dim]| ModelStamp {
                name: model.clone().unwrap_or_else(|| "unnamed".into()),
                fingerprint: None,
                layers,
                query_heads,
                kv_heads,
                head_dim,
            });
            import(*from, path, task.as_deref(), stamp.as_ref(), out)
        }
        Command::Export { to, file, out } => {
            let scores = ScoreFile::read(file)?;
            match to {
                Published::Cokv => bail!("CoKV's files hold samples, which a score file does not; export to headkv"),
                Published::Headkv => Ok(export_headkv(&scores, out)?),
                Published::DuoAttention => Ok(export_duo_attention(&scores, out)?),
                Published::Kvpress => Ok(export_kvpress(&scores, out)?),
            }
        }
    }
}

fn show(path: &Path, heads: usize, shades: Shades, svg: Option<&Path>) -> Result<()> {
    let file = ScoreFile::read(path)?;
    let colours = TerminalColours::detect(std::io::stdout().is_terminal(), |name| std::env::var(name).ok());
    let mut parts = vec![summary(&file), heat_map(&file, colours, shades), extremes(&file, heads), layer_means(&file)];
    if !file.interactions.is_empty() {
        parts.push(pairs(&file.interactions));
    }
    if let Some(svg) = svg {
        let title = format!("{}, {}", file.model.name, title(&file));
        write(svg, &chart::heat_map(&title, &file.scores)?)?;
    }
    print(&parts.join("\n"))
}

fn title(file: &ScoreFile) -> String {
    match &file.game {
        Some(game) => format!("{} ({})", game.tasks.join(", "), game.utility),
        None => file.estimator.clone(),
    }
}

/// The pairs that stand out of noise.
fn pairs(interactions: &[Interaction]) -> String {
    let mut table = crate::markdown::table(["pair (layer.head)", "effect", "t", ""], 1);
    for pair in interactions.iter().filter(|pair| pair.t.abs() >= 3.5).take(12) {
        let name = |[layer, head]: [usize; 2]| format!("{layer}.{head}");
        table.add_row([
            format!("{} × {}", name(pair.first), name(pair.second)),
            format!("{:+.4}", pair.effect),
            format!("{:+.1}", pair.t),
            if pair.effect > 0.0 { "cooperate" } else { "replace each other" }.into(),
        ]);
    }
    match table.is_empty() {
        true => "no pair of the strongest heads stands out of the noise (|t| ≥ 3.5)".into(),
        false => crate::markdown::text(&table),
    }
}

fn compare(paths: &[PathBuf], svg: Option<&Path>) -> Result<()> {
    let read = |path: &PathBuf| -> Result<_> {
        let name = path.display().to_string();
        Ok((name.trim_end_matches(".scores.json").to_owned(), ScoreFile::read(path)?))
    };
    let files: Vec<(String, ScoreFile)> = paths.iter().map(read).collect::<Result<_>>()?;
    let matrix = ComparisonMatrix::new(&files)?;
    matrix.notices().iter().for_each(|notice| eprintln!("note: {notice}"));
    let table = |measure: Measure| format!("{}\n\n{}", measure.title(), matrix.markdown(measure));
    if let Some(svg) = svg {
        let values = matrix.values(Measure::Spearman);
        write(svg, &chart::correlation_matrix(Measure::Spearman.title(), &matrix.names, &values)?)?;
    }
    print(&[Measure::Spearman, Measure::Pearson, Measure::TopOverlap].map(table).join("\n\n"))
}

fn import(from: Published, path: &Path, task: Option<&str>, stamp: Option<&ModelStamp>, out: &Path) -> Result<()> {
    let needed = || stamp.context("--shape LAYERSxQUERY_HEADSxKV_HEADSxHEAD_DIM is needed: the file does not say it");
    let Imported { file, notices } = match from {
        Published::Cokv => import_cokv(path, task.context("--task is needed: such a folder holds several")?, stamp)?,
        Published::Headkv => import_headkv(path, needed()?)?,
        Published::DuoAttention => import_duo_attention(path, needed()?)?,
        Published::Kvpress => import_kvpress(path, needed()?)?,
    };
    notices.iter().for_each(|notice| eprintln!("note: {notice}"));
    file.write(out)?;
    print(&format!("{} in {}", summary(&file), out.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    whole::write(path, text).with_context(|| path.display().to_string())
}
