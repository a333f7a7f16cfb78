"""Work on many samples ahead of where it is needed, by the worker processes of a `torch.utils.data.DataLoader`."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

A = TypeVar("A")
B = TypeVar("B")
MOST = 4  # workers by default


def worker_count(wanted: int | None, device: torch.device, processes: int) -> int:
    """How many workers each of the ``processes`` that train has: as many as are ``wanted``, or None for the default.

    That is the number of idle processors, up to `MOST`; but 0 on a CPU, whose processors train, and where processes
    cannot be forked.

    Raises:
        ValueError: workers are wanted and processes cannot be forked here.
    """
    forks = hasattr(os, "sched_getaffinity") and not multiprocessing.current_process().daemon
    if wanted and not forks:
        raise ValueError(f"data.num_workers={wanted} needs Linux and a process that may have children; use 0")
    if wanted is None:
        idle = len(os.sched_getaffinity(0)) // processes - 2 if forks and device.type != "cpu" else 0
        return max(0, min(MOST, idle))
    return wanted


def parallel_map(
    make: Callable[[A], B], items: Iterable[A], workers: int, ahead: int = 2
) -> Iterator[B | Exception]:
    """``make(item)`` of each item, in order; computed by one thread in any case, so that workers change no bit.

    A ``ValueError`` or ``OSError`` takes the place of the result, for `value` to raise.

    Args:
        make: called in a fork of this process; it must not use an accelerator, nor change what others read.
        items: in any number.
        workers: processes; 0 makes each result when it is asked for.
        ahead: results that are made before they are asked for, at least.
    """
    if not workers:
        for item in items:
            yield _Mapped(make, packs=False)[item]
        return
    loader = DataLoader(
        _Mapped(make, packs=True),
        batch_size=None,
        sampler=items,
        num_workers=workers,
        collate_fn=_same,
        # By default a DataLoader draws a seed from the global generator, which belongs to the training.
        generator=torch.Generator(),
        multiprocessing_context="fork",
        prefetch_factor=max(2, -(-ahead // workers)),
        worker_init_fn=_begin,
    )
    results: Any = iter(loader)
    try:
        for packed in results:
            yield pickle.loads(packed)  # noqa: S301, of a worker of this process
    finally:
        results._shutdown_workers()  # the traceback of an error would keep them


def value(result: B | Exception) -> B:
    """A result of `parallel_map`; an error is raised."""
    if isinstance(result, Exception):
        raise result
    return result


class _Mapped(Dataset[Any], Generic[A, B]):
    """The results of a function by its argument."""

    def __init__(self, make: Callable[[A], B], packs: bool) -> None:
        self.make, self.packs = make, packs

    def __getitem__(self, index: A) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            result = self.make(index)
        except (ValueError, OSError) as error:
            result = error
        finally:
            torch.set_num_threads(threads)
        return _packed(result) if self.packs else result


class _Pickler(pickle.Pickler):
    """Writes tensors by value.

    The default, one shared memory file a tensor, needs more open files and more of ``/dev/shm`` than many a system
    (Docker: 64 MiB) allows.
    """

    def reducer_override(self, obj: Any) -> Any:
        return (_tensor, (obj.numpy(),)) if isinstance(obj, Tensor) else NotImplemented


def _packed(result: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(result)
    return file.getvalue()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


def _same(item: Any) -> Any:
    return item


def _begin(_: int) -> None:
    """A worker leaves signals to the process that it works for, and ends with it, whatever ends that."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
