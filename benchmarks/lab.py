"""A table of ablations in miniature, compared with the published one by the order of its rows.

    twofold render --count 1200 --seed 1 --spp 4 --out data/rooms
    twofold render --count 64 --seed 9002 --out data/rooms-dev
    python benchmarks/lab.py recipes/table1.py --seeds 3 --out runs/lab
    python benchmarks/lab.py recipes/table4.py --rows full frozen lora_4 --seeds 3 --out runs/lab

Every row of the file is run by `twofold.train.smoke`, on the embedded model and rendered scenes, and scored by AbsRel
on all of the test folder. The table has the published AbsRel of a data set (``--beside``), read from the row's
docstring, and the rank of both among the rows; the last line is Spearman's rank correlation. Data, network and steps
are not those of the paper, so only the order can be compared, and only as far as seeds agree on it.

Finished runs in ``--out`` are not repeated, and interrupted ones continue.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch

from twofold.train import Recipe
from twofold.train.recipe_loader import recipes
from twofold.train.run import run_recipe
from twofold.train.smoke import STEPS, check_data, smoke_config

SETS = ("KITTI", "NYUv2", "ScanNet", "DIODE", "ETH3D")
METRIC = "depth/abs_rel"


def published(function: Callable[[], Recipe], beside: str) -> float | None:
    """The published AbsRel on a data set, from a row's docstring."""
    found = re.search(rf"{beside} (\.\d+) (\.\d+)", function.__doc__ or "")
    return float(found[1]) if found else None


def score(recipe: Recipe, run: Path) -> float:
    """The row's score, after training unless it exists."""
    for record in run_recipe(recipe, run):
        if record["step"] % 50 == 0:
            print(
                f"# {recipe.name} {record['step']}/{recipe.loop.steps} loss {record['loss']:.4f}", flush=True
            )
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return last["validation"][METRIC]


def ranks(values: Sequence[float]) -> list[float]:
    """From 1, the smallest; equal values share the mean of their ranks."""
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) + 1) / 2 for v in values]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN if one side is constant."""
    x, y = (torch.tensor(ranks(v)) - (len(v) + 1) / 2 for v in (a, b))
    return float((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt())


def table(found: Mapping[str, Sequence[float]], beside: Mapping[str, float | None], data: str) -> str:
    """Markdown: the rows in the order obtained."""
    got = {name: mean(values) for name, values in found.items()}
    known = {name: value for name, value in beside.items() if value is not None and name in got}
    place = dict(zip(got, ranks(list(got.values())), strict=True))
    wanted = dict(zip(known, ranks(list(known.values())), strict=True))
    lines = [f"| row | seeds | AbsRel here | rank | published, {data} | rank |", "|---|---|---|---|---|---|"]
    for name in sorted(got, key=lambda n: got[n]):
        values = found[name]
        spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        reference = f"{known[name]:.3f} | {wanted[name]:g}" if name in known else "| "
        lines.append(f"| {name} | {len(values)} | {got[name]:.4f}{spread} | {place[name]:g} | {reference} |")
    if len(known) > 1:
        rho = spearman([got[n] for n in known], list(known.values()))
        lines.append(f"\nrank correlation over {len(known)} rows: {rho:.2f}")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", nargs="+", help="some of the file's rows only")
    parser.add_argument("--data", nargs="+", default=["data/rooms"], help="folders of rendered scenes")
    parser.add_argument("--test", default="data/rooms-dev")
    parser.add_argument("--count", type=int, default=64, help="test scenes")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--beside", choices=SETS, default="NYUv2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    all_rows = recipes(args.file)
    strange = set(args.rows or ()) - set(all_rows)
    if strange:
        parser.error(f"{args.file} has no row {', '.join(sorted(strange))}; it has {', '.join(all_rows)}")
    chosen = {n: f for n, f in all_rows.items() if args.rows is None or n in args.rows}
    beside = {n: published(f, args.beside) for n, f in chosen.items()}
    found: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        for name, function in chosen.items():
            recipe = smoke_config(function(), args.data, args.test, args.steps)
            recipe = recipe.replace(loop={"seed": seed}, validation={"num_samples": args.count}).override(
                args.settings
            )
            check_data(recipe)
            found.setdefault(name, []).append(score(recipe, args.out / f"{recipe.name}-{seed}"))
            print(f"# {name}, seed {seed}: AbsRel {found[name][-1]:.4f}", flush=True)
        print(f"\n{args.file.stem}, {args.steps} steps, {args.count} test scenes\n", flush=True)
        print(table(found, beside, args.beside), flush=True)


if __name__ == "__main__":
    main()
