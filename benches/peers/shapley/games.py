"""shapiq's approximators on a game that cokv recorded, at equal counts of coalitions, beside cokv's estimators.

    games.py exact.samples.jsonl [--cokv target/release/cokv] [--seeds 20] [--budgets 96,192,384,768]

The file is a log of `cokv estimate --estimator exact`: every coalition of some heads on every record, so that the log is the
game, and its exact values the truth. `--cokv` adds what `cokv convergence` says of the same file at the same counts, where a sample
is one record. Two tables: in the first an evaluation is one coalition on one record, the same for a coalition and its complement,
as cokv plays; in the second it is the mean over the records, so that there is no noise. A count includes the two ends
only in the second, where shapiq needs them; cokv's never do. Prints Markdown; --json FILE keeps all that was measured."""

import argparse
import importlib.metadata
import itertools
import json
import math
import subprocess
import warnings

import numpy as np
import shapiq


def read(path: str) -> np.ndarray:
    """Utilities `[records, 2 ** players]` by the coalition's binary digits; player 0 is the lowest."""
    lines = [json.loads(line) for line in open(path)]
    plan = lines[0]["plan"]
    if plan["design"]["kind"] != "exhaustive":
        raise SystemExit(f"{path} is no log of --estimator exact")
    players, records = plan["players"], plan["instances"]
    utilities = np.full((records, 1 << players), np.nan)
    for line in lines[1:]:
        if "ends" in line:
            continue
        coalition = int(line["coalitions"][0].split(":")[1], 16)
        utilities[line["instances"], coalition] = line["utilities"][:records]
        utilities[line["instances"], (1 << players) - 1 - coalition] = line["utilities"][records:]
    if np.isnan(utilities).any():
        raise SystemExit(f"{path} lacks some coalitions: run the same command of cokv estimate again")
    return utilities


def shapley(utilities: np.ndarray) -> np.ndarray:
    """The exact values of a game `[2 ** players]`."""
    players = int(math.log2(len(utilities)))
    coalitions = np.arange(1 << players)
    sizes = sum(coalitions >> player & 1 for player in range(players))
    weights = np.array([1 / (players * math.comb(players - 1, size)) for size in range(players)])
    values = np.empty(players)
    for player in range(players):
        without = coalitions[coalitions >> player & 1 == 0]
        gains = utilities[without | 1 << player] - utilities[without]
        values[player] = np.sum(weights[sizes[without]] * gains)
    return values


class Recorded:
    """A game as shapiq asks for it: `[coalitions, players]` of booleans."""

    def __init__(self, utilities: np.ndarray, one_record: bool, seed: int):
        self.utilities, self.players = utilities, int(math.log2(utilities.shape[1]))
        self.record_of = None
        if one_record:
            pairs = np.random.default_rng(seed).integers(len(utilities), size=utilities.shape[1])
            everybody = utilities.shape[1] - 1
            self.record_of = lambda coalition: pairs[np.minimum(coalition, everybody - coalition)]

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        coalitions = np.atleast_2d(coalitions).astype(np.int64) @ (1 << np.arange(self.players))
        means = self.utilities[:, coalitions].mean(axis=0)
        if self.record_of is None:
            return means
        ends = (coalitions == 0) | (coalitions == self.utilities.shape[1] - 1)
        return np.where(ends, means, self.utilities[self.record_of(coalitions), coalitions])


def approximators() -> dict:
    """Makers of approximators, by name; those that this shapiq lacks are left out."""
    def of(name: str, **settings):
        return lambda players, seed: getattr(shapiq, name)(n=players, random_state=seed, **settings)

    makers = {
        "KernelSHAP, paired": ("KernelSHAP", {"pairing_trick": True}),
        "KernelSHAP": ("KernelSHAP", {"pairing_trick": False}),
        "UnbiasedKernelSHAP": ("UnbiasedKernelSHAP", {}),
        "kADDSHAP, order 2": ("kADDSHAP", {"max_order": 2}),
        "RegressionFSII, order 2": ("RegressionFSII", {"max_order": 2}),
        "SVARM": ("SVARM", {}),
        "PermutationSamplingSV": ("PermutationSamplingSV", {}),
        "StratifiedSamplingSV": ("StratifiedSamplingSV", {}),
        "OwenSamplingSV": ("OwenSamplingSV", {}),
    }
    return {name: of(kind, **settings) for name, (kind, settings) in makers.items() if hasattr(shapiq, kind)}


