"""Cost of a training step with cached latents, recomputed activations, different micro-batches and workers.

    twofold render --count 12 --size 192x144 --out DIR
    python benchmarks/train.py --data DIR

Each number is measured in a new process that trains a few steps, after two warm-up steps; the variants of a comparison
alternate, and ratios are those of medians. Processor time is that of all threads. Memory is the peak resident set minus
that before the first step on a CPU, and `torch.cuda.max_memory_allocated` on a GPU. ``embedded`` is the shipped network
at its own size; ``medium`` has random weights and the architecture of SD 2.1 at a quarter of its width (53 M), at
256 x 256; ``small`` has two convolutions and augmented images, so that loading limits its speed. The time before the
first step includes the encoding of all samples. Processor time and memory are without those of workers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

WARM = 2  # steps that are not counted
Result = dict[str, float]


def recipe(data: Path, model: str, out: Path, steps: int, changes: Mapping[str, Any]):
    """A short run of one-step depth with the latent loss."""
    from twofold.train import (
        DataConfig,
        DenoiserConfig,
        EmaConfig,
        LoopConfig,
        NetworkConfig,
        Recipe,
        Source,
        ValidationConfig,
    )

    size = (256, 256) if model == "medium" else (144, 192)
    trained = DenoiserConfig(init_from="embedded", reset=("heads",), text_encoder="frozen")
    return Recipe(
        name="cost",
        model=NetworkConfig(factory=f"{__file__}:small") if model == "small" else trained,
        data=DataConfig(
            sources=(Source(path=str(data)),),
            task_weights={"depth": 1.0},
            size=size,
            augment=model == "small",
        ),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=steps + WARM + 1, batch_size=8, save_every=0),
        validation=ValidationConfig(every=0),
    ).replace(**changes)


def medium():
    """A network with random weights: SD 2.1 at a quarter of its width, with the embedded autoencoder."""
    import torch

    from twofold.backbones import new
    from twofold.checkpoints import open_model

    net = open_model("embedded").backbone
    config = {
        **new.sd_unet_config(), "block_out_channels": (80, 160, 320, 320), "attention_head_dim": (2, 4, 8, 8),
        "cross_attention_dim": net.text_width, "norm_num_groups": 16,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net.unet = type(net.unet)(**config)
    net.feature_channels = tuple(reversed(config["block_out_channels"]))
    return net


def small():
    """A network of two convolutions that predicts depth."""
    from torch import nn

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))

        def forward(self, images):
            return {"depth": self.layers(images)}

    return Small()


def network(model: str):
    """The network that is trained."""
    from twofold.checkpoints import open_model

    return {"small": small, "medium": medium, "embedded": lambda: open_model("embedded").backbone}[model]()


def measure(args: argparse.Namespace) -> Result:
    """Run in a new process: seconds per step, and memory in MB."""
    import torch

    from twofold.train.loop import train

    torch.set_num_threads(args.threads)
    net = network(args.model)
    plan = recipe(args.data, args.model, args.out, args.steps, json.loads(args.changes))
    began, start, ready, seconds, used = memory(), time.perf_counter(), 0.0, [], []
    for record in train(net, plan, args.out / "run"):
        seconds.append(record["seconds"])
        ready = ready or time.perf_counter() - start - record["seconds"]
        used.append(time.process_time())
        if record["step"] == plan.loop.steps - 1:  # the last step saves the run's state as well
            break
    held = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else memory() - began
    spent = (used[-1] - used[WARM - 1]) / (len(used) - WARM)
    # A mean: with workers, some steps wait for examples and some do not.
    average = sum(seconds[WARM:]) / len(seconds[WARM:])
    return {"seconds": average, "processor": spent, "megabytes": held, "ready": ready}


def memory() -> float:
    """Peak resident set, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def run(args: argparse.Namespace, model: str, changes: Mapping[str, Any], out: Path) -> Result:
    """`measure` in another process."""
    command = [
        sys.executable, __file__, "--inside", "--data", str(args.data), "--model", model, "--out", str(out),
        "--steps", str(args.steps), "--threads", str(args.threads), "--changes", json.dumps(changes),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{command} failed")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(
    args: argparse.Namespace, title: str, model: str, variants: Mapping[str, Mapping[str, Any]]
) -> None:
    """A Markdown table of the variants, with ratios to the first."""
    found: dict[str, list[Result]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.turns):
            for name, changes in variants.items():
                out = Path(folder) / name.replace(" ", "-") / str(turn)
                found[name].append(run(args, model, changes, out))
    medians = {
        name: {k: median(r[k] for r in results) for k in results[0]} for name, results in found.items()
    }
    first = next(iter(medians.values()))
    head = "| | s a step | ratio | processor s a step | ratio | MiB | ratio | s before the first | ratio |"
    lines = [f"\n{title} ({model})\n", head, "|---|---|---|---|---|---|---|---|---|"]
    forms = {"seconds": ".3f", "processor": ".3f", "megabytes": ".0f", "ready": ".1f"}
    for name, one in medians.items():
        cells = [f"{one[k]:{form}} | {one[k] / first[k]:.2f}" for k, form in forms.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    print("\n".join(lines), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("cache", "checkpointing", "micro", "workers"))
    parser.add_argument(
        "--model", choices=("embedded", "medium", "small"), default="embedded", help=argparse.SUPPRESS
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--changes", default="{}", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("."), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.inside:
        print(json.dumps(measure(args)))
        return
    if args.only in (None, "cache"):
        compare(
            args,
            "Latents",
            "embedded",
            {"kept": {}, "encoded each time": {"data": {"cache_latents": False}}},
        )
    if args.only in (None, "checkpointing"):
        variants = {"activations kept": {}, "recomputed": {"model": {"gradient_checkpointing": True}}}
        compare(args, "Activations", "medium", variants)
    if args.only in (None, "micro"):
        variants = {
            "8 at once": {},
            "4 at once": {"loop": {"micro_batch_size": 4}},
            "2 at once": {"loop": {"micro_batch_size": 2}},
            "1 at once": {"loop": {"micro_batch_size": 1}},
        }
        compare(args, "Micro-batch, of a batch of 8", "medium", variants)
    if args.only in (None, "workers"):
        variants = {f"{n} workers": {"data": {"num_workers": n}} for n in (0, 1, 2, 4)}
        compare(args, "Loading of augmented examples", "small", variants)
        compare(args, "Encoding of all samples", "embedded", variants)


if __name__ == "__main__":
    main()
