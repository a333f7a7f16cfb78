"""Which samples can be learned from: a broken one stops the run by its name, or is left out and listed."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from ..data.folder import Folder
from ..io import DiskFullError, atomic_write, escape
from ..sample import Sample
from .distributed import DistributedContext
from .encoder import BadSample
from .state import DamagedFileError


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
        distributed: the processes that share the work; each looks at its own samples.
    """

    def __init__(self, skip: bool, listing: Path, distributed: DistributedContext) -> None:
        self.skip, self.listing, self.distributed = skip, listing, distributed
        self.bad: list[dict[str, str]] = []
        if distributed.first:
            listing.unlink(missing_ok=True)  # of a run that was interrupted; it may have been mended since

    def __call__(
        self, folder: Folder, indices: Sequence[int], look: Callable[[int], object], always: bool
    ) -> list[int]:
        """The samples that can be used: ``look`` raises ValueError of the others.

        Unless it is ``always`` done, or broken ones are skipped, nothing is looked at here, and a broken sample is met
        when it is drawn.

        Raises:
            BadSample: the first that cannot be used, unless they are skipped; or none can be.
        """
        if not always and not self.skip:
            return list(indices)
        rank, size = self.distributed.rank, self.distributed.size
        own = tqdm(
            indices[rank::size],
            desc=f"preparing {escape(folder.root.name)}",
            disable=None if rank == 0 else True,
            leave=False,
        )
        found = {i: why for i in own if (why := self._broken(folder, i, look))}
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

    def _broken(self, folder: Folder, i: int, look: Callable[[int], object]) -> str:
        """Why a sample cannot be used; nothing where it can."""
        if not self.skip:
            with usable(folder, i):
                look(i)
            return ""
        try:
            look(i)
        except ValueError as error:
            return _why(folder, i, error)
        return ""

    def _list(self) -> None:
        self.listing.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.listing) as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in self.bad))


def _why(folder: Folder, i: int, error: ValueError) -> str:
    """One line that names the sample."""
    name, said = named(folder, i), " ".join(str(error).split())
    return said if name in said else f"{name} cannot be used: {said}"
