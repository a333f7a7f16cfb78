"""Which samples can be learned from: a broken one stops the run by its name, or is left out and listed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from ..data.folder import Folder
from ..image import atomic_write
from ..sample import Sample
from ..tasks import Task
from .encoder import BadSample, painted


def named(folder: Folder, i: int) -> str:
    """A sample by folder and id."""
    return f"{folder.root.name}/{folder.ids[i]}"


def plain(folder: Folder, i: int, tasks: Iterable[Task]) -> Sample:
    """A sample of a folder with the targets that ``tasks`` need.

    Raises:
        BadSample: it cannot be read.
    """
    try:
        return folder[i]
    except (ValueError, OSError) as error:
        raise BadSample(f"{named(folder, i)} cannot be used: {error}") from error


class Readable:
    """Goes through a folder before training, so that nothing broken is met in the middle of it.

    Args:
        tasks: that the samples have to teach.
        skip: whether broken samples are left out; otherwise the first stops the run.
        listing: file that those left out are listed in.
        turn: rank and number of the processes that share the work; each looks at its own samples first.
        wait: waits for the others.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        skip: bool,
        listing: Path,
        turn: tuple[int, int] = (0, 1),
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.tasks, self.skip, self.listing, self.turn, self.wait = tasks, skip, listing, turn, wait
        self.bad: list[dict[str, str]] = []

    def __call__(
        self, folder: Folder, indices: Sequence[int], prepare: Callable[[int], None] | None
    ) -> list[int]:
        """The samples that can be used; ``prepare`` is done to each of them.

        Without ``prepare`` and without ``skip`` nothing is read here, and a broken sample is met when it is drawn.

        Raises:
            BadSample: the first that cannot be used, unless they are skipped.
        """
        if prepare is None and not self.skip:
            return list(indices)
        look = prepare or self._look(folder)
        rank, size = self.turn
        what = f"{'reading' if prepare is None else 'encoding'} {folder.root.name}"
        for i in tqdm(indices[rank::size], desc=what, disable=None if rank == 0 else True, leave=False):
            self._try(folder, i, look, note=False)
        self.wait()
        # What others have prepared is found at once; what is broken for them is broken here.
        return [i for i in indices if self._try(folder, i, look, note=rank == 0)]

    def _look(self, folder: Folder) -> Callable[[int], None]:
        def look(i: int) -> None:
            sample = plain(folder, i, self.tasks)
            for task in self.tasks:
                if task.target in sample.targets:
                    painted(task, sample)

        return look

    def _try(self, folder: Folder, i: int, look: Callable[[int], None], note: bool) -> bool:
        try:
            look(i)
        except ValueError as error:
            name = named(folder, i)
            why = str(error) if name in str(error) else f"{name} cannot be used: {error}"
            if not self.skip:
                raise BadSample(
                    f"{why}; mend or remove it, or leave such samples out with --skip-bad"
                ) from error
            if note:
                self.bad.append({"sample": name, "why": why})
                self._list()
            return False
        return True

    def _list(self) -> None:
        self.listing.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.listing) as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in self.bad))
