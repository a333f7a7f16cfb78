"""Cost of scoring: milliseconds per image for existing predictions, on one core and on several.

    python benchmarks/metrics.py --processes 2 --out metrics.json

Depth is aligned (scale and shift) and scored by all of `DEPTH` inside the window of NYUv2; all images have 480 x 640
pixels. Every family is timed with one process and one thread: the minimum processor time of several rounds. HCE is also
measured in wall time on larger images, in one process and in a pool, whose start-up time is reported separately.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from twofold.geometry import unit
from twofold.metrics import (
    BOUNDARIES,
    DEPTH,
    HCE,
    MATTING,
    NORMALS,
    SALIENCY,
    affine_aligned,
    crop_mask,
    measure_all,
    measure_many,
    semantic_metrics,
)

SIZE = (480, 640)
Triple = tuple[Tensor, Tensor, Tensor]


def scene(seed: int, size: tuple[int, int] = SIZE) -> Triple:
    """Depths of a wall, a floor and some objects: prediction, target (metres) and mask."""
    rng = torch.Generator().manual_seed(seed)
    truth = 8 - 5 * torch.linspace(0, 1, size[0])[:, None].expand(size).contiguous()
    truth = torch.where(_blobs(rng, size) > 0.6, 2.0, truth)[None]
    prediction = 0.3 * truth * (1 + 0.05 * torch.randn(truth.shape, generator=rng)) - 0.1
    return prediction, truth, crop_mask("nyu_eigen", *size) & (truth > 1e-3) & (truth < 10)


def vectors(seed: int) -> Triple:
    """Normals: prediction, truth and mask."""
    rng = torch.Generator().manual_seed(seed)
    truth = unit(torch.randn(3, *SIZE, generator=rng))
    return (
        truth + 0.3 * torch.randn(truth.shape, generator=rng),
        truth,
        torch.ones(1, *SIZE, dtype=torch.bool),
    )


def mask(seed: int, size: tuple[int, int] = SIZE) -> Triple:
    """A foreground of discs with rough edges: prediction in [0, 1], target and mask."""
    rng = torch.Generator().manual_seed(seed)
    field = _blobs(rng, size)
    noise = torch.nn.functional.interpolate(
        torch.randn(1, 1, size[0] // 6, size[1] // 6, generator=rng), size, mode="bilinear"
    )[0, 0]
    said = torch.sigmoid(12 * (field - 0.6 + 0.15 * noise))[None]
    return said, (field > 0.6).float()[None], torch.ones(1, *size, dtype=torch.bool)


def matte(seed: int) -> Triple:
    """A foreground with soft edges: prediction, truth and mask."""
    rng = torch.Generator().manual_seed(seed)
    truth = torch.sigmoid(12 * (_blobs(rng, SIZE) - 0.6))[None]
    said = (truth + 0.1 * torch.randn(truth.shape, generator=rng)).clamp(0, 1)
    return said, truth, torch.ones(1, *SIZE, dtype=torch.bool)


def ids(seed: int, classes: int = 40) -> Triple:
    """Classes: prediction, truth and mask."""
    rng = torch.Generator().manual_seed(seed)
    truth = (
        torch.randint(0, classes, (1, 12, 16), generator=rng)
        .repeat_interleave(40, 1)
        .repeat_interleave(40, 2)
    )
    wrong = torch.rand(1, *SIZE, generator=rng) < 0.2
    said = torch.where(wrong, torch.randint(0, classes, (1, *SIZE), generator=rng), truth)
    return said, truth, torch.ones(1, *SIZE, dtype=torch.bool)


def _blobs(rng: torch.Generator, size: tuple[int, int], count: int = 25) -> Tensor:
    y, x = (torch.linspace(0, 1, n) for n in size)
    total = torch.zeros(size)
    for row, column, a, b in torch.rand(count, 4, generator=rng).tolist():
        across = (-(((x - column) / (0.02 + 0.08 * b)) ** 2)).exp()
        total += (-(((y - row) / (0.02 + 0.08 * a)) ** 2)).exp()[:, None] * across
    return total


def least(work: Callable[[], object], rounds: int) -> float:
    """Minimum processor time in milliseconds over some rounds, after a warm-up round."""
    work()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return 1000 * min(found)


def depth_scores(prediction: Tensor, truth: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Align and compute all scores."""
    return measure_many(DEPTH.values(), affine_aligned(prediction, truth, valid, (1e-3, 10.0)), truth, valid)


def alone(rounds: int) -> dict[str, float]:
    """Milliseconds per image on one core, by family."""
    depth, normals, masks, mattes, classes = scene(0), vectors(0), mask(0), matte(0), ids(0)
    fitted = affine_aligned(*depth, (1e-3, 10.0))
    semantic = semantic_metrics(40)
    return {
        "depth, fitted": least(lambda: depth_scores(*depth), rounds),
        "depth, boundaries": least(lambda: measure_many(BOUNDARIES.values(), fitted, *depth[1:]), rounds),
        "normals": least(lambda: measure_many(NORMALS.values(), *normals), rounds),
        "masks": least(lambda: measure_many(SALIENCY.values(), *masks), rounds),
        "semantic": least(lambda: measure_many(semantic.values(), *classes), rounds),
        "matting": least(lambda: measure_many(MATTING.values(), *mattes), rounds),
        "hce": least(lambda: measure_many([HCE["hce"]], *masks), rounds),
    }


def hce_items(seed: int) -> Triple:
    """Create items in the process that measures them, where files would be read."""
    return mask(seed, (1024, 1024))


def pooled(images: int, processes: int) -> dict[str, float]:
    """Wall time per image of 1024 x 1024 in milliseconds, in one process and in a pool, and start-up of the pool."""
    metrics = [HCE["hce"]]
    measure_all(metrics, [0], hce_items)

    def clock(count: int, workers: int) -> float:
        start = time.perf_counter()
        measure_all(metrics, range(count), hce_items, workers)
        return 1000 * (time.perf_counter() - start)

    started = clock(processes, processes)
    return {
        "hce 1024, one process": clock(images, 0) / images,
        f"hce 1024, {processes} processes": max(0.0, clock(images + processes, processes) - started) / images,
        f"starting {processes} processes": started,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=20, help="of the pool's comparison; 0 leaves it out")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = alone(args.rounds)
    if args.images:
        found |= pooled(args.images, args.processes)
    for name, milliseconds in found.items():
        print(f"{name:28} {milliseconds:9.1f} ms")
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
