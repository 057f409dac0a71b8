//! How attention is cut into blocks of work, so that heads of 8 and of 8,000 tokens keep a GPU busy together.
//!
//! Nothing here knows a device: addresses are numbers.
//!
//! - Rows that see the same slice of a segment are stacked: their queries are one matrix against its keys. What follows in each
//!   cache is the row's own.
//! - A tile is as many tokens as a kernel has room for with the queries of a group: up to 16 queries (`attend_few`), 64 or 128
//!   (`attend_many`).
//! - Keys are cut where there are too few tiles, and what tiles make of their parts is joined.
//! - Long items come first, so that no long one ends last.

pub mod tables;

use std::ops::Range;

use self::tables::{DIRECT, Item, Join};
use crate::device::Kind;

/// Rows that must see the same slice to be stacked, and keys that it must have: fewer gain little.
const ROWS_TOGETHER: usize = 4;
const KEYS_TOGETHER: u32 = 256;

/// Keys that an item has at most, from the first that makes enough items.
const STEPS: [u32; 6] = [u32::MAX, 4096, 2048, 1024, 512, 256];

/// Queries that an item of `attend_plain` has at most.
const PLAIN_QUERIES: usize = 1024;

/// One KV head of one row's cache, before the row's new tokens are appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// As [`Item::keys`].
    pub keys: [u64; 3],
    /// As [`Item::values`].
    pub values: [u64; 3],
    /// As [`Item::until`]: keys in the first slice, and in both.
    pub until: [u32; 2],
    /// Keys in all parts.
    pub keys_before: u32,
    /// Place in [`Plan::hidden`] where a sliding window hides keys.
    pub hidden: Option<u32>,
}

/// Kernels that attend, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// `attend_many` of up to 128 queries.
    Many2,
    /// `attend_many` of up to 64 queries.
    Many1,
    /// `attend_few`, up to 16 queries.
    Few,
    /// `attend_plain`.
    Plain,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Many2, Self::Many1, Self::Few, Self::Plain];

    /// As `kernels/` calls it, for caches of a kind and heads of a size.
    pub fn name(self, kind: Kind, head_dim: usize) -> String {
        match self {
            Self::Many2 => format!("{}_{head_dim}_2", kind.kernel("attend_many")),
            Self::Many1 => format!("{}_{head_dim}_1", kind.kernel("attend_many")),
            Self::Few => format!("{}_{head_dim}", kind.kernel("attend_few")),
            Self::Plain => kind.kernel("attend_plain"),
        }
    }

    /// Shared memory of a block.
    pub fn shared_bytes(self, head_dim: usize) -> usize {
        // Keys and values of two tiles each, and the queries; rows are padded where swizzling does not keep banks apart.
        let row_bytes = 2 * if head_dim.is_multiple_of(64) { head_dim } else { head_dim + 8 };
        match self {
            Self::Many2 | Self::Many1 => (4 * 64 + self.queries()) * row_bytes,
            // Results of four warps, with peak and sum.
            Self::Few => 4 * self.queries() * (head_dim + 2) * 4,
            Self::Plain => 4 * (head_dim + 2) * 4,
        }
    }

    /// Queries that an item has at most.
    pub fn queries(self) -> usize {
        match self {
            Self::Many2 => 128,
            Self::Many1 => 64,
            Self::Few => 16,
            Self::Plain => PLAIN_QUERIES,
        }
    }
}

/// What is the same in all layers of a pass.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Queries of a KV head.
    pub group: usize,
    /// KV heads of a layer.
    pub kv_heads: usize,
    /// Items that a layer should have at least.
    pub enough_items: usize,
    /// Whether the fast kernels can be used.
    pub fast: bool,
}

/// All work of a layer. Buffers are filled anew for every layer.
#[derive(Debug, Default)]
pub struct Plan {
    /// Of all kernels, one after the other.
    pub items: Vec<Item>,
    /// Of each kernel in [`Kernel::ALL`], which of them.
    pub of_kernels: [Range<usize>; 4],
    /// What is joined behind them.
    pub joins: Vec<Join>,
    /// Tokens of the pass, counted over all rows: first each once, then those of stacks.
    pub tokens: Vec<u32>,
    /// Keys that tokens no longer see.
    pub hidden: Vec<u32>,
    /// Partial results.
    pub partials: usize,
    /// New tokens of each row.
    rows: Vec<usize>,
}

/// Some tokens, a tile at most of them in one item, against a range of keys.
struct Unit {
    kernel: Kernel,
    head: Head,
    query_head: u32,
    /// Place of the first in the table of tokens.
    token: usize,
    tokens: usize,
    keys: Range<u32>,
    /// Whether every token sees one more key than the one before, the first `keys_before + 1`; else all see all.
    causal: bool,
    /// The stack's result that is joined with its own: first partial result of its first query, count and stride.
    stacked: Option<[u32; 3]>,
}

