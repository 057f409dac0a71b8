//! From the bytes of a file to a cache.

use cokv_core::{Format, Pairs};
use safetensors::Dtype;

use super::SavedCache;
use super::error::CacheFileError;
use super::header::Header;
use super::identity::Identity;
use super::numbers::{bytes_of, dtype, from_words, widened};

/// Reads all tensors, whose bytes lie behind the header, and checks that they are a cache.
pub(super) fn decode(header: Header, data: &[u8]) -> Result<SavedCache, CacheFileError> {
    let (seen, rows) = header.check_shapes()?;
    header.check_seal(data)?;
    let Identity { layout, format, .. } = header.description.identity;
    let tensor = |name, dtype| -> Result<&[u8], CacheFileError> {
        let range = header.tensor(name, dtype)?.map(|info| info.data_offsets.0..info.data_offsets.1);
        Ok(range.and_then(|range| data.get(range)).unwrap_or_default())
    };
    let words = |name| Ok::<_, CacheFileError>(from_words(tensor(name, Dtype::U32)?));

    let lengths = words("lengths")?;
    if lengths.iter().try_fold(0_usize, |sum, &length| sum.checked_add(length as usize)) != Some(rows) {
        return Err(CacheFileError::Damaged(format!("the lengths of its heads do not add up to {rows}")));
    }
    let (all_positions, kind) = (words("positions")?, dtype(format));
    let (keys, values, biases) = (tensor("keys", kind)?, tensor("values", kind)?, tensor("biases", Dtype::F32)?);
    let (mut positions, mut pairs) = (Vec::with_capacity(lengths.len()), Vec::with_capacity(lengths.len()));
    let mut first = 0;
    for (head, &length) in lengths.iter().enumerate() {
        let own = first..first + length as usize;
        first = own.end;
        let broken = |what: &str| {
            let (layer, kv_head) = layout.place(head);
            CacheFileError::Damaged(format!("{what} in head {layer}.{kv_head}"))
        };
        let of_head = all_positions[own.clone()].to_vec();
        let ascend = of_head.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascend || of_head.last().is_some_and(|&last| last as usize >= seen) {
            return Err(broken(&format!("positions do not ascend below {seen}")));
        }
        positions.push(of_head);
        let numbers = |bytes: &[u8], format, width: usize| -> Result<Vec<f32>, CacheFileError> {
            let size = width * bytes_of(format);
            let numbers = widened(bytes.get(own.start * size..own.end * size).unwrap_or_default(), format);
            let finite = numbers.iter().all(|number| number.is_finite());
            finite.then_some(numbers).ok_or_else(|| broken("numbers are not finite"))
        };
        let mut biases = numbers(biases, Format::F32, 1)?;
        // Of a head without any among others that have some.
        if biases.iter().all(|&bias| bias == 0.0) {
            biases.clear();
        }
        pairs.push(Pairs {
            keys: numbers(keys, format, layout.head_dim)?,
            values: numbers(values, format, layout.head_dim)?,
            biases,
        });
    }
    let text = String::from_utf8(tensor("text", Dtype::U8)?.to_vec());
    let text = text.map_err(|error| CacheFileError::Damaged(format!("its text is none: {error}")))?;
    let text = header.has("text").then_some(text);
    Ok(SavedCache { tokens: words("tokens")?, text, positions, pairs, description: header.description })
}
