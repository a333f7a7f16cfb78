"""Convergence of samplers: difference of few steps of DDIM and DPM-Solver++(2M) to 250 steps of DDIM.

    python benchmarks/samplers.py --data data/rooms-dev --count 4 --size 96x128 --seed 0

Images are generated from noise under captions of a data folder; prints the RMS difference of pixels in [0, 1].
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from twofold import open_model
from twofold.data import Folder
from twofold.diffusion import Sampler
from twofold.generate.images import ImageGenerator

ASKED: tuple[tuple[Sampler, int], ...] = (
    ("ddim", 8),
    ("ddim", 12),
    ("ddim", 20),
    ("ddim", 60),
    ("dpmpp_2m", 8),
    ("dpmpp_2m", 12),
    ("dpmpp_2m", 20),
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--size", default="96x128", help="height x width")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    folder, net = Folder(args.data), open_model(args.model).backbone
    captions = [str(folder[i].caption) for i in range(args.count)]

    def drawn(sampler: Sampler, steps: int) -> torch.Tensor:
        return ImageGenerator(net, steps, args.guidance, sampler)(captions, (height, width), seed=args.seed)

    end = drawn("ddim", 250)
    for sampler, steps in ASKED:
        distance = (drawn(sampler, steps) - end).square().mean().sqrt()
        print(f"{sampler} {steps}: {distance:.4f}", flush=True)


if __name__ == "__main__":
    main()
