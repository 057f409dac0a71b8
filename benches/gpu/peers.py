"""transformers on the same shape and card as `cokv perf --random llama3-8b`: prefill, and decoding with a static cache.

python3 benches/gpu/peers.py [--contexts 4096,8192] [--rows 1,8,32]

Weights are drawn on the device; attention is sdpa, forced to its flash kernel for prefill. One line of JSON for each number.
"""

import argparse
import json
import time

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache


def say(**what):
    print(json.dumps(what), flush=True)


def timed(work, times):
    work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / times


def model():
    config = LlamaConfig(
        num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, hidden_size=4096, intermediate_size=14336,
        vocab_size=128256, max_position_embeddings=131072, rms_norm_eps=1e-5, attn_implementation="sdpa",
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        made = LlamaForCausalLM(config)
    return made.eval()


@torch.inference_mode()
def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--contexts", default="4096,8192")
    arguments.add_argument("--rows", default="1,8,32")
    arguments = arguments.parse_args()
    llama = model()
    say(torch=torch.__version__, transformers=transformers.__version__, card=torch.cuda.get_device_name())
    for context in map(int, arguments.contexts.split(",")):
        ids = torch.randint(128000, (1, context), device="cuda")
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            seconds = timed(lambda: llama(ids, use_cache=True, logits_to_keep=1), 2)
        say(what="prefill", context=context, seconds=seconds, tokens_per_second=context / seconds)
    context = max(map(int, arguments.contexts.split(",")))
    ids = torch.randint(128000, (1, context), device="cuda")
    prompt = llama(ids, past_key_values=DynamicCache(config=llama.config), logits_to_keep=1).past_key_values
    for rows in map(int, arguments.rows.split(",")):
        cache = StaticCache(config=llama.config, max_cache_len=context + 64)
        token = torch.randint(128000, (rows, 1), device="cuda")
        llama(token, past_key_values=cache, cache_position=torch.arange(1, device="cuda"))
        for ours, theirs in zip(cache.layers, prompt.layers):
            ours.keys[:, :, :context].copy_(theirs.keys)
            ours.values[:, :, :context].copy_(theirs.values)
        position = torch.tensor([context], device="cuda")
        positions = position[None].expand(rows, 1)

        def step():
            llama(token, past_key_values=cache, cache_position=position, position_ids=positions)

        seconds = timed(step, 8)
        say(what="decode", context=context, rows=rows, step_ms=1e3 * seconds, tokens_per_second=rows / seconds)
        del cache


main()
