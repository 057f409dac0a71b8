"""A real model on the card beside the processor: the same matrix in f32 and with 16 bits on the card, in f32 on the processor.

python3 benches/gpu/both_devices.py COKV MODEL FOLDER

In f32 both choose the same tokens but where two scores are equal to rounding; with 16 bits, what an answer's likelihood moves by is
what the types cost.
"""

import json
import pathlib
import subprocess
import sys
import time

METHODS = {
    "full": 'compressor = "full"',
    "streaming-llm": 'compressor = "streaming-llm"',
    "snapkv": 'compressor = "snapkv"',
    "ada-snapkv": 'compressor = "snapkv"\nallocator = "ada-kv"',
    "critical-kv": 'compressor = "critical-kv"\nallocator = "ada-kv"',
    "h2o": 'compressor = "h2o"',
    "tova": 'compressor = "tova"',
    "keydiff": 'compressor = "keydiff"',
    "expected-attention": 'compressor = "expected-attention"',
    "kvzip": 'compressor = "kvzip"',
    "knorm while decoding": 'compressor = "full"\nwhile_decoding = { every = 8, compressor = "knorm" }',
}


def configuration(model: str, device: str, weights: str, cache: str) -> str:
    methods = "".join(f'\n[[method]]\nname = "{name}"\n{settings}\n' for name, settings in METHODS.items())
    return f"""budgets = [64, 256]

[model]
source = "path:{model}"
device = "{device}"
weights = "{weights}"
cache = "{cache}"

[data]
source = "synthetic"
tasks = ["multi-key-needle", "passkey", "few-shot-classification"]
context_tokens = 1000
records = 4
{methods}"""


def rows(folder: pathlib.Path) -> dict:
    found = {}
    for file in sorted(folder.glob("runs/run/results*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            found[row["method"], str(row["budget"]), row["task"], row["record"]] = row
    return found


def run(cokv: str, model: str, folder: pathlib.Path, device: str, weights: str, cache: str) -> dict:
    place = folder / f"{device}-{weights}"
    place.mkdir(parents=True, exist_ok=True)
    config = place / "run.toml"
    config.write_text(configuration(model, device, weights, cache))
    started = time.perf_counter()
    done = subprocess.run([cokv, "bench", "--quiet", "--config", config.name], cwd=place, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-3000:])
        return {}
    print(f"{device} {weights} / {cache}: {time.perf_counter() - started:.1f} s", flush=True)
    return rows(place)


def compare(title: str, ours: dict, theirs: dict) -> None:
    print(f"\n{title}\n{'method':24} budget rows answers_equal score_moved kl_moved_most likelihood_moved_mean likelihood_moved_most")
    for method, budget in dict.fromkeys((method, budget) for method, budget, *_ in theirs):
        pairs = [(ours[key], row) for key, row in theirs.items() if key[:2] == (method, budget) and key in ours]
        if not pairs:
            print(f"{method:24} {budget:>6} missing")
            continue
        moved = lambda name: [abs(a[name] - b[name]) for a, b in pairs if a.get(name) is not None and b.get(name) is not None] or [0.0]
        likelihood = moved("log_likelihood")
        equal = sum(a["prediction"] == b["prediction"] for a, b in pairs)
        print(
            f"{method:24} {budget:>6} {len(pairs):4} {equal:13} {sum(moved('score')):11.3f} {max(moved('divergence')):13.5f} "
            f"{sum(likelihood) / len(likelihood):21.5f} {max(likelihood):21.5f}"
        )


def main() -> None:
    cokv, model = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    folder = pathlib.Path(sys.argv[3])
    exact = run(cokv, model, folder, "cuda", "f32", "f32")
    small = run(cokv, model, folder, "cuda", "stored", "f16")
    host = run(cokv, model, folder, "cpu", "f32", "f32")
    compare("card f32 beside processor f32", exact, host)
    compare("card bf16 weights, f16 cache beside processor f32", small, host)


main()
