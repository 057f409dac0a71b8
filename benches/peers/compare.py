"""Speeds of cokv beside llama.cpp and transformers: the same weights, the same prompt tokens, in turn on one machine.

    compare.py --cokv target/native/release/cokv --gguf model.gguf --q8_0 model.q8_0.gguf --q4_0 model.q4_0.gguf

Every engine runs in a process of its own; whole rounds are repeated, and the best of each engine counts, because what
else a machine does only ever makes it slower. Prints Markdown; --json FILE keeps all that was measured."""

import argparse
import json
import subprocess
import sys
import time

MASK = (1 << 64) - 1


def mix(number: int) -> int:
    """cokv_core::random::mix"""
    bits = (number + 0x9E3779B97F4A7C15) & MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def prompt(tokens: int, vocabulary: int) -> list[int]:
    """The prompt that `cokv perf` runs."""
    return [mix(1 << 32 | place) % vocabulary for place in range(tokens)]


def peak_mebibytes() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def run_llama(path: str, contexts: list[int], steps: int, threads: int, flash: bool) -> list[dict]:
    import llama_cpp

    model = llama_cpp.Llama(
        model_path=path, n_ctx=max(contexts) + steps + 8, n_batch=512, n_threads=threads, n_threads_batch=threads,
        flash_attn=flash, verbose=False,
    )
    model.eval(prompt(64, model.n_vocab()))
    speeds = []
    for context in contexts:
        tokens = prompt(context, model.n_vocab())
        model.reset()
        started = time.perf_counter()
        model.eval(tokens)
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        for step in range(steps):
            model.eval([tokens[step]])
        decode = time.perf_counter() - started
        speeds.append({"context": context, "prefill": context / prefill, "decode": steps / decode, "peak": peak_mebibytes()})
    return speeds


