"""The processes that train together, one a device, each with its share of every batch.

Gradients are summed here after the last backward pass of a step, in buckets, and not by `DistributedDataParallel`
during it: a step has as many passes as its batch has groups and micro-batches. These differ between processes, and so
do the parameters that get a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Literal

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "fp16"]
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The others wait while the first validates or saves, or encodes what is left; a process that dies ends all at once.
PATIENCE = timedelta(hours=24)
BUCKET = 25 << 20  # bytes of gradients in one message, as in `DistributedDataParallel`


class DistributedContext:
    """This process and its fellows, as accelerate and its launchers set them up (``torchrun``, ``accelerate launch``).

    Args:
        device: ``cpu`` keeps off the accelerators there are.
        tracker: where accelerate should log to as well, such as ``tensorboard`` or ``wandb``.
        folder: for trackers that write files.
    """

    def __init__(self, device: str = "auto", tracker: str | None = None, folder: str = ".") -> None:
        if device not in ("auto", "cpu"):
            raise ValueError(
                f"device {device!r}: training takes 'auto' or 'cpu'; CUDA_VISIBLE_DEVICES chooses among several GPUs"
            )
        alone = device == "cpu" or not torch.accelerator.is_available()
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        self.accelerator = Accelerator(
            cpu=alone, log_with=tracker, project_dir=folder, kwargs_handlers=[patience]
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.size: int = self.accelerator.num_processes
        self.first: bool = self.accelerator.is_main_process

    def barrier(self) -> None:
        """Until all are here."""
        self.accelerator.wait_for_everyone()

    def local_indices(self, batch: int) -> range:
        """This process's examples of a batch, by number.

        Raises:
            ValueError: the batch cannot be shared evenly.
        """
        if batch % self.size:
            raise ValueError(
                f"a batch of {batch} cannot be shared by {self.size} processes; make it a multiple"
            )
        each = batch // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the sum over processes. One that no process has stays None, as in one process."""
        if self.size == 1:
            return
        learned = list(parameters)
        has = torch.tensor([p.grad is not None for p in learned], dtype=torch.int32, device=self.device)
        torch.distributed.all_reduce(has)
        gradients = []
        for parameter in (p for p, processes in zip(learned, has.tolist(), strict=True) if processes):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        waiting = []
        for bucket in buckets(gradients, BUCKET):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            waiting.append((bucket, flat, torch.distributed.all_reduce(flat, async_op=True)))
        for bucket, flat, work in waiting:
            work.wait()
            for gradient, total in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(total.view_as(gradient))

    def all_gather_dict(self, found: Mapping[int, str]) -> dict[int, str]:
        """What all processes have found, in one; they wait for each other."""
        if self.size == 1:
            return dict(found)
        all_of_them: list[dict[int, str]] = [{} for _ in range(self.size)]
        torch.distributed.all_gather_object(all_of_them, dict(found))
        return {i: said for each in all_of_them for i, said in each.items()}

    def add(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Sums by name, added over processes, which may have different names."""
        if self.size == 1:
            return dict(sums)
        all_of_them: list[dict[str, float]] = [{} for _ in range(self.size)]
        torch.distributed.all_gather_object(all_of_them, dict(sums))
        names = sorted({name for each in all_of_them for name in each})
        return {n: sum(each.get(n, 0.0) for each in all_of_them) for n in names}

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process; they wait for each other."""
        return bool(self.add({"flag": float(flag)})["flag"])

    def fork_rng(self) -> AbstractContextManager[object]:
        """Inside, torch's global generators are seeded at will; outside they go on as if nothing had been."""
        # Of this process's device only: asked for nothing, torch would take memory on all that the machine has.
        devices = [] if self.device.type in ("cpu", "mps") else [self.device.index or 0]
        return torch.random.fork_rng(devices)

    def precision(self, name: Precision) -> AbstractContextManager[object]:
        """Arithmetic of this precision wherever it is safe (torch's autocast)."""
        return nullcontext() if name == "fp32" else torch.autocast(self.device.type, _TYPES[name])

    def scaler(self, name: Precision) -> torch.amp.GradScaler:
        """Scales losses where small gradients would vanish: for fp16 only."""
        return torch.amp.GradScaler(self.device.type, enabled=name == "fp16")


def buckets(tensors: Sequence[Tensor], size: int) -> list[list[Tensor]]:
    """Consecutive tensors of one type, of at most ``size`` bytes together or one alone."""
    found: list[list[Tensor]] = []
    left = 0
    for tensor in tensors:
        if not found or tensor.nbytes > left or found[-1][0].dtype != tensor.dtype:
            found.append([])
            left = size
        found[-1].append(tensor)
        left -= tensor.nbytes
    return found
