//! `docs/` is read on GitHub and as a book: `SUMMARY.md` lists every page, and links lead somewhere in both. What lies outside of
//! `docs/` is no part of the book, and has an address.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Complaint, read};

const DOCS: &str = "docs";
const SUMMARY: &str = "SUMMARY.md";

/// Pages that the summary lacks, and links that lead nowhere.
pub fn book(root: &Path) -> Result<Vec<Complaint>> {
    let folder = root.join(DOCS);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut complaints = Vec::new();
    let summary = read(root, &Path::new(DOCS).join(SUMMARY))?;
    let listed: Vec<&str> = links(&summary).map(|(_, link)| link).collect();
    for entry in fs::read_dir(&folder).context(DOCS)? {
        let name = entry.context(DOCS)?.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".md") {
            continue;
        }
        let file = Path::new(DOCS).join(&name);
        if name != SUMMARY && !listed.contains(&name.as_str()) {
            let message = format!("{DOCS}/{SUMMARY} does not list it, so that the book lacks it");
            complaints.push(Complaint { file: file.clone(), line: 1, message });
        }
        for (line, link) in links(&read(root, &file)?) {
            let path = link.split('#').next().unwrap_or_default();
            let message = if path.is_empty() || path.contains("://") {
                continue;
            } else if path.starts_with("..") {
                format!("{link} lies outside of the book: write https://github.com/cokv/cokv/blob/main/…")
            } else if !folder.join(path).exists() {
                format!("{link} leads nowhere")
            } else {
                continue;
            };
            complaints.push(Complaint { file: file.clone(), line, message });
        }
    }
    Ok(complaints)
}

/// Where each link of a page leads, with its line. What stands in code is none.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    let lines = text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    });
    lines
        .flat_map(|(at, line)| line.split("](").skip(1).filter_map(move |rest| Some((at + 1, rest.split_once(')')?.0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_not_listed_and_links_that_lead_nowhere_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(DOCS).join(name), text).unwrap();
        fs::create_dir(folder.path().join(DOCS)).unwrap();
        write("SUMMARY.md", "- [One](one.md)\n");
        write(
            "one.md",
            "[here](two.md#top) [there](https://example.org) [below](#below)\n```\n[code](none)\n```\n[out](../x)",
        );
        write("two.md", "![a picture](none.png)");
        let mut found: Vec<String> = book(folder.path()).unwrap().iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("docs/one.md:5: ../x lies outside of the book"), "{found:?}");
        assert!(found[1].starts_with("docs/two.md:1: docs/SUMMARY.md does not list it"), "{found:?}");
        assert_eq!(found[2], "docs/two.md:1: none.png leads nowhere");
    }
}
