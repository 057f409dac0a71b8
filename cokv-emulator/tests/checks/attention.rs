//! Attention against sums in f64.

use std::fmt;
use std::ops::Range;

use cokv_cuda::device::{Argument, Buffer, Device, Kind, Launch};
use cokv_cuda::plan::tables::{DIRECT, Item, Join};
use cokv_emulator::{Emulated, HostBuffer, Random};

use super::numbers::{get, normals, put, put_numbers, read, unit_error};

/// A kernel that attends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Few,
    /// Of 64 queries, or of 128.
    Many(usize),
    Plain,
}

/// Some tokens of one row, all KV heads of a layer.
#[derive(Clone, Debug)]
pub struct Case {
    pub kernel: Kernel,
    /// Of keys and values, and of queries but in the plain kernel.
    pub kind: Kind,
    pub output: Kind,
    pub head_dim: usize,
    pub group: usize,
    pub kv_heads: usize,
    pub tokens: usize,
    /// Keys of each part of the cache.
    pub parts: [u32; 3],
    /// The first key that is seen.
    pub begin: u32,
    /// Where keys are cut into several items, whose results are joined.
    pub cuts: Vec<u32>,
    /// Whether the tokens are the last of the keys, and see those up to themselves.
    pub causal: bool,
    /// How many keys a token sees at most.
    pub window: Option<u32>,
    /// Draws the numbers.
    pub seed: u64,
}

/// Keys and values of a KV head.
struct Head {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Of each part, while the case runs.
    buffers: [[HostBuffer; 3]; 2],
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Few => "few",
            Self::Many(_) => "many",
            Self::Plain => "plain",
        })
    }
}

impl Kernel {
    /// Queries that an item may have.
    pub fn queries(self) -> usize {
        match self {
            Self::Few => 16,
            Self::Many(tiles) => 64 * tiles,
            Self::Plain => 1024,
        }
    }
}

impl Case {
    /// One of so many keys, the rest of which `random` draws.
    pub fn draw(random: &mut Random, kernel: Kernel, kind: Kind, head_dim: usize, keys: u32) -> Self {
        let group = [1, 3, 4, 7, 8][random.below(5)];
        let at_most = (kernel.queries() / group).min(if kernel == Kernel::Plain { 4 } else { usize::MAX });
        // Often as many as there is room for.
        let tokens = if random.one_in(3) { at_most } else { 1 + random.below(at_most) };
        let causal = !random.one_in(3) && tokens as u32 <= keys;
        // Every token sees a key.
        let first_visible = if causal { keys - tokens as u32 + 1 } else { keys };
        let begin = if random.one_in(2) { 0 } else { random.below(first_visible as usize) as u32 };
        // About where a tile begins, or where some of the tokens see no more.
        let boundary = |random: &mut Random| {
            let tile = begin + [16, 64][random.below(2)] * random.below(6) as u32;
            let place = [tile, tile + 1, tile.saturating_sub(1), keys - random.below(tokens.min(keys as usize)) as u32];
            if random.one_in(3) { random.below(keys as usize + 1) as u32 } else { place[random.below(4)].min(keys) }
        };
        let mut until = [(); 2].map(|()| if random.one_in(3) { 0 } else { boundary(random) });
        until.sort_unstable();
        let parts = [until[0], until[1] - until[0], keys - until[1]];
        let mut cuts: Vec<u32> = (0..random.below(6).saturating_sub(2)).map(|_| boundary(random)).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts.retain(|&cut| begin < cut && cut < keys);
        let window =
            (kernel == Kernel::Plain && begin == 0 && random.one_in(2)).then(|| 1 + random.below(keys as usize) as u32);
        Self {
            kernel,
            kind,
            output: [Kind::F32, kind][random.below(2)],
            head_dim,
            group,
            kv_heads: 1 + random.below(2),
            tokens,
            parts,
            begin,
            cuts,
            causal,
            window,
            seed: random.number(),
        }
    }

