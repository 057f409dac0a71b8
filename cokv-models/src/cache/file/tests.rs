use cokv_core::{Format, HeadLayout};
use proptest::prelude::*;

use super::*;
use crate::backend::host::HostStore;
use crate::cache::Segment;

const SEEN: usize = 40;
const VOCABULARY: usize = 100;

fn layout() -> HeadLayout {
    HeadLayout::new(2, 4, 2, 3).unwrap()
}

fn empty(format: Format) -> RaggedCache {
    RaggedCache::new(layout(), format, Box::new(HostStore::new(layout(), format)))
}

fn description(format: Format) -> Description {
    let text = str::to_owned;
    Description {
        identity: Identity {
            model: text("0123456789abcdef"),
            tokenizer: text("fedcba9876543210"),
            numerics: text("5"),
            layout: layout(),
            format,
            rope: text(r#"{"theta":10000.0}"#),
        },
        model: text("path:/models/tiny \"1\".gguf"),
        weights: text("stored"),
        backend: text("cpu"),
        chat_template_kwargs: text("{}"),
        prefix: text("aa"),
        method: text(r#"{ compressor = { name = "snapkv", window = 8 }, allocator = "uniform" }"#),
        budget: text("5%"),
        head_scores: None,
        created: text("2026-10-01T12:00:00Z"),
        cokv: text("0.1.0"),
    }
}

/// What the heads of a cache hold: which of the tokens, and numbers that a seed stands for.
#[derive(Clone, Debug)]
struct Content {
    format: Format,
    kept: [Vec<bool>; 4],
    biased: bool,
    seed: u32,
}

impl Content {
    fn positions(&self) -> Vec<Vec<u32>> {
        let of_head = |kept: &Vec<bool>| (0..).zip(kept).filter(|(_, kept)| **kept).map(|(at, _)| at).collect();
        self.kept.iter().map(of_head).collect()
    }

    fn cache(&self) -> RaggedCache {
        let mut state = self.seed.wrapping_mul(2_654_435_761) | 1;
        let mut numbers = |count: usize| -> Vec<f32> {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from_bits(state & 0x807f_ffff | 0x3f00_0000)
            };
            (0..count).map(|_| next()).collect()
        };
        let positions = self.positions();
        let pairs: Vec<Pairs> = positions
            .iter()
            .map(|positions| Pairs {
                keys: numbers(3 * positions.len()),
                values: numbers(3 * positions.len()),
                biases: if self.biased { numbers(positions.len()) } else { Vec::new() },
            })
            .collect();
        empty(self.format).restored(SEEN, positions, &pairs).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        encode(&description(self.format), &tokens(), Some("Ein Text."), &segment(self.cache())).unwrap()
    }
}

fn contents() -> impl Strategy<Value = Content> {
    let kept = prop_oneof![
        3 => prop::collection::vec(any::<bool>(), SEEN),
        1 => Just(vec![false; SEEN]),
        1 => Just(vec![true; SEEN]),
    ];
    let kept = prop::array::uniform4(kept);
    (prop::sample::select(&Format::ALL[..]), kept, any::<bool>(), any::<u32>())
        .prop_map(|(format, kept, biased, seed)| Content { format, kept, biased, seed })
}

/// Heads of 3, 0, 1 and all tokens.
fn some(format: Format, biased: bool) -> Content {
    let kept = |tokens: &[usize]| (0..SEEN).map(|at| tokens.contains(&at)).collect::<Vec<bool>>();
    Content { format, kept: [kept(&[1, 5, 39]), kept(&[]), kept(&[0]), vec![true; SEEN]], biased, seed: 7 }
}

fn tokens() -> Vec<u32> {
    (0..SEEN as u32).map(|at| at * 7 % VOCABULARY as u32).collect()
}

fn segment(cache: RaggedCache) -> std::sync::Arc<Segment> {
    cache.into_segment().unwrap().unwrap()
}

fn read(bytes: &[u8]) -> Result<SavedCache, CacheFileError> {
    let header = Header::read(&mut &*bytes, bytes.len() as u64)?;
    let start = header.start;
    decode::decode(header, &bytes[start..])
}

fn restore(saved: SavedCache) -> Result<RaggedCache, CacheFileError> {
    let identity = saved.description.identity.clone();
    let empty = empty(identity.format);
    saved.restore(&identity, VOCABULARY, &empty)
}

proptest! {
    #[test]
    fn caches_come_back_as_they_were(content in contents(), text in prop::option::of(".*")) {
        let (description, was) = (description(content.format), segment(content.cache()));
        let bytes = encode(&description, &tokens(), text.as_deref(), &was).unwrap();
        let saved = read(&bytes).unwrap();
        prop_assert_eq!(&saved.description, &description);
        prop_assert_eq!((&saved.tokens, &saved.text, &saved.positions), (&tokens(), &text, &content.positions()));
        prop_assert_eq!(saved.kept(), was.total_tokens());
        let mut cache = restore(saved).unwrap();
        prop_assert_eq!((cache.next_position(), cache.own_bytes()), (SEEN, 0));
        prop_assert_eq!(cache.fork().unwrap().bytes(), cache.bytes());
        cache.freeze().unwrap();
        let is = segment(cache);
        for head in 0..4 {
            prop_assert_eq!(is.read(head).unwrap(), was.read(head).unwrap());
        }
        prop_assert_eq!(encode(&description, &tokens(), text.as_deref(), &is).unwrap(), bytes);
    }

    /// Whoever reads safetensors reads these.
    #[test]
    fn files_are_safetensors_whose_numbers_begin_on_a_page(content in contents()) {
        let bytes = content.bytes();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let rows = content.positions().iter().map(Vec::len).sum::<usize>();
        prop_assert_eq!(file.tensor("keys").unwrap().shape().to_vec(), [rows, 3]);
        prop_assert_eq!(file.tensor("text").unwrap().data().to_vec(), b"Ein Text.");
        prop_assert_eq!(file.tensor("biases").is_ok(), content.biased && rows > 0);
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        prop_assert_eq!((header + 8) % 4096, 0);
    }

    #[test]
    fn no_byte_changes_unnoticed(content in contents(), place in any::<prop::sample::Index>(), change in 1_u8..) {
        let bytes = content.bytes();
        let place = place.index(bytes.len());
        let mut changed = bytes.clone();
        changed[place] ^= change;
        if let Ok(saved) = read(&changed) {
            // Nothing but the blanks that fill the header up.
            prop_assert!(bytes[place] == b' ' && saved == read(&bytes).unwrap(), "byte {}", place);
        }
    }
}

#[test]
fn every_byte_of_a_header_counts() {
    let bytes = some(Format::F16, true).bytes();
    let whole = read(&bytes).unwrap();
    let start = Header::read(&mut &bytes[..], bytes.len() as u64).unwrap().start;
    let mut changed = bytes.clone();
    for place in 0..start {
        for change in [1, 4, 0x20, 0x80, 0xff] {
            changed[place] = bytes[place] ^ change;
            match read(&changed) {
                Ok(saved) => assert!(bytes[place] == b' ' && saved == whole, "byte {place} ^ {change}"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        changed[place] = bytes[place];
    }
}

#[test]
fn files_that_were_cut_anywhere_are_refused() {
    let bytes = some(Format::F16, true).bytes();
    for end in 0..bytes.len() {
        let error = read(&bytes[..end]).unwrap_err().to_string();
        assert!(error.contains(&format!("{end} bytes")), "{error}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(read(&longer).unwrap_err().to_string().contains("damaged"));
}

#[test]
fn other_files_are_called_what_they_are() {
    let foreign = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    for bytes in [&b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0"[..], &[0xff; 64], b"{\"format\":\"cokv-cache\"}"] {
        assert!(foreign(bytes).contains("no cache that cokv saved: its header would have"), "{}", foreign(bytes));
    }
    let tensors: [(&str, safetensors::tensor::TensorView<'_>); 0] = [];
    let other = safetensors::serialize(tensors, None).unwrap();
    assert!(foreign(&other).contains("no cache that cokv saved: it holds other tensors"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    assert!(matches!(SavedCache::read(&path), Err(CacheFileError::Io(_))));
    std::fs::write(&path, some(Format::F32, false).bytes()).unwrap();
    let (summary, saved) = (Summary::read(&path).unwrap(), SavedCache::read(&path).unwrap());
    assert_eq!((summary.seen, summary.kept, summary.has_text), (SEEN, 44, true));
    assert_eq!((saved.tokens.len(), saved.kept()), (SEEN, 44));
}

/// A file whose hash is right and whose content is not.
fn altered(content: &Content, alter: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = content.bytes();
    alter(&mut bytes);
    if let Err(error) = header::seal(&mut bytes) {
        return error.to_string();
    }
    read(&bytes).map_or_else(|error| error.to_string(), |_| "nothing is wrong".to_owned())
}

/// Replaces a text of the header by one that is as long.
fn replaced(content: &Content, from: &str, to: &str) -> String {
    assert_eq!(from.len(), to.len());
    altered(content, |bytes| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    })
}

#[test]
fn contents_that_are_no_cache_are_refused_whatever_their_hash_says() {
    let content = some(Format::F16, true);
    assert_eq!(altered(&content, |_| ()), "nothing is wrong");
    let in_tensor = |name: &str, at: usize, numbers: &[u8]| {
        altered(&content, |bytes| {
            let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
            let start = file.tensor(name).unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
            bytes[start + at..start + at + numbers.len()].copy_from_slice(numbers);
        })
    };
    let word = |word: u32| word.to_le_bytes();
    let expect = |error: String, expected: &str| assert!(error.contains(expected), "{error}");
    expect(in_tensor("lengths", 0, &word(4)), "lengths of its heads do not add up to 44");
    expect(in_tensor("lengths", 0, &[0xff; 16]), "lengths of its heads do not add up to 44");
    expect(in_tensor("positions", 4, &word(1)), "positions do not ascend below 40 in head 0.0");
    expect(in_tensor("positions", 0, &[word(5), word(1)].concat()), "positions do not ascend below 40 in head 0.0");
    expect(in_tensor("positions", 8, &word(40)), "positions do not ascend below 40 in head 0.0");
    expect(in_tensor("positions", 12, &word(u32::MAX)), "positions do not ascend below 40 in head 1.0");
    expect(in_tensor("keys", 2, &0x7e00_u16.to_le_bytes()), "numbers are not finite in head 0.0");
    expect(in_tensor("values", 18, &0xfc00_u16.to_le_bytes()), "numbers are not finite in head 1.0");
    expect(in_tensor("biases", 43 * 4, &f32::INFINITY.to_le_bytes()), "numbers are not finite in head 1.1");
    expect(in_tensor("text", 0, &[0xff]), "its text is none");

    expect(replaced(&content, r#""version":"1""#, r#""version":"2""#), "version 2 of the format, and this cokv reads");
    expect(replaced(&content, "cokv-cache", "cokv-kache"), "it holds other tensors");
    expect(replaced(&content, r#""keys":"#, r#""kezs":"#), "it has no `keys`");
    expect(replaced(&content, r#""text":"#, r#""tezt":"#), "a tensor `tezt`, which no cache has");
    expect(
        replaced(&content, r#""positions":{"dtype":"U32""#, r#""positions":{"dtype":"F32""#),
        "is F32 instead of U32",
    );
    expect(replaced(&content, r#""shape":[44,3]"#, r#""shape":[33,4]"#), "`keys` has the shape [33, 4]");
    expect(replaced(&content, r#""kv_heads":"2""#, r#""kv_heads":"4""#), "`lengths` has the shape [4] instead of [8]");
    expect(replaced(&content, r#""kv_heads":"2""#, r#""kv_heads":"3""#), "cannot be shared out over 3 KV heads");
    expect(replaced(&content, r#""head_dim":"3""#, r#""head_dim":"x""#), "`head_dim` is \"x\"");
    expect(replaced(&content, r#""cache":"f16""#, r#""cache":"f17""#), "`cache` is \"f17\"");
    expect(replaced(&content, r#""budget""#, r#""bugdet""#), "does not say `budget`");
}

#[test]
fn one_error_says_all_that_does_not_fit_a_model() {
    let saved = read(&some(Format::F16, false).bytes()).unwrap();
    let identity = saved.description.identity.clone();
    let refused = |here: Identity| saved.description.check(&here).unwrap_err().to_string();
    let numerics = refused(Identity { numerics: "6".into(), ..identity.clone() });
    assert_eq!(
        numerics,
        "the cache of path:/models/tiny \"1\".gguf does not fit here: numerics 5 in the file and 6 here; compress the document again"
    );
    let other = Identity {
        model: "m".into(),
        tokenizer: "t".into(),
        numerics: "6".into(),
        layout: HeadLayout::new(1, 2, 1, 8).unwrap(),
        format: Format::Bf16,
        rope: "r".into(),
    };
    let error = refused(other);
    for part in [
        "model 0123456789abcdef in the file and m here",
        "tokenizer fedcba9876543210 in the file and t here",
        "2 × 4/2 × 3 in the file and 1 × 2/1 × 8 here",
        "RoPE {\"theta\":10000.0} in the file and r here",
        "cache format f16 in the file and bf16 here",
        "numerics 5 in the file and 6 here; name the model that made it",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let unknown = saved.clone().restore(&identity, 50, &empty(Format::F16)).unwrap_err().to_string();
    assert!(unknown.contains("is outside the model's vocabulary of 50"), "{unknown}");
    assert!(saved.restore(&identity, VOCABULARY, &empty(Format::F16)).is_ok());
}

#[test]
fn what_is_saved_is_what_was_seen() {
    let content = some(Format::F16, false);
    let cache = segment(content.cache());
    assert!(encode(&description(Format::F16), &tokens()[1..], None, &cache).is_err());
    assert!(encode(&description(Format::F32), &tokens(), None, &cache).is_err());
    let long = Description { method: "x".repeat(1 << 20), ..description(Format::F16) };
    assert!(encode(&long, &tokens(), None, &cache).unwrap_err().to_string().contains("bytes to describe"));
}