impl Plan {
    /// Nothing planned yet; `rows` are the new tokens of each row.
    pub fn new(rows: Vec<usize>) -> Self {
        let tokens = (0..rows.iter().sum::<usize>() as u32).collect();
        Self { tokens, rows, ..Self::default() }
    }

    /// New tokens of each row.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Tokens of all rows.
    pub fn total(&self) -> usize {
        self.rows.iter().sum()
    }

    /// Plans a layer. `heads` are `[rows, kv_heads]`; keys that they hide stand in [`hidden`](Self::hidden) already.
    pub fn layer(&mut self, shape: &Shape, heads: &[Head]) {
        let mut partials = 0;
        let mut cut: [Vec<Item>; 4] = Default::default();
        self.items.clear();
        self.joins.clear();
        self.tokens.truncate(self.total());
        let (stacks, mut alone) = self.units(shape, heads);
        let step = STEPS.into_iter().find(|&step| {
            let items = stacks.iter().map(|(stack, _)| stack).chain(&alone).map(|unit| unit.items(shape.group, step));
            items.sum::<usize>() >= shape.enough_items
        });
        let step = step.unwrap_or(STEPS[STEPS.len() - 1]);
        for (stack, members) in stacks {
            let queries = (stack.tokens * shape.group) as u32;
            let parts = stack.cut(shape.group, step, 0, stack.tokens, partials, &mut cut);
            let mut first = partials;
            for member in members {
                let unit: &mut Unit = &mut alone[member];
                unit.stacked = Some([first, parts, queries]);
                first += (unit.tokens * shape.group) as u32;
            }
            partials += parts * queries;
        }
        for unit in &alone {
            let tile = unit.tile(shape.group);
            for start in (0..unit.tokens).step_by(tile) {
                let tokens = tile.min(unit.tokens - start);
                let queries = (tokens * shape.group) as u32;
                let parts = unit.parts(step, start, tokens);
                if parts == 1 && unit.stacked.is_none() {
                    unit.cut(shape.group, step, start, tokens, DIRECT, &mut cut);
                    continue;
                }
                unit.cut(shape.group, step, start, tokens, partials, &mut cut);
                let [first, count, stride] = unit.stacked.unwrap_or_default();
                self.joins.push(Join {
                    first: [first + (start * shape.group) as u32, partials],
                    count: [count, parts],
                    stride: [stride, queries],
                    token: (unit.token + start) as u32,
                    tokens: tokens as u32,
                    head: unit.query_head,
                    unused: 0,
                });
                partials += parts * queries;
            }
        }
        self.of_kernels = cut.map(|mut items| {
            items.sort_by_key(|item| std::cmp::Reverse(item.end - item.begin));
            let first = self.items.len();
            self.items.append(&mut items);
            first..self.items.len()
        });
        self.partials = partials as usize;
    }

    /// Stacks with the places of their members among the units of rows alone.
    fn units(&mut self, shape: &Shape, heads: &[Head]) -> (Vec<(Unit, Vec<usize>)>, Vec<Unit>) {
        let (mut stacks, mut alone) = (Vec::new(), Vec::with_capacity(heads.len()));
        for kv_head in 0..shape.kv_heads {
            let query_head = (kv_head * shape.group) as u32;
            let head_of = |row: usize| &heads[row * shape.kv_heads + kv_head];
            let first_unit = alone.len();
            let mut token = 0;
            for (row, &tokens) in self.rows.iter().enumerate() {
                let head = *head_of(row);
                let kernel = kernel(shape, &head, tokens);
                let keys = 0..head.keys_before + tokens as u32;
                alone.push(Unit { kernel, head, query_head, token, tokens, keys, causal: true, stacked: None });
                token += tokens;
            }
            if self.rows.len() < ROWS_TOGETHER || !shape.fast {
                continue;
            }
            let slices: Vec<Option<(u64, u32)>> = alone[first_unit..].iter().map(Unit::slice).collect();
            let mut order: Vec<usize> = (0..slices.len()).filter(|&row| slices[row].is_some()).collect();
            order.sort_by_key(|&row| (slices[row], row));
            for together in order.chunk_by(|&a, &b| slices[a] == slices[b]) {
                if together.len() < ROWS_TOGETHER {
                    continue;
                }
                let members: Vec<usize> = together.iter().map(|row| first_unit + row).collect();
                let head = alone[members[0]].head;
                let token = self.tokens.len();
                for &member in &members {
                    let unit = &mut alone[member];
                    unit.keys.start = head.until[0];
                    self.tokens.extend((unit.token..unit.token + unit.tokens).map(|token| token as u32));
                }
                let tokens = self.tokens.len() - token;
                let keys = 0..head.until[0];
                let kernel = kernel(shape, &head, tokens);
                let unit = Unit { kernel, head, query_head, token, tokens, keys, causal: false, stacked: None };
                stacks.push((unit, members));
            }
        }
        (stacks, alone)
    }
}

