"""Search of folders and patterns that follows links, but not in circles.

`os.walk(followlinks=True)` and `glob` follow a link to its own folder until the system gives up, and two such links
double the work at every level.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

Identity = tuple[int, int]  # device and inode of a folder
OnError = Callable[[OSError], None]


def walk(
    top: Path, enter: Callable[[Path], bool], on_error: OnError, on_link: Callable[[Path], None]
) -> Iterator[Path]:
    """Every file below ``top``, sorted by name; each folder is searched once.

    Folders are searched before links to folders, so that a file is found by its real path if that is below ``top``.

    Args:
        top: a folder, or a link to one.
        enter: whether a folder is searched.
        on_error: called with the error of a folder that cannot be read.
        on_link: called with a link to a folder that is searched already, or to a parent of ``top``.
    """
    parent = Path(os.path.realpath(top.parent if top.name else top))
    above = {_identity(folder) for folder in (parent, *parent.parents)}
    seen: set[Identity] = set()
    waiting = deque([top])
    while waiting:
        start = waiting.popleft()
        found = _identity_or_none(start, on_error)
        if found is None:
            continue
        if found in seen or found in above:
            on_link(start)
            continue
        yield from _walk_folder(start, seen, waiting, enter, on_error)


def _walk_folder(
    folder: Path, seen: set[Identity], links: deque[Path], enter: Callable[[Path], bool], on_error: OnError
) -> Iterator[Path]:
    """The files below a folder; links to folders are not followed, but added to ``links``."""
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            seen.add(_identity(current))
            with os.scandir(current) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            on_error(error)
            continue
        inner = []
        for entry in listed:
            path = current / entry.name
            if not _is_folder(entry):
                yield path
            elif enter(path):
                (links if entry.is_symlink() else inner).append(path)
        pending += reversed(inner)


def match(pattern: str) -> list[Path]:
    """The paths that a pattern with the wildcards ``* ? [ ] **`` matches, sorted; ``**`` is any number of folders.

    As in `glob`, a wildcard matches hidden names (with a leading dot) only if it begins with a dot itself.
    """
    parts = Path(pattern).parts
    anchor = Path(pattern).anchor
    found: set[Path] = set()
    _match(Path(anchor) if anchor else Path(), tuple(parts[1:] if anchor else parts), found, set())
    return sorted(found)


def _match(
    folder: Path, parts: tuple[str, ...], found: set[Path], seen: set[tuple[Identity, tuple[str, ...]]]
) -> None:
    """Add the matches of ``parts`` below ``folder``; ``seen`` prevents a second search for the same parts."""
    if not parts:
        found.add(folder)
        return
    try:
        state = (_identity(folder), parts)
    except OSError:
        return
    if state in seen:
        return
    seen.add(state)
    first, rest = parts[0], parts[1:]
    if first == "**":
        _match(folder, rest, found, seen)
        # Folders before links, so that a linked folder is searched by its real path.
        for entry in sorted(_listed(folder), key=lambda entry: entry.is_symlink()):
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                _match(folder / entry.name, parts, found, seen)
            elif not rest:
                found.add(folder / entry.name)
    elif has_wildcard(first):
        fits = re.compile(fnmatch.translate(first)).match
        for entry in _listed(folder):
            if fits(entry.name) and (first.startswith(".") or not entry.name.startswith(".")):
                _match_below(folder / entry.name, rest, found, seen)
    elif os.path.lexists(folder / first):
        _match_below(folder / first, rest, found, seen)


def _match_below(
    path: Path, rest: tuple[str, ...], found: set[Path], seen: set[tuple[Identity, tuple[str, ...]]]
) -> None:
    if not rest:
        found.add(path)
    elif path.is_dir():
        _match(path, rest, found, seen)


def has_wildcard(text: str) -> bool:
    """Whether ``text`` contains a wildcard."""
    return any(c in text for c in "*?[")


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _identity(folder: Path) -> Identity:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def _identity_or_none(folder: Path, on_error: OnError) -> Identity | None:
    try:
        return _identity(folder)
    except OSError as error:
        on_error(error)
        return None
