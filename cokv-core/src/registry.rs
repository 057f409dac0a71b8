//! From names in a TOML file to implementations.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::IgnoredAny;

use crate::config::{Choice, unknown_name};
use crate::{BudgetAllocator, CacheCompressor, ConfigError, ConfigTable, ImportanceEstimator, Method, Named};

type Builder<T> = Box<dyn Fn(&Choice<'_>) -> Result<Named<T>, ConfigError> + Send + Sync>;

/// Every compressor and allocator that a TOML file may name, and estimators of heads beside cokv's own. A user's own crate
/// adds its policies to `cokv_policies::registry()`:
///
/// ```
/// # use cokv_core::{CacheCompressor, LayerView, PolicyError, Registry};
/// #[derive(Debug, serde::Serialize, serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Oldest {}
///
/// impl CacheCompressor for Oldest {
///     fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
///         let row = (0..layer.prompt_len).map(|token| -(token as f32));
///         Ok(std::iter::repeat_n(row, layer.layout.kv_heads).flatten().collect())
///     }
/// }
///
/// let mut registry = Registry::default();
/// registry.add_compressor("oldest", |settings| settings.read::<Oldest>());
/// ```
#[derive(Default)]
pub struct Registry {
    compressors: BTreeMap<String, Builder<dyn CacheCompressor>>,
    allocators: BTreeMap<String, Builder<dyn BudgetAllocator>>,
    estimators: BTreeMap<String, Builder<dyn ImportanceEstimator>>,
}

impl Registry {
    /// Makes a compressor known; a second one of the same name replaces the first.
    pub fn add_compressor<C, F>(&mut self, name: &str, read: F)
    where
        C: CacheCompressor + Serialize + 'static,
        F: Fn(&ConfigTable<'_>) -> Result<C, ConfigError> + Send + Sync + 'static,
    {
        self.compressors.insert(name.into(), builder(read, |compressor| Arc::new(compressor)));
    }

    /// Makes an allocator known; a second one of the same name replaces the first.
    pub fn add_allocator<A, F>(&mut self, name: &str, read: F)
    where
        A: BudgetAllocator + Serialize + 'static,
        F: Fn(&ConfigTable<'_>) -> Result<A, ConfigError> + Send + Sync + 'static,
    {
        self.allocators.insert(name.into(), builder(read, |allocator| Arc::new(allocator)));
    }

    /// Makes an estimator of heads known, beside cokv's own; a second one of the same name replaces the first.
    pub fn add_estimator<E, F>(&mut self, name: &str, read: F)
    where
        E: ImportanceEstimator + Serialize + 'static,
        F: Fn(&ConfigTable<'_>) -> Result<E, ConfigError> + Send + Sync + 'static,
    {
        self.estimators.insert(name.into(), builder(read, |estimator| Arc::new(estimator)));
    }

    /// Names of all compressors, sorted.
    pub fn compressors(&self) -> impl Iterator<Item = &str> {
        self.compressors.keys().map(String::as_str)
    }

    /// Names of all allocators, sorted.
    pub fn allocators(&self) -> impl Iterator<Item = &str> {
        self.allocators.keys().map(String::as_str)
    }

    /// Names of the estimators that were added, sorted.
    pub fn estimators(&self) -> impl Iterator<Item = &str> {
        self.estimators.keys().map(String::as_str)
    }

    /// Builds an estimator from its name and settings; none where the name is not one that was added.
    pub fn estimator(&self, choice: &Choice<'_>) -> Option<Result<Named<dyn ImportanceEstimator>, ConfigError>> {
        self.estimators.get(&choice.name).map(|build| build(choice))
    }

    /// Builds a compressor from its name and settings.
    pub fn compressor(&self, choice: &Choice<'_>) -> Result<Named<dyn CacheCompressor>, ConfigError> {
        build(&self.compressors, "compressor", choice)
    }

    /// Builds an allocator from its name and settings.
    pub fn allocator(&self, choice: &Choice<'_>) -> Result<Named<dyn BudgetAllocator>, ConfigError> {
        build(&self.allocators, "allocator", choice)
    }

    /// Builds a method from a `[[method]]` table: `compressor`, `allocator` (default `uniform`) and `name` (default: the
    /// compressor's, with the allocator's behind it where that is not the default).
    pub fn method(&self, mut table: ConfigTable<'_>) -> Result<Method, ConfigError> {
        let whole = table.clone();
        let compressor = table.take_choice("compressor")?;
        let allocator = table.take_choice("allocator")?.unwrap_or_else(|| Choice::named("uniform", &whole));
        let MethodName { name, .. } = table.read()?;
        let compressor = compressor
            .ok_or_else(|| whole.error("a method needs a compressor, for example: compressor = \"snapkv\""))?;
        let default_name = match allocator.name.as_str() {
            "uniform" => compressor.name.clone(),
            other => format!("{}+{other}", compressor.name),
        };
        let name = name.unwrap_or(default_name);
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c)) {
            let message = format!("`{name}` cannot name a method: use letters, digits, `-`, `_`, `.` and `+`");
            return Err(whole.error_at("name", message));
        }
        Ok(Method::new(name, self.compressor(&compressor)?, self.allocator(&allocator)?))
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodName {
    name: Option<String>,
    // Taken out before this is read; named here so that a misspelt key finds its nearest neighbour.
    #[serde(default, rename = "compressor")]
    _compressor: IgnoredAny,
    #[serde(default, rename = "allocator")]
    _allocator: IgnoredAny,
}

/// Reads the settings of a `T`, and keeps what serde writes of them beside it.
fn builder<T, D, F>(read: F, share: fn(T) -> Arc<D>) -> Builder<D>
where
    T: Serialize + 'static,
    D: ?Sized + 'static,
    F: Fn(&ConfigTable<'_>) -> Result<T, ConfigError> + Send + Sync + 'static,
{
    Box::new(move |choice| {
        let built = read(&choice.settings)?;
        let settings = choice.settings_of(&built)?;
        Ok(Named::new(share(built), settings))
    })
}

fn build<T: ?Sized>(
    builders: &BTreeMap<String, Builder<T>>,
    kind: &str,
    choice: &Choice<'_>,
) -> Result<Named<T>, ConfigError> {
    match builders.get(&choice.name) {
        Some(build) => build(choice),
        None => Err(choice.settings.error(unknown_name(kind, &choice.name, builders.keys().map(String::as_str)))),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{AllocationRequest, BudgetPlan, LayerView, PolicyError};

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Flat {}

    impl CacheCompressor for Flat {
        fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Ok(vec![0.0; layer.layout.kv_heads * layer.prompt_len])
        }
    }

    impl BudgetAllocator for Flat {
        fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
            Ok(BudgetPlan::new(vec![0; request.layout.heads()]))
        }
    }

    fn method(text: &str) -> Result<Method, ConfigError> {
        let mut registry = Registry::default();
        registry.add_compressor("flat", |settings| settings.read::<Flat>());
        registry.add_allocator("uniform", |settings| settings.read::<Flat>());
        registry.add_allocator("other", |settings| settings.read::<Flat>());
        registry.method(ConfigTable::parse("cokv.toml", text)?)
    }

    #[test]
    fn names_default_to_what_the_method_is_made_of() {
        assert_eq!(method("compressor = 'flat'").unwrap().name(), "flat");
        assert_eq!(method("compressor = 'flat'\nallocator = 'other'").unwrap().name(), "flat+other");
        assert_eq!(method("compressor = 'flat'\nname = 'mine'").unwrap().name(), "mine");
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text: &str| method(text).err().unwrap().to_string();
        assert_eq!(
            message("compressor = 'flatt'"),
            "cokv.toml:1: unknown compressor `flatt`; did you mean `flat`? (known: flat)"
        );
        assert!(
            message("compressor = 'flat'\nalocator = 'other'")
                .contains(":2: unknown key `alocator`; did you mean `allocator`?")
        );
        assert!(message("\ncompressor = { name = 'flat', speed = 1 }").contains(":2: unknown key `speed`"));
        assert!(message("name = 'mine'").contains("needs a compressor"));
        assert!(message("compresor = 'flat'").contains("unknown key `compresor`; did you mean `compressor`?"));
        assert!(message("compressor = 'flat'\nname = 'a|b'").contains(":2: `a|b` cannot name a method"));
    }
}
