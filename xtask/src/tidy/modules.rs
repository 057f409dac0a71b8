//! The modules of a crate, one for each file, and what their paths mean.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::tokens::{Token, tokens};

/// A crate: its files, as `mod` leads to them.
pub struct Crate {
    /// The first is the root.
    pub modules: Vec<Module>,
}

/// One file.
pub struct Module {
    /// Relative to the workspace.
    pub file: PathBuf,
    /// `a::b`; empty for the root.
    pub name: String,
    pub parent: Option<usize>,
    pub children: BTreeMap<String, usize>,
    pub tokens: Vec<Token>,
    /// All paths of more than one name, those of imports too.
    pub paths: Vec<Used>,
    imports: Vec<Import>,
    /// Names of items that the file defines.
    defines: HashSet<String>,
}

/// A path and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub segments: Vec<String>,
    pub line: usize,
}

/// A name that a `use` brings in; `*` for all names.
struct Import {
    name: String,
    used: Used,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Module(usize),
    /// An item of the module's own file.
    Item(usize),
}

const DEFINING: [&str; 9] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "macro_rules"];

/// Imports lead to imports; a chain longer than this is a circle of `pub use`.
const LONGEST_CHAIN: usize = 16;

impl Crate {
    /// Reads the crate whose root is `file`, a path below `root`.
    pub fn read(root: &Path, file: &Path) -> Result<Self> {
        let mut read = Self { modules: Vec::new() };
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        read.add(root, file.to_owned(), &folder, String::new(), None)?;
        Ok(read)
    }

    /// Adds a file and all modules that it declares; those lie in `folder`.
    fn add(&mut self, root: &Path, file: PathBuf, folder: &Path, name: String, parent: Option<usize>) -> Result<usize> {
        let module = Module::of(file.clone(), name.clone(), parent, tokens(&super::read(root, &file)?));
        let declared = module.declared();
        let id = self.modules.len();
        self.modules.push(module);
        for child in declared {
            let inside = folder.join(&child);
            let file = [inside.join("mod.rs"), folder.join(format!("{child}.rs"))];
            let Some(file) = file.into_iter().find(|file| root.join(file).exists()) else { continue };
            let full = if name.is_empty() { child.clone() } else { format!("{name}::{child}") };
            let added = self.add(root, file, &inside, full, Some(id))?;
            self.modules[id].children.insert(child, added);
        }
        Ok(id)
    }

    /// What a path means in a module; none where it leads out of the crate, or to something local.
    pub fn resolve(&self, module: usize, segments: &[String]) -> Option<Target> {
        self.follow(module, segments, LONGEST_CHAIN)
    }

    fn follow(&self, module: usize, segments: &[String], left: usize) -> Option<Target> {
        let (first, rest) = segments.split_first()?;
        match first.as_str() {
            "crate" => self.walk(0, rest, left),
            "self" => self.walk(module, rest, left),
            "super" => {
                let parent = self.modules[module].parent?;
                // `super::super` goes on from the parent.
                if rest.first().is_some_and(|next| next == "super") {
                    self.follow(parent, rest, left)
                } else {
                    self.walk(parent, rest, left)
                }
            }
            name => match self.named(module, name, left)? {
                Target::Module(found) => self.walk(found, rest, left),
                item => Some(item),
            },
        }
    }

    /// From a module on, name by name.
    fn walk(&self, mut module: usize, segments: &[String], left: usize) -> Option<Target> {
        for name in segments {
            match self.named(module, name, left) {
                Some(Target::Module(next)) => module = next,
                Some(item) => return Some(item),
                // Something that the file's macros define.
                None => return Some(Target::Item(module)),
            }
        }
        Some(Target::Module(module))
    }

