"""Names that come from data (task keys, ids, file names), before a path is built from them.

`safe_output_path` is the one function that turns such a name into a path to write to or to read a part of a folder
from; `check_name` is its first half, for names that are known before the folder is.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

from twofold.io.text import quoted

# Most file systems take 255 bytes for each component of a path.
MAX_NAME_BYTES = 255
# Linux; other systems allow less only by configuration.
MAX_PATH_BYTES = 4096
# Windows opens a device for these, whatever follows the first dot.
_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"
}


class UnsafeNameError(ValueError):
    """A name that must not become a path. One line: the name (escaped), what is wrong, what to do."""


def check_name(name: object, what: str = "the name", *, nested: bool = False, portable: bool = True) -> str:
    r"""`name` if it may be the name of one file or folder, else UnsafeNameError.

    Args:
        name: what was read; anything but text is refused.
        what: how messages call it: "the task", "the id".
        nested: whether it may have several components, separated by "/": "shots/kitchen".
        portable: whether it must be a name on every system. Names written by somebody else must be; names that come
            from this computer's own file system, such as those of input images, need not.

    Refused always: what is not text, empty names and components, ".", "..", absolute paths, control characters,
    lone surrogates (bytes that are not UTF-8), components of more than 255 bytes; "/" unless `nested`. Refused when
    `portable` or on Windows: the characters \ < > : " | ? *, a trailing dot or space, and the names of devices
    (CON, NUL, COM1, ...).
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
    """The path `folder`/`name`, certain to lie below `folder`; UnsafeNameError when it does not.

    `folder` is trusted (the user named it) and need not exist; it may itself be reached through links. What lies below
    it is not trusted: a link, of the file itself or of a folder on the way, that leads out of it is refused.
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
    """What is wrong with a name, as the end of the sentence "it ..."; "" when nothing is."""
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
