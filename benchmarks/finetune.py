"""Fine-tuning of the embedded model with few labels, compared with random weights and constant predictions.

    python benchmarks/finetune.py clothing --data data/ccp --out runs/clothing
    python benchmarks/finetune.py rooms --data data/rooms --test data/rooms-dev --out runs/variants

``clothing``: person masks of the Clothing Co-Parsing photographs (label above 0), in a data folder in that order: the
first 600 are for training, the others for testing. Scores: IoU at 0.5, MAE and max F (of the mean curve).

``rooms``: depth and normals of rendered scenes with the variants of GenPercept's Table 4: the whole U-Net, a frozen
U-Net with a DPT head, and LoRA of rank 4, 16 and 64.

Finished runs in ``--out`` are not repeated, and interrupted ones continue. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

from twofold.checkpoints import open_model
from twofold.data import Folder
from twofold.evaluate.score import scorable
from twofold.image import resize
from twofold.metrics import DEPTH, MASKS, NORMALS, measure_many, merge_sums, trivial_baselines
from twofold.sample import Sample
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.run import run_recipe

Scores = dict[str, float]
STARTS: dict[str, tuple[str, ...]] = {"embedded": ("heads",), "random": ("unet", "text", "heads")}
OWN_HEAD = "embedded, its own head"
# Of the person masks: the weights that are random at the start, the head, and the image encoder.
CLOTHING: dict[str, dict] = {
    "embedded, fresh light head": {"reset": STARTS["embedded"], "head": {"name": "light"}},
    "random, fresh light head": {"reset": STARTS["random"], "head": {"name": "light"}},
    OWN_HEAD: {"head": {"name": "pyramid"}, "image_encoder": {"mode": "full"}},
}
VARIANTS: dict[str, dict] = {
    "full": {},
    "frozen + DPT": {
        "model": {
            "unet": "frozen",
            "head": {"name": "dpt"},
            "latent_loss_weight": 0.0,
            "pixel_loss_weight": 1.0,
        }
    },
    "LoRA 4": {"model": {"unet": "lora", "lora": {"rank": 4}, "text_encoder": "frozen"}},
    "LoRA 16": {"model": {"unet": "lora", "lora": {"rank": 16}, "text_encoder": "frozen"}},
    "LoRA 64": {"model": {"unet": "lora", "lora": {"rank": 64}, "text_encoder": "frozen"}},
}
MASK_METRICS = (MASKS["iou"], MASKS["mae"], MASKS["maxf"])
CONSTANT = (192, 128)  # size of the mean mask


def mask_folder(data: Path, out: Path, ids: Sequence[str]) -> Path:
    """Write a data folder that reads labels above 0 of these samples as the foreground, in place."""
    folder = Folder(data).select(ids)
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": r["id"],
            "file_name": r["file_name"],
            "targets": {"mask": {"path": r["targets"]["semantic"]["path"]}},
        }
        for r in folder.rows
    ]
    header = {
        "schema": "twofold-data/1", "name": "ccp-person", "root": str(folder.root), "count": len(rows),
        "targets": {"mask": {"codec": "png8", "threshold": 0}},
    }  # fmt: skip
    (out / "dataset.json").write_text(json.dumps(header, indent=1))
    (out / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return out


def finished(recipe: Recipe, run: Path) -> Path:
    """The checkpoint of a recipe, after training unless it exists."""
    for record in run_recipe(recipe, run):
        if record["step"] % 50 == 0:
            print(
                f"# {recipe.name} {record['step']}/{recipe.loop.steps} loss {record['loss']:.4f}", flush=True
            )
    return run / "checkpoint"


def scores(
    task: str, checkpoint: str | Path, samples: Sequence[Sample], metrics: Sequence, cache: Path | None = None
) -> Scores:
    """A task's scores, cached in a folder, by default beside the checkpoint."""
    kept = (cache or Path(checkpoint).parent) / f"scores-{task}-{len(samples)}.json"
    if not kept.exists():
        predictor = open_model(checkpoint).predictor(task)
        total: dict[str, Tensor] = {}
        for sample in samples:
            target, valid = sample.targets[predictor.task.target], sample.valid[predictor.task.target]
            aligned = predictor.task.align(predictor(sample.image).map, target, valid)
            total = merge_sums(total, measure_many(metrics, aligned, target, valid))
        kept.write_text(json.dumps({m.name: m.compute(total[m.name]) for m in metrics}))
    return json.loads(kept.read_text())


def constant(
    samples: Sequence[Sample], task: str, metrics: Sequence, predictions: Mapping[str, Tensor]
) -> Iterator[tuple[str, Scores]]:
    """Scores of predictions that are independent of the image."""
    for name, prediction in predictions.items():
        total: dict[str, Tensor] = {}
        for sample in samples:
            target = sample.targets[task]
            guess = resize(prediction, (target.shape[-2], target.shape[-1])).to(target)
            total = merge_sums(total, measure_many(metrics, guess, target, sample.valid[task]))
        yield name, {m.name: m.compute(total[m.name]) for m in metrics}


def row(name: str, runs: Sequence[Scores], shown: Sequence[str]) -> str:
    """A line of the table: mean and standard deviation over seeds."""
    cells = []
    for key in shown:
        values = [r[key] for r in runs]
        cells.append(f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else ""))
    return f"| {name} | {len(runs)} | " + " | ".join(cells) + " |"


