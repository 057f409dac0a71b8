//! One file of CoKV's authors: the complementary contributions of one coalition size.
//!
//! The files are NumPy's (`.npy` version 1.0): an array of no dimension that holds a pickled dictionary with
//! `cc_left`, `cc_right`, `count_left` and `count_right`, each of `heads + 1` numbers of which the last is unused, and
//! `sampling_count`. Source: `importance_evaluation/cal_global_sv.py` of the authors' repository.

use std::path::Path;

use crate::scores::pickle::{Global, Handle, Object, Pickle};
use crate::scores::storage::read_bytes;
use crate::scores::{Problem, ScoreFileError};

/// Sums over sampled coalitions of one size. For a coalition S of heads, the complementary contribution is
/// U(S) - U(all heads without S) (CoKV, arXiv 2502.17501, section 4).
#[derive(Clone, Debug, PartialEq)]
pub struct Contributions {
    /// Name of the model in the file's name, `llama` where there is none.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Per head: sum of the contributions of the coalitions that it was in.
    pub left: Vec<f64>,
    /// Per head: sum of the contributions of the complements that it was in.
    pub right: Vec<f64>,
    /// Per head: coalitions that it was in.
    pub left_counts: Vec<f64>,
    /// Per head: complements that it was in.
    pub right_counts: Vec<f64>,
    /// Coalitions drawn.
    pub sampling_count: u64,
    /// Heads of a coalition, as the counts have it.
    pub size: usize,
    /// Heads of a coalition, as the file's name has it.
    pub named_size: Option<usize>,
    /// Where the data is not what the name or the method says, one sentence each.
    pub notices: Vec<String>,
}

impl Contributions {
    /// Whether another file holds the same numbers, whatever its name says.
    pub fn same_data(&self, other: &Self) -> bool {
        (&self.left, &self.right, &self.left_counts) == (&other.left, &other.right, &other.left_counts)
    }

    /// Mean contribution of the coalitions that each head was in: SV of this size.
    pub fn left_means(&self) -> Vec<f64> {
        self.left.iter().zip(&self.left_counts).map(|(sum, count)| sum / count).collect()
    }
}

/// Reads a file `cc_<task>_<size>.npy`, `cc_mistral_<task>_<size>.npy` or `cc_qwen3_<task>_size_<size>.npy`.
pub fn read_contributions(path: &Path) -> Result<Contributions, ScoreFileError> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    contributions(&FileName::parse(&name), &read_bytes(path)?).map_err(|problem| problem.at(path))
}

/// What the authors' file names tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileName<'a> {
    pub model: &'a str,
    pub task: &'a str,
    pub size: Option<usize>,
}

impl<'a> FileName<'a> {
    /// Takes a name without its extension apart.
    pub fn parse(stem: &'a str) -> Self {
        let rest = stem.strip_prefix("cc_").unwrap_or(stem);
        let model = ["mistral", "qwen3"].into_iter().find(|model| rest.starts_with(&format!("{model}_")));
        let rest = model.map_or(rest, |model| &rest[model.len() + 1..]);
        let (task, size) = match rest.rsplit_once('_') {
            Some((task, digits)) if digits.parse::<usize>().is_ok() => (task, digits.parse().ok()),
            _ => (rest, None),
        };
        Self { model: model.unwrap_or("llama"), task: task.strip_suffix("_size").unwrap_or(task), size }
    }
}

