//! A page to chat with: one file, which fetches nothing but answers of the server that it is from.

use std::sync::LazyLock;

/// The page, with its style and its script in it.
pub static PAGE: LazyLock<String> = LazyLock::new(|| {
    let page = include_str!("index.html").replacen("/*style*/", include_str!("style.css"), 1);
    page.replacen("/*script*/", include_str!("script.js"), 1)
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_that_names_no_other() {
        assert!(PAGE.contains("--accent") && PAGE.contains("async function ask") && !PAGE.contains("/*script*/"));
        for elsewhere in ["http://", "https://", "src=", "@import", "url(", "innerHTML"] {
            assert!(!PAGE.contains(elsewhere), "{elsewhere}");
        }
    }
}
