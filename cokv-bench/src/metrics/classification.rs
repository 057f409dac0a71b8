//! Classification accuracy by the class names in the prediction.

/// One over the number of classes that the prediction names, if the right one is among them, else
/// 0 (`classification_score`).
///
/// Classes whose name is part of the right one are discounted, but not all of them: upstream
/// removes elements from the list that it walks, and so skips the element after a removed one.
pub(super) fn score(prediction: &str, answer: &str, all_classes: &[String]) -> f64 {
    let named = named_classes(prediction, answer, all_classes);
    if named.contains(&answer) { 1.0 / named.len() as f64 } else { 0.0 }
}

fn named_classes<'c>(prediction: &str, answer: &str, all_classes: &'c [String]) -> Vec<&'c str> {
    let mut named: Vec<&str> =
        all_classes.iter().map(String::as_str).filter(|class| prediction.contains(class)).collect();
    let mut index = 0;
    while let Some(&class) = named.get(index) {
        if class != answer && answer.contains(class) {
            // Python's `list.remove` takes the first equal element, which may lie before `index`.
            let first_equal = named.iter().position(|&other| other == class).unwrap_or(index);
            named.remove(first_equal);
        }
        // Advancing after a removal as well is upstream's skip.
        index += 1;
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(classes: &[&str]) -> Vec<String> {
        let classes: Vec<String> = classes.iter().map(|&class| class.to_owned()).collect();
        named_classes("ab a b abc", "abc", &classes).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn order_of_classes_matters() {
        assert_eq!(named(&["a", "ab", "b", "abc"]), ["ab", "abc"]);
        assert_eq!(named(&["a", "b", "ab", "abc"]), ["b", "abc"]);
    }

    #[test]
    fn repeated_and_empty_classes() {
        assert_eq!(named(&["a", "a", "x", "a", "abc"]), ["a", "abc"]);
        assert_eq!(named(&["abc", "a", "a", "a", "abc"]), ["abc", "a", "abc"]);
        assert_eq!(named(&["", "", "abc"]), ["", "abc"]);
    }

    #[test]
    fn score_is_shared_among_named_classes() {
        let classes = ["city", "state", "country"].map(str::to_owned);
        assert_eq!(score("a city", "city", &classes), 1.0);
        assert_eq!(score("city or state", "city", &classes), 0.5);
        assert_eq!(score("City", "city", &classes), 0.0);
        assert_eq!(score("city", "city", &[]), 0.0);
    }
}
