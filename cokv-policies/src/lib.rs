//! Token scorers ([`CacheCompressor`](cokv_core::CacheCompressor)) and budget allocators
//! ([`BudgetAllocator`](cokv_core::BudgetAllocator)), one file each. To add one, copy the nearest file and add a line to
//! [`registry`].

#![warn(missing_docs)]

pub mod allocators;
pub mod apportion;
pub mod compressors;
mod evenness;
pub mod kvpress;
mod presets;
pub mod settings;

use allocators::{
    AdaKv, AdaPyramidKv, CoKv, CompositeRanks, DuoAttention, DynamicKv, HeadKv, LayerEntropy, LayerPreferences,
    LazyLayers, PerLayer, Proportional, PyramidKv, ShapleyAda, Threshold, Uniform, WaterFilling,
};
use cokv_core::Registry;
use compressors::{
    AttentionMatching, Cake, Cam, CapKv, ChunkKv, Compactor, Composed, CriticalKv, Cur, DropKv, EntropyGatedChunkKv,
    ExpectedAttention, Finch, Full, H2o, KeyDiff, KeyRerotation, Knorm, KvCompose, KvZap, KvZip, KvZipPlus, LagKv,
    Lava, Leverage, Merging, NonCausalAttention, OnBase, QFilter, RKv, Random, RestKv, SimLayerKv, SnapKv,
    StreamingLlm, Tova, TriAttention,
};

/// The examples of its README are tested here.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// All policies of this crate under the names that a TOML file gives them, and published settings as presets.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add_compressor("attention-matching", |settings| settings.read::<AttentionMatching>()?.checked(settings));
    registry.add_compressor("block", OnBase::of_blocks);
    registry.add_compressor("cake", |settings| settings.read::<Cake>()?.checked(settings));
    registry.add_compressor("cam", |settings| OnBase::<Cam>::read(settings, "snapkv"));
    registry.add_compressor("capkv", |settings| settings.read::<CapKv>());
    registry.add_compressor("chunk", OnBase::of_chunks);
    registry.add_compressor("chunkkv", |settings| OnBase::<ChunkKv>::read(settings, "snapkv"));
    registry.add_compressor("compactor", |settings| settings.read::<Compactor>());
    registry.add_compressor("composed", Composed::read);
    registry.add_compressor("critical-kv", |settings| OnBase::<CriticalKv>::read(settings, "snapkv"));
    registry.add_compressor("cur", |settings| settings.read::<Cur>());
    registry.add_compressor("dropkv", |settings| settings.read::<DropKv>()?.checked(settings));
    registry
        .add_compressor("entropy-gated-chunkkv", |settings| OnBase::<EntropyGatedChunkKv>::read(settings, "snapkv"));
    registry.add_compressor("expected-attention", |settings| settings.read::<ExpectedAttention>());
    registry.add_compressor("finch", |settings| settings.read::<Finch>());
    registry.add_compressor("full", |settings| settings.read::<Full>());
    registry.add_compressor("h2o", |settings| settings.read::<H2o>());
    registry.add_compressor("key-rerotation", |settings| {
        OnBase::<KeyRerotation>::read(settings, "snapkv")?.checked(settings)
    });
    registry.add_compressor("keydiff", |settings| settings.read::<KeyDiff>());
    registry.add_compressor("knorm", |settings| settings.read::<Knorm>());
    registry.add_compressor("kvcompose", |settings| settings.read::<KvCompose>());
    registry.add_compressor("kvzap", |settings| settings.read::<KvZap>());
    registry.add_compressor("kvzip", |settings| settings.read::<KvZip>());
    registry.add_compressor("kvzip-plus", |settings| settings.read::<KvZipPlus>());
    registry.add_compressor("lagkv", |settings| settings.read::<LagKv>()?.checked(settings));
    registry.add_compressor("lava", |settings| settings.read::<Lava>()?.checked(settings));
    registry.add_compressor("leverage", |settings| settings.read::<Leverage>());
    registry.add_compressor("merging", |settings| OnBase::<Merging>::read(settings, "snapkv")?.checked(settings));
    registry.add_compressor("non-causal-attention", |settings| settings.read::<NonCausalAttention>());
    registry.add_compressor("q-filter", |settings| settings.read::<QFilter>());
    registry.add_compressor("r-kv", |settings| settings.read::<RKv>()?.checked(settings));
    registry.add_compressor("random", |settings| settings.read::<Random>());
    registry.add_compressor("rest-kv", |settings| settings.read::<RestKv>()?.checked(settings));
    registry.add_compressor("simlayerkv", |settings| settings.read::<SimLayerKv>());
    registry.add_compressor("snapkv", |settings| settings.read::<SnapKv>()?.checked(settings));
    registry.add_compressor("streaming-llm", |settings| settings.read::<StreamingLlm>());
    registry.add_compressor("tova", |settings| settings.read::<Tova>());
    registry.add_compressor("tri-attention", |settings| settings.read::<TriAttention>());
    registry.add_allocator("ada-kv", |settings| settings.read::<AdaKv>());
    registry.add_allocator("ada-pyramidkv", |settings| settings.read::<AdaPyramidKv>());
    registry.add_allocator("cokv", |settings| settings.read::<CoKv>());
    registry.add_allocator("composite-ranks", |settings| settings.read::<CompositeRanks>());
    registry.add_allocator("duo-attention", |settings| settings.read::<DuoAttention>());
    registry.add_allocator("dynamic-kv", |settings| settings.read::<DynamicKv>());
    registry.add_allocator("headkv", |settings| settings.read::<HeadKv>()?.checked(settings));
    registry.add_allocator("layer-entropy", |settings| settings.read::<LayerEntropy>());
    registry.add_allocator("layer-preferences", |settings| settings.read::<LayerPreferences>());
    registry.add_allocator("lazy-layers", |settings| settings.read::<LazyLayers>());
    registry.add_allocator("per-layer", |settings| settings.read::<PerLayer>()?.checked(settings));
    registry.add_allocator("proportional", |settings| settings.read::<Proportional>());
    registry.add_allocator("pyramidkv", |settings| settings.read::<PyramidKv>());
    registry.add_allocator("shapley-ada", |settings| settings.read::<ShapleyAda>());
    registry.add_allocator("threshold", |settings| settings.read::<Threshold>()?.checked(settings));
    registry.add_allocator("uniform", |settings| settings.read::<Uniform>());
    registry.add_allocator("water-filling", |settings| settings.read::<WaterFilling>());
    presets::add(&mut registry);
    registry
}

