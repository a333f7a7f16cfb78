"""Throughput of generating labelled samples, and the cost of a training step on them.

    python benchmarks/create.py --model embedded --size 256x192 --steps 30 --batches 1 4
    python benchmarks/create.py --model embedded --size 256x192 --step --heads bae dpt --batches 4

Prints, for each batch size, samples per minute and the shares of encoder, denoiser, decoder, labels and scores.

With ``--step``: the processor time (on a GPU, wall time) of one self-improving step, in which the teacher labels half
of the batch, compared with the order of the released code. There teacher and student each encode the images and run the
frozen network; here latents are cached on disk, and both use the features of one forward pass. Steps of the two kinds
alternate, with the same weights, batch, head, losses, optimizer and EMA, so the ratio measures only the gain of caching
and sharing.
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
from twofold.generate import GenerationConfig, SyntheticDataGenerator, synthetic_data
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
    """Seconds spent in each part; nested calls count for the outer part only."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.device, self.inside = device, False

    def now(self) -> float:
        """Wall time in seconds, after synchronizing the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``work`` so that its time is added to ``part``."""

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


def instrument(generator: SyntheticDataGenerator, clock: Clock) -> SyntheticDataGenerator:
    """Time the parts of a generator, in place."""
    net: Any = generator.backbone
    net.encode, net.decode = clock.timed("encode", net.encode), clock.timed("decode", net.decode)
    net.forward = clock.timed("denoise", net.forward)
    instrumented: Any = generator
    instrumented._predict_labels = clock.timed("label", instrumented._predict_labels)
    module: Any = synthetic_data
    module.quality_scores = clock.timed("scores", module.quality_scores)
    return generator


class ReleasedOrder(DenoiserStage):
    """A step in the order of the released code: the additional work, then the step of twofold.

    The additional work is encoding the batch's images for the teacher and for the student, and running the frozen
    network for the teacher.
    """

    pixels: Tensor  # ``b 3 h w``, stand-in for the batch's images
    spent: dict[str, list[float]]

    def loss(self, examples: Sequence[MultiTaskExample]) -> Loss:
        """The loss, after the additional work."""
        began = spent(self.distributed)
        with torch.no_grad():
            for _ in range(2):
                self.backbone.encode(self.pixels * 2 - 1)
            encoded = spent(self.distributed)
            inputs = [self._model_input(e["normals"]) for e in examples]
            x, t = torch.cat([i.x for i in inputs]), torch.cat([i.t for i in inputs])
            features = self.heads["normals"].reads_features
            self.backbone(x, t, self._prompt_embeds("normals").expand(len(x), -1, -1), features)
        self.spent["encode"].append(encoded - began)
        self.spent["forward"].append(spent(self.distributed) - encoded)
        return super().loss(examples)


def spent(distributed: DistributedContext) -> float:
    """Processor seconds of this process; on a GPU, wall time after synchronization."""
    if distributed.device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def step_costs(
    net: StableDiffusion, head: str, batch: int, size: tuple[int, int], device: str, turns: int
) -> None:
    """Measure and print the cost of both kinds of steps."""
    distributed = DistributedContext(device)
    with tempfile.TemporaryDirectory() as folder:
        recipe = _plan(Path(folder), head, batch, size)
        times: dict[str, list[float]] = {"twofold": [], "released": []}
        stages = {"twofold": DenoiserStage, "released": ReleasedOrder}
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
                if turn:  # the first is a warm-up
                    times[name].append(spent(distributed) - began)
    shared, released = (median(times[name]) for name in ("twofold", "released"))
    encode, forward = (median(made["released"][0].spent[part][1:]) for part in ("encode", "forward"))
    print(
        f"{head}, batch {batch}, {size[1]}x{size[0]}: a step {shared:.3f} s; in the order of the released code "
        f"{released:.3f} s ({encode:.3f} s for two encodings, {forward:.3f} s for the second forward pass); ratio "
        f"{released / shared:.2f}"
    )


def _plan(folder: Path, head: str, batch: int, size: tuple[int, int]) -> Recipe:
    """A recipe on two sources of noise images: one with normals, one that the teacher labels."""
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
    parser.add_argument("--step", action="store_true", help="measure a training step instead")
    parser.add_argument("--heads", nargs="+", default=["bae", "dpt"])
    parser.add_argument("--turns", type=int, default=5, help="steps of each kind, with --step")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    width, height = map(int, args.size.split("x"))
    rng = torch.Generator().manual_seed(0)
    samples = [
        Sample(torch.rand(3, height, width, generator=rng), caption="a room", id=f"s{i}")
        for i in range(args.samples)
    ]
    model: Model = open_model(args.model, args.device)
    if args.step:
        for head in args.heads:
            for batch in args.batches:
                step_costs(model.backbone, head, batch, (height, width), args.device, args.turns)
        return
    clock = Clock(args.device)
    generator = instrument(
        SyntheticDataGenerator.from_model(
            model, (), GenerationConfig(steps=args.steps, guidance=args.guidance)
        ),
        clock,
    )
    generator.generate(samples[:1])  # warm-up
    for batch in args.batches:
        clock.seconds.clear()
        began = clock.now()
        generator.generate(samples, batch=batch)
        seconds = clock.now() - began
        shares = ", ".join(f"{part} {spent / seconds:.0%}" for part, spent in clock.seconds.items())
        print(f"batch {batch}: {60 * len(samples) / seconds:.1f} samples per minute; {shares}")


if __name__ == "__main__":
    main()
