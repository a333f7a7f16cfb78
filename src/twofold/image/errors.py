"""Errors of image files, and checks before they are decoded."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from twofold.io import DiskFullError, escape

_LOGS: dict[str, Callable[[Any], object]] = {
    "tifffile": lambda _: logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1),
    "cv2": lambda cv2: cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT),
}


class ImageError(ValueError):
    """A file cannot be read as requested. The message is one line: the file, the problem, and what to do."""


class ImageWarning(UserWarning):
    """A file is read under an assumption. The message is one line: the file and the assumption."""


@contextmanager
def decoding(name: str, advice: str = "copy or download it again") -> Generator[None]:
    """Convert exceptions of decoders (Pillow, NumPy, OpenCV, h5py, ...) to ImageError with the file's name.

    On damaged files decoders raise many types: RuntimeError (AVIF), tokenize.TokenError (NPY headers), AssertionError,
    ZeroDivisionError, KeyError, their own classes, MemoryError for a wrong size. No list is complete, so within the
    block every Exception is attributed to the file, except NameError and ImportError, which no file can cause. Put only
    decoder calls into the block, so that bugs elsewhere are not reported as damaged files.

    Warnings of the decoders are suppressed; the library raises or warns itself where they matter.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImageError, ImportError, DiskFullError):
        raise
    except NameError as error:
        if isinstance(error, UnboundLocalError):  # raised by SciPy for an unknown array type
            raise _damaged(name, error, advice) from None
        raise
    except OSError as error:
        if error.errno is None:  # raised by Pillow for damaged content
            raise _damaged(name, error, advice) from None
        raise ImageError(f"{name} cannot be read ({error.strerror}); check the disk and the path") from None
    except Exception as error:  # noqa: BLE001 - what decoders raise has no common class
        raise _damaged(name, error, advice) from None


def _damaged(name: str, error: Exception, advice: str) -> ImageError:
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return ImageError(f"{name} is damaged or cut short ({escape(detail)}); {advice}")


def import_reader(module: str, name: str) -> ModuleType:
    """Import an optional reader; ImageError with the install command when it is missing."""
    try:
        found = importlib.import_module(module)
        if module in _LOGS:  # it also logs errors, with unescaped names from the file
            _LOGS[module](found)
        return found
    except ImportError:
        raise ImageError(f"{name} needs the package {module}; run: pip install 'twofold[io]'") from None


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path of a readable file; ImageError if it is not one."""
    name = escape(path)
    try:
        found = Path(path)
        if found.is_file():
            if os.access(found, os.R_OK):
                return found
            raise ImageError(f"{name} cannot be read: no permission; check its permissions")
        what = "is a folder" if found.is_dir() else "is not a file" if found.exists() else "does not exist"
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror}; check the path") from None
    except ValueError as error:
        raise ImageError(f"{name} is not a path: {error}; check it") from None
    raise ImageError(f"{name} {what}; pass the path of one image")


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """ImageError for an image without pixels or with more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height}); check what wrote it")
    if width * height > max_pixels:
        limit = f"{max_pixels / 1e6:g} megapixels"
        raise ImageError(
            f"{name} is {width}x{height} pixels; the limit is {limit}; make it smaller first, or raise the limit "
            f"with --max-pixels {width * height}"
        )
