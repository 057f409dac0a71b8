//! A model to test with: its tokens are bytes and two marks, its weights are drawn.

use std::fs;
use std::path::Path;

use cokv_models::Outline;
use cokv_models::source::ModelFiles;
use serde_json::{Map, Value as Json, json};

/// ChatML, as Qwen and SmolLM2 have it.
const TEMPLATE: &str = "{{ before }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}\
                        <tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Writes its files.
pub fn write(folder: &Path) -> ModelFiles {
    let printed = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut spare = 256u32..;
    let letters: Vec<char> = (0..256u32)
        .filter_map(|byte| char::from_u32(if printed(byte) { byte } else { spare.next().unwrap_or(0) }))
        .collect();
    let mut vocabulary: Map<String, Json> =
        letters.iter().enumerate().map(|(id, letter)| (letter.to_string(), json!(id))).collect();
    let mark = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false })
    };
    let marks = [mark(256, "<|im_start|>"), mark(257, "<|im_end|>")];
    for mark in &marks {
        vocabulary.insert(mark["content"].as_str().unwrap_or_default().into(), mark["id"].clone());
    }
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0", "added_tokens": marks, "normalizer": null, "pre_tokenizer": bytes, "post_processor": null,
        "decoder": bytes, "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    });
    let config = json!({
        "model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64,
        "intermediate_size": 128, "vocab_size": 258, "max_position_embeddings": 512, "rope_theta": 10000, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true,
    });
    let files = [
        ("tokenizer.json", tokenizer.to_string()),
        ("config.json", config.to_string()),
        ("chat_template.jinja", TEMPLATE.into()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).expect("a folder for tests can be written");
    }
    ModelFiles::Random(folder.into())
}

/// What is known of it without weights.
pub fn outline() -> Outline {
    let folder = tempfile::tempdir().expect("there is a folder for tests");
    Outline::open(&write(folder.path())).expect("the model for tests can be read")
}
