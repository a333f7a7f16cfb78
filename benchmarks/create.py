"""How many labelled samples a minute are created, and what a step of learning from them costs.

    python benchmarks/create.py --model embedded --size 256x192 --steps 30 --batches 1 4
    python benchmarks/create.py --model embedded --size 256x192 --step --heads bae dpt --batches 4

Prints, for each batch, samples a minute and the shares of encoder, denoiser, decoder, and of labels with their scores.

With ``--step``: the processor time (on a GPU, the time) of one self-improving step, in which half of the batch is
labelled by the teacher, beside what the original's order of things would make of the same step. There teacher and
student each encode the images and each run the frozen network; here latents are cached on disk, and both use the
features of one step.
Steps of the two kinds take turns; they have the same weights, batch, head, losses, optimizer and average. So the ratio
says what keeping and sharing save, and nothing about how fast either program is otherwise.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.checkpoints import Model, open_model
from twofold.data.writer import FolderWriter
from twofold.generate import GenerationConfig, SyntheticDataGenerator
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
from twofold.train.denoiser import DenoiserStage
from twofold.train.distributed import DistributedContext
from twofold.train.examples import MultiTaskExample
from twofold.train.loop import update
from twofold.train.optimizer import make_optimizer
from twofold.train.state import Ema, State
from twofold.train.step import Loss


class Clock:
    """Seconds by part of the way; what a part calls is counted with that part alone."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.device, self.inside = device, False

    def now(self) -> float:
        """Seconds, once the device has finished."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, its time counted as ``part``."""

        def counted(*args: Any, **named: Any) -> Any:
            if self.inside:
                return work(*args, **named)
            self.inside, began = True, self.now()
            try:
                return work(*args, **named)
            finally:
                self.inside = False
                self.seconds[part] += self.now() - began

        return counted


def watched(creator: SyntheticDataGenerator, clock: Clock) -> SyntheticDataGenerator:
    """The creator with its parts under the clock."""
    net: Any = creator.backbone
    net.encode, net.decode = clock.timed("encode", net.encode), clock.timed("decode", net.decode)
    net.forward = clock.timed("denoise", net.forward)
    watched: Any = creator
    watched._predict_labels = clock.timed("label", watched._predict_labels)
    watched._scores = clock.timed("scores", watched._scores)
    return creator


class Twice(DenoiserStage):
    """The original's order of things: a step as it is here, and before it all that is done there once more.

    That is: the batch's images are encoded for the teacher and again for the student, and the frozen network runs
    for the teacher alone.
    """

    pixels: Tensor  # ``b 3 h w``, in place of the batch's images
    spent: dict[str, list[float]]

    def loss(self, examples: Sequence[MultiTaskExample]) -> Loss:
        """The same loss, later."""
        began = spent(self.distributed)
        with torch.no_grad():
            for _ in range(2):
                self.backbone.encode(self.pixels * 2 - 1)
            encoded = spent(self.distributed)
            query = [self._model_input(e["normals"]) for e in examples]
            x, t = torch.cat([q.x for q in query]), torch.cat([q.t for q in query])
            taps = self.heads["normals"].reads_features
            self.backbone(x, t, self._prompt_embeds("normals").expand(len(x), -1, -1), taps)
        self.spent["encode"].append(encoded - began)
        self.spent["look"].append(spent(self.distributed) - encoded)
        return super().loss(examples)


