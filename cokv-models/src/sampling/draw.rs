//! Where in the unit interval an answer's tokens are drawn.

/// What SplitMix64 adds between two numbers.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number of [0, 1) that decides about a token of an answer, a multiple of 2⁻⁵³.
///
/// It depends on nothing but the seed, the choice (which of several answers to a prompt) and the token's place in the answer. With
/// `S(s, i)` as the i-th number, from 0, of a SplitMix64 (Steele, Lea and Flood, 2014) whose state is s, it is the first 53 bits of
/// `S(S(S(0, seed), choice), token)`. These numbers will not change: they are what a seed promises.
pub fn uniform(seed: u64, choice: usize, token: usize) -> f64 {
    let bits = split_mix(split_mix(split_mix(0, seed), choice as u64), token as u64);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn split_mix(state: u64, index: u64) -> u64 {
    let mut bits = state.wrapping_add(GAMMA.wrapping_mul(index.wrapping_add(1)));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_is_the_published_one() {
        // Vigna's splitmix64.c from the state 1234567.
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([0, 1, 2].map(|index| split_mix(1_234_567, index)), published);
    }

    #[test]
    fn numbers_are_pinned() {
        let drawn = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (u64::MAX, 7, 4095)];
        let drawn = drawn.map(|(seed, choice, token)| uniform(seed, choice, token));
        let by_python = [
            0.138_709_410_145_554_27,
            0.971_102_082_801_288_3,
            0.183_839_791_007_439_52,
            0.502_623_081_829_476_7,
            0.040_672_074_461_641_34,
        ];
        assert_eq!(drawn, by_python);
    }

    /// Neither a draw nor its product with a neighbour in any of the three places leans to a side.
    #[test]
    fn neighbours_have_nothing_in_common() {
        let (draws, mut sum, mut products) = (100_000, 0.0, [0.0; 3]);
        for i in 0..draws {
            let at = |seed: u64, choice, token| uniform(seed, choice, token) - 0.5;
            let here = at(i as u64, i % 8, i);
            sum += here;
            let neighbours = [at(i as u64 + 1, i % 8, i), at(i as u64, i % 8 + 1, i), at(i as u64, i % 8, i + 1)];
            products.iter_mut().zip(neighbours).for_each(|(product, there)| *product += here * there);
        }
        // Five standard deviations of the means: 1/√12 and 1/12 each.
        let bound = 5.0 / (draws as f64).sqrt();
        assert!((sum / draws as f64).abs() < bound / 12f64.sqrt());
        assert!(products.iter().all(|product| (product / draws as f64).abs() < bound / 12.0), "{products:?}");
    }
}
