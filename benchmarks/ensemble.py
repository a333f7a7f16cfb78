"""Time and error of aligning and merging depth maps of one image.

    python benchmarks/ensemble.py --members 10 --size 768x576 --threads 2

The members are a smooth synthetic depth with known scales and shifts, and noise. `affine` and diffusers' optimisation
get the same members in the same run; compare ratios rather than seconds between machines.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from twofold.compat.ensemble import diffusers_ensemble
from twofold.geometry import align_affine
from twofold.tasks.ensemble import affine, median


def truth(height: int, width: int, rng: torch.Generator) -> Tensor:
    """A sum of waves, 1 h w in [0, 1]."""
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 6, width), indexing="ij")
    total = torch.zeros(1, height, width)
    for strength, across, down, phase in torch.rand(8, 4, generator=rng).tolist():
        total += strength * torch.sin(across * x + down * y + 6 * phase)
    return (total - total.min()) / (total.max() - total.min())


def ensemble(depth: Tensor, n: int, noise: float, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Members n 1 h w in [0, 1], and the scale and shift of each (n)."""
    scale = 0.5 + 0.5 * torch.rand(n, generator=rng)
    shift = (1 - scale) * torch.rand(n, generator=rng)
    members = scale[:, None, None, None] * depth + shift[:, None, None, None]
    members += noise * torch.randn(members.shape, generator=rng)
    return members.clamp(0, 1), scale, shift


def error(found: Tensor, depth: Tensor) -> float:
    """Root mean square error after least squares, as a share of the range of the truth."""
    scale, shift = align_affine(found, depth, torch.ones_like(depth, dtype=torch.bool))
    return float((found * scale + shift - depth).square().mean().sqrt())


def timed(work: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """The least seconds of some repeats, and what came out."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    return min(seconds), result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--size", default="768x576")
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    width, height = map(int, args.size.split("x"))
    rng = torch.Generator().manual_seed(args.seed)
    depth = truth(height, width, rng)
    members, scale, shift = ensemble(depth, args.members, args.noise, rng)
    given = ((members - shift[:, None, None, None]) / scale[:, None, None, None]).contiguous()
    diffusers_ensemble(members[:2, :, :16, :16])  # its import is not its work
    ways: dict[str, tuple[Callable[[], Tensor], int]] = {
        "no alignment, median": (lambda: median(members).map, 5),
        "scales as given, median": (lambda: median(given).map, 5),
        "affine": (lambda: affine(members).map, 5),
        "diffusers ensemble_depth": (lambda: diffusers_ensemble(members).map, 1),
    }
    print(f"{args.members} members of {height}x{width}, noise {args.noise}, {args.threads} threads\n")
    print("| way | seconds | error |\n|---|---|---|")
    print(f"| one member | | {error(members[0], depth):.2%} |")
    took = {}
    for name, (way, repeats) in ways.items():
        took[name], merged = timed(way, repeats)
        print(f"| {name} | {took[name]:.3f} | {error(merged, depth):.2%} |", flush=True)
    found = affine(members).scale * scale
    print(f"\nscales of affine: off by {float((found / found.mean() - 1).abs().max()):.2%} at most")
    print(f"affine is {took['diffusers ensemble_depth'] / took['affine']:.0f} times as fast")


if __name__ == "__main__":
    main()
