"""Writes rope.json and windows.json into a folder: what transformers computes of the checkpoints of tests/tiny."""

import json
import sys
import warnings

import torch
import transformers

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()

HIDDEN, INTERMEDIATE, VOCABULARY, QUERY_HEADS, LAYERS = 32, 48, 50, 4, 2


def random(count, seed):
    mask = (1 << 64) - 1
    state = (seed * 0x9E3779B97F4A7C15) & mask | 1
    numbers = []
    for _ in range(count):
        state ^= (state << 13) & mask
        state ^= state >> 7
        state ^= (state << 17) & mask
        numbers.append((state >> 40) / (1 << 24) - 0.5)
    return torch.tensor(numbers, dtype=torch.float32)


def weights(family, head_dim):
    shapes = [("model.embed_tokens.weight", [VOCABULARY, HIDDEN]), ("model.norm.weight", [HIDDEN])]
    shapes.append(("lm_head.weight", [VOCABULARY, HIDDEN]))
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        queries, keys = QUERY_HEADS * head_dim, 2 * head_dim
        shapes.append((prefix + "input_layernorm.weight", [HIDDEN]))
        shapes.append((prefix + "post_attention_layernorm.weight", [HIDDEN]))
        for name, rows in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)]:
            shapes.append((prefix + f"self_attn.{name}.weight", [rows, HIDDEN]))
            if family == "qwen2":
                shapes.append((prefix + f"self_attn.{name}.bias", [rows]))
        shapes.append((prefix + "self_attn.o_proj.weight", [HIDDEN, queries]))
        if family == "qwen3":
            shapes.append((prefix + "self_attn.q_norm.weight", [head_dim]))
            shapes.append((prefix + "self_attn.k_norm.weight", [head_dim]))
        shapes.append((prefix + "mlp.gate_proj.weight", [INTERMEDIATE, HIDDEN]))
        shapes.append((prefix + "mlp.up_proj.weight", [INTERMEDIATE, HIDDEN]))
        shapes.append((prefix + "mlp.down_proj.weight", [HIDDEN, INTERMEDIATE]))
    tensors = {}
    for seed, (name, shape) in enumerate(shapes):
        size = 1
        for length in shape:
            size *= length
        numbers = random(size, seed)
        if "norm" in name:
            numbers = 1 + 0.3 * numbers
        tensors[name] = numbers.reshape(shape)
    return tensors


def run(name, family, settings, prompt, steps=4):
    head_dim = 16
    config = {
        "hidden_act": "silu", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS, "num_attention_heads": QUERY_HEADS, "num_key_value_heads": 2,
        "vocab_size": VOCABULARY, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "max_window_layers": 2, "head_dim": head_dim,
    } | json.loads(json.dumps(settings))
    config = transformers.AutoConfig.for_model(family, **config)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    missing, unexpected = model.load_state_dict(weights(family, head_dim), strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    tokens = [(i * 31 + i // 7) % 50 for i in range(prompt + steps)]
    rope = model.model.rotary_emb
    with torch.no_grad():
        out = model(torch.tensor([tokens[:prompt]]), use_cache=True)
        frequencies = rope.inv_freq.tolist()
        logits = [out.logits[0, -1].tolist()]
        for token in tokens[prompt:]:
            out = model(torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits[0, -1].tolist())
        # Its cache keeps all tokens at a window of one (`[-1 + 1:]`), and sees them: its pass without a cache does not.
        if settings.get("sliding_window") == 1:
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0, prompt - 1:].tolist()
    case = {"name": name, "family": family, "head_dim": head_dim, "settings": settings, "prompt": prompt}
    if "sliding_window" not in settings:
        case |= {"frequencies": rounded(frequencies, 9), "attention_factor": float(rope.attention_scaling)}
    return case | {"logits": [rounded(row, 7) for row in logits]}


def rounded(numbers, digits):
    return [float(f"{number:.{digits}g}") for number in numbers]


def yarn(**more):
    return {"max_position_embeddings": 32, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, **more}}


def dynamic(**more):
    return {"max_position_embeddings": 32, "rope_scaling": {"rope_type": "dynamic", "factor": 3.0, **more}}


SHORT = [1.0, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.9]
LONG = [1.0, 1.3, 1.8, 2.6, 3.9, 6.0, 11.0, 25.0]


def longrope(settings={}, **more):
    scaling = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, **more}
    return {"max_position_embeddings": 128, "rope_scaling": scaling, **settings}


ORIGINAL = "original_max_position_embeddings"
ROPE = [
    ("yarn", "qwen2", yarn(**{ORIGINAL: 32}), 50),
    ("yarn of a context that says nothing of an original one", "qwen3", yarn(), 50),
    ("yarn that extends the context itself", "llama", yarn(**{ORIGINAL: 32}) | {"max_position_embeddings": 128}, 50),
    ("yarn of a long context", "llama", yarn(**{ORIGINAL: 4096}) | {"max_position_embeddings": 4096}, 20),
    ("yarn with an attention factor", "qwen2", yarn(**{ORIGINAL: 32, "attention_factor": 0.8}), 50),
    ("yarn with both scales", "llama", yarn(**{ORIGINAL: 32, "mscale": 0.7, "mscale_all_dim": 1.3}), 50),
    ("yarn with one scale, which is none", "llama", yarn(**{ORIGINAL: 32, "mscale": 0.7}), 50),
    ("yarn with betas", "llama", yarn(**{ORIGINAL: 512, "beta_fast": 20, "beta_slow": 2.5}), 50),
    ("yarn that is not truncated", "llama", yarn(**{ORIGINAL: 512, "truncate": False}), 50),
    ("dynamic within its context", "llama", dynamic(), 20),
    ("dynamic beyond its context", "llama", dynamic(), 50),
    ("dynamic that leaves its context while decoding", "qwen2", dynamic(), 30),
    ("longrope within its original context", "llama", longrope(**{ORIGINAL: 32}), 20),
    ("longrope beyond it", "llama", longrope(**{ORIGINAL: 32}), 50),
    ("longrope that leaves it while decoding", "qwen3", longrope(**{ORIGINAL: 32}), 30),
    ("longrope with a factor", "llama", longrope(**{ORIGINAL: 32, "factor": 2.0}), 50),
    ("longrope with an attention factor", "llama", longrope(**{ORIGINAL: 32, "attention_factor": 1.4}), 50),
    ("longrope whose original context stands outside", "llama", longrope({ORIGINAL: 32}), 50),
]
WINDOWS = [
    ("a window in all layers", "mistral", {"sliding_window": 12}, 50),
    ("a window from a layer on", "qwen2",
     {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}, 50),
    ("a window in the layers of a list", "qwen3",
     {"use_sliding_window": True, "sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}, 50),
    ("a window of two tokens", "mistral", {"sliding_window": 2}, 20),
    ("a window of one token", "mistral", {"sliding_window": 1}, 20),
    ("a window that nothing leaves", "mistral", {"sliding_window": 4096}, 20),
]

if __name__ == "__main__":
    for name, cases in [("rope", ROPE), ("windows", WINDOWS)]:
        with open(f"{sys.argv[1]}/{name}.json", "w") as file:
            file.write("[\n" + ",\n".join(json.dumps(run(*case)) for case in cases) + "\n]\n")
