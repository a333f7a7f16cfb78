"""Effect of the denoising prior on one-step perception: fine-tuning from it, or from random weights.

    python benchmarks/prior.py --start runs/prior/checkpoint --steps 120 --seeds 3 --out runs/prior-study

Network, data, batches, steps and learning rate are the same; one arm starts from the prior's U-Net, the other from
random weights. Depth and normals are trained jointly. Prints a Markdown table of every seed and the means.
Finished runs in ``--out`` are not repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import torch

from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.run import run_recipe

SHOWN = ("depth/abs_rel", "depth/delta1", "normals/mean")


def arm(start: str, reset: bool, seed: int, steps: int, labels: int, data: str, validation: str) -> Recipe:
    """The recipe of one run."""
    name = f"{'random' if reset else 'prior'}-{labels or 'all'}-{seed}"
    return Recipe(
        name=name,
        model=DenoiserConfig(init_from=start, reset=("unet",) if reset else ()),
        data=DataConfig(
            sources=(Source(path=data),),
            task_weights={"depth": 1.0, "normals": 1.0},
            size=(144, 192),
            label_limit=labels,
        ),
        optimizer=OptimizerConfig(lr=5e-4, warmup_steps=20),
        ema=EmaConfig(decay=0.97),
        loop=LoopConfig(steps=steps, batch_size=16, seed=seed, save_every=50),
        validation=ValidationConfig(data=validation, every=0, num_samples=64),
    )


def final_scores(recipe: Recipe, run: Path) -> dict[str, float]:
    """Scores after the last step of a run, which is trained unless it is finished."""
    for _ in run_recipe(recipe, run):
        pass
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [r["validation"] for r in records if "validation" in r][-1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", default="runs/prior/checkpoint")
    parser.add_argument("--data", default="data/rooms")
    parser.add_argument("--validation", default="data/rooms-val")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--labels", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/prior-study"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table: dict[str, list[dict[str, float]]] = {"prior": [], "random": []}
    print("| start | seed | " + " | ".join(SHOWN) + " |\n|---" * 1 + "|---" * (len(SHOWN) + 1) + "|")
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name, rows in table.items():
            recipe = arm(
                args.start, name == "random", seed, args.steps, args.labels, args.data, args.validation
            )
            rows.append(final_scores(recipe, args.out / recipe.name))
            print(
                f"| {name} | {seed} | " + " | ".join(f"{rows[-1][k]:.4f}" for k in SHOWN) + " |", flush=True
            )
    for name, rows in table.items():
        cells = [[r[k] for r in rows] for k in SHOWN]
        spread = [f"{mean(c):.4f} ± {stdev(c) if len(c) > 1 else 0:.4f}" for c in cells]
        print(f"| {name} | mean ± sd of {len(rows)} | " + " | ".join(spread) + " |")


if __name__ == "__main__":
    main()
