//! Circles among modules.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use super::Complaint;
use super::modules::{Crate, Target};

/// One file that uses another.
#[derive(Clone, Copy)]
struct Arrow {
    from: usize,
    line: usize,
    to: usize,
}

/// Circles among the children of every module, a child being its file and all that is inside it. Of the circles that
/// hang together, one is named.
pub fn circles(of: &Crate) -> Vec<Complaint> {
    // For every parent, the arrows between two of its children.
    let mut families: BTreeMap<usize, BTreeMap<(usize, usize), Arrow>> = BTreeMap::new();
    for arrow in arrows(of) {
        if let Some((parent, children)) = apart(of, arrow) {
            families.entry(parent).or_default().entry(children).or_insert(arrow);
        }
    }
    let mut complaints = Vec::new();
    for arrows in families.values() {
        let mut told: Vec<usize> = Vec::new();
        for &(child, _) in arrows.keys() {
            if told.contains(&child) {
                continue;
            }
            if let Some(circle) = shortest(arrows, child, child) {
                let others = arrows.keys().map(|(other, _)| *other);
                told.extend(others.filter(|&other| {
                    shortest(arrows, child, other).is_some() && shortest(arrows, other, child).is_some()
                }));
                complaints.push(complaint(of, &circle));
            }
        }
    }
    complaints
}

/// Who uses an item of whose file.
fn arrows(of: &Crate) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for (from, module) in of.modules.iter().enumerate() {
        for used in &module.paths {
            // A module that is only named is used where a path goes through it.
            if let Some(Target::Item(to)) = of.resolve(from, &used.segments) {
                arrows.push(Arrow { from, line: used.line, to });
            }
        }
    }
    arrows
}

/// The nearest module that both are inside of, and its two children that they are or are inside of; none where one of
/// the two is inside of the other.
fn apart(of: &Crate, Arrow { from, to, .. }: Arrow) -> Option<(usize, (usize, usize))> {
    let line = |module: usize| -> Vec<usize> {
        let mut line: Vec<usize> = std::iter::successors(Some(module), |&module| of.modules[module].parent).collect();
        line.reverse();
        line
    };
    let (from, to) = (line(from), line(to));
    let fork = from.iter().zip(&to).position(|(from, to)| from != to)?;
    Some((from[fork - 1], (from[fork], to[fork])))
}

/// The shortest way from one child to another, or back to itself: every child on it with the arrow that leaves it.
fn shortest(arrows: &BTreeMap<(usize, usize), Arrow>, start: usize, end: usize) -> Option<Vec<(usize, Arrow)>> {
    let mut came: BTreeMap<usize, (usize, Arrow)> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(child) = queue.pop_front() {
        for (&(_, next), &arrow) in arrows.range((child, 0)..=(child, usize::MAX)) {
            if let Entry::Vacant(place) = came.entry(next) {
                place.insert((child, arrow));
                queue.push_back(next);
            }
        }
    }
    let mut way = vec![*came.get(&end)?];
    while let Some(&(child, _)) = way.last().filter(|(child, _)| *child != start) {
        way.push(*came.get(&child)?);
    }
    way.reverse();
    Some(way)
}

fn complaint(of: &Crate, circle: &[(usize, Arrow)]) -> Complaint {
    let steps: Vec<String> = circle
        .iter()
        .map(|(child, Arrow { from, line, to })| {
            let (from, to) = (&of.modules[*from], &of.modules[*to]);
            format!("{} → {} ({}:{line})", of.modules[*child].name, to.name, from.file.display())
        })
        .collect();
    let Arrow { from, line, .. } = circle[0].1;
    let message = format!(
        "modules go round in a circle, {}: move what both need into a module below them, or take one arrow out",
        steps.join(", ")
    );
    Complaint { file: of.modules[from].file.clone(), line, message }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::workspace;
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let folder = workspace("cokv-core", "", files);
        let read = Crate::read(folder.path(), Path::new("cokv-core/src/lib.rs")).unwrap();
        circles(&read).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_files_that_use_each_other_are_named_with_their_lines() {
        let found = found(&[
            ("lib.rs", "mod a;\nmod b;"),
            ("a.rs", "\nuse crate::b::B;\npub struct A;"),
            ("b.rs", "pub struct B;\nfn f() { super::a::A; }"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        let expected = "cokv-core/src/a.rs:2: modules go round in a circle, a → b (cokv-core/src/a.rs:2), b → a \
                        (cokv-core/src/b.rs:2)";
        assert!(found[0].starts_with(expected), "{found:?}");
    }

    #[test]
    fn a_parent_and_its_children_are_no_circle() {
        let files = [
            ("lib.rs", "mod a;\npub use a::A;"),
            ("a.rs", "mod b;\nuse b::B;\npub struct A(B);"),
            ("a/b.rs", "use super::A;\npub struct B;\nfn f() -> crate::A { A }"),
        ];
        assert_eq!(found(&files), [] as [String; 0]);
    }

    #[test]
    fn what_is_re_exported_counts_as_where_it_stands() {
        let files = |used: &'static str| {
            [
                ("lib.rs", "mod a;\nmod b;"),
                ("a/mod.rs", "mod first;\nmod second;\npub use self::{first::First, second::*};"),
                ("a/first.rs", "pub struct First;"),
                ("a/second.rs", "use crate::b;\npub enum Second { X }\nfn f() { b::g() }"),
                ("b.rs", used),
            ]
        };
        assert!(found(&files("pub fn g() {}")).is_empty());
        // Rooms, not only files: whoever needs `First` and is needed by `Second` stands between the two.
        assert_eq!(found(&files("use crate::a::First;\npub fn g() {}")).len(), 1);
        assert_eq!(found(&files("use crate::a::Second as S;\npub fn g() { S::X }")).len(), 1);
    }

    #[test]
    fn a_circle_through_a_module_s_name_is_found() {
        let found = found(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;"),
            ("a.rs", "use crate::{b, std::fmt};\npub fn f() { b::g() }"),
            ("b.rs", "use super::c::{self, H as I};\npub fn g() { c::h(I) }"),
            ("c.rs", "pub struct H;\npub fn h(_: H) { crate::a::f() }"),
        ]);
        assert!(found[0].contains("a → b") && found[0].contains("b → c") && found[0].contains("c → a"), "{found:?}");
    }

    #[test]
    fn tests_may_use_what_they_like() {
        let files = [
            ("lib.rs", "mod a;\nmod b;"),
            ("a.rs", "use crate::b::B;\npub struct A(B);"),
            ("b.rs", "pub struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }"),
        ];
        assert!(found(&files).is_empty());
    }
}