/// The kernel for so many tokens.
fn kernel(shape: &Shape, head: &Head, tokens: usize) -> Kernel {
    let queries = tokens * shape.group;
    match queries {
        _ if !shape.fast || head.hidden.is_some() || shape.group > Kernel::Many2.queries() => Kernel::Plain,
        _ if queries <= Kernel::Few.queries() => Kernel::Few,
        _ if queries <= Kernel::Many1.queries() => Kernel::Many1,
        _ => Kernel::Many2,
    }
}

impl Unit {
    /// The slice that its cache begins with, where it is worth sharing.
    fn slice(&self) -> Option<(u64, u32)> {
        let Head { keys: [keys, ..], until: [until, _], .. } = self.head;
        (until >= KEYS_TOGETHER && self.kernel != Kernel::Plain).then_some((keys, until))
    }

    /// Tokens of an item.
    fn tile(&self, group: usize) -> usize {
        (self.kernel.queries() / group).max(1)
    }

    /// Keys that some of its tokens see together.
    fn seen(&self, start: usize, tokens: usize) -> Range<u32> {
        match self.causal {
            true => self.keys.start..self.head.keys_before + (start + tokens) as u32,
            false => self.keys.clone(),
        }
    }

    /// In how many parts the keys of some tokens are cut.
    fn parts(&self, step: u32, start: usize, tokens: usize) -> u32 {
        let step = if self.kernel == Kernel::Plain { u32::MAX } else { step };
        self.seen(start, tokens).len().div_ceil(step as usize) as u32
    }

    /// Items of all tiles.
    fn items(&self, group: usize, step: u32) -> usize {
        let tile = self.tile(group);
        let of_tile = |start| self.parts(step, start, tile.min(self.tokens - start)) as usize;
        (0..self.tokens).step_by(tile).map(of_tile).sum()
    }

