"""Kills a run again and again, with a calibration and a matrix, and says what was lost: benches/kills/kills.py COKV [KILLS]

Each run is started again until it comes to its end, and then held to one that was left alone: the same rows, samples, scores and table.
After every kill all complete lines of all logs must still be there. The model is a tiny one with drawn weights, so that a kill costs a
fraction of a second; what is killed is the program that everybody runs.
"""

import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
TIMES = re.compile(rb',"(prefill|decode)_seconds":[^,}]*|,"batch_rows":[0-9]*')


def start(cokv: str, folder: pathlib.Path) -> subprocess.Popen:
    with open(folder / "said.txt", "ab") as said:
        return subprocess.Popen([cokv, "bench", "--config", "run.toml", "--quiet"], cwd=folder, stdout=said, stderr=said)


def logs(folder: pathlib.Path) -> dict:
    """All logs, each up to its last complete line."""
    found = {}
    for file in folder.glob("runs/**/*.jsonl"):
        if "pred" not in file.parts:
            data = file.read_bytes()
            found[file] = data[: data.rfind(b"\n") + 1]
    return found


def outcome(folder: pathlib.Path) -> dict:
    """What no kill may change."""
    run = next(folder.glob("runs/*/table.md")).parent
    sorted_lines = lambda file: sorted(TIMES.sub(b"", line) for line in file.read_bytes().splitlines())
    samples = sorted(sorted_lines(file) for file in folder.glob("runs/importance/*.samples.jsonl"))
    scores = [json.loads(file.read_text())["scores"] for file in folder.glob("runs/importance/*.scores.json")]
    return {
        "rows": sorted_lines(run / "results.jsonl"), "samples": samples, "scores": scores,
        "table": (run / "table.md").read_text(), "cells": (run / "report/cells.csv").read_text(),
    }


def main() -> None:
    cokv, wanted = str(pathlib.Path(sys.argv[1]).resolve()), int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    work = pathlib.Path(tempfile.mkdtemp(prefix="cokv-kills-"))
    folder = lambda name: (work / name).mkdir() or shutil.copy(HERE / "run.toml", work / name) and work / name
    calm = folder("calm")
    started = time.perf_counter()
    if start(cokv, calm).wait():
        sys.exit((calm / "said.txt").read_text())
    whole = time.perf_counter() - started
    expected = outcome(calm)
    counts = dict(runs=0, kills=0, in_calibration=0, in_matrix=0, torn=0)
    while counts["kills"] < wanted:
        place = folder(f"run-{counts['runs']}")
        while True:
            before = logs(place)
            process = start(cokv, place)
            try:
                code = process.wait(random.uniform(0.02, 0.6) * whole)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = None
            after = logs(place)
            for file, lines in before.items():
                if not after.get(file, b"").startswith(lines):
                    sys.exit(f"{file}: complete lines are gone after kill {counts['kills']}")
            if code is not None:
                break
            counts["kills"] += 1
            counts["in_matrix" if any(lines for file, lines in after.items() if file.name == "results.jsonl") else "in_calibration"] += 1
            counts["torn"] += any(not file.read_bytes().endswith(b"\n") for file in after if file.stat().st_size)
        if code:
            sys.exit((place / "said.txt").read_text())
        if outcome(place) != expected:
            sys.exit(f"{place} differs from {calm}")
        counts["runs"] += 1
        shutil.rmtree(place)
    print(json.dumps({**counts, "lost": 0, "corrupted": 0, "seconds": round(time.perf_counter() - started)}))
    shutil.rmtree(work)


main()
