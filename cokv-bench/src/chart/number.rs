//! Numbers as short texts.

/// A number as exact as the step between its neighbours asks; with all its digits where there is no step.
pub fn label(value: f64, step: f64) -> String {
    let size = value.abs().max(step.abs());
    if value == 0.0 {
        return "0".into();
    }
    if !(1e-4..1e6).contains(&size) {
        let digits = (value.abs().log10().floor() - step.abs().log10().floor()).clamp(0.0, 12.0) as usize;
        return format!("{value:.digits$e}");
    }
    if step == 0.0 {
        return value.to_string();
    }
    // Rounding errors of a step such as 0.2 must not ask for a digit more.
    let digits = (-step.abs().log10() - 1e-9).ceil().clamp(0.0, 12.0) as usize;
    let text = format!("{value:.digits$}");
    let rounded_to_zero = text.trim_matches(['-', '0', '.']).is_empty();
    if rounded_to_zero { text.trim_start_matches('-').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_as_exact_as_their_step() {
        for (value, step, expected) in [
            (0.3, 0.1, "0.3"),
            (0.25, 0.05, "0.25"),
            (1500.0, 500.0, "1500"),
            (0.00002, 0.00001, "2e-5"),
            (-0.000015, 0.00000001, "-1.500e-5"),
            (0.3, 0.0, "0.3"),
            (0.0, 0.1, "0"),
            (-0.001, 0.01, "0.00"),
            (-0.0123, 0.001, "-0.012"),
        ] {
            assert_eq!(label(value, step), expected);
        }
    }
}
