"""From what a person typed (files, folders, patterns) to pictures, each with a name of its own."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from twofold.image.pictures import shown

# What is taken for a picture when a folder is searched. A file named by itself may have any suffix.
_SUFFIXES = "avif bmp gif j2k jp2 jpeg jpg jpe jfif pgm png pnm ppm tif tiff webp"
SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())


@dataclass(frozen=True)
class Input:
    """A file to be predicted.

    path: where it is read, as it was given.
    name: of its results below the output folder, with "/" and without a suffix: "shots/kitchen".
    """

    path: Path
    name: str


@dataclass(frozen=True)
class Problem:
    """Something that was asked for and cannot be done: what, and why, in one line with the way out."""

    path: str
    error: str


@dataclass(frozen=True)
class _Found:
    path: Path
    depth: int  # how many parts of the path the name keeps, at least


def find_inputs(given: Sequence[str], out: Path) -> tuple[list[Input], list[Problem]]:
    """The pictures that `given` means, in order and each once, and what of it means nothing.

    A file is itself. A folder is every picture below it (by suffix; hidden files are left out). A pattern
    (* ? [ ] **) is what it matches. Names keep the sub-folder below the folder given, or below the part of a
    pattern without a wildcard. Names that would be equal grow by their parent folders until they differ, and
    `photo.jpg` beside `photo.png` become `photo.jpg` and `photo.png`. What lies in `out` is never an input
    found by searching: results are not pictures to predict.
    """
    found: dict[str, _Found] = {}
    problems: list[Problem] = []
    for text in given:
        try:
            for item in _search(text, out, problems):
                found.setdefault(os.path.abspath(item.path), item)
        except (OSError, ValueError) as error:
            problems.append(Problem(text, f"{shown(text)} cannot be used: {_reason(error)}; check the path"))
    names = _names(list(found.values()))
    return [Input(item.path, name) for item, name in zip(found.values(), names, strict=True)], problems


def _search(text: str, out: Path, problems: list[Problem]) -> Iterator[_Found]:
    """One thing a person typed. A name that exists is that file, even if it looks like a pattern."""
    path = Path(text)
    if not text:
        problems.append(Problem(text, "an empty name is no picture; was a variable not set?"))
    elif path.is_dir():
        yield from _folder(path, path, out, problems)
    elif os.path.lexists(path):
        yield _Found(path, 1)
    elif glob.has_magic(text):
        base = _fixed_part(text)
        files = [Path(p) for p in sorted(glob.glob(text, recursive=True))]
        if not files:
            problems.append(Problem(text, f"no file matches {shown(text)}; quote it or check the folder"))
        # `**/*` also names what lies in the folders it names: a file counts once.
        for file in files:
            if _inside(file, out):
                continue
            if file.is_dir():
                yield from _pictures(file, base, out, problems)
            elif file.suffix.lower() in SUFFIXES:
                yield _below(file, base)
    else:
        problems.append(Problem(text, f"{shown(text)} does not exist; give a picture, a folder or a pattern"))


def _folder(folder: Path, base: Path, out: Path, problems: list[Problem]) -> Iterator[_Found]:
    if _inside(folder, out):
        error = f"{shown(folder)} holds the results (--out {shown(out)}); choose another --out"
        problems.append(Problem(str(folder), error))
        return
    before = len(problems)
    pictures = list(_pictures(folder, base, out, problems))
    if not pictures and len(problems) == before:
        problems.append(Problem(str(folder), f"{shown(folder)} holds no pictures; is it the right folder?"))
    yield from pictures


def _pictures(folder: Path, base: Path, out: Path, problems: list[Problem]) -> Iterator[_Found]:
    """All pictures below a folder, in order."""

    def unreadable(error: OSError) -> None:
        where = shown(error.filename)
        problems.append(
            Problem(str(error.filename), f"{where} may not be read: {_reason(error)}; check its permissions")
        )

    for where, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(d for d in folders if not d.startswith(".") and not _inside(Path(where, d), out))
        for file in sorted(files):
            if Path(file).suffix.lower() in SUFFIXES and not file.startswith("."):
                yield _below(Path(where, file), base)


def _below(file: Path, base: Path) -> _Found:
    return _Found(file, len(file.relative_to(base).parts))


def _fixed_part(pattern: str) -> Path:
    """The folders of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _inside(path: Path, folder: Path) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _names(found: Sequence[_Found]) -> list[str]:
    """A name for each, all different, whatever the case of their letters."""
    paths = [Path(os.path.abspath(item.path)) for item in found]
    leaves = [path.stem for path in paths]
    depths = [item.depth for item in found]

    # In one folder only the suffix tells equal stems apart.
    while True:
        same = _collisions((path.parent, leaf.casefold()) for path, leaf in zip(paths, leaves, strict=True))
        clashing = [i for i in same if leaves[i] != paths[i].name]
        if not clashing:
            break
        for i in clashing:
            leaves[i] = paths[i].name

    def name(i: int) -> str:
        parents = paths[i].parts[1:-1]  # without the root
        kept = parents[max(0, len(parents) - depths[i] + 1) :]
        return "/".join([*kept, leaves[i]])

    # In different folders, the folders do.
    while True:
        names = [name(i) for i in range(len(paths))]
        grow = [i for i in _collisions(n.casefold() for n in names) if depths[i] < len(paths[i].parts) - 1]
        if not grow:
            return names
        for i in grow:
            depths[i] += 1


def _collisions(keys: Iterable[object]) -> list[int]:
    groups: dict[object, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    return [i for group in groups.values() if len(group) > 1 for i in group]
