"""A parallel map over samples in the worker processes of a `torch.utils.data.DataLoader`."""

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
MAX_WORKERS = 4  # by default


def worker_count(wanted: int | None, device: torch.device, processes: int) -> int:
    """The number of workers of each of ``processes`` training processes: ``wanted``, or by default with None.

    The default is the number of idle processors, up to `MAX_WORKERS`; 0 when training on a CPU, and where processes
    cannot be forked.

    Raises:
        ValueError: ``wanted`` is above 0 and processes cannot be forked here.
    """
    forks = hasattr(os, "sched_getaffinity") and not multiprocessing.current_process().daemon
    if wanted and not forks:
        raise ValueError(f"data.num_workers={wanted} needs Linux and a process that may have children; use 0")
    if wanted is None:
        idle = len(os.sched_getaffinity(0)) // processes - 2 if forks and device.type != "cpu" else 0
        return max(0, min(MAX_WORKERS, idle))
    return wanted


def parallel_map(
    make: Callable[[A], B], items: Iterable[A], workers: int, ahead: int = 2
) -> Iterator[B | Exception]:
    """``make(item)`` of each item, in order; with one thread each, so that results do not depend on ``workers``.

    A ``ValueError`` or ``OSError`` is returned in place of the result, for `value` to raise.

    Args:
        make: called in a fork of this process; it must not use an accelerator or change shared state.
        items: any number of arguments.
        workers: processes; 0 computes each result when it is requested.
        ahead: minimum number of results that workers compute before they are requested.

    Raises:
        ChildProcessError: a worker was killed while its result was awaited.
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
        # By default a DataLoader draws a seed from the global generator, which would change the training.
        generator=torch.Generator(),
        multiprocessing_context="fork",
        prefetch_factor=max(2, -(-ahead // workers)),
        worker_init_fn=_init_worker,
    )
    try:
        results: Any = iter(loader)
        try:
            for packed in results:
                yield pickle.loads(packed)  # noqa: S301, of a worker of this process
        finally:
            results._shutdown_workers()  # the traceback of an error would keep them alive
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise ChildProcessError(
            f"a worker process that loads data ended ({str(error).splitlines()[0]}); if memory ran out, use a lower "
            "data.num_workers, which changes no result"
        ) from error


def value(result: B | Exception) -> B:
    """A result of `parallel_map`; raises it if it is an error."""
    if isinstance(result, Exception):
        raise result
    return result


class _Mapped(Dataset[Any], Generic[A, B]):
    """A dataset of a function's results, by its argument."""

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
    """Pickles tensors by value.

    The default, one shared memory file per tensor, needs more open files and more of ``/dev/shm`` than many systems
    (Docker: 64 MiB) allow.
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


def _init_worker(_: int) -> None:
    """Initialise a worker: it ignores signals, and exits when its parent process has ended."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True).start()


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
