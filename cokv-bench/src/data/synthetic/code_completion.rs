//! A Python module whose last line breaks off.
//!
//! The module ends with functions that make an object from settings. How they are written is seen in
//! the one before; which settings the last one passes on is known only from the constructor of its
//! class, far above. The prompt ends within the line, after a word: a prompt that ends in a line break
//! is cut into other tokens than the code that a model was trained on.

use rand::RngExt;
use rand_pcg::Pcg64;

use super::Definition;
use super::draft::{Asked, Depth, Draft, Planted, QUESTIONS, endless};
use super::words::{self, pick};
use crate::metrics::Metric;

pub(super) const DEFINITION: Definition = Definition {
    name: "code-completion",
    template: "Please complete the code given below.\n\n{context}\n\n\n{input}",
    max_new_tokens: 64,
    metric: Metric::CodeSimilarity,
    chat: false,
    stops_at_newline: true,
    language: "python",
    draft: Some(|random, depth| asking(random, depth, 1)),
};

/// Several functions break off, each of which makes an object of another class.
pub(super) const SHARED: Definition =
    Definition { name: "shared-code", draft: Some(|random, depth| asking(random, depth, QUESTIONS)), ..DEFINITION };

const VERBS: [&str; 16] = [
    "add", "build", "check", "clean", "count", "find", "load", "measure", "merge", "open", "read", "scale", "send",
    "sort", "store", "update",
];
const QUANTITIES: [&str; 16] = [
    "age", "color", "cost", "count", "depth", "height", "label", "level", "limit", "owner", "price", "rate", "size",
    "speed", "weight", "width",
];

/// Parameters of a constructor.
const PARAMETERS: usize = 3;

/// A class that does nothing but keep what its constructor is given.
#[derive(PartialEq)]
struct Class {
    /// In lower case with an underscore.
    name: String,
    parameters: Vec<String>,
}

impl Class {
    fn random(random: &mut Pcg64) -> Self {
        Self { name: words::codename(random, "_"), parameters: words::distinct(random, PARAMETERS, parameter) }
    }

    /// The class's own name: "AmberFalcon".
    fn title(&self) -> String {
        self.name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
    }

    fn definition(&self) -> String {
        let arguments = self.parameters.join(", ");
        let fields: String = self.parameters.iter().map(|name| format!("        self.{name} = {name}\n")).collect();
        format!("class {}:\n    def __init__(self, {arguments}):\n{fields}\n\n", self.title())
    }

    /// The beginning of the function that makes an object, up to where [`Self::construction`] follows.
    fn factory(&self) -> String {
        format!("def make_{}(settings):\n    return", self.name)
    }

    fn construction(&self) -> String {
        let arguments: Vec<String> = self.parameters.iter().map(|name| format!("settings.{name}")).collect();
        format!("{}({})", self.title(), arguments.join(", "))
    }
}

fn asking(mut random: Pcg64, depth: Depth, questions: usize) -> Draft {
    let mut wanted = Vec::with_capacity(questions);
    for _ in 0..questions {
        wanted.push(other_class(&mut random, &wanted));
    }
    let shown = other_class(&mut random, &wanted);
    let classes = wanted.iter().chain([&shown]);
    let planted = depth.spread(questions as u32 + 1).zip(classes);
    let asked = |wanted: &Class| Asked {
        input: format!("{} {}\n\n\n{}", shown.factory(), shown.construction(), wanted.factory()),
        answers: vec![wanted.construction()],
    };
    Draft {
        planted: planted.map(|(depth, class)| Planted { depth, text: class.definition() }).collect(),
        asked: wanted.iter().map(asked).collect(),
        classes: Vec::new(),
        arrange: None,
        filler: endless(move || match random.random_range(0..3_u32) {
            0 => other_class(&mut random, &wanted).definition(),
            1 => function(&mut random),
            _ => constant(&mut random),
        }),
    }
}

/// A class that has none of these names.
fn other_class(random: &mut Pcg64, others: &[Class]) -> Class {
    loop {
        let class = Class::random(random);
        if others.iter().all(|other| other.name != class.name) {
            return class;
        }
    }
}

/// A name such as "copper_rate".
fn parameter(random: &mut Pcg64) -> String {
    let word = words::word(random);
    format!("{word}_{}", pick(random, &QUANTITIES))
}

fn constant(random: &mut Pcg64) -> String {
    let name = parameter(random).to_uppercase();
    format!("{name} = {}\n\n\n", words::number(random, 3))
}

fn function(random: &mut Pcg64) -> String {
    let name = format!("{}_{}", pick(random, &VERBS), parameter(random));
    let (first, second) = (words::number(random, 2), words::number(random, 1));
    let body = match random.random_range(0..3_u32) {
        0 => format!("(value):\n    return value * {first} + {second}"),
        1 => format!("(value):\n    if value > {first}:\n        return value - {second}\n    return value"),
        _ => format!(
            "(items):\n    total = {second}\n    for item in items:\n        total += item * {first}\n    return total"
        ),
    };
    format!("def {name}{body}\n\n\n")
}

#[cfg(test)]
mod tests {
    use crate::data::synthetic::Task;
    use crate::data::synthetic::tests::records;

    #[test]
    fn the_constructor_in_the_context_gives_the_answer() {
        for record in records(Task::CodeCompletion) {
            let answer = &record.answers[0];
            let (title, arguments) = answer.strip_suffix(')').unwrap().split_once('(').unwrap();
            let parameters = arguments.replace("settings.", "");
            let header = format!("class {title}:\n    def __init__(self, {parameters}):\n");
            assert_eq!(record.context.matches(&header).count(), 1);
            assert_eq!(record.context.matches(&format!("class {title}:")).count(), 1);

            let name = record.input.rsplit("def make_").next().unwrap();
            let name = name.strip_suffix("(settings):\n    return").unwrap();
            assert_eq!(name.replace('_', ""), title.to_lowercase());
        }
    }

    #[test]
    fn the_pattern_is_seen_before_it_is_asked_for() {
        for record in records(Task::CodeCompletion) {
            assert_eq!(record.input.matches("def make_").count(), 2);
            assert_eq!(record.input.matches("(settings.").count(), 1);
        }
    }
}
