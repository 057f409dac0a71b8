"""What kvpress keeps of a prompt, and the logits of transformers: python make.py SmolLM2-135M-Instruct.Q4_1.gguf

Writes expected.json and kept.bin beside itself. Needs torch 2.15.0, transformers 5.2.0, kvpress 0.5.5 and gguf.
"""

import json
import sys
from pathlib import Path

import kvpress
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

HERE = Path(__file__).parent
GGUF = Path(sys.argv[1])
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n"
QUESTION = "\n\nSummarize the text above in one sentence.<|im_end|>\n<|im_start|>assistant\n"
NEW_TOKENS = 32

tokenizer = AutoTokenizer.from_pretrained(GGUF.parent, gguf_file=GGUF.name)
model = AutoModelForCausalLM.from_pretrained(
    GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32, attn_implementation="sdpa"
).eval()
encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
context = SYSTEM + (HERE / "prompt.txt").read_text().strip()
context_ids, question_ids = encode(context), encode(QUESTION)
ids = torch.tensor([context_ids + question_ids])
tokens = ids.shape[1]

# Ada-KV without its floor, which kvpress counts with the window in it and we behind it.
snapkv = lambda window: lambda share: kvpress.SnapKVPress(share, window_size=window, kernel_size=5)
adakv = lambda window: lambda share: kvpress.AdaKVPress(snapkv(window)(share), alpha_safeguard=0.0)
PRESSES = {
    "snapkv": snapkv(64),
    "snapkv_w32": snapkv(32),
    "adakv_snapkv": adakv(64),
    "adakv_snapkv_w32": adakv(32),
    "pyramidkv": lambda share: kvpress.PyramidKVPress(share, window_size=64, kernel_size=5, beta=20),
    "streaming_llm": lambda share: kvpress.StreamingLLMPress(share, n_sink=4),
    "tova": kvpress.TOVAPress,
    "knorm": kvpress.KnormPress,
    "keydiff": kvpress.KeyDiffPress,
    "expected_attention": lambda share: kvpress.ExpectedAttentionPress(share, n_future_positions=512, n_sink=4),
}


def kept_of(press, scores, module):
    """Booleans [kv_heads, tokens], chosen as the press chooses."""
    if isinstance(press, kvpress.AdaKVPress):
        kept = torch.ones(scores.shape[1:], dtype=torch.bool)
        _, heads, positions = module.masked_key_indices
        kept[heads, positions] = False
        return kept
    if isinstance(press, kvpress.PyramidKVPress):
        count = press.get_layer_budget(module, tokens)
    else:
        count = int(tokens * (1 - press.compression_ratio))
    return torch.zeros(scores.shape[1:], dtype=torch.bool).scatter_(1, scores[0].topk(count, dim=-1).indices, True)


@torch.no_grad()
def greedy(cache, first):
    """Positions go on from the whole prompt's length, whatever the cache kept."""
    answer = [first]
    for step in range(NEW_TOKENS - 1):
        position = torch.tensor([tokens + step])
        last = torch.tensor([[answer[-1]]])
        output = model(last, past_key_values=cache, position_ids=position[None], cache_position=position)
        answer.append(int(output.logits[0, -1].argmax()))
    return answer


@torch.no_grad()
def run(press):
    modules = [layer.self_attn for layer in model.model.layers]
    for module in modules:
        module.masked_key_indices = None
    scores = {}
    scorer = getattr(press, "press", press)
    score = scorer.score

    def recorded(module, *arguments):
        scores[module.layer_idx] = score(module, *arguments).clone()
        return scores[module.layer_idx].clone()

    scorer.score = recorded
    cache = DynamicCache()
    with press(model):
        logits = model(ids, past_key_values=cache).logits
    kept = torch.cat([kept_of(press, scores[layer], modules[layer]) for layer in range(len(modules))])
    return kept, greedy(cache, int(logits[0, -1].argmax()))


with torch.no_grad():
    cache = DynamicCache()
    logits = model(ids, past_key_values=cache).logits[0, -1]
top = logits.topk(20)
expected = {
    "versions": {"kvpress": "0.5.5", "transformers": transformers.__version__, "torch": torch.__version__},
    "context_text": context,
    "question_text": QUESTION,
    "context_ids": context_ids,
    "question_ids": question_ids,
    "top20_ids": top.indices.tolist(),
    "top20_logits": [round(logit, 5) for logit in top.values.tolist()],
    "answer": greedy(cache, int(logits.argmax())),
    "runs": [],
}
bits = bytearray()
for name, press in PRESSES.items():
    for removed in (0.5, 0.8):
        kept, answer = run(press(removed))
        expected["runs"].append({"policy": name, "removed": removed, "kept": int(kept.sum()), "answer": answer})
        for head in kept:
            padded = head.tolist() + [False] * (-tokens % 8)
            bits += bytes(sum(bit << at for at, bit in enumerate(padded[i : i + 8])) for i in range(0, len(padded), 8))
        print(name, removed, int(kept.sum()), tokenizer.decode(answer))
lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in expected.items() if key != "runs")
runs = ",\n".join(json.dumps(run) for run in expected["runs"])
(HERE / "expected.json").write_text(f'{{\n{lines},\n"runs": [\n{runs}\n]\n}}\n')
(HERE / "kept.bin").write_bytes(bits)
