//! The presses of kvpress beside the methods that they are here.

use anyhow::Result;
use cokv_core::{ConfigTable, Registry};
use cokv_policies::kvpress::{Counterpart, Here, PRESSES, VERSION};

use crate::data::Protocol;

/// A line for each press: its name, and what a configuration says for it.
pub fn lines() -> String {
    let widest = PRESSES.iter().map(|press| press.name.len()).max().unwrap_or(0);
    let of_press = PRESSES.iter().map(|press| {
        let here = match press.here {
            Here::Method(Counterpart { method, .. }) => settings(method).join("\n").replace('\n', &below(widest)),
            Here::Later(method) => format!("not yet: {method}"),
            Here::Never(reason) => format!("not here: {reason}"),
        };
        format!("{:widest$}  {here}", press.name)
    });
    of_press.collect::<Vec<_>>().join("\n")
}

/// A line break and the blanks before what stands in the second column.
fn below(width: usize) -> String {
    format!("\n{:width$}  ", "")
}

/// A `[[method]]` table as configurations are written, line by line.
fn settings(method: &str) -> Vec<String> {
    method.lines().map(|line| line.trim().replace('\'', "\"")).collect()
}

/// A row of a table in Markdown. Cells hold no bars; blanks that align them would make every change one of all rows.
fn row(cells: [&str; 7]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// `docs/methods.md`, without the line break at its end.
pub fn page(registry: &Registry) -> Result<String> {
    let mut rows =
        vec![row(["press", "what it keeps", "here", "protocol", "same pairs", "where they differ", "source"])];
    rows.push(row(["---"; 7]));
    for press in PRESSES {
        let (here, protocol, same, differs) = match press.here {
            Here::Method(Counterpart { method, same, differs }) => {
                let built = registry.method(ConfigTable::parse(press.name, method)?)?;
                let protocol = match built.needs_question() {
                    true => Protocol::QuestionSeen.to_string(),
                    false => "both".to_owned(),
                };
                let here = settings(method).iter().map(|line| format!("`{line}`")).collect::<Vec<_>>().join("<br>");
                let same = same.map_or("–".to_owned(), |share| format!("{} %", 100.0 * share));
                (here, protocol, same, differs.to_owned())
            }
            Here::Later(method) => (format!("not yet: `{method}`"), String::new(), String::new(), String::new()),
            Here::Never(reason) => ("–".to_owned(), String::new(), String::new(), reason.to_owned()),
        };
        rows.push(row([press.name, press.idea, &here, &protocol, &same, &differs, press.source]));
    }
    let count = |is: fn(&Here) -> bool| PRESSES.iter().filter(|press| is(&press.here)).count();
    Ok(format!(
        "# kvpress's methods here\n\
         \n\
         Made by `cokv methods --kvpress --markdown`; a test holds this page against it.\n\
         \n\
         [kvpress](https://github.com/NVIDIA/kvpress) {VERSION} has {} presses. {} of them are here under the names\n\
         below, {} are to come, and {} need what nobody can run everywhere. What a press keeps is a compressor and an\n\
         allocator of cokv's: the lines are a `[[method]]` table with the press's own defaults, and `cokv methods` shows\n\
         what else can be set.\n\
         \n\
         *Protocol* says when a prompt may be compressed: with its question (question-seen), before anybody asks\n\
         (context-only, as kvpress does it), or both.\n\
         \n\
         *Same pairs* is the share of the press's key-value pairs that the method keeps too, at least: SmolLM2-135M in\n\
         f32, 600 tokens of a context or 618 with its question, all 90 KV heads, half and a fifth of the pairs kept, the\n\
         worse of both. 99.9 % stands for all but tokens at the cut whose scores two programs round differently. Where a\n\
         press's own numbers ask for longer prompts, both had smaller ones. `cokv-bench/tests/golden_kvpress.rs` compares\n\
         this, scores, and greedy answers with what kvpress itself gave (`benches/peers/kvpress_golden.py`).\n\
         \n\
         {}",
        PRESSES.len(),
        count(|here| matches!(here, Here::Method(_))),
        count(|here| matches!(here, Here::Later(_))),
        count(|here| matches!(here, Here::Never(_))),
        rows.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_command_says() {
        let page = page(&cokv_policies::registry()).unwrap();
        let docs = include_str!("../../../../docs/methods.md");
        assert!(page + "\n" == docs, "cokv methods --kvpress --markdown > docs/methods.md");
    }

    #[test]
    fn lines_are_what_a_configuration_takes() {
        let lines = lines();
        assert!(lines.contains("SnapKV                    compressor = \"snapkv-kvpress\"\n"), "{lines}");
        assert!(
            lines.contains("\n                          allocator = { name = \"ada-kv\", floor = 0.2 }\n"),
            "{lines}"
        );
    }
}
