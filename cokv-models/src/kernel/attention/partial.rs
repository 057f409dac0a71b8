//! Attention over some of the keys: what a piece of work leaves, and how such parts become one.

/// Softmax over some of the keys, to be merged with the others'.
pub(super) struct Partial<'a> {
    /// `[queries, group]`
    pub max: &'a mut [f32],
    /// `[queries, group]`
    pub sum: &'a mut [f32],
    /// Weighted values, not yet divided by the sum: `[queries, group, head_dim]`.
    pub values: &'a mut [f32],
}

impl<'a> Partial<'a> {
    /// Numbers for one query of one query head.
    pub fn len_of_one(head_dim: usize) -> usize {
        2 + head_dim
    }

    /// Lays a partial result out in as many numbers as its queries need.
    pub fn of(numbers: &'a mut [f32], head_dim: usize) -> Self {
        let count = numbers.len() / Self::len_of_one(head_dim);
        let (max, rest) = numbers.split_at_mut(count);
        let (sum, values) = rest.split_at_mut(count);
        Self { max, sum, values }
    }

    pub fn clear(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.values.fill(0.0);
    }

    /// Adds what one query found to what earlier pieces did: their largest score, their sum of exponentials and their
    /// weighted values, both relative to that score.
    pub fn merge_into(&self, query: usize, max: &mut f32, sum: &mut f32, values: &mut [f32]) {
        if self.sum[query] == 0.0 {
            return;
        }
        let found = &self.values[query * values.len()..(query + 1) * values.len()];
        let largest = max.max(self.max[query]);
        let (before, here) = ((*max - largest).exp(), (self.max[query] - largest).exp());
        *max = largest;
        *sum = *sum * before + self.sum[query] * here;
        values.iter_mut().zip(found).for_each(|(value, found)| *value = *value * before + found * here);
    }
}
