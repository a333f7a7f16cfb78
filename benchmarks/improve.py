"""Effect of self-improving: training on few labels alone, or on these and generated images.

    twofold render --count 300 --seed 3 --spp 4 --out data/rooms-few
    twofold render --count 300 --seed 9003 --out data/rooms-test
    python benchmarks/improve.py --data data/rooms-few --test data/rooms-test --views data/rgbd --out runs/improve

For every seed: a warm-up on ``--labelled`` rendered scenes; then each arm of ``ARMS``, with the same number of steps.
The network is frozen and a head for depth and normals is trained. Scores are those of the averaged weights (the
teacher, if there is one) and of the last step (the student). Finished runs in ``--out`` are not repeated, and
interrupted ones continue. Prints Markdown tables: scores, and differences to the continued warm-up of the same seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from twofold.checkpoints import open_model
from twofold.data import Folder
from twofold.generate import GenerationConfig
from twofold.geometry import Camera, normals_from_depth
from twofold.image import resize_map
from twofold.metrics import DEPTH, NORMALS, measure_many, merge_sums
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
from twofold.train.improve import improve
from twofold.train.improvement import Improvement
from twofold.train.run import run_recipe, save_student

Scores = dict[str, float]
METRICS = {"depth": (DEPTH["abs_rel"],), "normals": (NORMALS["mean"],)}
SHOWN = ("test depth AbsRel", "test normals", "views depth AbsRel", "views normals")
GENERATION = {"strength": 0.2, "steps": 15, "guidance": 3.0, "size": 192, "scoring": "cheap"}
COARSER = 8  # downsampling of noisy sensor depth before normals are computed


@dataclass(frozen=True)
class Arm:
    """A training variant after the warm-up.

    Attributes:
        labels: labels of generated images: ``teacher`` or ``stored``; empty trains on real images alone.
        generation: changes to the generation of images.
        plan: changes to the plan, such as ``share``.
        recipe: changes to the training.
        data_of: the arm whose generated images are used; empty for its own. ``real`` uses other images of the same
            folder instead, as many as are labelled: an upper bound for the generator.
    """

    labels: str = "teacher"
    generation: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data_of: str = ""


ARMS: dict[str, Arm] = {
    "continued warm-up": Arm(labels=""),
    "self-improving": Arm(),
    "stored labels, no teacher": Arm(
        labels="stored", recipe={"ema": {"decay": 0.0, "update_every": 0}}, data_of="self-improving"
    ),
}
SWEEP: dict[str, Arm] = {
    "other real images, teacher": Arm(data_of="real"),
    "other real images, true labels": Arm(
        labels="stored", recipe={"ema": {"decay": 0.0, "update_every": 0}}, data_of="real"
    ),
    "strength 0.4": Arm(generation={"strength": 0.4}),
    "strength 0.6": Arm(generation={"strength": 0.6}),
    "no guidance": Arm(generation={"guidance": 1.0}),
    "decay 0.998, as published": Arm(recipe={"ema": {"decay": 0.998}}, data_of="self-improving"),
    "ten images per source": Arm(plan={"per_image": 10}),
    "one generated image in four": Arm(plan={"share": 1 / 3}, data_of="self-improving"),
    "labels from denoising features": Arm(labels="stored", generation={"label_mode": "denoise"}),
    "labels valid everywhere": Arm(generation={"mask": "all"}),
    "drift filter": Arm(plan={"filters": ("drift.normals<18",)}),
}


def warm_up(args: argparse.Namespace, seed: int) -> Recipe:
    """The recipe of the warm-up: a head on the frozen network, from few labels."""
    return Recipe(
        name=f"warm-{seed}",
        model=DenoiserConfig(
            init_from=args.start,
            reset=("heads",),
            unet="frozen",
            text_encoder="frozen",
            head=HeadConfig(name=args.head),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            sources=(Source(path=str(args.data), limit=args.labelled),),
            task_weights={"depth": 1.0, "normals": 1.0},
            size=(144, 192),
        ),
        optimizer=OptimizerConfig(lr=args.lr, schedule="constant", warmup_steps=10),
        ema=EmaConfig(decay=0.97),
        loop=LoopConfig(steps=args.warm, batch_size=8, seed=seed, save_every=100),
        validation=ValidationConfig(every=0),
    )


def after(args: argparse.Namespace, seed: int, warm: Path) -> Recipe:
    """The recipe of every arm after the warm-up, with a decaying learning rate.

    The weight of the warm-up in the final teacher is 4 %, as in the paper (0.998 every 40 of about 65,000 examples).
    """
    moves = args.steps * 8 // 40
    return warm_up(args, seed).replace(
        name=f"after-{seed}",
        model={"init_from": str(warm), "reset": (), "unet": args.unet},
        optimizer={"schedule": "cosine", "lr": args.lr if args.unet == "frozen" else args.lr / 4},
        ema={"decay": round(0.04 ** (1 / moves), 4), "update_every": 40},
        loop={"steps": args.steps},
    )


def trained(recipe: Recipe, run: Path) -> Path:
    """The run's folder, after training unless it is finished."""
    for record in run_recipe(recipe, run):
        if record["step"] % 100 == 0:
            print(f"# {run} {record['step']}/{recipe.loop.steps} loss {record['loss']:.4f}", flush=True)
    return run