#[cfg(test)]
mod tests {
    use cokv_core::config::Choice;
    use cokv_core::{ConfigTable, HeadLayout, HeadScores, Method};

    use super::registry;

    fn method(text: &str) -> Method {
        registry().method(ConfigTable::parse("test", text).unwrap()).unwrap()
    }

    /// What a method says of itself, read as a configuration.
    fn again(method: &Method) -> Method {
        let entry = format!("method = [{}]", method.settings());
        let table = ConfigTable::parse("test", &entry).unwrap().take_tables("method").unwrap().remove(0);
        registry().method(table).unwrap()
    }

    #[test]
    fn settings_of_every_policy_read_back() {
        let registry = registry();
        let table = ConfigTable::parse("test", "").unwrap();
        let compressors = registry.compressors().map(|name| format!("compressor = '{name}'"));
        let allocators = registry.allocators().map(|name| format!("compressor = 'full'\nallocator = '{name}'"));
        for text in compressors.chain(allocators) {
            let method = method(&text);
            assert_eq!(again(&method).settings(), method.settings());
        }
        let snapkv = registry.compressor(&Choice::named("snapkv", &table)).unwrap();
        let settings: toml::Table = toml::from_str(&toml::to_string(snapkv.settings()).unwrap()).unwrap();
        assert_eq!(settings, *snapkv.settings().table());
    }

    #[test]
    fn settings_that_are_no_defaults_read_back() {
        for text in [
            "compressor = { name = 'snapkv', pooling = 'avg', order = 'pool-first', group = 'max', kernel = 3 }",
            "compressor = { name = 'critical-kv', base = { name = 'h2o', recent_share = 0.25 }, epsilon = 0.001 }",
            "compressor = { name = 'critical-kv', base = { name = 'critical-kv', base = 'knorm' } }",
            "compressor = { name = 'composed', compressors = ['knorm', { name = 'cur', sinks = 2 }] }",
            "compressor = { name = 'compactor', blend = 0.25, padding = 'kvpress' }",
            "compressor = { name = 'leverage', sketch = 48, seed = 3 }",
            "compressor = { name = 'kvzip-plus', sinks = 8 }",
            "compressor = { name = 'merging', base = { name = 'chunkkv', chunk = 7 }, share = 0.5 }",
            "compressor = 'full'\nallocator = { name = 'per-layer', shares = [3, 1.5] }",
            "compressor = 'full'\nallocator = { name = 'headkv', gqa = 'per-query-head', rounding = 'paper' }",
            "compressor = 'full'\nallocator = { name = 'ada-kv', scope = 'model', normalise = 'top-mass' }",
            "compressor = 'full'\nallocator = { name = 'water-filling', curve = 'per-head', floor = 1 }",
        ] {
            let method = method(text);
            assert_ne!(method.settings(), self::method(&defaults(text)).settings(), "{text}");
            assert_eq!(again(&method).settings(), method.settings(), "{text}");
        }
    }

    /// The same names without their settings.
    fn defaults(text: &str) -> String {
        let mut table: toml::Table = text.parse().unwrap();
        for (_, choice) in table.iter_mut() {
            if let Some(name) = choice.get("name") {
                *choice = name.clone();
            }
        }
        table.to_string()
    }

    /// Rows of runs and samples of estimations are found by hashes of this text: whoever changes it makes users run them
    /// again.
    #[test]
    fn the_definition_of_a_method_stays_as_it_is() {
        let mut method = method(
            "compressor = { name = 'critical-kv', base = { name = 'snapkv', window = 16 } }\n\
             allocator = { name = 'cokv', drop_lowest = 2 }",
        );
        let layout = HeadLayout::new(1, 4, 2, 4).unwrap();
        method.set_head_scores(HeadScores::new(layout, vec![0.5, -0.25]).unwrap());
        assert_eq!(
            method.definition(),
            "{ compressor = { name = \"critical-kv\", base = { name = \"snapkv\", group = \"mean\", kernel = 7, order = \
             \"reduce-first\", pooling = \"max\", window = 16, window_from = \"prompt-end\" }, epsilon = 0.0001, \
             first_stage = 0.5 }, allocator = { name = \"cokv\", cap = false, drop_lowest = 2, rounding = \
             \"exact\" } } with [0.5, -0.25]"
        );
        assert_eq!(
            self::method("compressor = 'full'").definition(),
            "{ compressor = \"full\", allocator = \"uniform\" }"
        );
    }
}