    /// Where a key more or less would go unseen elsewhere.
    pub fn edges(kernel: Kernel, kind: Kind, head_dim: usize) -> Vec<Self> {
        let case = |parts, cuts: &[u32], causal| Self {
            kernel,
            kind,
            output: Kind::F32,
            head_dim,
            group: 2,
            kv_heads: 1,
            tokens: 8,
            parts,
            begin: 0,
            cuts: cuts.to_vec(),
            causal,
            window: None,
            seed: head_dim as u64,
        };
        vec![
            // Parts that end a key before or behind a tile.
            case([63, 64, 73], &[], false),
            case([65, 64, 71], &[], false),
            // Items that do.
            case([0, 0, 200], &[63, 127, 192], false),
            // A first token that sees all keys of a tile but the last, and then one that sees none of an item.
            case([0, 0, 70], &[], true),
            case([0, 0, 70], &[66], true),
            // One that sees none of the keys of a warp.
            case([0, 0, 20], &[], true),
        ]
    }

    fn keys(&self) -> u32 {
        self.parts.iter().sum()
    }

    /// Keys below `until[0]` are of the first part, below `until[1]` of the second.
    fn until(&self) -> [u32; 2] {
        [self.parts[0], self.parts[0] + self.parts[1]]
    }

    /// Keys below it may be seen by a token.
    fn visible(&self, token: usize) -> u32 {
        self.keys() - if self.causal { (self.tokens - 1 - token) as u32 } else { 0 }
    }

    /// Keys that a token no longer sees.
    fn hidden(&self, token: usize) -> u32 {
        self.window.map_or(0, |window| self.visible(token).saturating_sub(window))
    }

    /// Keys of each item.
    fn ranges(&self) -> Vec<Range<u32>> {
        let begins = [self.begin].into_iter().chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain([self.keys()]);
        begins.zip(ends).map(|(begin, end)| begin..end).collect()
    }

    /// Where a token of this case is among those of the pass: neither first nor next to another.
    fn place(token: usize) -> usize {
        2 * token + 1
    }

    /// What is wrong with a device's results.
    pub fn check(&self, device: &Emulated) -> Result<(), String> {
        self.results_differ(device).map_err(|error| format!("{error} in {self:?}"))
    }

    fn results_differ(&self, device: &Emulated) -> Result<(), String> {
        let mut random = Random::new(self.seed);
        let query_heads = self.kv_heads * self.group;
        let query_kind = if self.kernel == Kernel::Plain { Kind::F32 } else { self.kind };
        let places = 2 * self.tokens + 1;
        let queries = normals(&mut random, query_kind, places * query_heads * self.head_dim);
        let heads: Vec<Head> = (0..self.kv_heads).map(|_| self.head(device, &mut random)).collect();
        let (output, log_sums) = self.run(device, &put_numbers(device, query_kind, &queries), &heads)?;
        // Weights are rounded before they meet the values.
        let weight_error = if self.kernel == Kernel::Plain { 0.0 } else { unit_error(self.kind) };
        for place in 0..places * query_heads {
            let (token, query_head) = (place / query_heads, place % query_heads);
            let written = &output[place * self.head_dim..][..self.head_dim];
            if token % 2 == 0 {
                if !written.iter().chain([&log_sums[place]]).all(|x| x.is_nan()) {
                    return Err(format!("a result of a token that was not asked for, {token}"));
                }
                continue;
            }
            let query = &queries[place * self.head_dim..][..self.head_dim];
            let (expected, absolute, log_sum) = self.reference(&heads[query_head / self.group], query, token / 2);
            let near = |found: f32, expected: f64, tolerance: f64| (f64::from(found) - expected).abs() <= tolerance;
            if !near(log_sums[place], log_sum, 2e-5) {
                return Err(format!(
                    "query head {query_head} of token {token}: log-sum {} for {log_sum}",
                    log_sums[place]
                ));
            }
            for (dim, (&found, &expected)) in written.iter().zip(&expected).enumerate() {
                let tolerance = 1e-5 + weight_error * absolute[dim] + unit_error(self.output) * expected.abs();
                if !near(found, expected, tolerance) {
                    return Err(format!("query head {query_head} of token {token}, dim {dim}: {found} for {expected}"));
                }
            }
        }
        Ok(())
    }

