"""Writes sampling.json into a folder: what transformers' processors and warpers make of logits, rule by rule."""

import json
import sys

import torch
from transformers import (
    LogitsProcessorList, MinNewTokensLengthLogitsProcessor, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
)


def logits(count, seed, spread):
    """Distinct numbers in an order that looks like none."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randperm(count, generator=generator).float() / count - 0.5) * spread


CASES = [
    ("repetition", {"repetition_penalty": 1.3}, lambda: [RepetitionPenaltyLogitsProcessor(1.3)]),
    ("repetition that is wanted", {"repetition_penalty": 0.6}, lambda: [RepetitionPenaltyLogitsProcessor(0.6)]),
    ("bias", {"logit_bias": [[1, 4.5], [30, -3.25]]},
     lambda: [SequenceBiasLogitsProcessor([[[1], 4.5], [[30], -3.25]])]),
    ("barred", {"barred": [3, 17]}, lambda: [MinNewTokensLengthLogitsProcessor(5, 9, [3, 17])]),
    ("cold", {"temperature": 0.3}, lambda: [TemperatureLogitsWarper(0.3)]),
    ("hot", {"temperature": 1.9}, lambda: [TemperatureLogitsWarper(1.9)]),
    ("the likeliest seven", {"top_k": 7}, lambda: [TopKLogitsWarper(7)]),
    ("more than there are", {"top_k": 5000}, lambda: [TopKLogitsWarper(5000)]),
    ("a nucleus", {"top_p": 0.83}, lambda: [TopPLogitsWarper(0.83)]),
    ("a nucleus of one", {"top_p": 0.001}, lambda: [TopPLogitsWarper(0.001)]),
    ("no unlikely ones", {"min_p": 0.07}, lambda: [MinPLogitsWarper(0.07)]),
    # Temperature, top-k, top-p and min-p come in this order there, too.
    ("all warpers", {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05},
     lambda: [TemperatureLogitsWarper(0.7), TopKLogitsWarper(40), TopPLogitsWarper(0.9), MinPLogitsWarper(0.05)]),
    ("all", {"repetition_penalty": 1.2, "logit_bias": [[2, 3.0]], "temperature": 1.4, "top_k": 100, "top_p": 0.8},
     lambda: [RepetitionPenaltyLogitsProcessor(1.2), SequenceBiasLogitsProcessor([[[2], 3.0]]), TemperatureLogitsWarper(1.4),
      TopKLogitsWarper(100), TopPLogitsWarper(0.8)]),
]
PROMPT = [0, 5, 5, 11, 29, 3, 8, 2, 31]


def run(name, settings, processors, count, seed, spread):
    row = logits(count, seed, spread)
    scores = LogitsProcessorList(processors())(torch.tensor([PROMPT]), row[None].clone())[0]
    probabilities = scores.double().softmax(-1)
    left = [[token, float(f"{p:.9g}")] for token, p in enumerate(probabilities.tolist()) if p > 0]
    row = [float(f"{x:.9g}") for x in row.tolist()]
    return {"name": name, "settings": settings, "prompt": PROMPT, "logits": row, "left": left}


if __name__ == "__main__":
    rows = [(40, 1, 12.0), (150, 2, 20.0)]
    cases = [run(*case, *row) for case in CASES for row in rows]
    with open(f"{sys.argv[1]}/sampling.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