def spent(distributed: DistributedContext) -> float:
    """Seconds of all processors of this process; on a GPU, of the clock, once the GPU has finished."""
    if distributed.device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def step_costs(
    net: StableDiffusion, head: str, batch: int, size: tuple[int, int], device: str, turns: int
) -> None:
    """Print what steps of both kinds cost."""
    distributed = DistributedContext(device)
    with tempfile.TemporaryDirectory() as folder:
        recipe = _plan(Path(folder), head, batch, size)
        times: dict[str, list[float]] = {"ours": [], "twice": []}
        stages = {"ours": DenoiserStage, "twice": Twice}
        made: dict[str, tuple[Any, State]] = {}
        for name, kind in stages.items():
            stage: Any = kind(net, recipe, Path(folder) / name, {}, distributed)
            stage.pixels, stage.spent = (
                torch.rand(batch, 3, *size, device=distributed.device),
                defaultdict(list),
            )
            optimizer = make_optimizer(recipe, stage.module)
            stage.teacher = Ema(stage.module, recipe.ema.decay, recipe.ema.update_every)
            state = State(
                Path(folder) / name, stage.module, stage.teacher, optimizer, distributed.scaler("fp32")
            )
            stage.module.train()
            made[name] = stage, state
        for turn in range(turns + 1):
            for name, (stage, state) in made.items():
                began = spent(distributed)
                update(stage, recipe, turn, state, distributed)
                if turn:  # the first is not counted
                    times[name].append(spent(distributed) - began)
    ours, twice = (median(times[name]) for name in ("ours", "twice"))
    encode, look = (median(made["twice"][0].spent[part][1:]) for part in ("encode", "look"))
    print(
        f"{head}, batch {batch}, {size[1]}x{size[0]}: a step {ours:.3f} s; encoding twice and looking twice "
        f"{twice:.3f} s ({encode:.3f} s in two encodings, {look:.3f} s in the second look); ratio {twice / ours:.2f}"
    )


def _plan(folder: Path, head: str, batch: int, size: tuple[int, int]) -> Recipe:
    """Two sources of images of noise: with normals, and for the teacher to label."""
    rng = torch.Generator().manual_seed(0)
    known = torch.ones(1, *size, dtype=torch.bool)
    towards = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, *size)
    for name, targets in (("real", {"normals": towards}), ("made", {})):
        writer = FolderWriter(folder / name, {"name": name, "targets": {k: {} for k in targets}})
        for i in range(batch):
            valid = dict.fromkeys(targets, known)
            writer.write(Sample(torch.rand(3, *size, generator=rng), targets, valid, "", f"{name}-{i}"))
        writer.finish()
    real, made = Source(path=str(folder / "real")), Source(path=str(folder / "made"), labels="teacher")
    return Recipe(
        name="cost",
        model=DenoiserConfig(
            init_from="embedded",
            unet="frozen",
            text_encoder="frozen",
            head=HeadConfig(name=head),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(sources=(real, made), task_weights={"normals": 1.0}, size=size),
        optimizer=OptimizerConfig(warmup_steps=0),
        ema=EmaConfig(decay=0.998, update_every=40),
        loop=LoopConfig(steps=1000, batch_size=batch, save_every=0),
        validation=ValidationConfig(every=0),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--size", default="256x192")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--step", action="store_true", help="measure a step of learning, not creation")
    parser.add_argument("--heads", nargs="+", default=["bae", "dpt"])
    parser.add_argument("--turns", type=int, default=5, help="steps of each kind, with --step")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    width, height = map(int, asked.size.split("x"))
    rng = torch.Generator().manual_seed(0)
    samples = [
        Sample(torch.rand(3, height, width, generator=rng), caption="a room", id=f"s{i}")
        for i in range(asked.samples)
    ]
    model: Model = open_model(asked.model, asked.device)
    if asked.step:
        for head in asked.heads:
            for batch in asked.batches:
                step_costs(model.backbone, head, batch, (height, width), asked.device, asked.turns)
        return
    clock = Clock(asked.device)
    creator = watched(
        SyntheticDataGenerator.from_model(
            model, (), GenerationConfig(steps=asked.steps, guidance=asked.guidance)
        ),
        clock,
    )
    creator.generate(samples[:1])  # not counted
    for batch in asked.batches:
        clock.seconds.clear()
        began = clock.now()
        creator.generate(samples, batch=batch)
        seconds = clock.now() - began
        shares = ", ".join(f"{part} {spent / seconds:.0%}" for part, spent in clock.seconds.items())
        print(f"batch {batch}: {60 * len(samples) / seconds:.1f} samples a minute; {shares}")


if __name__ == "__main__":
    main()