    /// Items of some tokens, in parts of keys whose results lie one after the other from `partial` on, each with one for every
    /// query of these tokens. Returns the number of parts.
    fn cut(&self, group: usize, step: u32, start: usize, tokens: usize, partial: u32, cut: &mut [Vec<Item>; 4]) -> u32 {
        let Head { keys, values, until, keys_before, hidden } = self.head;
        let queries = (tokens * group) as u32;
        let step = if self.kernel == Kernel::Plain { u32::MAX } else { step };
        let parts = self.parts(step, start, tokens);
        for part in 0..parts {
            for tile in (start..start + tokens).step_by(self.tile(group)) {
                let of_tile = self.tile(group).min(start + tokens - tile);
                let seen = self.seen(tile, of_tile);
                let begin = seen.start + part * step;
                let visible = if self.causal { keys_before + tile as u32 + 1 } else { seen.end };
                cut[Kernel::ALL.iter().position(|&kernel| kernel == self.kernel).unwrap_or(0)].push(Item {
                    keys,
                    values,
                    until,
                    begin,
                    end: seen.end.min(begin.saturating_add(step)),
                    token: (self.token + tile) as u32,
                    tokens: of_tile as u32,
                    visible,
                    step: self.causal.into(),
                    head: self.query_head,
                    partial: match partial {
                        DIRECT => DIRECT,
                        first => first + part * queries + ((tile - start) * group) as u32,
                    },
                    hidden: hidden.map_or(DIRECT, |first| first + tile as u32),
                    unused: 0,
                });
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What items and joins make of each query: every key it sees, once.
    fn check(shape: &Shape, rows: &[usize], heads: &[Head]) {
        let mut plan = Plan::new(rows.to_vec());
        plan.layer(shape, heads);
        let tokens: usize = rows.iter().sum();
        let query_heads = shape.kv_heads * shape.group;
        // Of each query, the keys that were written directly, and of each partial result its keys.
        let mut written = vec![Vec::<u32>::new(); tokens * query_heads];
        let mut partials = vec![Option::<(usize, Vec<u32>)>::None; plan.partials];
        for (kernel, items) in Kernel::ALL.iter().zip(&plan.of_kernels) {
            let lengths: Vec<u32> = plan.items[items.clone()].iter().map(|item| item.end - item.begin).collect();
            assert!(lengths.is_sorted_by(|a, b| a >= b));
            for item in &plan.items[items.clone()] {
                assert!(
                    item.begin < item.end && item.tokens as usize * shape.group <= kernel.queries().max(shape.group)
                );
                for query in 0..item.tokens as usize * shape.group {
                    let (token, member) = (query / shape.group, query % shape.group);
                    let visible = item.visible + token as u32 * item.step;
                    let hidden = if item.hidden == DIRECT { 0 } else { plan.hidden[item.hidden as usize + token] };
                    let keys: Vec<u32> = (item.begin.max(hidden)..item.end.min(visible)).collect();
                    let place =
                        plan.tokens[item.token as usize + token] as usize * query_heads + item.head as usize + member;
                    if item.partial == DIRECT {
                        assert!(written[place].is_empty());
                        written[place] = keys;
                    } else {
                        let partial = &mut partials[item.partial as usize + query];
                        assert!(partial.is_none(), "a partial result is written twice");
                        *partial = Some((place, keys));
                    }
                }
            }
        }
        for join in &plan.joins {
            for query in 0..join.tokens as usize * shape.group {
                let token = plan.tokens[join.token as usize + query / shape.group] as usize;
                let place = token * query_heads + join.head as usize + query % shape.group;
                for set in 0..2 {
                    for part in 0..join.count[set] {
                        let at = join.first[set] + part * join.stride[set];
                        let (of, keys) =
                            partials[at as usize + query].take().expect("nobody wrote this, or it is joined twice");
                        assert_eq!(of, place, "a partial result of another query");
                        written[place].extend(keys);
                    }
                }
            }
        }
        assert!(partials.iter().all(Option::is_none), "a partial result is joined by nobody");
        let mut first = 0;
        for (row, &new) in rows.iter().enumerate() {
            for token in 0..new {
                for (head, keys) in written[(first + token) * query_heads..][..query_heads].iter_mut().enumerate() {
                    let of = heads[row * shape.kv_heads + head / shape.group];
                    let hidden = of.hidden.map_or(0, |place| plan.hidden[place as usize + token]);
                    keys.sort_unstable();
                    assert_eq!(*keys, (hidden..of.keys_before + token as u32 + 1).collect::<Vec<_>>());
                }
            }
            first += new;
        }
    }

    proptest! {
        #[test]
        fn every_query_sees_every_key_once(
            group in prop::sample::select(vec![1usize, 3, 4, 7, 8]),
            kv_heads in 1usize..3,
            enough_items in prop::sample::select(vec![1usize, 16, 264]),
            fast in prop::bool::weighted(0.8),
            rows in prop::collection::vec((1usize..40, 0u32..700, 0usize..3), 1..12),
        ) {
            let shape = Shape { group, kv_heads, enough_items, fast };
            let new: Vec<usize> = rows.iter().map(|row| row.0).collect();
            let mut heads = Vec::new();
            for &(_, own, slice) in &rows {
                for kv_head in 0..kv_heads {
                    let slice_len = [0, 300, 900][slice];
                    let keys = [(1 + slice + 10 * kv_head) as u64 * 1000, 0, 0];
                    heads.push(Head { keys, until: [slice_len, slice_len], keys_before: slice_len + own, ..Head::default() });
                }
            }
            check(&shape, &new, &heads);
        }
    }

    #[test]
    fn one_long_head_among_short_ones_is_cut() {
        let shape = Shape { group: 4, kv_heads: 8, enough_items: 264, fast: true };
        let rows = [1; 28];
        let mut heads = vec![Head { keys_before: 7, ..Head::default() }; 28 * 8];
        heads[0].keys_before = 7999;
        let mut plan = Plan::new(rows.to_vec());
        plan.layer(&shape, &heads);
        // 32 items of 256 keys, then one for each other head.
        assert_eq!(plan.items.len(), 32 + 223);
        assert_eq!((plan.joins.len(), plan.joins[0].count), (1, [0, 32]));
        assert!(plan.items[..31].iter().all(|item| item.end - item.begin == 256));
        check(&shape, &rows, &heads);
    }

    #[test]
    fn chunks_of_a_prompt_are_written_at_once() {
        let shape = Shape { group: 4, kv_heads: 8, enough_items: 264, fast: true };
        let heads = [Head { keys_before: 4096, ..Head::default() }; 8];
        let mut plan = Plan::new(vec![4096]);
        plan.layer(&shape, &heads);
        assert_eq!((plan.items.len(), plan.joins.len(), plan.partials), (8 * 128, 0, 0));
        assert_eq!((plan.items[0].end, plan.items[8 * 128 - 1].end), (8192, 4096 + 32));
    }
}
