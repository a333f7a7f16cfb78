"""What is checked of a file before it is decoded, and what is wrong with one that cannot be."""

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
    """A file that cannot be read as requested. One line: which file, what is wrong, and what to do."""


class ImageWarning(UserWarning):
    """A file that is read under an assumption. One line: which file, what is assumed."""


@contextmanager
def decoding(name: str, advice: str = "copy or download it again") -> Generator[None]:
    """Around calls of decoders (Pillow, NumPy, OpenCV, h5py, ...): what they raise becomes ImageError naming the file.

    It separates damaged files from bugs of this program. On damaged files decoders raise anything: RuntimeError (AVIF),
    tokenize.TokenError (NPY headers), AssertionError, ZeroDivisionError, KeyError, classes of their own, MemoryError
    for a wrong size. No list of them is complete, so within the block every Exception is attributed to the file, except
    NameError and ImportError, which no content of a file can cause. Put only decoders into the block, not the code
    that uses what they return.

    Warnings of the decoders are suppressed: where they matter, this library raises or warns by itself.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImageError, ImportError, DiskFullError):
        raise
    except NameError as error:
        if isinstance(error, UnboundLocalError):  # SciPy's, for an array of a type that there is not
            raise _damaged(name, error, advice) from None
        raise
    except OSError as error:
        if error.errno is None:  # Pillow's, about the content
            raise _damaged(name, error, advice) from None
        raise ImageError(f"{name} cannot be read ({error.strerror}); check the disk and the path") from None
    except Exception as error:  # noqa: BLE001 - what decoders raise has no common class
        raise _damaged(name, error, advice) from None


def _damaged(name: str, error: Exception, advice: str) -> ImageError:
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return ImageError(f"{name} is damaged or cut short ({escape(detail)}); {advice}")


def import_reader(module: str, name: str) -> ModuleType:
    """An optional reader; ImageError saying how to get it when it is not installed."""
    try:
        found = importlib.import_module(module)
        if module in _LOGS:  # it also logs what it raises, with unescaped names from the file
            _LOGS[module](found)
        return found
    except ImportError:
        raise ImageError(f"{name} needs the package {module}; run: pip install 'twofold[io]'") from None


def check_file(path: str | os.PathLike[str]) -> Path:
    """`path` if it is a file that may be read, else ImageError."""
    name = escape(path)
    try:
        found = Path(path)
        if found.is_file():
            if os.access(found, os.R_OK):
                return found
            raise ImageError(f"{name} may not be read; check its permissions")
        what = "is a folder" if found.is_dir() else "is not a file" if found.exists() else "does not exist"
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror}; check the path") from None
    except ValueError as error:
        raise ImageError(f"{name} is not a path: {error}; check it") from None
    raise ImageError(f"{name} {what}; give the path of one image")


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