fn contributions(name: &FileName, bytes: &[u8]) -> Result<Contributions, Problem> {
    let pickle = Pickle::read(pickled(bytes)?)?;
    let entry = |key: &str| find_entry(&pickle, key).ok_or_else(|| foreign(format!("there is no entry `{key}`")));
    let per_head = |key: &str| -> Result<Vec<f64>, Problem> {
        let wrong = || foreign(format!("`{key}` is no array of finite 64-bit numbers, one per head and an unused 0"));
        let mut values = array(&pickle, entry(key)?).ok_or_else(wrong)?;
        let sound = values.pop() == Some(0.0) && !values.is_empty() && values.iter().all(|value| value.is_finite());
        sound.then_some(values).ok_or_else(wrong)
    };
    let [left, right] = [per_head("cc_left")?, per_head("cc_right")?];
    let [left_counts, right_counts] = [per_head("count_left")?, per_head("count_right")?];
    let heads = left.len();
    if [&right, &left_counts, &right_counts].iter().any(|values| values.len() != heads) {
        return Err(foreign("the four arrays differ in their number of heads".into()));
    }
    let sampling_count = match pickle.get(entry("sampling_count")?) {
        &Object::Integer(count) if count > 0 => count.unsigned_abs(),
        _ => return Err(foreign("`sampling_count` is no positive number".into())),
    };
    if let Some(head) = left_counts.iter().position(|&count| count < 1.0) {
        return Err(Problem::NeverSampled { head, samples: sampling_count });
    }
    let size = left_counts.iter().sum::<f64>() / sampling_count as f64;
    if size.fract() != 0.0 || size > heads as f64 {
        return Err(foreign(format!("{sampling_count} coalitions of {heads} heads cannot have {size} members each")));
    }

    let mut notices = Vec::new();
    let size = size as usize;
    if let Some(named) = name.size.filter(|&named| named != size) {
        notices.push(format!("its name says coalitions of {named} heads, its counts say {size}"));
    }
    if !differences_agree(&left, &right) {
        notices.push("cc_left - cc_right is not the same for all heads, as it is where all counts are right".into());
    }
    Ok(Contributions {
        model: name.model.into(),
        task: name.task.into(),
        left,
        right,
        left_counts,
        right_counts,
        sampling_count,
        size,
        named_size: name.size,
        notices,
    })
}

fn foreign(message: String) -> Problem {
    Problem::Foreign { format: "CoKV .npy", message }
}

/// For every head, cc_left - cc_right is the sum of the contributions of all coalitions, up to rounding.
fn differences_agree(left: &[f64], right: &[f64]) -> bool {
    let differences = || left.iter().zip(right).map(|(left, right)| left - right);
    let (low, high) = (differences().fold(f64::INFINITY, f64::min), differences().fold(f64::NEG_INFINITY, f64::max));
    let largest = left.iter().chain(right).fold(0.0, |largest: f64, value| largest.max(value.abs()));
    high - low <= 1e-9 * largest
}

/// What follows the header of a `.npy` file that holds one Python object.
fn pickled(bytes: &[u8]) -> Result<&[u8], Problem> {
    let header = || {
        let (length, rest) = bytes.strip_prefix(b"\x93NUMPY\x01\x00")?.split_first_chunk::<2>()?;
        let (header, pickle) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        Some((std::str::from_utf8(header).ok()?, pickle))
    };
    let (header, pickle) = header().ok_or_else(|| foreign("it has no NumPy 1.0 header".into()))?;
    if header.contains("'descr': '|O'") && header.contains("'shape': ()") {
        Ok(pickle)
    } else {
        Err(foreign(format!("it holds {}, not one Python object", header.trim())))
    }
}

/// The items of a tuple or list.
fn items<'a>(pickle: &'a Pickle, handle: Handle) -> &'a [Handle] {
    match pickle.get(handle) {
        Object::Tuple(items) | Object::List(items) => items,
        _ => &[],
    }
}

/// Data type and content of an array: `_reconstruct(ndarray, …)` given (version, shape, type, column-major, content).
fn array_state(pickle: &Pickle, handle: Handle) -> Option<(Handle, Handle)> {
    let &Object::Instance { class, arguments, state: Some(state) } = pickle.get(handle) else { return None };
    let made = matches!(pickle.get(class), Object::Global(Global::Reconstruct));
    let kind = items(pickle, arguments).first()?;
    let is_array = made && matches!(pickle.get(*kind), Object::Global(Global::Ndarray));
    match *items(pickle, state) {
        [_, _, data_type, _, content] if is_array => Some((data_type, content)),
        _ => None,
    }
}

