"""What each process of `test_train_distributed` does: trains what it is given, and writes down what it saw."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from twofold.train import distributed as processes
from twofold.train.distributed import DistributedContext
from twofold.train.recipe import Recipe
from twofold.train.run import run_recipe


def main(folder: Path) -> None:
    """Every recipe ``NAME.json`` of the folder, into ``folder/runs/NAME``."""
    distributed = DistributedContext("cpu")
    become = os.replace
    written: list[str] = []

    def replaced(source: str | Path, target: str | Path) -> None:
        written.append(str(target))
        become(source, target)

    with mock.patch.object(os, "replace", replaced):
        records = {
            path.stem: list(
                run_recipe(Recipe.read(path, allow_code=True), folder / "runs" / path.stem, distributed)
            )
            for path in sorted((folder / "recipes").glob("*.json"))
        }
    seen = {
        "size": distributed.size,
        "rank": distributed.rank,
        "records": records,
        "written": written,
        "sums": sums(distributed),
    }
    (folder / f"seen-{distributed.rank}.json").write_text(json.dumps(seen))


def sums(distributed: DistributedContext) -> dict[str, bool]:
    """Whether gradients summed in buckets are those summed one by one, and whether the one of no process stays None."""
    generator = torch.Generator().manual_seed(distributed.rank)
    shapes = [(3, 4), (2000,), (), (7, 1, 3), (5,), (40, 5)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    parameters[3] = nn.Parameter(torch.zeros(shapes[3], dtype=torch.float64))
    parameters[5] = nn.Parameter(torch.zeros(shapes[5]).T)  # not contiguous
    expected = []
    for i, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        if i not in (
            0 if distributed.rank else 2,
            4,
        ):  # what one process does not train, and what neither does
            parameter.grad = torch.zeros_like(parameter).copy_(gradient)
        total = torch.zeros(parameter.shape, dtype=parameter.dtype)
        if parameter.grad is not None:
            total = total.copy_(parameter.grad)
        torch.distributed.all_reduce(total)
        expected.append(total)
    with mock.patch.object(processes, "BUCKET", 200):
        distributed.add_gradients(parameters)
    found = [p.grad for p in parameters]
    equal = [g is not None and torch.equal(g, e) for g, e in zip(found, expected, strict=True)]
    return {"equal": all(equal[:4] + equal[5:]), "none": found[4] is None}
