//! From a cache to the bytes of a file.

use safetensors::Dtype;

use super::description::Description;
use super::header::{self, Part};
use super::identity::Identity;
use super::numbers::{dtype, narrowed, words};
use crate::cache::Segment;
use crate::error::ModelError;

/// The bytes of a file for a cache that has seen these tokens, of this text where that is to be in it too.
///
/// # Errors
/// Where the cache is another model's or of other tokens, or its numbers cannot be had from where they lie.
pub fn encode(
    description: &Description,
    tokens: &[u32],
    text: Option<&str>,
    cache: &Segment,
) -> Result<Vec<u8>, ModelError> {
    let Identity { layout, format, .. } = description.identity;
    if (layout, format, tokens.len()) != (cache.layout(), cache.format(), cache.seen()) {
        return Err(ModelError::Backend("a cache was to be saved as that of another model or text".into()));
    }
    let (heads, rows) = (layout.heads(), cache.total_tokens());
    let mut biased = false;
    for head in 0..heads {
        biased = biased || !cache.read(head)?.biases.is_empty();
    }
    let part = |name, dtype, shape: &[usize]| Part { name, dtype, shape: shape.to_vec() };
    let parts = [
        part("keys", dtype(format), &[rows, layout.head_dim]),
        part("values", dtype(format), &[rows, layout.head_dim]),
        part("biases", Dtype::F32, &[rows]),
        part("tokens", Dtype::U32, &[tokens.len()]),
        part("lengths", Dtype::U32, &[heads]),
        part("positions", Dtype::U32, &[rows]),
        part("text", Dtype::U8, &[text.unwrap_or_default().len()]),
    ];
    let is_there = |name: &str| (biased || name != "biases") && (text.is_some() || name != "text");
    let parts: Vec<Part> = parts.into_iter().filter(|part| is_there(part.name)).collect();
    let (mut bytes, start) = header::begun(description, &parts)?;

    let mut rest = &mut bytes[start..];
    let mut places = Vec::with_capacity(parts.len());
    for part in &parts {
        let (place, behind) = std::mem::take(&mut rest).split_at_mut(part.bytes());
        places.push((part.name, place));
        rest = behind;
    }
    let mut write = |name: &str, numbers: &[u8]| {
        if let Some((_, place)) = places.iter_mut().find(|(place, _)| *place == name) {
            let (now, later) = std::mem::take(place).split_at_mut(numbers.len());
            now.copy_from_slice(numbers);
            *place = later;
        }
    };
    write("tokens", &words(tokens.iter().copied()));
    write("text", text.unwrap_or_default().as_bytes());
    for head in 0..heads {
        let (mut pairs, rows) = (cache.read(head)?, cache.len(head));
        pairs.biases.resize(rows, 0.0);
        write("keys", &narrowed(&pairs.keys, format));
        write("values", &narrowed(&pairs.values, format));
        write("biases", &words(pairs.biases.into_iter().map(f32::to_bits)));
        write("lengths", &words([rows as u32]));
        write("positions", &words((0..rows).map(|row| cache.position(head, row))));
    }
    header::seal(&mut bytes).map_err(|error| ModelError::Backend(error.to_string()))?;
    Ok(bytes)
}
