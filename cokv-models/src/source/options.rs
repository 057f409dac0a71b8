//! The settings of a fetch, and the environment variables that they come from.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::Observer;

/// How and where to fetch. [`FetchOptions::from_env`] is what users get; tests and embedders fill it in themselves.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Who hears how it goes.
    pub observer: Observer,
    /// Address of the Hugging Face hub, without a slash at its end.
    pub hub_endpoint: String,
    /// The hub's cache, in the layout that the Python `huggingface_hub` shares.
    pub hub_cache: PathBuf,
    /// Access token for private and gated models.
    pub hub_token: Option<String>,
    /// Take models of the hub from the cache only.
    pub hub_offline: bool,
    /// cokv's own cache: files out of wheels in `wheels`, unpacked data sets beside it.
    pub cache: PathBuf,
    /// The Python that runs pip; `None` tries `python3`, then `python`.
    pub python: Option<PathBuf>,
    /// How long a server may stay silent in the middle of an answer. It has at most [`Self::PATIENCE_AT_START`] to begin.
    pub patience: Duration,
}

impl FetchOptions {
    /// How long a server may take until the first byte of an answer.
    pub const PATIENCE_AT_START: Duration = Duration::from_secs(15);

    /// Settings from the environment; nobody hears how it goes:
    ///
    /// | setting | from |
    /// |---|---|
    /// | `hub_endpoint` | `HF_ENDPOINT`, else `https://huggingface.co` |
    /// | `hub_cache` | `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `$XDG_CACHE_HOME/huggingface`, else in `~/.cache/huggingface` |
    /// | `hub_token` | `HF_TOKEN`, else the file `token` in `HF_HOME` that `hf auth login` leaves |
    /// | `hub_offline` | `HF_HUB_OFFLINE` is `1`, `on`, `yes` or `true` |
    /// | `cache` | `COKV_CACHE`, else `$XDG_CACHE_HOME/cokv`, else `~/.cache/cokv` |
    /// | `python` | `COKV_PYTHON` |
    /// | `patience` | always 60 seconds |
    ///
    /// Without a home folder, the system's folder for temporary files stands in for `~/.cache`.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());

        let user_cache = path("XDG_CACHE_HOME")
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
            .unwrap_or_else(std::env::temp_dir);
        let hub_home = path("HF_HOME").unwrap_or_else(|| user_cache.join("huggingface"));
        let stored_token = || std::fs::read_to_string(hub_home.join("token")).ok();
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let offline = text("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();

        Self {
            observer: Observer::default(),
            hub_endpoint: endpoint.trim_end_matches('/').to_owned(),
            hub_token: text("HF_TOKEN")
                .or_else(stored_token)
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            hub_offline: ["1", "on", "yes", "true"].contains(&offline.as_str()),
            hub_cache: path("HF_HUB_CACHE").unwrap_or_else(|| hub_home.join("hub")),
            cache: path("COKV_CACHE").unwrap_or_else(|| user_cache.join("cokv")),
            python: path("COKV_PYTHON"),
            patience: Duration::from_secs(60),
        }
    }

    /// How long a server may take to begin an answer: never longer than later silences.
    #[cfg(feature = "hub")]
    pub(super) fn patience_at_start(&self) -> Duration {
        self.patience.min(Self::PATIENCE_AT_START)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> FetchOptions {
        FetchOptions::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn golden_data_lie_in_the_cache() {
        assert_eq!(FetchOptions::from_env().cache.join("golden"), cokv_golden::folder());
    }

    #[test]
    fn the_nearest_variable_wins() {
        let set = options(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h"), ("COKV_CACHE", "/c")]);
        assert_eq!(set.hub_cache, PathBuf::from("/h/hub"));
        assert_eq!(set.cache, PathBuf::from("/c"));

        let set = options(&[("XDG_CACHE_HOME", "/x"), ("HF_HUB_CACHE", "/hc"), ("HF_HOME", "")]);
        assert_eq!(set.hub_cache, PathBuf::from("/hc"));
        assert_eq!(set.cache, PathBuf::from("/x/cokv"));
        assert_eq!(set.hub_endpoint, "https://huggingface.co");
    }

    #[test]
    fn offline_endpoint_and_token_are_read() {
        let set = options(&[("HF_HUB_OFFLINE", "TRUE"), ("HF_ENDPOINT", "http://mirror/"), ("HF_TOKEN", " t\n")]);
        assert!(set.hub_offline);
        assert_eq!(set.hub_endpoint, "http://mirror");
        assert_eq!(set.hub_token.as_deref(), Some("t"));
        assert!(!options(&[("HF_HUB_OFFLINE", "0")]).hub_offline);
    }

    #[test]
    fn the_token_of_a_login_is_found() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "secret\n").unwrap();
        let home = home.path().to_str().unwrap();
        assert_eq!(options(&[("HF_HOME", home)]).hub_token.as_deref(), Some("secret"));
    }
}
