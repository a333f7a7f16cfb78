"""What surrounds the library: the packages installed, and the one that breaks others when it is broken."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@cache
def torchvision_fault() -> str | None:
    """What is wrong with an installed torchvision, in one line; None when it works or is not installed.

    twofold does not use torchvision. But transformers and diffusers import it when it is there, and one that
    was built for another torch then fails inside them, with an error that names something else.
    """
    if find_spec("torchvision") is None:
        return None
    try:
        import torchvision  # noqa: F401  # ty: ignore[unresolved-import]
    except Exception as error:  # noqa: BLE001 - a library at odds with another raises anything
        found = f"torchvision {installed('torchvision')} does not work with torch {installed('torch')}"
        said = " ".join(str(error).split())[:100]
        return f"{found} ({said}); run: pip uninstall torchvision, or install the build that matches torch"
    return None


def require_sound_torchvision() -> None:
    """ImportError, with the way out, when an installed torchvision would break transformers and diffusers."""
    fault = torchvision_fault()
    if fault:
        raise ImportError(fault)
