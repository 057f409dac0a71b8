//! The direction along which vectors point.

/// The first right singular vector of some vectors, of which this is the sum of outer products, `[dim, dim]`; turned so that their sum,
/// `[dim]`, projects positively on it. Found by power iteration from the sum itself.
pub fn main_direction(products: &[f64], sum: &[f64]) -> Vec<f64> {
    let dim = sum.len();
    let mut direction: Vec<f64> = sum.to_vec();
    // A start that lies in no eigenspace alone.
    direction.iter_mut().enumerate().for_each(|(at, x)| *x += 1e-3 * (1.0 + at as f64));
    normalise(&mut direction);
    for _ in 0..ROUNDS {
        let mut next: Vec<f64> = products.chunks_exact(dim).map(|row| dot(row, &direction)).collect();
        if !normalise(&mut next) {
            break;
        }
        let moved: f64 = next.iter().zip(&direction).map(|(a, b)| (a - b).abs()).sum();
        direction = next;
        if moved < 1e-12 {
            break;
        }
    }
    if dot(&direction, sum) < 0.0 {
        direction.iter_mut().for_each(|x| *x = -*x);
    }
    direction
}

/// Rounds at most: eigenvalues that lie so close that these do not tell them apart have vectors that serve as well.
const ROUNDS: usize = 2000;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Whether it has a length.
fn normalise(vector: &mut [f64]) -> bool {
    let length = dot(vector, vector).sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    length > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The closed form of Q-Filters: queries 2 cos(0.9 (t + 1)(c + 1) / (a + 1)) of 16 tokens, mean over a group of two.
    #[test]
    fn directions_of_the_closed_form() {
        let direction = |head: usize| {
            let query = |t: usize, c: usize| 2.0 * (0.9 * ((t + 1) * (c + 1)) as f64 / (head + 1) as f64).cos();
            let (mut products, mut sum) = (vec![0.0; 16], vec![0.0; 4]);
            for token in 0..16 {
                (0..4).for_each(|c| sum[c] += query(token, c));
                (0..16).for_each(|at| products[at] += query(token, at / 4) * query(token, at % 4));
            }
            main_direction(&products, &sum)
        };
        for (first, expected) in [(0, [0.3632, 0.0324, -0.6074, -0.6491]), (2, [-0.4462, 0.6251, -0.5331, 0.2887])] {
            let [one, two] = [direction(first), direction(first + 1)];
            for c in 0..4 {
                let mean = (one[c] + two[c]) / 2.0;
                assert!((mean - expected[c]).abs() < 1e-4, "head {first}, channel {c}: {mean} and not {}", expected[c]);
            }
        }
    }

    #[test]
    fn nothing_has_no_direction_but_a_finite_one() {
        assert!(main_direction(&[0.0; 4], &[0.0; 2]).iter().all(|x| x.is_finite()));
    }
}
