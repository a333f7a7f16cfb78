"""Data-parallel training: one process per device, each with its part of every batch.

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
# Processes wait while the first one validates, saves or encodes; the launcher ends all if one of them dies.
TIMEOUT = timedelta(hours=24)
BUCKET = 25 << 20  # bytes of gradients in one message, as in `DistributedDataParallel`


class DistributedContext:
    """The processes of a run, as set up by accelerate and its launchers (``torchrun``, ``accelerate launch``).

    Args:
        device: ``auto``, or ``cpu``, which uses no accelerator.
        tracker: a tracker of accelerate to log to, such as ``tensorboard`` or ``wandb``.
        folder: for trackers that write files.

    Raises:
        ValueError: another device.
    """

    def __init__(self, device: str = "auto", tracker: str | None = None, folder: str = ".") -> None:
        if device not in ("auto", "cpu"):
            raise ValueError(
                f"device {device!r}: training takes 'auto' or 'cpu'; CUDA_VISIBLE_DEVICES chooses among several GPUs"
            )
        cpu = device == "cpu" or not torch.accelerator.is_available()
        timeout = InitProcessGroupKwargs(timeout=TIMEOUT)
        self.accelerator = Accelerator(
            cpu=cpu, log_with=tracker, project_dir=folder, kwargs_handlers=[timeout]
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.size: int = self.accelerator.num_processes
        self.first: bool = self.accelerator.is_main_process

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.accelerator.wait_for_everyone()

    def local_indices(self, batch: int) -> range:
        """Indices of this process's examples in a batch of ``batch`` examples.

        Raises:
            ValueError: ``batch`` is not a multiple of the number of processes.
        """
        if batch % self.size:
            raise ValueError(
                f"a batch of {batch} cannot be shared by {self.size} processes; make it a multiple"
            )
        each = batch // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over processes; a gradient that no process has stays None."""
        if self.size == 1:
            return
        trained = list(parameters)
        has = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=self.device)
        torch.distributed.all_reduce(has)
        gradients = []
        for parameter in (p for p, processes in zip(trained, has.tolist(), strict=True) if processes):
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
        """The union of all processes' dictionaries; waits for all processes."""
        if self.size == 1:
            return dict(found)
        gathered: list[dict[int, str]] = [{} for _ in range(self.size)]
        torch.distributed.all_gather_object(gathered, dict(found))
        return {key: text for each in gathered for key, text in each.items()}

    def add(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Values by name, summed over processes, which may have different names; waits for all processes."""
        if self.size == 1:
            return dict(sums)
        gathered: list[dict[str, float]] = [{} for _ in range(self.size)]
        torch.distributed.all_gather_object(gathered, dict(sums))
        names = sorted({name for each in gathered for name in each})
        return {n: sum(each.get(n, 0.0) for each in gathered) for n in names}

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process; waits for all processes."""
        return bool(self.add({"flag": float(flag)})["flag"])

    def fork_rng(self) -> AbstractContextManager[object]:
        """A context that restores torch's global random generators at its end."""
        # For this process's device only: by default torch would allocate memory on all devices of the machine.
        devices = [] if self.device.type in ("cpu", "mps") else [self.device.index or 0]
        return torch.random.fork_rng(devices)

    def precision(self, name: Precision) -> AbstractContextManager[object]:
        """Autocast to this precision; nothing for fp32."""
        return nullcontext() if name == "fp32" else torch.autocast(self.device.type, _TYPES[name])

    def scaler(self, name: Precision) -> torch.amp.GradScaler:
        """A gradient scaler, enabled for fp16 only."""
        return torch.amp.GradScaler(self.device.type, enabled=name == "fp16")


def buckets(tensors: Sequence[Tensor], size: int) -> list[list[Tensor]]:
    """Consecutive tensors of one dtype in groups of at most ``size`` bytes; a larger tensor is a group by itself."""
    found: list[list[Tensor]] = []
    left = 0
    for tensor in tensors:
        if not found or tensor.nbytes > left or found[-1][0].dtype != tensor.dtype:
            found.append([])
            left = size
        found[-1].append(tensor)
        left -= tensor.nbytes
    return found
