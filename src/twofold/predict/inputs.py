"""Find the images of the paths that a user passed (files, folders, patterns), each with a unique name."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from twofold.image.formats import IMAGE_SUFFIXES, sniff_file
from twofold.io import UnsafeNameError, check_name, escape
from twofold.predict.search import has_wildcard, match, walk


@dataclass(frozen=True)
class Input:
    """An image file to predict.

    Attributes:
        path: as the user passed it.
        name: of its results below the output folder, with "/" and without a suffix: "shots/kitchen".
    """

    path: Path
    name: str


@dataclass(frozen=True)
class Problem:
    """An input that cannot be used: its path, and a message of one line with the reason and what to do."""

    path: str
    error: str


@dataclass(frozen=True)
class _Found:
    path: Path
    depth: int  # minimum number of parts of the path in the name


def find_inputs(
    given: Sequence[str], out: Path, skipped: list[Problem] | None = None
) -> tuple[list[Input], list[Problem]]:
    """Find the images of files, folders and patterns; returns them in order without duplicates, and the problems.

    A folder is searched recursively, through links: images are recognised by suffix, or without a suffix by their
    first bytes. Patterns have the wildcards ``* ? [ ] **``. Names contain the sub-folders below the passed folder, or
    below the part of a pattern without a wildcard. Equal names are extended by their parent folders until they differ;
    `photo.jpg` beside `photo.png` keep their suffixes. Files in ``out`` are results and never found by a search.

    Args:
        given: paths and patterns.
        out: the output folder.
        skipped: a list that other files, hidden ones and circular links of searched folders are added to, each with
            the reason.
    """
    found: dict[str, _Found] = {}
    search = _Search(out, [], {})
    for text in given:
        try:
            for item in search.find(text):
                found.setdefault(os.path.abspath(item.path), item)
        except (OSError, ValueError) as error:
            search.problem(text, f"{escape(text)} cannot be used: {_reason(error)}; check the path")
    if skipped is not None:
        skipped += [problem for path, problem in search.skipped.items() if path not in found]
    names = _names(list(found.values()))
    inputs = [Input(item.path, name) for item, name in zip(found.values(), names, strict=True)]
    return inputs, search.problems


@dataclass
class _Search:
    """The state of a search. `skipped` is by absolute path, so that each path is counted once."""

    out: Path
    problems: list[Problem]
    skipped: dict[str, Problem]

    def problem(self, path: str, error: str) -> None:
        self.problems.append(Problem(path, error))

    def skip(self, path: Path, reason: str) -> None:
        self.skipped.setdefault(os.path.abspath(path), Problem(str(path), f"{escape(path)}: {reason}"))

    def find(self, text: str) -> Iterator[_Found]:
        """The images of one path or pattern. An existing path is never a pattern, even if it has wildcards."""
        path = Path(text)
        if not text:
            self.problem(text, "an empty path; was a variable not set?")
        elif path.is_dir():
            yield from self._folder(path)
        elif os.path.lexists(path):
            yield _Found(path, 1)
        elif has_wildcard(text):
            yield from self._pattern(text)
        else:
            self.problem(text, f"{escape(text)} does not exist; pass an image, a folder or a pattern")

    def _folder(self, folder: Path) -> Iterator[_Found]:
        if _inside(folder, self.out):
            error = f"{escape(folder)} holds the results (--out {escape(self.out)}); choose another --out"
            self.problem(str(folder), error)
            return
        before = len(self.problems)
        images = list(self._images(folder, folder))
        if not images and len(self.problems) == before:
            self.problem(str(folder), f"{escape(folder)} holds no images; is it the right folder?")
        yield from images

    def _pattern(self, text: str) -> Iterator[_Found]:
        base = _fixed_part(text)
        paths = match(text)
        if not paths:
            self.problem(text, f"no file matches {escape(text)}; quote it or check the folder")
        # `**/*` matches folders and the files inside of them; duplicates are removed later.
        for path in paths:
            if _inside(path, self.out):
                continue
            if path.is_dir():
                yield from self._images(path, base)
            elif self._is_image(path):
                yield _below(path, base)

    def _images(self, folder: Path, base: Path) -> Iterator[_Found]:
        """All images below a folder, in order."""
        for file in walk(folder, self._is_searched, self._unreadable, self._linked_again):
            if self._is_image(file):
                yield _below(file, base)

    def _is_searched(self, folder: Path) -> bool:
        if _inside(folder, self.out):
            return False
        if folder.name.startswith("."):
            self.skip(folder, "a hidden folder")
            return False
        return True

    def _unreadable(self, error: OSError) -> None:
        where = escape(error.filename)
        self.problem(str(error.filename), f"{where} cannot be read: {_reason(error)}; check its permissions")

    def _linked_again(self, link: Path) -> None:
        self.skip(link, "a link to a folder that is searched already, or to one of its parents")

    def _is_image(self, file: Path) -> bool:
        """Whether a file found by a search is an image; other files are added to `skipped`."""
        suffix = file.suffix.lower()
        if file.name.startswith("."):
            self.skip(file, "a hidden file")
        elif suffix in IMAGE_SUFFIXES or (not suffix and sniff_file(file)):
            return True
        else:
            self.skip(file, f"{suffix} is not a supported image format" if suffix else "not an image")
        return False


def _below(file: Path, base: Path) -> _Found:
    return _Found(file, len(file.relative_to(base).parts))


def _fixed_part(pattern: str) -> Path:
    """The part of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if has_wildcard(part))
    return Path(*parts[:fixed])


def _inside(path: Path, folder: Path) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _names(found: Sequence[_Found]) -> list[str]:
    """A unique name for each file, also on file systems that ignore case."""
    paths = [Path(os.path.abspath(item.path)) for item in found]
    leaves = [_leaf(path) for path in paths]
    depths = [item.depth for item in found]

    # In one folder, equal stems differ in their suffix.
    while True:
        same = _collisions((path.parent, leaf.casefold()) for path, leaf in zip(paths, leaves, strict=True))
        clashing = [i for i in same if leaves[i] != paths[i].name]
        if not clashing:
            break
        for i in clashing:
            leaves[i] = paths[i].name

    def name(i: int) -> str:
        parents = paths[i].parts[1:-1]  # without the root
        return "/".join([*parents[max(0, len(parents) - depths[i] + 1) :], leaves[i]])

    # In different folders, they differ in their parent folders.
    while True:
        names = [name(i) for i in range(len(paths))]
        grow = [i for i in _collisions(n.casefold() for n in names) if depths[i] < len(paths[i].parts) - 1]
        if not grow:
            return names
        for i in grow:
            depths[i] += 1


def _leaf(path: Path) -> str:
    """The stem of a file, or its whole name if the stem is not a valid name: that of `..png` is a dot."""
    try:
        return check_name(path.stem, portable=False)
    except UnsafeNameError:
        return path.name


def _collisions(keys: Iterable[object]) -> list[int]:
    groups: dict[object, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    return [i for group in groups.values() if len(group) > 1 for i in group]
