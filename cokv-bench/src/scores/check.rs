//! What a score file must fulfil beyond its syntax.

use cokv_core::HeadLayout;

use super::Problem;
use super::file::{Interaction, ScoreFile};

impl ScoreFile {
    /// Checks shapes and numbers.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let layout = self.model.layout()?;
        check_table(layout, "scores", &self.scores, f64::is_finite, "a finite number")?;
        if let Some(table) = &self.standard_errors {
            // NaN is not at least 0.
            check_table(layout, "standard_errors", table, |value| value >= 0.0, "a number of at least 0, or null")?;
        }
        let in_range = |field, value: Option<f64>, low: f64, expected| match value {
            Some(value) if !(low..=1.0).contains(&value) => {
                Err(Problem::Value { field, value, place: String::new(), expected })
            }
            _ => Ok(()),
        };
        in_range("reliability", self.reliability, 0.0, "a number from 0 to 1")?;
        in_range("split_half", self.split_half, -1.0, "a number from -1 to 1")?;
        in_range("allocation_distance", self.allocation_distance, 0.0, "a number from 0 to 1")?;
        in_range("reliability_of_others", self.reliability_of_others, 0.0, "a number from 0 to 1")?;
        in_range("tokens_to_move", self.tokens_to_move, 0.0, "a number from 0 to 1")?;
        let exists = |field, &[layer, head]: &[usize; 2]| match layer < layout.layers && head < layout.kv_heads {
            true => Ok(()),
            false => {
                let (layers, kv_heads) = (layout.layers, layout.kv_heads);
                Err(Problem::NoSuchHead { field, layer, head, layers, kv_heads })
            }
        };
        self.players.iter().try_for_each(|head| exists("players", head))?;
        for Interaction { first, second, effect, t } in &self.interactions {
            [first, second].into_iter().try_for_each(|head| exists("interactions", head))?;
            if let Some(&value) = [effect, t].into_iter().find(|value| !value.is_finite()) {
                let place = format!(" between the heads {first:?} and {second:?}");
                return Err(Problem::Value { field: "interactions", value, place, expected: "a finite number" });
            }
        }
        Ok(())
    }
}

fn check_table(
    layout: HeadLayout,
    table: &'static str,
    rows: &[Vec<f64>],
    sound: fn(f64) -> bool,
    expected: &'static str,
) -> Result<(), Problem> {
    if rows.len() != layout.layers {
        let (found, expected) = (format!("{} layers", rows.len()), layout.layers.to_string());
        return Err(Problem::Shape { table, found, expected });
    }
    for (layer, row) in rows.iter().enumerate() {
        if row.len() != layout.kv_heads {
            let found = format!("{} KV heads in layer {layer}", row.len());
            return Err(Problem::Shape { table, found, expected: layout.kv_heads.to_string() });
        }
        if let Some((head, &value)) = row.iter().enumerate().find(|&(_, &value)| !sound(value)) {
            let place = format!(" for head {head} of layer {layer}");
            return Err(Problem::Value { field: table, value, place, expected });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::tests::full;
    use super::*;

    #[test]
    fn wrong_texts_are_refused_with_the_reason() {
        let text = String::from_utf8(full().text().unwrap()).unwrap();
        for (old, new, message) in [
            ("\"version\": 1", "\"version\": 2", "version 2, this cokv reads version 1: update cokv"),
            ("cokv-head-scores", "other", "unknown variant `other`, expected `cokv-head-scores`"),
            ("\"samples\"", "\"sample\"", "unknown field `sample`"),
            ("[0.1, -0.25],", "", "`scores` has 1 layers, its model has 2"),
            ("[0.1, -0.25]", "[0.1]", "`scores` has 1 KV heads in layer 0, its model has 2"),
            ("[0.1, -0.25]", "[0.1, null]", "invalid type: null, expected f64 at line 14"),
            ("[0.1, -0.25]", "[0.1, NaN]", "expected value at line 14"),
            ("[0.5, null]", "[0.5, -1]", "`standard_errors` is -1 for head 1 of layer 0"),
            ("0.91", "1.5", "`reliability` is 1.5: expected a number from 0 to 1"),
            ("\"first\": [1, 0]", "\"first\": [2, 0]", "names head 0 of layer 2"),
            ("\"kv_heads\": 2", "\"kv_heads\": 4", "`model`: 6 query heads cannot be shared out over 4"),
        ] {
            let wrong = text.replace(old, new);
            assert_ne!(wrong, text, "{old}");
            let error = ScoreFile::parse(wrong.as_bytes()).unwrap_err().at(Path::new("a.json")).to_string();
            assert!(error.starts_with("a.json: ") && error.contains(message), "{error}");
        }
    }
}