def trained_arm(name: str, arm: Arm, args: argparse.Namespace, seed: int, warm: Path) -> Path:
    """The folder of an arm's finished training, which has ``checkpoint`` and ``student``."""
    place = args.out / f"{slug(name)}-{seed}"
    recipe = after(args, seed, warm / "checkpoint").replace(**arm.recipe)
    options: dict[str, Any] = {**GENERATION, "seed": seed, **arm.generation}
    if not arm.labels:
        return with_student(recipe, trained(recipe, place))
    if arm.data_of:
        share = arm.plan.get("share", 1.0)
        if arm.data_of == "real":
            created = others(args)
        else:
            other = trained_arm(arm.data_of, ARMS[arm.data_of], args, seed, warm)
            created = other / "round-1" / "created-0"
        source = {"path": str(created), "share": share, "labels": arm.labels}
        recipe = recipe.replace(data={"sources": [*(s.model_dump() for s in recipe.data.sources), source]})
        return with_student(recipe, trained(recipe, place))
    plan = Improvement.of(recipe, generation=GenerationConfig(**options), labels=arm.labels, **arm.plan)
    for event in improve(plan, place):
        if event.get("step", 1) % 100 == 0 or event.get("status") in ("rejected", "failed"):
            print(f"# {place} {event.get('step') or event}", flush=True)
    return place


