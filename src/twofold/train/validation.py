"""Which samples can be learned from: a broken one stops the run by its name, or is left out and listed."""

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
    """A sample by folder and id."""
    return f"{folder.root.name}/{folder.ids[i]}"


def load_sample(folder: Folder, i: int) -> Sample:
    """A sample of a folder.

    Raises:
        BadSample: it cannot be read.
    """
    try:
        return folder[i]
    except DiskFullError:
        raise
    except (ValueError, OSError) as error:
        raise BadSample(f"{named(folder, i)} cannot be used: {error}") from error


@contextmanager
def usable(folder: Folder, i: int) -> Generator[None]:
    """Around what is made of a sample: an error names it, and says what can be done.

    Raises:
        BadSample: nothing can be made of it.
    """
    try:
        yield
    except DamagedFileError:
        raise  # of the run; the sample is not at fault
    except ValueError as error:
        raise BadSample(
            f"{_why(folder, i, error)}; mend or remove it, or leave such samples out with --skip-bad"
        ) from error


class SampleValidator:
    """Goes through a folder before training, so that nothing broken is met in the middle of it.

    Args:
        skip: whether broken samples are left out; otherwise the first stops the run.
        listing: file that those left out are listed in.
        distributed: the processes that share the work; each takes its own samples.
        workers: of this process.
    """

    def __init__(self, skip: bool, listing: Path, distributed: DistributedContext, workers: int = 0) -> None:
        self.skip, self.listing, self.distributed, self.workers = skip, listing, distributed, workers
        self.bad: list[dict[str, str]] = []
        if distributed.first:
            listing.unlink(missing_ok=True)  # of a run that was interrupted; it may have been mended since

    def __call__(
        self,
        folder: Folder,
        indices: Sequence[int],
        load: Callable[[int], T],
        always: bool,
        keep: Callable[[Iterable[tuple[int, T]]], None] | None = None,
    ) -> list[int]:
        """The samples that can be used: ``load``, which workers call, raises ValueError of the others.

        Unless it is ``always`` done, or broken ones are skipped, nothing is loaded here, and a broken sample is met
        when it is drawn. ``keep`` gets what was loaded, with its index.

        Raises:
            BadSample: the first that cannot be used, unless they are skipped; or none can be.
        """
        if not always and not self.skip:
            return list(indices)
        rank, size = self.distributed.rank, self.distributed.size
        found: dict[int, str] = {}
        sound = self._sound(folder, indices[rank::size], load, found)
        if keep:
            keep(sound)
        deque(sound, maxlen=0)
        broken = self.distributed.all_gather_dict(found)
        rows = [{"sample": named(folder, i), "why": broken[i]} for i in sorted(broken)]
        self.bad += [row for row in rows if row not in self.bad]  # of two sources that are one folder, once
        if broken and self.distributed.first:
            self._list()
        if broken and len(broken) == len(indices):
            raise BadSample(
                f"no sample of {folder.root} can be used ({self.listing} says why), such as {broken[indices[0]]}"
            )
        return [i for i in indices if i not in broken]

    def _sound(
        self, folder: Folder, indices: Sequence[int], load: Callable[[int], T], found: dict[int, str]
    ) -> Iterator[tuple[int, T]]:
        """Samples that can be used, as ``load`` gives them, with their indices; ``found`` gets why others cannot."""
        progress = tqdm(
            indices,
            desc=f"preparing {escape(folder.root.name)}",
            disable=None if self.distributed.rank == 0 else True,
            leave=False,
        )
        for i, result in zip(progress, parallel_map(load, indices, self.workers), strict=True):
            if self.skip and isinstance(result, ValueError):
                found[i] = _why(folder, i, result)
                continue
            with usable(folder, i):
                loaded = value(result)
            yield i, loaded

    def _list(self) -> None:
        self.listing.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.listing) as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in self.bad))


def _why(folder: Folder, i: int, error: ValueError) -> str:
    """One line that names the sample."""
    name, said = named(folder, i), " ".join(str(error).split())
    return said if name in said else f"{name} cannot be used: {said}"
