//! Which queries at the end of a prompt a sum of attention is of.

use std::ops::Range;

/// Attention summed over queries at the end of a prompt: its last `rows + tail` ones without the last `tail` of them. Where the
/// prompt is too short for any other, the sum is of the tail's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowSum {
    /// Queries that are summed.
    pub rows: usize,
    /// Queries behind them, which are left out: tokens that a chat template puts behind the user's text.
    pub tail: usize,
}

impl WindowSum {
    /// How many of a prompt's last queries have to be there.
    pub fn reach(self) -> usize {
        self.rows.saturating_add(self.tail)
    }

    /// Positions of the queries that are summed.
    pub fn queries(self, prompt_len: usize) -> Range<usize> {
        let (begin, end) = (prompt_len.saturating_sub(self.reach()), prompt_len.saturating_sub(self.tail));
        begin..if begin < end { end } else { prompt_len }
    }

    /// Those of a query head's last rows, `[rows, prompt_len]`, at least `reach` of them or the whole prompt's, that are
    /// summed.
    pub fn among(self, last_rows: &[f32], prompt_len: usize) -> &[f32] {
        let Range { start, end } = self.queries(prompt_len);
        let [start, end] = [start, end].map(|query| last_rows.len() - (prompt_len - query) * prompt_len);
        &last_rows[start..end]
    }

    /// The sum of one query head, `[prompt_len]`, of its last rows as [`among`](Self::among) gets them. The oldest row is added
    /// first, here and wherever else the sum is made, so that it has the same bits everywhere.
    pub fn of(self, last_rows: &[f32], prompt_len: usize) -> Vec<f32> {
        let mut sum = vec![0.0; prompt_len];
        for row in self.among(last_rows, prompt_len).chunks_exact(prompt_len.max(1)) {
            sum.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_left_out_where_there_is_anything_else() {
        let queries = |rows, tail, prompt_len| WindowSum { rows, tail }.queries(prompt_len);
        assert_eq!(queries(4, 0, 10), 6..10);
        assert_eq!(queries(4, 3, 10), 3..7);
        assert_eq!(queries(4, 8, 10), 0..2, "fewer than asked for");
        assert_eq!(queries(4, 10, 10), 0..10, "nothing but the tail");
        assert_eq!(queries(usize::MAX, 12, 10), 0..10);
        assert_eq!(queries(4, 3, 0), 0..0);
    }

    #[test]
    fn sums_are_of_the_rows_that_were_asked_for() {
        // Rows 2 and 3 of a prompt of four tokens, of which a longer window has one more.
        let rows = [9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 0.0, 10.0, 20.0, 30.0, 40.0];
        for last_rows in [&rows[..], &rows[4..]] {
            assert_eq!(WindowSum { rows: 2, tail: 0 }.of(last_rows, 4), [11.0, 22.0, 33.0, 40.0]);
            assert_eq!(WindowSum { rows: 1, tail: 1 }.of(last_rows, 4), [1.0, 2.0, 3.0, 0.0]);
        }
        assert_eq!(WindowSum { rows: 2, tail: 0 }.of(&[], 0), []);
    }
}
