"""Checks of names from data (task keys, ids, file names) before a path is built from them.

`safe_output_path` builds a path from such a name; `check_name` checks the name alone.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

from twofold.io.text import quoted

# Most file systems allow 255 bytes for each component of a path.
MAX_NAME_BYTES = 255
# Linux; other systems allow less only by configuration.
MAX_PATH_BYTES = 4096
# Windows opens a device for these, whatever follows the first dot.
_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"
}


class UnsafeNameError(ValueError):
    """A name that must not become a path. The message is one line: the escaped name, the problem, what to do."""


def check_name(name: object, what: str = "the name", *, nested: bool = False, portable: bool = True) -> str:
    r"""Return `name` if it is a safe name of a file or folder, else raise UnsafeNameError.

    Args:
        name: the name; must be a string.
        what: its kind, for messages: "the task", "the id".
        nested: whether it may have several components, separated by "/": "shots/kitchen".
        portable: whether it must be valid on every system. Pass False for names from the local file system, such as
            those of input images.

    Refused are non-strings, empty names and components, ".", "..", absolute paths, control characters, lone surrogates
    (bytes that are not UTF-8), components of more than 255 bytes, and "/" unless `nested`; with `portable`, or on
    Windows, also the characters \ < > : " | ? *, a trailing dot or space, and device names (CON, NUL, COM1, ...).
    """
    if not isinstance(name, str):
        raise UnsafeNameError(f"{what} must be text, not {type(name).__name__}")
    problem = _problem(name, nested, portable or os.name == "nt")
    if problem:
        raise UnsafeNameError(f"{what} {quoted(name)} cannot be a file name: it {problem}; rename it")
    return name


def safe_output_path(
    folder: str | os.PathLike[str],
    name: object,
    what: str = "the name",
    *,
    nested: bool = False,
    portable: bool = True,
) -> Path:
    """The path `folder`/`name`; UnsafeNameError unless it lies below `folder` with all links resolved.

    `folder` is trusted, need not exist, and may contain links. Links below it that lead out of it are refused.
    For the arguments see `check_name`.
    """
    checked = check_name(name, what, nested=nested, portable=portable)
    path = Path(folder, checked)
    root, real = os.path.realpath(folder), os.path.realpath(path)
    if _loops(path):
        raise UnsafeNameError(f"{what} {quoted(checked)} is a link to itself; remove the link")
    if not real.startswith(root.rstrip(os.sep) + os.sep):
        raise UnsafeNameError(
            f"{what} {quoted(checked)} leads out of {quoted(folder)} through a link; remove the link"
        )
    if len(os.fsencode(real)) >= MAX_PATH_BYTES:
        raise UnsafeNameError(
            f"{what} {quoted(checked)} gives a path over {MAX_PATH_BYTES} bytes; shorten it"
        )
    return path


def _loops(path: Path) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _problem(name: str, nested: bool, portable: bool) -> str:
    """The problem of a name, as the end of the sentence "it ..."; "" if there is none."""
    if not name:
        return "is empty"
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name):
        return "has control characters"
    if any(unicodedata.category(c) == "Cs" for c in name):
        return "is not valid UTF-8"
    if name.startswith("/") or os.path.isabs(name) or (portable and name[1:2] == ":"):
        return "is an absolute path"
    if "/" in name and not nested:
        return "has a '/'"
    return next(filter(None, (_component_problem(part, portable) for part in name.split("/"))), "")


def _component_problem(part: str, portable: bool) -> str:
    if part in ("", ".", ".."):
        return f"has the component {part!r}"
    if len(part.encode()) > MAX_NAME_BYTES:
        return f"has {len(part.encode())} bytes in one component, more than {MAX_NAME_BYTES}"
    if not portable:
        return ""
    if set(part) & set('\\<>:"|?*'):
        return 'has one of the characters \\ < > : " | ? *'
    if part[-1] in ". ":
        return "ends in a dot or a space"
    if part.split(".")[0].rstrip().casefold() in _RESERVED:
        return "is reserved on Windows"
    return ""
