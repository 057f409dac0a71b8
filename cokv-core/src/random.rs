//! Random numbers that depend on what they are for and on nothing else: no state, no order of drawing.

/// One step of SplitMix64 (Steele, Lea, Flood 2014): neighbouring inputs give unrelated outputs.
pub fn mix(input: u64) -> u64 {
    let bits = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number from 0 to 1 of the upper 24 bits, which are what an f32 below 1 can hold.
pub fn fraction(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1u64 << 24) as f32
}
