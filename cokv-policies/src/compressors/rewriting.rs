//! What becomes of pairs that are kept.

use cokv_core::{CacheCompressor, HeadSelection, LayerView, Pairs, PolicyError};

use super::part::gather;

/// Keys and values of what each head keeps, as the prompt has them.
pub fn kept_pairs(layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
    let keys = layer.recorded("keys", layer.keys)?;
    let values = layer.recorded("values", layer.values)?;
    let pairs = kept.iter().enumerate().map(|(head, kept)| {
        let positions = kept.positions(layer.prompt_len);
        let [keys, values] = [keys, values].map(|vectors| gather(layer, vectors, head, &positions));
        Pairs { keys, values, biases: Vec::new() }
    });
    Ok(pairs.collect())
}

/// The same as another compressor leaves them.
pub fn pairs_of(
    base: &dyn CacheCompressor,
    layer: &LayerView<'_>,
    kept: &[HeadSelection],
) -> Result<Vec<Pairs>, PolicyError> {
    if base.rewrites() { base.rewrite(layer, kept) } else { kept_pairs(layer, kept) }
}

/// Keys and values of what each head keeps, the keys turned as if its tokens stood next to each other, the last right
/// before the token that follows the prompt.
///
/// Published code moves the `n` tokens of a head to positions 0 … n − 1 and goes on at n, which asks for queries of
/// other positions in every head. RoPE is relative: here they move to T − n … T − 1 of a prompt of T tokens, so that
/// the next token, at T as ever, stands right behind them in every head, and all products of queries and keys are the
/// same.
pub fn moved_together(layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
    let mut pairs = kept_pairs(layer, kept)?;
    let rotary = layer.recorded("the rotary embedding", layer.rotary)?;
    for (kept, pairs) in kept.iter().zip(&mut pairs) {
        let positions = kept.positions(layer.prompt_len);
        let first = layer.prompt_len - positions.len();
        for (place, (key, was)) in pairs.keys.chunks_exact_mut(layer.layout.head_dim).zip(positions).enumerate() {
            rotary.turn(key, (first + place) as f64 - was as f64);
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::Prompt;
    use crate::compressors::linear_algebra::dot;

    /// Token 5 of the first head as the third of three: by published code at position 2, here 13 behind it.
    #[test]
    fn a_key_of_the_closed_form_is_turned() {
        let prompt = Prompt::new(16).turned_by(vec![1.0, 0.1]);
        let kept = [HeadSelection::Tokens(vec![0, 1, 5]), HeadSelection::Everything];
        let pairs = moved_together(&prompt.view(), &kept).unwrap();
        let mut third = pairs[0].keys[2 * 4..].to_vec();
        prompt.view().rotary.unwrap().turn(&mut third, -13.0);
        for (ours, expected) in third.iter().zip([0.9725376f32, -0.3731568, -0.2621192, 1.1619658]) {
            assert!((ours - expected).abs() < 1e-6, "{third:?}");
        }
        let length = |key: &[f32]| dot(key, key).sqrt();
        assert!((length(&third) - 1.5823863).abs() < 1e-6);
        assert_eq!(pairs[0].values[..4], prompt.view().values.unwrap()[..4], "values stay");
        assert_eq!(pairs[1].keys, prompt.view().keys.unwrap()[64..], "and so do keys without a gap");
    }

    /// The token behind the prompt, which published code puts behind the kept ones, sees the same keys.
    #[test]
    fn products_are_those_of_positions_from_0_on() {
        let prompt = Prompt::new(16).turned_by(vec![1.0, 0.1]);
        let (view, rotary) = (prompt.view(), prompt.view().rotary.unwrap());
        let positions = [vec![2, 3, 9, 15], vec![0, 7]];
        let kept =
            positions.clone().map(|of_head| HeadSelection::Tokens(of_head.iter().map(|&at| at as u32).collect()));
        for (head, pairs) in moved_together(&view, &kept).unwrap().iter().enumerate() {
            let count = positions[head].len();
            let turned = |vector: &[f32], by: f64| {
                let mut vector = vector.to_vec();
                rotary.turn(&mut vector, by);
                vector
            };
            let query = [0.3f32, -0.7, 1.1, 0.2];
            for (place, &position) in positions[head].iter().enumerate() {
                let key = &view.keys.unwrap()[(head * 16 + position) * 4..][..4];
                let published = turned(key, place as f64 - position as f64);
                let expected = dot(&turned(&query, count as f64), &published);
                let ours = dot(&turned(&query, 16.0), &pairs.keys[place * 4..][..4]);
                assert!((ours - expected).abs() < 1e-5, "head {head}, token {position}: {ours} and not {expected}");
            }
        }
    }
}
