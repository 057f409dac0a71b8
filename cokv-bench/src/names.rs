//! Names: of values in files and on the command line, and of files.

use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;

/// Whether a name can be that of files and folders.
pub fn names_file(name: &str) -> bool {
    let safe = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !name.is_empty() && name.chars().all(safe) && !name.starts_with('.')
}

/// Reads a value by its name in TOML files.
pub fn by_name<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text)).map_err(|error| error.to_string())
}

/// A text as a part of a file name.
pub fn file_name(text: &str) -> String {
    let safe = |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' };
    text.chars().map(safe).collect::<String>().trim_start_matches(['.', '-']).to_owned()
}