def clothing(args: argparse.Namespace) -> None:
    """Person masks."""
    ids = Folder(args.data).ids
    train, test = (
        mask_folder(args.data, args.out / n, i) for n, i in (("train", ids[:600]), ("test", ids[600:]))
    )
    samples = [s for s in Folder(test) if scorable(s, "mask")]
    shown = [m.name for m in MASK_METRICS]
    zero_shot = scores("mask", "embedded", samples, MASK_METRICS, args.out)
    print(row("embedded, not trained on them", [zero_shot], shown), flush=True)
    own = open_model("embedded").heads["mask"].config
    found: dict[str, list[Scores]] = {start: [] for start in CLOTHING}
    for seed in range(args.seeds):
        for start, changes in CLOTHING.items():
            if start == OWN_HEAD:
                changes = {**changes, "head": HeadConfig(name="pyramid", options=own)}
            recipe = Recipe(
                name=f"{start.replace(',', '').replace(' ', '-')}-{seed}",
                model=DenoiserConfig(
                    init_from="embedded", latent_loss_weight=0.0, pixel_loss_weight=1.0, **changes
                ),
                data=DataConfig(
                    sources=(Source(path=str(train)),), task_weights={"mask": 1.0}, size=(192, 128)
                ),
                loss={"mask": {"bce": 1.0, "iou": 1.0}},
                optimizer=OptimizerConfig(lr=1e-3, warmup_steps=10),
                ema=EmaConfig(decay=0.95),
                loop=LoopConfig(steps=args.steps, batch_size=16, seed=seed, save_every=50),
                validation=ValidationConfig(every=0),
            )
            found[start].append(
                scores("mask", finished(recipe, args.out / recipe.name), samples, MASK_METRICS)
            )
            print(row(recipe.name, found[start][-1:], shown), flush=True)
    shapes = [resize(s.targets["mask"], CONSTANT) for s in Folder(train)]
    predictions = {
        "mean training mask": torch.stack(shapes).mean(0),
        "all foreground": torch.ones(1, *CONSTANT),
    }
    print(
        f"\n{len(samples)} test images\n\n| start | seeds | "
        + " | ".join(shown)
        + " |\n|---|---|---|---|---|"
    )
    for start, runs in found.items():
        print(row(start, runs, shown))
    print(row("embedded, not trained on them", [zero_shot], shown))
    for name, scored in constant(samples, "mask", MASK_METRICS, predictions):
        print(row(name, [scored], shown))


def rooms(args: argparse.Namespace) -> None:
    """Depth and normals, variant by variant."""
    samples = list(Folder(args.test))
    depth, normals = (DEPTH["abs_rel"], DEPTH["delta1"]), (NORMALS["mean"], NORMALS["below_11.25"])
    shown = [m.name for m in (*depth, *normals)]
    found: dict[tuple[str, str], list[Scores]] = {}
    for seed in range(args.seeds):
        for start, reset in STARTS.items():
            for variant, changes in VARIANTS.items():
                recipe = Recipe(
                    name=f"{start}-{variant.replace(' ', '')}-{seed}",
                    model=DenoiserConfig(init_from="embedded", reset=reset),
                    data=DataConfig(
                        sources=(Source(path=str(args.data)),),
                        task_weights={"depth": 1.0, "normals": 1.0},
                        size=(144, 192),
                    ),
                    optimizer=OptimizerConfig(lr=3e-4, warmup_steps=20),
                    ema=EmaConfig(decay=0.97),
                    loop=LoopConfig(steps=args.steps, batch_size=8, seed=seed, save_every=50),
                    validation=ValidationConfig(every=0),
                ).replace(**changes)
                checkpoint = finished(recipe, args.out / recipe.name)
                one = scores("depth", checkpoint, samples, depth) | scores(
                    "normals", checkpoint, samples, normals
                )
                found.setdefault((start, variant), []).append(one)
                print(row(recipe.name, [one], shown), flush=True)
    head = "\n|---|---|---|---|---|---|"
    print(f"\n{len(samples)} test scenes\n\n| start, variant | seeds | " + " | ".join(shown) + f" |{head}")
    for (start, variant), runs in found.items():
        print(row(f"{start}, {variant}", runs, shown))
    for name, scored in _room_constants(samples, depth, normals):
        print(row(name, [scored], shown))


def _room_constants(
    samples: Sequence[Sample], depth: Sequence, normals: Sequence
) -> Iterator[tuple[str, Scores]]:
    """Scores of image-independent baselines: fitted depth, and normals that all face the camera."""
    facing = next(
        constant(
            samples, "normals", normals, {"": torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 8, 8)}
        )
    )[1]
    totals: dict[str, dict[str, Tensor]] = {}
    for sample in samples:
        target, valid = sample.targets["depth"], sample.valid["depth"]
        for name, guess in trivial_baselines(target, valid).items():
            totals[name] = merge_sums(totals.get(name, {}), measure_many(depth, guess, target, valid))
    for name, total in totals.items():
        yield f"fitted {name}, facing the camera", {m.name: m.compute(total[m.name]) for m in depth} | facing


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=("clothing", "rooms"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, default=Path("data/rooms-dev"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3, help="at least 1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    {"clothing": clothing, "rooms": rooms}[args.study](args)


if __name__ == "__main__":
    main()
