//! The presses of kvpress 0.5.5 (NVIDIA, Apache-2.0) and what each of them is here: what `docs/methods.md` says, and
//! what `cokv-bench/tests/golden_kvpress.rs` holds against kvpress itself.

/// The version that the table is of.
pub const VERSION: &str = "0.5.5";

/// A press.
#[derive(Clone, Copy, Debug)]
pub struct Press {
    /// Its class, without the word that all of them end in.
    pub name: &'static str,
    /// What it does.
    pub idea: &'static str,
    /// What it is here.
    pub here: Here,
    /// Who published the idea.
    pub source: &'static str,
}

/// What a press is here.
#[derive(Clone, Copy, Debug)]
pub enum Here {
    /// A method.
    Method(Counterpart),
    /// A method to come, under this name. Whoever adds it puts a [`Counterpart`] here.
    Later(&'static str),
    /// None, for a reason.
    Never(&'static str),
}

/// The method that keeps what a press keeps.
#[derive(Clone, Copy, Debug)]
pub struct Counterpart {
    /// Its `[[method]]` table, with the settings that the press has by default.
    pub method: &'static str,
    /// Share of the press's pairs that it keeps too, at least, of one prompt with half and a fifth of its pairs kept.
    /// None where that says nothing.
    pub same: Option<f64>,
    /// Where the two differ, and why.
    pub differs: &'static str,
}

/// Keeps the same pairs, but for tokens whose scores differ by less than two programs round.
const fn same(method: &'static str) -> Here {
    almost(method, 0.999, "")
}

/// Keeps the same but for what is said.
const fn almost(method: &'static str, share: f64, differs: &'static str) -> Here {
    Here::Method(Counterpart { method, same: Some(share), differs })
}

/// Not held to what kvpress keeps, because that would say nothing or needs what nobody may ship.
const fn not_compared(method: &'static str, differs: &'static str) -> Here {
    Here::Method(Counterpart { method, same: None, differs })
}

const fn press(name: &'static str, idea: &'static str, here: Here, source: &'static str) -> Press {
    Press { name, idea, here, source }
}

/// All of them.
pub const PRESSES: [Press; 44] = [
    press("Random", "random scores", not_compared("compressor = 'random'", "other draws"), "a baseline"),
    press("Knorm", "short keys", same("compressor = 'knorm'"), "arXiv 2406.11430"),
    press("KeyDiff", "keys unlike the mean key", same("compressor = 'keydiff'"), "KeyDiff, arXiv 2504.15364"),
    press("CUR", "long keys and values", same("compressor = 'cur'"), "CurDKV, arXiv 2509.15038"),
    press(
        "LeverageScore",
        "keys that others do not say already",
        almost(
            "compressor = 'leverage'",
            0.999,
            "exact leverages; kvpress first multiplies keys with a matrix that it draws without a seed (`sketch = 48` draws \
             one with a seed); compared with the identity in its place",
        ),
        "Compactor, arXiv 2507.08143",
    ),
    press("LagKV", "spread against the next chunk", same("compressor = 'lagkv'"), "LagKV, arXiv 2504.04704"),
    press(
        "StreamingLLM",
        "the first and the latest",
        same("compressor = 'streaming-llm'"),
        "StreamingLLM, arXiv 2309.17453",
    ),
    press("SnapKV", "attention of the last queries", same("compressor = 'snapkv-kvpress'"), "SnapKV, arXiv 2404.14469"),
    press("TOVA", "attention of the last query", same("compressor = 'tova'"), "TOVA, arXiv 2401.06104"),
    press(
        "ObservedAttention",
        "mean attention of all queries",
        same("compressor = 'observed-attention'"),
        "after H2O, arXiv 2306.14048",
    ),
    press(
        "NonCausalAttn",
        "attention in blocks, both ways",
        almost(
            "compressor = { name = 'non-causal-attention', padding = 'kvpress' }",
            0.999,
            "by default padding takes no part in the attention of the last block",
        ),
        "Compactor, arXiv 2507.08143",
    ),
    press(
        "Compactor",
        "leverage and attention in blocks",
        almost(
            "compressor = { name = 'compactor', padding = 'kvpress' }",
            0.999,
            "the blend follows what is kept and not the ratio that is asked for; exact leverages and padding as above",
        ),
        "Compactor, arXiv 2507.08143",
    ),
    press(
        "ExpectedAttention",
        "what queries to come will look at",
        same("compressor = 'expected-attention'"),
        "kvpress, arXiv 2510.00636",
    ),
    press(
        "ExpectedAttentionStats",
        "the same with statistics of other texts",
        not_compared(
            "compressor = { name = 'expected-attention', statistics = 'learned' }",
            "statistics of the user's texts (`cokv learn`); kvpress's collector cuts characters and not tokens",
        ),
        "kvpress, arXiv 2510.00636",
    ),
    press(
        "Cap",
        "values that others do not say already, where queries look",
        same("compressor = 'capkv'"),
        "CapKV, arXiv 2604.25975",
    ),
    press(
        "QFilter",
        "keys along the queries' main direction",
        not_compared(
            "compressor = 'q-filter'",
            "directions from the user's texts (`cokv learn`) and from all their queries",
        ),
        "Q-Filters, arXiv 2503.02812",
    ),
    press(
        "KVzap",
        "a small model's guess at KVzip+",
        not_compared(
            "compressor = 'kvzap'\nallocator = { name = 'threshold', threshold = -4 }",
            "the linear form, fitted to any model (`cokv learn --guess`); kvpress loads published weights of some",
        ),
        "KVzap, arXiv 2601.07891",
    ),
    press(
        "FastKVzip",
        "a trained gate's guess at KVzip",
        Here::Never("needs gates that its authors trained for some models; what KVzap needs can be fitted to any"),
        "Fast KVzip, arXiv 2601.17668",
    ),
    press(
        "KVzip",
        "attention while the prompt is repeated",
        almost(
            "compressor = { name = 'kvzip', protect_template = false }
             allocator = { name = 'ada-kv', scope = 'model', floor = 0 }",
            0.999,
            "by default (`kvzip-global`) what the chat template puts around the text is kept; KVzip+ is `kvzip-plus`",
        ),
        "KVzip, arXiv 2505.23416",
    ),
    press(
        "KVgrad",
        "KVzip+ times a gradient",
        Here::Never("needs a pass backward through the model, and nothing here has one"),
        "openreview cg1wTCJjjk",
    ),
    press(
        "RestoreKV",
        "learned tokens store what eviction loses",
        Here::Never("needs an adapter and tokens trained for each model"),
        "RestoreKV, arXiv 2608.01247",
    ),
    press(
        "KVCompose",
        "k-th best tokens of all heads together",
        same("compressor = 'kvcompose-paper'"),
        "KVCompose, arXiv 2509.05165",
    ),
    press(
        "AdaKV",
        "heads of a layer compete",
        almost(
            "compressor = 'snapkv-kvpress'
             allocator = { name = 'ada-kv', floor = 0.2 }",
            0.998,
            "the floor is of what lies beside the window; the same without one",
        ),
        "Ada-KV, arXiv 2407.11550",
    ),
    press(
        "CriticalKV",
        "a second stage that looks at what values write",
        almost(
            "compressor = { name = 'critical-kv', base = 'snapkv-kvpress' }",
            0.99,
            "the first stage is a half of what lies beside the window; the same for bases without one",
        ),
        "CriticalKV, arXiv 2502.03805",
    ),
    press(
        "CriticalAdaKV",
        "the two above together",
        almost(
            "compressor = { name = 'critical-kv', base = 'snapkv-kvpress' }
             allocator = { name = 'ada-kv', floor = 0.2 }",
            0.99,
            "as the two above; the same for bases without a window",
        ),
        "CriticalKV, arXiv 2502.03805",
    ),
    press(
        "PyramidKV",
        "lower layers keep more",
        almost(
            "compressor = 'snapkv-kvpress'
             allocator = { name = 'pyramidkv', beta = 20 }",
            0.88,
            "budgets of layers; kvpress's are even where the last layer's would not pay for its window",
        ),
        "PyramidKV, arXiv 2406.02069",
    ),
    press(
        "LUKV",
        "shares of heads from measured curves",
        almost(
            "compressor = { name = 'expected-attention', epsilon = 0.02 }
             allocator = 'proportional'",
            0.99,
            "shares are of what lies beside the sinks; they come as head scores (`scores = \"shares.json\"`), not from the \
             authors' file, which is of one model and one scorer",
        ),
        "LU-KV, arXiv 2602.08585",
    ),
    press(
        "DuoAttention",
        "some heads keep all, the others their ends",
        almost(
            "compressor = { name = 'streaming-llm', sinks = 64 }
             allocator = { name = 'duo-attention', sinks = 64, recent = 256 }",
            0.999,
            "head scores are given (`cokv scores import --from duo-attention`); kvpress can guess them from mean keys",
        ),
        "DuoAttention, arXiv 2410.10819",
    ),
    press(
        "PerLayerCompression",
        "a share for each layer",
        same(
            "compressor = 'knorm'
             allocator = { name = 'per-layer', shares = [2, 1] }",
        ),
        "kvpress",
    ),
    press(
        "SimLayerKV",
        "lazy layers keep their ends",
        same("compressor = 'simlayerkv-paper'"),
        "SimLayerKV, arXiv 2410.13846",
    ),
    press(
        "ChunkKV",
        "whole chunks, the same in all heads",
        almost(
            "compressor = { name = 'chunkkv', base = 'snapkv-kvpress' }",
            0.999,
            "budgets are spent to the token; kvpress rounds to whole chunks",
        ),
        "ChunkKV, arXiv 2502.00299",
    ),
    press(
        "EntropyGatedChunkKV",
        "the same; spiky chunks give their best",
        almost(
            "compressor = { name = 'entropy-gated-chunkkv', base = 'snapkv-kvpress' }",
            0.98,
            "a base's window is kept, of which kvpress loses what lies in a chunk that it gives only the best of",
        ),
        "kvpress 0.5.5",
    ),
    press(
        "Chunk",
        "each chunk by itself",
        almost("compressor = { name = 'chunk', base = 'knorm' }", 0.999, "for scorers of keys and values alone"),
        "Finch, TACL a_00716",
    ),
    press(
        "Block",
        "block by block into a cache that does not grow",
        almost("compressor = { name = 'block', base = 'keydiff' }", 0.999, "for scorers of keys and values alone"),
        "KeyDiff, arXiv 2504.15364",
    ),
    press(
        "Composed",
        "one after the other",
        almost(
            "compressor = { name = 'composed', compressors = [{ name = 'cur', sinks = 0 }, 'keydiff'] }",
            0.999,
            "all keep the same share; those behind the first score keys and values alone; what any protects is kept, such \
             as SnapKV's window, which kvpress's next press may evict",
        ),
        "kvpress",
    ),
    press(
        "KeyRerotation",
        "kept keys move together",
        almost(
            "compressor = { name = 'key-rerotation', base = 'snapkv-kvpress' }",
            0.999,
            "they move to the prompt's end and not to its beginning, which is the same to every query",
        ),
        "StreamingLLM, arXiv 2309.17453",
    ),
    press(
        "Finch",
        "what the question looks at, moved together",
        almost("compressor = 'finch'", 0.999, "the question is known from the task, without a delimiter"),
        "Finch, TACL a_00716",
    ),
    press(
        "Merging",
        "evicted values live on in kept ones",
        same("compressor = { name = 'merging', base = 'snapkv-kvpress' }"),
        "after D2O, arXiv 2406.13035",
    ),
    press("ThinK", "fewer channels of keys", Here::Later("think"), "ThinK, arXiv 2407.21018"),
    press(
        "Decoding",
        "again every so many generated tokens",
        not_compared(
            "compressor = 'full'\nwhile_decoding = { every = 512, compressor = 'snapkv' }",
            "a budget in tokens; each head by itself, and by any allocator",
        ),
        "kvpress",
    ),
    press(
        "CompressionRatioDecoding",
        "the same to a share of all tokens seen",
        not_compared(
            "compressor = 'full'\nwhile_decoding = { every = 512, compressor = 'snapkv' }",
            "a budget that is a share",
        ),
        "kvpress",
    ),
    press(
        "PrefillDecoding",
        "one press for the prompt, another behind it",
        not_compared("compressor = 'kvzip'\nwhile_decoding = { every = 512, compressor = 'snapkv' }", ""),
        "kvpress",
    ),
    press(
        "DMS",
        "a threshold and not a number",
        not_compared(
            "compressor = 'knorm'\nallocator = { name = 'threshold', threshold = -10 }\nwhile_decoding = 'knorm'",
            "with any compressor; a token is looked at whenever the cache is",
        ),
        "DMS, arXiv 2506.05345",
    ),
    press(
        "CAM",
        "evicted values added to later kept ones",
        not_compared("compressor = 'full'\nwhile_decoding = { every = 512, compressor = 'cam' }", "other draws"),
        "CaM, openreview LCTmppB165",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cokv_core::ConfigTable;

    use super::*;
    use crate::registry;

    #[test]
    fn every_press_has_a_row_and_every_method_exists() {
        let names: BTreeSet<&str> = PRESSES.iter().map(|press| press.name).collect();
        assert_eq!(names.len(), PRESSES.len(), "each once");
        let registry = registry();
        for Press { name, idea, here, source } in PRESSES {
            assert!(!idea.is_empty() && !source.is_empty(), "{name}");
            match here {
                Here::Method(Counterpart { method, same, .. }) => {
                    if let Err(error) = registry.method(ConfigTable::parse(name, method).unwrap()) {
                        panic!("{name}: {error}");
                    }
                    assert!(same.is_none_or(|share| (0.5..=1.0).contains(&share)), "{name}");
                }
                Here::Later(method) => {
                    let presets = registry.presets().map(|(name, _)| name);
                    let known =
                        registry.compressors().chain(registry.allocators()).chain(presets).any(|known| known == method);
                    assert!(!known, "{name}: `{method}` is here by now: say how much of what it keeps is the same");
                }
                Here::Never(reason) => assert!(!reason.is_empty(), "{name}"),
            }
        }
    }
}
