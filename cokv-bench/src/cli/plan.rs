//! `cokv plan`

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use cokv_core::{AllocationRequest, Budget, BudgetPlan, Format, Protected, Registry, TokenScores};
use serde_json::json;

use super::choice::with_choice;
use super::output::print;
use crate::scores::ScoreFile;

/// Print how many tokens an allocator gives each KV head
///
/// Needs no model: the layout comes from the score file. Allocators that look at the prompt's own token scores (ada-kv,
/// shapley-ada, …) have no plan without a prompt and are refused.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv plan --scores passkey.scores.json --allocator cokv --budget 128 --set drop_lowest=10
  cokv plan --scores r2.scores.json --allocator headkv --budget 128 --set beta=1.01 --json")]
pub struct Arguments {
    /// Score files of models of one shape; their mean is used
    #[arg(long, required = true, num_args = 1..)]
    scores: Vec<PathBuf>,
    /// Name of the allocator; `cokv methods` lists them
    #[arg(long)]
    allocator: String,
    /// Tokens for each KV head on average, window included, or a share of the prompt such as 10%
    #[arg(long)]
    budget: Budget,
    /// Settings of the allocator, as in a configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Tokens of the prompt that the plan is for
    #[arg(long, default_value_t = 8000)]
    prompt_tokens: usize,
    /// Last prompt tokens that every head keeps
    #[arg(long, default_value_t = 8)]
    window: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let allocator =
        with_choice("--allocator", &arguments.allocator, &arguments.settings, |choice| registry.allocator(choice))?;

    let files: Vec<ScoreFile> = arguments.scores.iter().map(|path| ScoreFile::read(path)).collect::<Result<_, _>>()?;
    let model = files[0].model.clone();
    let layout = model.layout()?;
    let mut sum = vec![0.0; layout.heads()];
    for (path, file) in arguments.scores.iter().zip(&files) {
        let scores = file.head_scores(&model).map_err(|problem| problem.at(path))?;
        sum.iter_mut().zip(scores.values()).for_each(|(sum, score)| *sum += score / files.len() as f64);
    }
    let scores = cokv_core::HeadScores::new(layout, sum)?;
    allocator.check(layout, Some(&scores))?;

    // Of bytes, what a number of the cache takes is the model's business; score files do not say.
    if let Budget::Bytes(_) = arguments.budget {
        bail!("--budget {}: a plan counts tokens; write a number of them, or a share such as 10%", arguments.budget);
    }
    let total = arguments.budget.total_tokens(layout, arguments.prompt_tokens, Format::default());
    let plan = |seed: usize| -> Result<BudgetPlan> {
        let token_scores = made_up(layout, arguments.prompt_tokens, seed);
        let request = AllocationRequest {
            layout,
            prompt_len: arguments.prompt_tokens,
            total,
            protected: Protected { sinks: 0, window: arguments.window },
            token_scores: &token_scores,
            head_scores: Some(&scores),
        };
        let plan = allocator.allocate(&request)?;
        request.check(&plan, allocator.spending()).with_context(|| format!("--allocator {}", arguments.allocator))?;
        Ok(plan)
    };
    let (budgets, other) = (plan(1)?, plan(2)?);
    if budgets != other {
        bail!("{} depends on the prompt's own token scores: there is no plan without a prompt", arguments.allocator);
    }
    let rows: Vec<&[usize]> = budgets.kept().chunks(layout.kv_heads).collect();
    if arguments.json {
        let plan = json!({
            "allocator": allocator.settings(), "model": model, "prompt_tokens": arguments.prompt_tokens,
            "window": arguments.window, "total": total, "spent": budgets.total(), "counts": allocator.gqa().to_string(),
            "budgets": rows,
        });
        return print(&serde_json::to_string(&plan)?);
    }
    let lines = rows.iter().enumerate().map(|(layer, row)| {
        let heads: Vec<String> = row.iter().map(|tokens| format!("{tokens:>6}")).collect();
        format!("{layer:>5} {}", heads.concat())
    });
    print(&format!(
        "layer  tokens of each KV head, window included\n{}\n{} of {total} tokens, counted {}",
        lines.collect::<Vec<_>>().join("\n"),
        budgets.total(),
        allocator.gqa()
    ))
}

/// Token scores of no prompt, to find out whether an allocator looks at them.
fn made_up(layout: cokv_core::HeadLayout, prompt_len: usize, seed: usize) -> TokenScores {
    let mut scores = TokenScores::with_capacity(layout, prompt_len);
    for layer in 0..layout.layers {
        let number = |at: usize| cokv_core::random::mix((at + layer * 7919) as u64 * 31 + seed as u64) as f32;
        // Heads of different concentration, so that whoever looks at the scores treats them differently.
        let power = |at: usize| 1 + ((at / prompt_len + layer + seed) % 5) as i32;
        let numbers: Vec<f32> =
            (0..layout.kv_heads * prompt_len).map(|at| (number(at) / u64::MAX as f32).powi(power(at))).collect();
        scores.push_layer(&numbers);
    }
    scores
}
