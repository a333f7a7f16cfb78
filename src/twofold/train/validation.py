"""Checks of samples before training: a broken sample stops the run with its name, or is skipped and listed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ..data.folder import Folder
from ..io import DiskFullError, atomic_write, escape
from ..sample import Sample
from .distributed import DistributedContext
from .encoder import BadSample
from .state import DamagedFileError
from .workers import parallel_map, value

T = TypeVar("T")


def named(folder: Folder, i: int) -> str:
    """The name of a sample in messages: folder and id."""
    return f"{folder.root.name}/{folder.ids[i]}"


def load_sample(folder: Folder, i: int) -> Sample:
    """Read sample ``i`` of a folder.

    Raises:
        BadSample: it cannot be read; one line with its name.
        DiskFullError: as raised in reading.
    """
    try:
        return folder[i]
    except DiskFullError:
        raise
    except (ValueError, OSError) as error:
        raise BadSample(f"{named(folder, i)} cannot be used: {error}") from error


@contextmanager
def usable(folder: Folder, i: int) -> Generator[None]:
    """A context for the processing of a sample: adds its name, and how to skip it, to a ValueError.

    Raises:
        BadSample: in place of a ValueError inside.
    """
    try:
        yield
    except DamagedFileError:
        raise  # a file of the run, not of the sample
    except ValueError as error:
        raise BadSample(
            f"{_reason(folder, i, error)}; fix or remove it, or skip such samples with --skip-bad"
        ) from error


class SampleValidator:
    """Checks the samples of folders before training, so that a broken one does not stop the run later.

    Args:
        skip: skip broken samples; otherwise the first one stops the run.
        listing: file (JSON lines) that lists the skipped samples.
        distributed: the processes, each of which checks a part of the samples.
        workers: number of worker processes of this process.
    """

    def __init__(self, skip: bool, listing: Path, distributed: DistributedContext, workers: int = 0) -> None:
        self.skip, self.listing, self.distributed, self.workers = skip, listing, distributed, workers
        self.bad: list[dict[str, str]] = []
        if distributed.first:
            listing.unlink(missing_ok=True)  # of an interrupted run; the samples may have been fixed since

    def __call__(
        self,
        folder: Folder,
        indices: Sequence[int],
        load: Callable[[int], T],
        always: bool,
        keep: Callable[[Iterable[tuple[int, T]]], None] | None = None,
    ) -> list[int]:
        """Those of ``indices`` whose samples can be used.

        Args:
            folder: of the samples.
            indices: of the samples to check.
            load: called by workers with an index; raises ValueError for a broken sample.
            always: check even if broken samples are not skipped. Otherwise nothing is checked without ``skip``, and a
                broken sample raises when it is drawn.
            keep: gets the results of ``load`` with their indices.

        Raises:
            BadSample: a sample is broken and ``skip`` is false, or all samples are broken.
        """
        if not always and not self.skip:
            return list(indices)
        rank, size = self.distributed.rank, self.distributed.size
        found: dict[int, str] = {}
        loaded = self._load(folder, indices[rank::size], load, found)
        if keep:
            keep(loaded)
        deque(loaded, maxlen=0)
        broken = self.distributed.all_gather_dict(found)
        rows = [{"sample": named(folder, i), "why": broken[i]} for i in sorted(broken)]
        self.bad += [row for row in rows if row not in self.bad]  # two sources may have the same folder
        if broken and self.distributed.first:
            self._list()
        if broken and len(broken) == len(indices):
            raise BadSample(
                f"no sample of {folder.root} can be used ({self.listing} lists the reasons), for example "
                f"{broken[indices[0]]}"
            )
        return [i for i in indices if i not in broken]

    def _load(
        self, folder: Folder, indices: Sequence[int], load: Callable[[int], T], found: dict[int, str]
    ) -> Iterator[tuple[int, T]]:
        """Yield the index and the result of ``load`` of each usable sample; puts the other reasons into ``found``."""
        progress = tqdm(
            indices,
            desc=f"preparing {escape(folder.root.name)}",
            disable=None if self.distributed.rank == 0 else True,
            leave=False,
        )
        for i, result in zip(progress, parallel_map(load, indices, self.workers), strict=True):
            if self.skip and isinstance(result, ValueError):
                found[i] = _reason(folder, i, result)
                continue
            with usable(folder, i):
                loaded = value(result)
            yield i, loaded

    def _list(self) -> None:
        self.listing.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.listing) as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in self.bad))


def _reason(folder: Folder, i: int, error: ValueError) -> str:
    """The error in one line, with the sample's name."""
    name, message = named(folder, i), " ".join(str(error).split())
    return message if name in message else f"{name} cannot be used: {message}"