    fn head(&self, device: &Emulated, random: &mut Random) -> Head {
        let [keys, values] = [(); 2].map(|()| normals(random, self.kind, self.keys() as usize * self.head_dim));
        let until = self.until();
        let parts = [0..until[0], until[0]..until[1], until[1]..self.keys()];
        let buffers = [&keys, &values].map(|numbers| {
            parts.clone().map(|part| {
                let numbers = &numbers[part.start as usize * self.head_dim..part.end as usize * self.head_dim];
                put_numbers(device, self.kind, numbers)
            })
        });
        Head { keys, values, buffers }
    }

    /// Runs the kernels: results `[places, query_heads, head_dim]` and log-sums.
    fn run(&self, device: &Emulated, queries: &HostBuffer, heads: &[Head]) -> Result<(Vec<f32>, Vec<f32>), String> {
        let slots = (self.tokens * self.group) as u32;
        // The first of the tables' tokens are none of this case's.
        let tokens: Vec<u32> = [0].into_iter().chain((0..self.tokens).map(|token| Self::place(token) as u32)).collect();
        let hidden: Vec<u32> = [u32::MAX].into_iter().chain((0..self.tokens).map(|token| self.hidden(token))).collect();
        let ranges = self.ranges();
        let (mut items, mut joins, mut partials) = (Vec::new(), Vec::new(), 0);
        for (kv_head, head) in heads.iter().enumerate() {
            // Half of the items are of a set in which every item has results of others as well.
            let stacked = ranges.len() / 2;
            let stride = slots + 5;
            let first = [partials + 2, partials + stacked as u32 * stride];
            for (index, range) in ranges.iter().enumerate() {
                let partial = match index.checked_sub(stacked) {
                    _ if ranges.len() == 1 => DIRECT,
                    None => first[0] + index as u32 * stride,
                    Some(index) => first[1] + index as u32 * slots,
                };
                items.push(self.item(head, kv_head, range, partial));
            }
            if ranges.len() > 1 {
                let counts = [stacked as u32, (ranges.len() - stacked) as u32];
                partials = first[1] + counts[1] * slots;
                joins.push(Join {
                    first,
                    count: counts,
                    stride: [stride, slots],
                    token: 1,
                    tokens: self.tokens as u32,
                    head: (kv_head * self.group) as u32,
                    unused: 0,
                });
            }
        }
        let query_heads = self.kv_heads * self.group;
        let places = (2 * self.tokens + 1) * query_heads;
        let output = device.allocate(places * self.head_dim * self.output.bytes()).unwrap();
        let log_sums = device.allocate(places * 4).unwrap();
        let partial_results = device.allocate(partials as usize * (self.head_dim + 2) * 4).unwrap();
        let [tokens, hidden] = [tokens, hidden].map(|table| put(device, bytemuck::cast_slice(&table)));
        let item_table = put(device, bytemuck::cast_slice(&items));
        let results = [Argument::from(output.address()), log_sums.address().into(), self.output.into()];
        let scale = std::f32::consts::LOG2_E / (self.head_dim as f32).sqrt();

        let mut arguments: Vec<Argument> = vec![item_table.address().into(), tokens.address().into()];
        if self.kernel == Kernel::Plain {
            arguments.push(hidden.address().into());
        }
        arguments.extend([queries.address(), partial_results.address()].map(Argument::from));
        arguments.extend(results);
        arguments.extend([self.group, query_heads].map(Argument::from));
        if self.kernel == Kernel::Plain {
            arguments.push(self.head_dim.into());
        }
        arguments.push(scale.into());
        let launch = Launch {
            kernel: &self.kernel_name(),
            // The plain kernel's items may have fewer queries than there are blocks for.
            blocks: [items.len(), if self.kernel == Kernel::Plain { slots as usize + 1 } else { 1 }],
            threads: 128,
            shared_bytes: self.shared_bytes(),
        };
        device.launch(launch, &arguments).map_err(|error| error.to_string())?;
        if !joins.is_empty() {
            let join_table = put(device, bytemuck::cast_slice(&joins));
            let mut arguments: Vec<Argument> =
                vec![join_table.address().into(), tokens.address().into(), partial_results.address().into()];
            arguments.extend(results);
            arguments.extend([self.group, query_heads, self.head_dim].map(Argument::from));
            let launch = Launch { kernel: "join", blocks: [joins.len(), 1], threads: 128, shared_bytes: 0 };
            device.launch(launch, &arguments).map_err(|error| error.to_string())?;
        }
        Ok((read(self.output, &get(device, &output)), read(Kind::F32, &get(device, &log_sums))))
    }

