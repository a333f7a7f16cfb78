"""Measure many images one after another or in several processes; the sums are identical to the last bit."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold.metrics.metric import Metric, measure_many, merge_sums

# Prediction *b c h w, target *b c h w, valid *b 1 h w.
Triple = tuple[Tensor, Tensor, Tensor]
Loader = Callable[[Any], Triple]
# Submitted items per process: enough that no process is idle, few enough to bound memory.
AHEAD = 4


def as_tensors(item: Sequence[Tensor | np.ndarray]) -> Triple:
    """Prediction, target and mask as tensors."""
    p, d, v = (torch.as_tensor(x) for x in item)
    return p, d, v


def measure_all(
    metrics: Iterable[Metric], items: Iterable[Any], load: Loader = as_tensors, processes: int = 0
) -> dict[str, Tensor]:
    """The metrics' sums over all items, by name; empty when there is no item.

    Sums are added in the order of the items, so they do not depend on the number of processes.

    Args:
        metrics: metrics with distinct names. With processes they have to be picklable: module-level functions or
            partials of them, like those of this package.
        items: (prediction, target, valid) each, or any argument of `load`, such as paths.
        load: item -> (prediction, target, valid), called in the process that measures the item; a module-level
            function.
        processes: worker processes with one thread each; 0 measures in this process. Starting one takes seconds, so it
            is worthwhile for slow metrics (HCE, weighted F) on many images. The calling script needs
            ``if __name__ == "__main__":``.

    Raises:
        ValueError: as for `Metric.measure`, or the metrics or `load` cannot be pickled.
    """
    one = partial(_measure, tuple(metrics), load)
    if processes > 0:
        _check_picklable(one)
    total: dict[str, Tensor] = {}
    for sums in map(one, items) if processes <= 0 else _spread(one, items, processes):
        total = merge_sums(total, {name: torch.as_tensor(x) for name, x in sums.items()})
    return total


def _measure(metrics: tuple[Metric, ...], load: Loader, item: Any) -> dict[str, np.ndarray]:
    # numpy arrays: each tensor sent between processes takes a file descriptor.
    return {name: x.numpy() for name, x in measure_many(metrics, *load(item)).items()}


def _spread(one: Callable, items: Iterable[Any], processes: int) -> Iterator[dict[str, np.ndarray]]:
    """The sums in the order of the items, with a bounded number of items submitted in advance."""
    # Spawn, because torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rest = iter(items)
        pending = [pool.submit(one, _to_arrays(x)) for x in islice(rest, AHEAD * processes)]
        while pending:
            yield pending.pop(0).result()
            pending += [pool.submit(one, _to_arrays(x)) for x in islice(rest, 1)]


def _check_picklable(one: Callable) -> None:
    try:
        pickle.dumps(one)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"a metric or loader cannot be pickled for other processes ({error}); make it a module-level function"
        ) from error


def _to_arrays(item: Any) -> Any:
    if isinstance(item, list | tuple):
        return tuple(x.detach().cpu().numpy() if isinstance(x, Tensor) else x for x in item)
    return item
