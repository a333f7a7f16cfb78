"""Finding the LLVM library that the vectorised path tracer compiles with.
Must run before mitsuba is imported.
"""

from __future__ import annotations

import ctypes.util
import os
import re
from pathlib import Path

VARIABLE = "DRJIT_LIBLLVM_PATH"
OLDEST = 16
"""Older ones lack instructions the tracer selects, and abort the process."""
_PLACES = (
    "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib",
    "/usr/lib/llvm-*/lib", "/opt/homebrew/opt/llvm*/lib", "/usr/local/opt/llvm*/lib",
)  # fmt: skip


def find_llvm() -> str | None:
    """Path of the newest usable libLLVM, or None. The environment variable wins."""
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE]
    found: dict[str, int] = {}
    folders = [p for place in _PLACES for p in sorted(Path("/").glob(place.lstrip("/")))]
    if os.environ.get("CONDA_PREFIX"):
        folders.append(Path(os.environ["CONDA_PREFIX"]) / "lib")
    for folder in folders:
        for path in [*folder.glob("libLLVM*.so*"), *folder.glob("libLLVM*.dylib")]:
            version = re.search(r"libLLVM[-.]?(?:so\.|dylib\.)?(\d+)", path.name)
            number = int(version.group(1)) if version else _from_folder(folder)
            if number >= OLDEST and path.exists():
                found[str(path)] = number
    if found:
        return max(sorted(found), key=lambda p: found[p])
    return ctypes.util.find_library("LLVM") if _named_new(ctypes.util.find_library("LLVM")) else None


def _from_folder(folder: Path) -> int:
    match = re.search(r"llvm-?(\d+)", str(folder))
    return int(match.group(1)) if match else 0


def _named_new(name: str | None) -> bool:
    match = re.search(r"(\d+)", name or "")
    return bool(match) and int(match.group(1)) >= OLDEST