def first_order(found, players: int) -> np.ndarray:
    """Values of players. Of a faithful index of second order, each of two players gets half of what they share."""
    values = np.array([found[(player,)] for player in range(players)])
    if found.index == "FSII" and found.max_order == 2:
        for first, second in itertools.combinations(range(players), 2):
            values[[first, second]] += found[(first, second)] / 2
    return values


def shares(values: np.ndarray) -> np.ndarray:
    """Budgets by the rule of CoKV's authors: the lowest 8 % get nothing."""
    border = np.sort(values)[max(round(0.08 * len(values)), 1) - 1]
    above = np.maximum(values - border, 0)
    return above / above.sum() if above.sum() > 0 else np.full(len(values), 1 / len(values))


def measures(values: np.ndarray, truth: np.ndarray) -> dict:
    rank = lambda numbers: np.argsort(np.argsort(numbers))
    correlation = lambda left, right: np.corrcoef(left, right)[0, 1] if np.std(left) > 0 else 0.0
    lower = np.argsort(truth)[: len(truth) // 2]
    return {
        "r2": correlation(values, truth) ** 2,
        "mse": 1e6 * np.mean((values - truth) ** 2),
        "lower": correlation(rank(values[lower]), rank(truth[lower])),
        "moved": 0.5 * np.abs(shares(values) - shares(truth)).sum(),
    }


def of_cokv(binary: str, path: str, seeds: int, budgets: list[int]) -> dict:
    """What `cokv convergence` says at the counts that are nearest."""
    command = [binary, "convergence", path, "--seeds", str(seeds), "--json"]
    curves = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows = {}
    for curve in curves:
        for budget in budgets:
            point = min(curve["points"], key=lambda point: abs(math.log(point["evaluations"] / budget)), default=None)
            if point and abs(math.log(point["evaluations"] / budget)) < 0.1:
                rows.setdefault(f"cokv {curve['estimator']}", {})[budget] = {
                    "r2": point["squared_correlation"], "lower": point["lower_half"], "moved": point["allocation_distance"],
                }
    return rows


def table(title: str, rows: dict, budgets: list[int]) -> str:
    columns = [("r2", "r²", "{:.3f}"), ("mse", "MSE e-6", "{:.0f}"), ("lower", "lower half", "{:.2f}"), ("moved", "tokens moved", "{:.3f}")]
    heads = [f"{name} at {budget}" for (_, name, _), budget in itertools.product(columns, budgets)]
    lines = [f"**{title}**", "", "| " + " | ".join(["estimator", *heads]) + " |", "|---" + "|---:" * len(heads) + "|"]
    for name, row in rows.items():
        cells = [
            form.format(row[budget][key]) if key in row.get(budget, {}) else "–"
            for (key, _, form), budget in itertools.product(columns, budgets)
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples")
    parser.add_argument("--cokv")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budgets", default="96,192,384,768")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    budgets = [int(budget) for budget in arguments.budgets.split(",")]
    utilities = read(arguments.samples)
    truth = shapley(utilities.mean(axis=0))
    version = importlib.metadata.version("shapiq")
    kept = {"shapiq": version}
    for title, one_record in [("one record an evaluation", True), ("the mean over records", False)]:
        rows = of_cokv(arguments.cokv, arguments.samples, arguments.seeds, budgets) if arguments.cokv and one_record else {}
        for name, make in approximators().items():
            for budget in budgets:
                found = []
                for seed in range(arguments.seeds):
                    game = Recorded(utilities, one_record, seed)
                    # The ends of a game are played anyway, and their records with them.
                    allowed = budget + 2 if one_record else budget
                    try:
                        values = make(game.players, seed).approximate(budget=allowed, game=game)
                        found.append(measures(first_order(values, game.players), truth))
                    except (ValueError, KeyError, np.linalg.LinAlgError):
                        continue
                if found:
                    rows.setdefault(f"shapiq {name}", {})[budget] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
        kept[title] = rows
        print(table(f"{title}; {arguments.seeds} seeds, shapiq {version}", rows, budgets), end="\n\n")
    if arguments.json:
        json.dump(kept, open(arguments.json, "w"))


if __name__ == "__main__":
    main()
