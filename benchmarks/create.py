"""How many labelled samples a minute are created, alone and in batches, and where the time goes.

    python benchmarks/create.py --model embedded --size 256x192 --steps 30 --batches 1 4

Prints, for each batch, samples a minute and the shares of encoder, denoiser, decoder, and of labels with their scores.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from twofold.checkpoints import open_model
from twofold.create import Creator, Settings, creator_of
from twofold.sample import Sample


class Clock:
    """Seconds by part of the way; what a part calls is counted with that part alone."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.device, self.inside = device, False

    def now(self) -> float:
        """Seconds, once the device has done what was asked of it."""
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


def watched(creator: Creator, clock: Clock) -> Creator:
    """The creator with its parts under the clock."""
    net: Any = creator.backbone
    net.encode, net.decode = clock.timed("encode", net.encode), clock.timed("decode", net.decode)
    net.forward = clock.timed("denoise", net.forward)
    watched: Any = creator
    watched._label = clock.timed("label", watched._label)
    watched._scores = clock.timed("scores", watched._scores)
    return creator


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
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    width, height = map(int, asked.size.split("x"))
    rng = torch.Generator().manual_seed(0)
    samples = [
        Sample(torch.rand(3, height, width, generator=rng), caption="a room", id=f"s{i}")
        for i in range(asked.samples)
    ]
    model = open_model(asked.model, asked.device)
    clock = Clock(asked.device)
    creator = watched(creator_of(model, (), Settings(steps=asked.steps, guidance=asked.guidance)), clock)
    creator.make(samples[:1])  # not counted
    for batch in asked.batches:
        clock.seconds.clear()
        began = clock.now()
        creator.make(samples, batch=batch)
        seconds = clock.now() - began
        shares = ", ".join(f"{part} {spent / seconds:.0%}" for part, spent in clock.seconds.items())
        print(f"batch {batch}: {60 * len(samples) / seconds:.1f} samples a minute; {shares}")


if __name__ == "__main__":
    main()