    fn item(&self, head: &Head, kv_head: usize, range: &Range<u32>, partial: u32) -> Item {
        let until = self.until();
        let row_bytes = (self.head_dim * self.kind.bytes()) as u64;
        // Nothing is known of the address of a part without keys.
        let addresses = |buffers: &[HostBuffer; 3]| {
            std::array::from_fn(|part| match self.parts[part] {
                0 => 0,
                _ => buffers[part].address().wrapping_sub([0, until[0], until[1]][part] as u64 * row_bytes),
            })
        };
        Item {
            keys: addresses(&head.buffers[0]),
            values: addresses(&head.buffers[1]),
            until,
            begin: range.start,
            end: range.end,
            token: 1,
            tokens: self.tokens as u32,
            visible: self.visible(0),
            step: self.causal.into(),
            head: (kv_head * self.group) as u32,
            partial,
            hidden: if self.window.is_some() { 1 } else { DIRECT },
            unused: 0,
        }
    }

    fn kernel_name(&self) -> String {
        let (kind, head_dim) = (self.kind.name(), self.head_dim);
        match self.kernel {
            Kernel::Few => format!("attend_few_{kind}_{head_dim}"),
            Kernel::Many(tiles) => format!("attend_many_{kind}_{head_dim}_{tiles}"),
            Kernel::Plain => format!("attend_plain_{kind}"),
        }
    }

    fn shared_bytes(&self) -> usize {
        match self.kernel {
            Kernel::Few => 4 * self.tokens * self.group * (self.head_dim + 2) * 4,
            Kernel::Many(tiles) => {
                let width = if self.head_dim.is_multiple_of(64) { self.head_dim } else { self.head_dim + 8 };
                (4 * 64 + 4 * tiles * 16) * width * 2
            }
            Kernel::Plain => 4 * (self.head_dim + 2) * 4,
        }
    }

    /// A query's result, the same for absolute values, and the logarithm in base 2 of its sum of exponentials.
    fn reference(&self, head: &Head, query: &[f32], token: usize) -> (Vec<f64>, Vec<f64>, f64) {
        let row = |key: u32| key as usize * self.head_dim..(key as usize + 1) * self.head_dim;
        let seen = self.begin.max(self.hidden(token))..self.visible(token);
        let dot = |key| head.keys[row(key)].iter().zip(query).map(|(&k, &q)| f64::from(k) * f64::from(q)).sum::<f64>();
        let weights: Vec<f64> = seen.clone().map(|key| (dot(key) / (self.head_dim as f64).sqrt()).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; self.head_dim];
        let mut absolute = out.clone();
        for (key, weight) in seen.zip(weights) {
            for (dim, &value) in head.values[row(key)].iter().enumerate() {
                out[dim] += weight / sum * f64::from(value);
                absolute[dim] += weight / sum * f64::from(value.abs());
            }
        }
        (out, absolute, sum.log2())
    }
}
