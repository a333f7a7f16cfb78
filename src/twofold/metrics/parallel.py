"""Many images: measured one after another, or in several processes, with the same sums to the last bit."""

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

# Prediction *b c h w, truth *b c h w, and where it is known *b 1 h w.
Triple = tuple[Tensor, Tensor, Tensor]
Loader = Callable[[Any], Triple]
# Items on their way to each process: enough that none waits, few enough that memory is not the limit.
AHEAD = 4


def as_tensors(item: Sequence[Tensor | np.ndarray]) -> Triple:
    """Prediction, truth and mask as they are, arrays as tensors."""
    p, d, v = (torch.as_tensor(x) for x in item)
    return p, d, v


def measure_all(
    metrics: Iterable[Metric], items: Iterable[Any], load: Loader = as_tensors, processes: int = 0
) -> dict[str, Tensor]:
    """The sums of what the metrics measure on all items, by name; none when there is no item.

    Sums are taken in the order of the items, so they do not depend on the number of processes.

    Args:
        metrics: of different names. For processes they have to be functions of a module (or partials of such); those
            of this package are.
        items: prediction, truth and mask each, or whatever `load` makes these of, such as paths.
        load: called where the item is measured, so that files are read there too; a function of a module.
        processes: 0 measures here. Otherwise so many are started, with one thread each; starting one takes seconds, so
            it pays for slow metrics (HCE, weighted F) and many images. A program that asks for them needs the usual
            ``if __name__ == "__main__":``.

    Raises:
        ValueError: as of `Metric.measure`, or metrics or `load` cannot be sent to other processes.
    """
    one = partial(_measure, tuple(metrics), load)
    if processes > 0:
        _check_sendable(one)
    total: dict[str, Tensor] = {}
    for sums in map(one, items) if processes <= 0 else _spread(one, items, processes):
        total = merge_sums(total, {name: torch.as_tensor(x) for name, x in sums.items()})
    return total


def _measure(metrics: tuple[Metric, ...], load: Loader, item: Any) -> dict[str, np.ndarray]:
    # Arrays: a tensor sent between processes is a file handle each, and there are not many of those.
    return {name: x.numpy() for name, x in measure_many(metrics, *load(item)).items()}


def _spread(one: Callable, items: Iterable[Any], processes: int) -> Iterator[dict[str, np.ndarray]]:
    """The parts in the order of the items, a few items ahead of the one that is waited for."""
    # Not forked: threads of torch do not survive that.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rest = iter(items)
        waiting = [pool.submit(one, _sendable(x)) for x in islice(rest, AHEAD * processes)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(one, _sendable(x)) for x in islice(rest, 1)]


def _check_sendable(one: Callable) -> None:
    try:
        pickle.dumps(one)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"a metric or loader cannot be sent to other processes ({error}); make it a function of a module"
        ) from error


def _sendable(item: Any) -> Any:
    if isinstance(item, list | tuple):
        return tuple(x.detach().cpu().numpy() if isinstance(x, Tensor) else x for x in item)
    return item
