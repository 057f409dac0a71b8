//! Work that several machines share.

use std::str::FromStr;

/// The part of some numbered work that is one of several machines': what has a number `k` with `k % count == index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which shard, below `count`.
    pub index: u64,
    /// How many shards there are.
    pub count: u64,
}

impl Shard {
    /// The only one.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// As people count: `1/4` is the first of four.
impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || -> Option<Self> {
            let (part, count) = text.split_once('/')?;
            let (part, count): (u64, u64) = (part.parse().ok()?, count.parse().ok()?);
            (1..=count).contains(&part).then(|| Self { index: part - 1, count })
        };
        read().ok_or_else(|| format!("`{text}` is no shard: write 1/4, 2/4, 3/4 or 4/4"))
    }
}