    /// A name that a module declares, defines or imports.
    fn named(&self, module: usize, name: &str, left: usize) -> Option<Target> {
        let here = &self.modules[module];
        if let Some(&child) = here.children.get(name) {
            return Some(Target::Module(child));
        }
        if here.defines.contains(name) {
            return Some(Target::Item(module));
        }
        let left = left.checked_sub(1)?;
        if let Some(import) = here.imports.iter().find(|import| import.name == name) {
            // A crate of the same name as what is imported from it is not looked for here again.
            return (import.used.segments.first()? != name)
                .then(|| self.follow(module, &import.used.segments, left))?;
        }
        let all = here.imports.iter().filter(|import| import.name == "*");
        // Of other crates nothing is known.
        let ours =
            |first: &String| ["crate", "self", "super"].contains(&first.as_str()) || here.children.contains_key(first);
        all.filter(|import| import.used.segments.first().is_some_and(ours)).find_map(|import| {
            match self.follow(module, &import.used.segments, left)? {
                Target::Module(all) if all != module => self.named(all, name, left),
                _ => None,
            }
        })
    }
}

impl Module {
    fn of(file: PathBuf, name: String, parent: Option<usize>, tokens: Vec<Token>) -> Self {
        let (imports, mut paths) = imports_and_paths(&tokens);
        paths.extend(imports.iter().map(|import| import.used.clone()));
        let defines = tokens.windows(3).filter(|window| DEFINING.contains(&window[0].text.as_str()));
        let named = |window: &[Token]| window[if window[1].text == "!" { 2 } else { 1 }].text.clone();
        let defines = defines.map(named).collect();
        Self { file, name, parent, children: BTreeMap::new(), paths, imports, defines, tokens }
    }

    /// Names behind `mod` that have files of their own.
    fn declared(&self) -> Vec<String> {
        let declaration = |window: &&[Token]| window[0].text == "mod" && window[2].text == ";";
        self.tokens.windows(3).filter(declaration).map(|window| window[1].text.clone()).collect()
    }
}

/// What `use` brings in, and the paths of everything else.
fn imports_and_paths(tokens: &[Token]) -> (Vec<Import>, Vec<Used>) {
    let (mut imports, mut paths) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let Token { text, line } = &tokens[at];
        if text == "use" {
            let end = tokens[at..].iter().position(|token| token.text == ";").map_or(tokens.len(), |end| at + end);
            import(&tokens[at + 1..end], &[], &mut imports);
            at = end;
        } else if is_name(text) && (at == 0 || !["::", "."].contains(&tokens[at - 1].text.as_str())) {
            let mut segments = vec![text.clone()];
            while tokens.get(at + 1).is_some_and(|token| token.text == "::")
                && tokens.get(at + 2).is_some_and(|token| is_name(&token.text))
            {
                segments.push(tokens[at + 2].text.clone());
                at += 2;
            }
            if segments.len() > 1 {
                paths.push(Used { segments, line: *line });
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    (imports, paths)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Reads the tree behind a `use`, below a prefix.
fn import(tree: &[Token], prefix: &[String], imports: &mut Vec<Import>) {
    let mut segments = prefix.to_vec();
    let mut name = None;
    let mut at = 0;
    while at < tree.len() {
        match tree[at].text.as_str() {
            "::" => {}
            "as" => {
                name = tree.get(at + 1).map(|alias| alias.text.clone());
                break;
            }
            "*" => name = Some("*".to_owned()),
            "{" => {
                let inside = &tree[at + 1..super::tokens::group_end(tree, at) - 1];
                split(inside).into_iter().for_each(|branch| import(branch, &segments, imports));
                return;
            }
            // `a::{self}` is `a`.
            "self" if !prefix.is_empty() => {}
            part => segments.push(part.to_owned()),
        }
        at += 1;
    }
    if let (Some(last), Some(first)) = (segments.last(), tree.first()) {
        let name = name.unwrap_or_else(|| last.clone());
        imports.push(Import { name, used: Used { segments, line: first.line } });
    }
}

/// At the commas that stand in no braces.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0;
    tokens
        .split(|token| {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            depth == 0 && token.text == ","
        })
        .filter(|branch| !branch.is_empty())
        .collect()
}
