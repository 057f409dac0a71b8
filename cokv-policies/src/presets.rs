//! Settings as papers and programs have them, by name: `compressor = "ada-snapkv"`.
//!
//! Our own defaults are what compares well in one table: one window for all, and budgets that are spent to the token.
//! Whoever wants the numbers of a paper takes its preset.

use cokv_core::Registry;

/// Name, `[[method]]` table, and who published it.
const PRESETS: [(&str, &str, &str); 18] = [
    (
        "snapkv-paper",
        "compressor = { name = 'snapkv', window = 64, window_from = 'prompt-end', kernel = 5, pooling = 'avg' }",
        "SnapKV (arXiv 2404.14469), the class of its code; every query head of a group keeps tokens of its own there",
    ),
    (
        "snapkv-longbench",
        "compressor = { name = 'snapkv', window = 32, window_from = 'prompt-end', kernel = 7, pooling = 'max' }",
        "the LongBench runs of SnapKV's and Ada-KV's code",
    ),
    (
        "snapkv-kvcache-factory",
        "compressor = { name = 'snapkv', window = 8, window_from = 'prompt-end', kernel = 7, pooling = 'max' }",
        "KVCache-Factory's scripts, HeadKV and CoKV",
    ),
    (
        "snapkv-kvpress",
        "compressor = { name = 'snapkv', window = 64, window_from = 'prompt-end', kernel = 5, pooling = 'avg', \
         order = 'pool-first' }",
        "kvpress's SnapKVPress",
    ),
    (
        "h2o-paper",
        "compressor = { name = 'h2o', window = 0, recent_share = 0.5 }",
        "H2O (arXiv 2306.14048): half of the budget for heavy hitters, half for the latest tokens; decided once",
    ),
    (
        "observed-attention",
        "compressor = { name = 'h2o', window = 0, mean_over_queries = true }",
        "kvpress's ObservedAttentionPress",
    ),
    (
        "pyramidkv",
        "compressor = { name = 'snapkv', window = 8, window_from = 'prompt-end', kernel = 7, pooling = 'max' }
         allocator = { name = 'pyramidkv', beta = 20, rounding = 'paper' }",
        "PyramidKV (arXiv 2406.02069) as KVCache-Factory runs it; spends up to 16 % more than its budget",
    ),
    (
        "ada-snapkv",
        "compressor = { name = 'snapkv', window = 32, window_from = 'prompt-end', kernel = 7, pooling = 'max' }
         allocator = { name = 'ada-kv', floor = 0.2, rounding = 'paper' }",
        "Ada-KV (arXiv 2407.11550), the scripts of its code for grouped queries",
    ),
    (
        "ada-pyramidkv",
        "compressor = { name = 'snapkv', window = 32, window_from = 'prompt-end', kernel = 7, pooling = 'max' }
         allocator = { name = 'ada-pyramidkv', beta = 20, floor = 0.2, rounding = 'paper' }",
        "Ada-KV (arXiv 2407.11550) on PyramidKV's layers, the scripts of its code for grouped queries",
    ),
    (
        "headkv-r2",
        "compressor = { name = 'snapkv', window = 8, window_from = 'prompt-end', kernel = 7, pooling = 'max' }
         allocator = { name = 'headkv', beta = 1.01, rounding = 'paper' }",
        "HeadKV (arXiv 2410.19258) as CoKV's code puts it on KV heads; scores: cokv detect --kind headkv-r2",
    ),
    (
        "cokv-paper",
        "compressor = { name = 'snapkv', window = 8, window_from = 'prompt-end', kernel = 7, pooling = 'max' }
         allocator = { name = 'cokv', drop_lowest = 20, rounding = 'paper' }",
        "CoKV (arXiv 2502.17501); drop_lowest chosen per task: select = { drop_lowest = [1, 5, 10, 15, 20, 30, 40] }",
    ),
    (
        "duo-attention",
        "compressor = { name = 'streaming-llm', sinks = 64 }
         allocator = { name = 'duo-attention', retrieval_share = 0.5, sinks = 64, recent = 256 }",
        "DuoAttention (arXiv 2410.10819) as deployed; its gates: cokv scores import --from duo-attention",
    ),
    (
        "critical-ada-kv",
        "compressor = { name = 'critical-kv', base = { name = 'snapkv', window = 32, window_from = 'prompt-end', kernel = 7, \
         pooling = 'max' } }
         allocator = { name = 'ada-kv', floor = 0.2 }",
        "CriticalKV (arXiv 2502.03805) on Ada-KV; kvpress's CriticalAdaKVPress on the settings of Ada-KV's code",
    ),
    (
        "kvzip-global",
        "compressor = { name = 'kvzip', chunk = 2048, sinks = 4 }
         allocator = { name = 'ada-kv', scope = 'model', floor = 0 }",
        "KVzip (arXiv 2505.23416), its non-uniform form: all heads of the model compete, without a floor",
    ),
    (
        "kvcompose-paper",
        "compressor = 'kvcompose'
         allocator = 'composite-ranks'",
        "KVCompose (arXiv 2509.05165), its structured form: as many tokens in all heads of a layer",
    ),
    (
        "cake-paper",
        "compressor = { name = 'cake', window = 32, window_from = 'prompt-end', variance_weight = 200, kernel = 5 }
         allocator = 'layer-preferences'",
        "CAKE (arXiv 2503.12491); its temperatures are listed there by model and budget",
    ),
    (
        "lava-paper",
        "compressor = { name = 'lava', window = 32, window_from = 'prompt-end', kernel = 7 }
         allocator = 'layer-entropy'",
        "LAVa (arXiv 2509.09754)",
    ),
    (
        "simlayerkv-paper",
        "compressor = { name = 'simlayerkv', sinks = 4, recent = 1024 }
         allocator = { name = 'lazy-layers', threshold = 0.9 }",
        "SimLayerKV (arXiv 2410.13846), its threshold of Llama-3; keeps what the prompt says, whatever the budget",
    ),
];

/// Makes all of them known.
pub fn add(registry: &mut Registry) {
    for (name, method, source) in PRESETS {
        registry.add_preset(name, method, source);
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::{ConfigTable, Method};

    use super::PRESETS;
    use crate::registry;

    fn method(text: &str) -> Method {
        registry().method(ConfigTable::parse("test", text).unwrap()).unwrap()
    }

    #[test]
    fn a_preset_is_what_it_spells_out_under_its_own_name() {
        for (name, text, source) in PRESETS {
            let preset = method(&format!("compressor = '{name}'"));
            assert_eq!((preset.name(), preset.settings()), (name, method(text).settings()));
            assert!(!source.is_empty());
        }
    }

    #[test]
    fn a_preset_may_be_the_base_of_another_compressor() {
        let refined =
            |base: &str| method(&format!("compressor = {{ name = 'critical-kv', base = {base} }}")).settings();
        let spelled_out = "{ name = 'snapkv', window = 64, window_from = 'prompt-end', kernel = 5, pooling = 'avg' }";
        assert_eq!(refined("'snapkv-paper'"), refined(spelled_out));
        let text = "compressor = { name = 'critical-kv', base = 'ada-snapkv' }";
        let error = registry().method(ConfigTable::parse("test", text).unwrap()).err().unwrap().to_string();
        assert!(error.contains("`ada-snapkv` is a whole method"), "{error}");
    }
}