def others(args: argparse.Namespace) -> Path:
    """A data folder of other images of ``args.data``, as many as are labelled, read in place."""
    folder, place = Folder(args.data), args.out / "others"
    used = set(Source(path=str(args.data), limit=args.labelled).indices(len(folder)))
    rest = [row for i, row in enumerate(folder.rows) if i not in used]
    if len(rest) < args.labelled:
        raise SystemExit(
            f"{args.data} has {len(rest)} unlabelled images; expected {args.labelled}: render more"
        )
    rest = [rest[i * len(rest) // args.labelled] for i in range(args.labelled)]
    place.mkdir(parents=True, exist_ok=True)
    header = {**folder.header, "name": "others", "root": str(folder.root.resolve()), "count": len(rest)}
    (place / "dataset.json").write_text(json.dumps(header, indent=1))
    (place / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rest))
    return place


def with_student(recipe: Recipe, run: Path) -> Path:
    """Save the last step's weights beside the averaged ones, and return the run's folder."""
    save_student(recipe, run, run / "student")
    return run


def slug(name: str) -> str:
    """A name as the name of a folder."""
    return "".join(c if c.isalnum() else "-" for c in name)


def views(folder: Path) -> list[Sample]:
    """Real images with sensor depth, and normals computed from it where they are valid."""
    found = []
    for sample in Folder(folder):
        depth, valid = sample.targets["depth"], sample.valid["depth"]
        size = (depth.shape[-2] // COARSER, depth.shape[-1] // COARSER)
        coarse, known = resize_map(depth, valid, size, True)
        assert isinstance(sample.camera, Camera)
        camera = sample.camera.resized(size[1], size[0])
        normals, has_normal = normals_from_depth(torch.where(known, coarse, 0), camera)
        full, has_normal = resize_map(normals, has_normal, (depth.shape[-2], depth.shape[-1]), False)
        found.append(
            replace(
                sample,
                targets={"depth": depth, "normals": full},
                valid={"depth": valid, "normals": has_normal & (full.norm(dim=0, keepdim=True) > 0.5)},
            )
        )
    return found


def score(checkpoint: Path, sets: Mapping[str, Sequence[Sample]]) -> Scores:
    """Scores of a checkpoint on every set, cached beside it."""
    file = checkpoint.parent / f"scores-{checkpoint.name}.json"
    if file.exists():
        return json.loads(file.read_text())
    model, found = open_model(str(checkpoint)), {}
    for title, samples in sets.items():
        for task, metrics in METRICS.items():
            predictor, total = model.predictor(task), {}
            predictions = predictor([s.image for s in samples])
            for sample, prediction in zip(samples, predictions, strict=True):
                target, valid = sample.targets[predictor.task.target], sample.valid[predictor.task.target]
                aligned = predictor.task.align(prediction.map, target, valid)
                total = merge_sums(total, measure_many(metrics, aligned, target, valid))
            named = "depth AbsRel" if task == "depth" else task
            found[f"{title} {named}"] = metrics[0].compute(total[metrics[0].name])
    file.write_text(json.dumps(found))
    return found


def facing(sets: Mapping[str, Sequence[Sample]]) -> Scores:
    """Scores of an image-independent baseline: normals that all face the camera."""
    found = {}
    for title, samples in sets.items():
        total: dict[str, Tensor] = {}
        for sample in samples:
            target = sample.targets["normals"]
            guess = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand_as(target)
            total = merge_sums(
                total, measure_many(METRICS["normals"], guess, target, sample.valid["normals"])
            )
        found[f"{title} normals"] = METRICS["normals"][0].compute(total["mean"])
    return found


def row(name: str, runs: Sequence[Scores], signed: bool = False) -> str:
    """A line of a table: mean and standard deviation over seeds; AbsRel with four digits, degrees with two."""
    cells = []
    for key in SHOWN:
        values, digits = [r[key] for r in runs if key in r], 2 if "normals" in key else 4
        cell = f"{mean(values):{'+' if signed else ''}.{digits}f}" if values else ""
        cells.append(cell + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""))
    return f"| {name} | {len(runs)} | " + " | ".join(cells) + " |"


def head(first: str) -> str:
    """The head of a table."""
    return f"\n| {first} | seeds | " + " | ".join(SHOWN) + " |\n|---|---|---|---|---|---|"


def arms_of(args: argparse.Namespace) -> dict[str, Arm]:
    """The selected arms, in order."""
    known = ARMS | SWEEP
    return {name: known[name] for name in (args.arms or (*ARMS, *(SWEEP if args.sweep else ())))}


def run(args: argparse.Namespace, sets: Mapping[str, Sequence[Sample]]) -> Iterator[tuple[str, int, Scores]]:
    """Yield every arm's scores by seed, as they are computed."""
    for seed in range(args.seeds):
        warm = trained(warm_up(args, seed), args.out / f"warm-{seed}")
        yield "warm-up", seed, score(warm / "checkpoint", sets)
        for name, arm in arms_of(args).items():
            place = trained_arm(name, arm, args, seed, warm)
            yield f"{name}, last", seed, score(place / "student", sets)
            if arm.recipe.get("ema", {}).get("decay") != 0.0:
                yield f"{name}, averaged", seed, score(place / "checkpoint", sets)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--views", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", default="embedded")
    parser.add_argument("--head", default="light")
    parser.add_argument(
        "--unet", choices=("frozen", "full"), default="frozen", help="what is trained after the warm-up"
    )
    parser.add_argument("--labelled", type=int, default=100)
    parser.add_argument("--warm", type=int, default=200)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=0, help="test scenes; 0 is all")
    parser.add_argument("--arms", nargs="+", choices=(*ARMS, *SWEEP))
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    test = Folder(args.test)
    sets = {"test": [test[i] for i in range(args.count or len(test))]}
    if args.views:
        sets["views"] = views(args.views)
    found: dict[str, dict[int, Scores]] = {}
    for name, seed, scores in run(args, sets):
        found.setdefault(name, {})[seed] = scores
        print(row(f"{name}, seed {seed}", [scores]), flush=True)
    print(
        f"\n{', '.join(f'{title}: {len(samples)}' for title, samples in sets.items())}\n{head('arm, weights')}"
    )
    for name, by_seed in found.items():
        print(row(name, list(by_seed.values())))
    print(row("normals facing the camera", [facing(sets)]))
    print(head("difference to the continued warm-up, averaged"))
    base = found.get("continued warm-up, averaged", {})
    for name, by_seed in found.items():
        pairs = [(scores, base[seed]) for seed, scores in by_seed.items() if seed in base]
        if pairs and by_seed is not base:
            print(row(name, [{k: a[k] - b[k] for k in a} for a, b in pairs], signed=True))


if __name__ == "__main__":
    main()