/// An entry of the dictionary that the file's array holds.
fn find_entry(pickle: &Pickle, key: &str) -> Option<Handle> {
    let (_, content) = array_state(pickle, pickle.root())?;
    let Object::Dict(entries) = pickle.get(*items(pickle, content).first()?) else { return None };
    let is_key = |handle: Handle| matches!(pickle.get(handle), Object::Text(text) if *text == key);
    entries.iter().find(|entry| is_key(entry.0)).map(|entry| entry.1)
}

/// An array of one dimension of little-endian 64-bit floats.
fn array(pickle: &Pickle, handle: Handle) -> Option<Vec<f64>> {
    let (data_type, content) = array_state(pickle, handle)?;
    let &Object::Instance { class, arguments, state: Some(state) } = pickle.get(data_type) else { return None };
    let text = |handles: &[Handle], place: usize| match pickle.get(*handles.get(place)?) {
        Object::Text(text) => Some(*text),
        _ => None,
    };
    let is_f64 = matches!(pickle.get(class), Object::Global(Global::Dtype))
        && text(items(pickle, arguments), 0) == Some("f8")
        && text(items(pickle, state), 1) == Some("<");
    match pickle.get(content) {
        Object::Bytes(bytes) if is_f64 => {
            let (numbers, rest) = bytes.as_chunks::<8>();
            rest.is_empty().then(|| numbers.iter().map(|number| f64::from_le_bytes(*number)).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file as NumPy 2 writes it.
    pub fn npy(left: &[f64], right: &[f64], left_counts: &[f64], right_counts: &[f64], samples: u16) -> Vec<u8> {
        let mut header = "{'descr': '|O', 'fortran_order': False, 'shape': (), }".to_owned();
        header.push_str(&" ".repeat(117 - header.len()));
        let mut bytes = [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), header.as_bytes(), b"\n\x80\x04"].concat();
        let text = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
        let global = |module: &str, name: &str| [text(module), text(name), vec![0x93, 0x94]].concat();
        // Memo: 0 _reconstruct, 1 ndarray, 2 dtype, 3 f8
        bytes.extend([global("numpy._core.multiarray", "_reconstruct"), global("numpy", "ndarray")].concat());
        bytes.extend([global("numpy", "dtype"), text("f8"), b"\x89\x88\x87R\x94(K\x03".to_vec()].concat());
        bytes.extend([text("<"), b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb".to_vec()].concat());
        // What was put into the memo is on the stack too; a mark hides it from the array.
        let new_array = b"h\x00h\x01K\x00\x85C\x01b\x87R(K\x01";
        bytes.extend([b"(".as_slice(), new_array, b")h\x03\x89]}("].concat());
        for (key, values) in
            [("cc_left", left), ("cc_right", right), ("count_left", left_counts), ("count_right", right_counts)]
        {
            let content: Vec<u8> = values.iter().chain(&[0.0]).flat_map(|value| value.to_le_bytes()).collect();
            bytes.extend([&text(key), new_array.as_slice(), b"M\x03\x00\x85h\x03\x89B"].concat());
            bytes.extend([&(content.len() as u32).to_le_bytes()[..], &content, b"tb"].concat());
        }
        bytes.extend([&text("sampling_count"), b"M".as_slice(), &samples.to_le_bytes(), b"uatb."].concat());
        bytes
    }

    const NAME: FileName = FileName { model: "llama", task: "toy", size: Some(1) };

    /// Contributions 0.5, -0.25 and 1 of the coalitions {0}, {0} and {1} of two heads.
    fn sound() -> Vec<u8> {
        npy(&[0.25, 1.0], &[-1.0, -0.25], &[2.0, 1.0], &[1.0, 2.0], 3)
    }

    #[test]
    fn names_are_taken_apart() {
        for (name, model, task, size) in [
            ("cc_qasper_32", "llama", "qasper", Some(32)),
            ("cc_repobench-p_128", "llama", "repobench-p", Some(128)),
            ("cc_mistral_passage_retrieval_en_96", "mistral", "passage_retrieval_en", Some(96)),
            ("cc_qwen3_gov_report_size_256", "qwen3", "gov_report", Some(256)),
            ("scores", "llama", "scores", None),
        ] {
            assert_eq!(FileName::parse(name), FileName { model, task, size });
        }
    }

    #[test]
    fn a_file_is_read_and_its_size_derived() {
        let read = contributions(&NAME, &sound()).unwrap();
        assert_eq!((read.size, read.sampling_count, &read.notices), (1, 3, &vec![]));
        assert_eq!(read.left_means(), [0.125, 1.0]);
        let read = contributions(&FileName { size: Some(2), ..NAME }, &sound()).unwrap();
        assert_eq!(read.notices, ["its name says coalitions of 2 heads, its counts say 1"]);
        let unequal = npy(&[0.25, 1.0], &[-1.0, -0.5], &[2.0, 1.0], &[1.0, 2.0], 3);
        assert!(contributions(&NAME, &unequal).unwrap().notices[0].contains("cc_left - cc_right"));
    }

    #[test]
    fn wrong_content_is_refused() {
        let sums = [0.0, 0.0];
        for (bytes, message) in [
            (npy(&sums, &sums, &[3.0, 0.0], &[0.0, 3.0], 3), "head 1 was in none of the 3 coalitions"),
            (npy(&sums, &sums, &[1.0, 1.0], &[1.0, 1.0], 3), "cannot have 0.66"),
            (npy(&sums, &sums[1..], &[1.0, 1.0], &[1.0, 1.0], 2), "differ in their number of heads"),
            (npy(&[0.0, f64::NAN], &sums, &[1.0, 1.0], &[1.0, 1.0], 2), "`cc_left` is no array of finite"),
            (npy(&sums, &sums, &[1.0, 1.0], &[1.0, 1.0], 0), "`sampling_count` is no positive number"),
            (b"\x93NUMPY\x02\x00".to_vec(), "no NumPy 1.0 header"),
            (b"\x93NUMPY\x01\x00\x03\x00{ }".to_vec(), "it holds { }, not one Python object"),
        ] {
            let error = contributions(&NAME, &bytes).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn every_published_file_is_read() {
        let Some(published) = cokv_golden::find("scores/cokv") else { return };
        let mut misnamed = Vec::new();
        for folder in ["llama3-8b", "mistral-7b"] {
            for entry in std::fs::read_dir(published.join(folder)).unwrap() {
                let read = read_contributions(&entry.unwrap().path()).unwrap();
                assert_eq!(read.left.len(), 256);
                assert_eq!(Some(read.size) == read.named_size, read.notices.is_empty(), "{:?}", read.notices);
                if !read.notices.is_empty() {
                    misnamed.push(format!("{} {} {:?}", read.model, read.task, read.named_size));
                }
            }
        }
        // Seven sets, two misnamed files each.
        assert_eq!(misnamed.len(), 14, "{misnamed:#?}");
    }

    proptest! {
        #[test]
        fn cut_files_are_refused(share in 0.0..1.0) {
            let bytes = sound();
            prop_assert!(contributions(&NAME, &bytes[..(bytes.len() as f64 * share) as usize]).is_err());
        }

        #[test]
        fn changed_bytes_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut bytes = sound();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            // Whether such a file can still be read depends on the bytes: a number may have become another one.
            if let Ok(read) = contributions(&NAME, &bytes) {
                prop_assert!(read.left_means().iter().all(|mean| !mean.is_nan()));
            }
        }
    }
}
