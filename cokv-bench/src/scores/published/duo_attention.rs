//! DuoAttention's head patterns (Xiao et al., arXiv 2410.10819): a text table of trained gates, one layer a line, one KV
//! head a column, 1 for a head that needs the whole prompt and 0 for one that does not.

use std::path::Path;

use super::Imported;
use crate::scores::storage::{read_bytes, write_bytes};
use crate::scores::{ModelStamp, Problem, ScoreFile, ScoreFileError};

/// Reads `full_attention_heads.tsv`. Gates outside [0, 1] are clipped, as DuoAttention does when it loads them.
pub fn import_duo_attention(path: &Path, model: &ModelStamp) -> Result<Imported, ScoreFileError> {
    import(&read_bytes(path)?, path, model).map_err(|problem| problem.at(path))
}

fn import(bytes: &[u8], path: &Path, model: &ModelStamp) -> Result<Imported, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| foreign("it is no text".into()))?;
    let layout = model.layout()?;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let gate = |field: &str| match field.parse::<f64>() {
            Ok(gate) if gate.is_finite() => Ok(gate),
            _ => Err(foreign(format!("line {}: `{field}` is no finite number", number + 1))),
        };
        rows.push(line.split_whitespace().map(gate).collect::<Result<Vec<f64>, _>>()?);
    }
    let columns = rows.first().map_or(0, Vec::len);
    if let Some((row, length)) = rows.iter().map(Vec::len).enumerate().find(|&(_, length)| length != columns) {
        return Err(foreign(format!("layer 0 has {columns} KV heads, layer {row} has {length}")));
    }
    if (rows.len(), columns) != (layout.layers, layout.kv_heads) {
        let scored = format!("{} layers of {columns} KV heads", rows.len());
        return Err(Problem::OtherShape { scored, model: model.to_string() });
    }
    let gates = rows.concat();
    let outside = gates.iter().filter(|gate| !(0.0..=1.0).contains(*gate)).count();
    let notice = format!("{outside} gates are outside [0, 1] and were clipped");
    let clipped: Vec<f64> = gates.into_iter().map(|gate| gate.clamp(0.0, 1.0)).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = ScoreFile {
        source: Some(format!("DuoAttention: {name}")),
        ..ScoreFile::new(model.clone(), "duo-attention", &clipped)
    };
    Ok(Imported { file, notices: (outside > 0).then_some(notice).into_iter().collect() })
}

fn foreign(message: String) -> Problem {
    Problem::Foreign { format: "DuoAttention", message }
}

/// Writes a table that DuoAttention can load. It would clip scores outside [0, 1] and lose their order, so if there are
/// any, all are moved and scaled to fill that range. Their order, which decides what DuoAttention keeps, stays.
pub fn export_duo_attention(file: &ScoreFile, path: &Path) -> Result<(), ScoreFileError> {
    write_bytes(path, export(file).map_err(|problem| problem.at(path))?.as_bytes())
}

fn export(file: &ScoreFile) -> Result<String, Problem> {
    let scores = file.head_scores(&file.model)?;
    let low = scores.values().iter().copied().fold(f64::INFINITY, f64::min);
    let high = scores.values().iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let fits = low >= 0.0 && high <= 1.0;
    // Halves, because the range of finite numbers may be infinite; equal scores outside the range become 0.
    let range = (high / 2.0 - low / 2.0).max(f64::MIN_POSITIVE);
    let gate = |score: &f64| if fits { *score } else { (score / 2.0 - low / 2.0) / range };
    let line = |row: &[f64]| row.iter().map(|score| gate(score).to_string()).collect::<Vec<_>>().join("\t") + "\n";
    Ok(scores.values().chunks(file.model.kv_heads).map(line).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scores::file::tests::model;
    use crate::scores::statistics::descending;

    fn read(text: &str, model: &ModelStamp) -> Result<Imported, Problem> {
        import(text.as_bytes(), Path::new("heads.tsv"), model)
    }

    #[test]
    fn a_table_is_read_and_clipped() {
        // As numpy.savetxt writes numbers.
        let text = "1.000000000000000000e+00\t2.5e-01\n-1e-3\t1.5\n";
        let imported = read(text, &model("toy", 2, 4, 2)).unwrap();
        assert_eq!(imported.file.scores, [[1.0, 0.25], [0.0, 1.0]]);
        assert_eq!(imported.notices, ["2 gates are outside [0, 1] and were clipped"]);
    }

    #[test]
    fn wrong_tables_are_refused() {
        for (text, message) in [
            ("0.1\t0.2\n", "scores of 1 layers of 2 KV heads do not fit toy (2 layers × 2 KV heads)"),
            ("0.1\t0.2\n0.1\n", "layer 0 has 2 KV heads, layer 1 has 1"),
            ("0.1\tx\n", "line 1: `x` is no finite number"),
            ("0.1\tnan\n", "line 1: `nan` is no finite number"),
            ("", "scores of 0 layers of 0 KV heads"),
        ] {
            let error = read(text, &model("toy", 2, 4, 2)).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    proptest! {
        #[test]
        fn gates_come_back_exactly(gates in prop::collection::vec(0.0..=1.0, 6)) {
            let file = ScoreFile::new(model("toy", 3, 1, 2), "test", &gates);
            prop_assert_eq!(read(&export(&file).unwrap(), &file.model).unwrap().file.flat(), gates);
        }

        #[test]
        fn other_scores_come_back_in_their_order(scores in prop::collection::vec(-900i16..900, 6)) {
            let scores: Vec<f64> = scores.into_iter().map(|score| f64::from(score) / 100.0).collect();
            let file = ScoreFile::new(model("toy", 3, 1, 2), "test", &scores);
            let back = read(&export(&file).unwrap(), &file.model).unwrap();
            prop_assert_eq!(descending(&back.file.flat()), descending(&scores));
            prop_assert!(back.notices.is_empty());
        }
    }
}