def run_transformers(path: str, contexts: list[int], steps: int, threads: int, dtype: str) -> list[dict]:
    import os

    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(
        os.path.dirname(path), gguf_file=os.path.basename(path), dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()
    vocabulary = model.config.vocab_size
    speeds = []
    with torch.inference_mode():
        model(torch.tensor([prompt(64, vocabulary)]))
        for context in contexts:
            tokens = prompt(context, vocabulary)
            started = time.perf_counter()
            out = model(torch.tensor([tokens]), use_cache=True, logits_to_keep=1)
            prefill = time.perf_counter() - started
            cache = out.past_key_values
            # It decodes so slowly that a few tokens say enough.
            few = min(steps, 16)
            started = time.perf_counter()
            for step in range(few):
                cache = model(torch.tensor([[tokens[step]]]), past_key_values=cache, use_cache=True).past_key_values
            decode = time.perf_counter() - started
            speeds.append({"context": context, "prefill": context / prefill, "decode": few / decode, "peak": peak_mebibytes()})
            del out, cache
    return speeds


def run_cokv(binary: str, path: str, contexts: list[int], steps: int, threads: int, weights: str, cache: str) -> list[dict]:
    output = subprocess.run(
        [binary, "perf", "--json", "--model", f"path:{path}", "--threads", str(threads), "--weights", weights, "--cache", cache,
         "--contexts", ",".join(map(str, contexts)), "--budgets", "128", "--batches", "none", "--decode-tokens", str(steps)],
        check=True, stdout=subprocess.PIPE,
    ).stdout
    measured = json.loads(output)["measured"][0]
    speeds = []
    for prefill in measured["prefill"]:
        decode = {d["budget"]: d for d in measured["decode"] if d["context"] == prefill["context"]}
        speeds.append({
            "context": prefill["context"], "prefill": prefill["tokens_per_second"],
            "decode": decode[None]["tokens_per_second"],
            "decode 128 kept": decode[128]["tokens_per_second"] if 128 in decode else None,
            "peak": prefill["peak_resident_bytes"] / 2**20,
        })
    return speeds


def engines(a: argparse.Namespace) -> dict[str, list[str]]:
    """What runs under which name, as arguments of this script's worker."""
    found = {"cokv": ["cokv", a.gguf, "stored", "f16"], "cokv f32": ["cokv", a.gguf, "f32", "f32"]}
    for name, path in [("as stored", a.gguf), ("Q8_0", a.q8_0), ("Q4_0", a.q4_0)]:
        if path and "llama.cpp" not in a.without:
            found[f"llama.cpp {name}"] = ["llama", path, ""]
            found[f"llama.cpp {name}, flash"] = ["llama", path, "flash"]
        if path and name != "as stored":
            found[f"cokv {name}"] = ["cokv", path, "stored", "f16"]
    if "transformers" not in a.without:
        found["transformers f32"] = ["transformers", a.gguf, "float32"]
        found["transformers bf16"] = ["transformers", a.gguf, "bfloat16"]
    return found


def worker(a: argparse.Namespace) -> None:
    kind, path, *rest = a.worker
    run = {"llama": lambda: run_llama(path, a.contexts, a.steps, a.threads, rest[0] == "flash"),
           "transformers": lambda: run_transformers(path, a.contexts, a.steps, a.threads, rest[0]),
           "cokv": lambda: run_cokv(a.cokv, path, a.contexts, a.steps, a.threads, *rest)}
    print(json.dumps(run[kind]()))


def best(rounds: list[dict]) -> dict:
    """The highest speed of each engine, context and measure."""
    result: dict = {}
    for measured in rounds:
        for name, speeds in measured.items():
            for speed in speeds:
                for measure, value in speed.items():
                    if measure != "context" and value is not None:
                        held = result.setdefault(measure, {}).setdefault(name, {})
                        lower = measure == "peak"
                        known = held.get(speed["context"], value)
                        held[speed["context"]] = min(value, known) if lower else max(value, known)
    return result


def table(title: str, speeds: dict[str, dict[int, float]], contexts: list[int]) -> str:
    lines = [f"| {title} | " + " | ".join(f"{c:,}" for c in contexts) + " |", "|---|" + "---:|" * len(contexts)]
    ours = speeds["cokv"]
    for name, of in speeds.items():
        cells = []
        for context in contexts:
            value = of.get(context)
            ratio = f" ({ours[context] / value:.2f} x)" if value and name != "cokv" and context in ours else ""
            cells.append(f"{value:,.1f}{ratio}" if value else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cokv", default="target/native/release/cokv")
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--q8_0", help="the same weights as Q8_0, written by requantise.py")
    parser.add_argument("--q4_0", help="the same weights as Q4_0")
    parser.add_argument("--contexts", type=lambda text: [int(n) for n in text.split(",")], default=[512, 2048, 4096, 8000])
    parser.add_argument("--steps", type=int, default=48, help="tokens decoded")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[], choices=["llama.cpp", "transformers"])
    parser.add_argument("--json", help="where to keep all figures")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.worker:
        return worker(a)
    rounds = []
    for number in range(a.rounds):
        measured = {}
        for name, arguments in engines(a).items():
            print(f"round {number + 1} of {a.rounds}: {name}", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", *arguments]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if done.returncode:
                print(f"{name} failed; run it alone: {' '.join(command)}", file=sys.stderr)
                continue
            measured[name] = json.loads(done.stdout)
        rounds.append(measured)
        if a.json:
            with open(a.json, "w") as file:
                json.dump(rounds, file, indent=1)
    speeds = best(rounds)
    for measure, title in [("prefill", "prefill tokens/s (cokv is faster by)"), ("decode", "decode tokens/s, full cache"),
                           ("decode 128 kept", "decode tokens/s, 128 tokens per KV head"), ("peak", "peak MiB, prompts so far")]:
        if measure in speeds and "cokv" in speeds[measure]:
            print(table(title, speeds[measure], a.contexts), end="\n\n")


if __name__ == "__main__":
    main()
