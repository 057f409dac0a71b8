//! Scores as LaTeX tables, laid out as papers print them.

use super::tables::{by_budget, task_columns};
use super::{Report, TableCell};
use crate::run::{Cell, CellBudget, ManifestMethod, name, notes};

/// Methods under each budget, tasks beside one another, for `\usepackage{booktabs}`. Bold is what is bold on the page.
pub fn of_model(title: &str, id: &str, cells: &[Cell<'_>], methods: &[ManifestMethod]) -> String {
    let cells = by_budget(cells.to_vec());
    let columns = task_columns(&cells, methods, &str::to_owned);
    let numbers = columns.len();
    let heads: Vec<String> = columns.iter().map(|column| escaped(&column.heading.text)).collect();
    let mut text = format!(
        "\\begin{{table}}\n  \\centering\n  \\small\n  \\begin{{tabular}}{{l{}}}\n    \\toprule\n    Method & {} \\\\\n",
        "r".repeat(numbers),
        heads.join(" & ")
    );
    let places: Vec<usize> = (0..cells.len()).collect();
    for of_budget in places.chunk_by(|a, b| cells[*a].budget == cells[*b].budget) {
        let budget = cells[of_budget[0]].budget;
        text += &format!("    \\midrule\n    \\multicolumn{{{}}}{{c}}{{{}}} \\\\\n", numbers + 1, heading(budget));
        text += "    \\midrule\n";
        for &at in of_budget {
            let scores: Vec<String> = columns.iter().map(|column| score(&column.cells[at])).collect();
            text += &format!("    {} & {} \\\\\n", escaped(&name(methods, cells[at].method)), scores.join(" & "));
        }
    }
    text += "    \\bottomrule\n  \\end{tabular}\n";
    let mut caption = format!(
        "{}: each task's metric from 0 to 100, and the mean of tasks. Bold: better than the method that comes next at the \
         budget, record by record, at 95\\,\\%.",
        escaped(title)
    );
    notes(&cells, methods).iter().for_each(|note| caption += &format!(" {}", escaped(note)));
    text + &format!("  \\caption{{{caption}}}\n  \\label{{tab:{}}}\n\\end{{table}}\n", label(id))
}

fn heading(budget: CellBudget) -> String {
    match (budget.is_full(), budget.tokens()) {
        (true, _) => "Full cache".into(),
        (_, Some(tokens)) => format!("{tokens} tokens per KV head"),
        _ => format!("Budget of {}", escaped(&budget.to_string())),
    }
}

fn score(cell: &TableCell) -> String {
    let text = cell.text.replace('–', "--");
    if cell.best { format!("\\textbf{{{text}}}") } else { text }
}

/// A text without what LaTeX takes for commands.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', letter]),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '\\' => escaped.push_str("\\textbackslash{}"),
            '<' => escaped.push_str("\\textless{}"),
            '>' => escaped.push_str("\\textgreater{}"),
            '|' => escaped.push_str("\\textbar{}"),
            '−' => escaped.push_str("$-$"),
            '…' => escaped.push_str("\\dots{}"),
            '–' => escaped.push_str("--"),
            '†' => escaped.push_str("$^\\dagger$"),
            '·' => escaped.push_str("$\\cdot$"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// What `\label` takes without trouble.
fn label(id: &str) -> String {
    id.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

/// The tables of all runs, to be read with `\input`.
pub fn latex(report: &Report) -> String {
    let tables: Vec<&str> = report.sections.iter().map(|section| section.latex.as_str()).collect();
    format!("% \\usepackage{{booktabs}}\n\n{}", tables.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::row;
    use crate::run::{Row, cells};

    #[test]
    fn methods_stand_under_their_budgets() {
        let of = |method: &str, budget: &str, task: &str| Row {
            method: method.into(),
            budget: budget.parse().unwrap(),
            task: task.into(),
            score: 0.25,
            ..row("x")
        };
        let mut rows = Vec::new();
        for task in ["key_value", "qasper"] {
            rows.extend([of("full", "full", task), of("a_b", "64", task), of("a_b", "10%", task), of("c", "64", task)]);
        }
        let text = of_model("run_1 · m", "run_1-m", &cells(&rows), &[]);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert!(lines.contains(&r"Method & key\_value & qasper & mean \\"), "{text}");
        assert!(lines.contains(&r"\multicolumn{4}{c}{64 tokens per KV head} \\"), "{text}");
        assert!(lines.contains(&r"\multicolumn{4}{c}{Budget of 10\%} \\"), "{text}");
        assert!(lines.contains(&r"a\_b & 25.0 & 25.0 & 25.0 \\") && text.contains(r"\label{tab:run-1-m}"), "{text}");
        assert!(text.contains(r"a\_b keeps 64.0 \% at 10\%"), "{text}");
        let count = |what: &str| text.matches(what).count();
        assert_eq!((count(r"\begin{"), count(r"\end{"), count(r"\midrule")), (2, 2, 6));
    }
}
