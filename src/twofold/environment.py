"""Installed packages, devices and types of weights."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Name or alias -> name of the torch dtype.
DTYPES = {
    "float32": "float32", "fp32": "float32", "float": "float32",
    "float16": "float16", "fp16": "float16", "half": "float16",
    "bfloat16": "bfloat16", "bf16": "bfloat16",
}  # fmt: skip


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@cache
def torchvision_fault() -> str | None:
    """The problem of an installed torchvision, in one line; None when it works or is not installed.

    twofold does not use torchvision, but transformers and diffusers import it if it is installed. A build for another
    torch then fails inside them with a misleading error.
    """
    if find_spec("torchvision") is None:
        return None
    try:
        import torchvision  # noqa: F401  # ty: ignore[unresolved-import]
    except Exception as error:  # noqa: BLE001 - a library at odds with another raises anything
        found = f"torchvision {installed('torchvision')} does not work with torch {installed('torch')}"
        reason = " ".join(str(error).split())[:100]
        return f"{found} ({reason}); run: pip uninstall torchvision, or install the build that matches torch"
    return None


def require_sound_torchvision() -> None:
    """ImportError when an installed torchvision would break transformers and diffusers."""
    fault = torchvision_fault()
    if fault:
        raise ImportError(fault)


@contextmanager
def quiet_libraries() -> Generator[None]:
    """Context in which transformers and diffusers show no progress bars and log errors only."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: tuple[Any, ...] = (transformers_logging, diffusers_logging)
    before = [(lib, lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in libraries]
    for lib in libraries:
        lib.set_verbosity_error()
        lib.disable_progress_bar()
    try:
        yield
    finally:
        for lib, verbosity, bars in before:
            lib.set_verbosity(verbosity)
            if bars:
                lib.enable_progress_bar()


def resolve_device(device: str | torch.device = "auto") -> str:
    """The name of an available device; ``auto`` is CUDA if available, else the CPU.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``, ``meta``, or a `torch.device`.

    Raises:
        ValueError: the device is unknown or not available.
    """
    import torch

    name = str(device)
    counts = {
        "cpu": 1,
        "meta": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "xpu": torch.xpu.device_count() if torch.xpu.is_available() else 0,
    }
    if name == "auto":
        return "cuda" if counts["cuda"] else "cpu"
    kind, _, number = name.partition(":")
    if kind not in counts or (":" in name and not number.isdigit()):
        raise ValueError(f"the device {name!r} is unknown; choose auto, cpu, cuda, cuda:1, mps or xpu")
    if not counts[kind]:
        raise ValueError(
            f"torch finds no {kind} device ({name!r}); run 'twofold doctor', or use the device cpu"
        )
    if int(number or 0) >= counts[kind]:
        available = f"{kind}:0 to {kind}:{counts[kind] - 1}" if counts[kind] > 1 else kind
        raise ValueError(f"the device {name!r} is not available; use {available}")
    return name


def resolve_dtype(dtype: str | torch.dtype = "float32") -> torch.dtype:
    """The torch dtype of a name (one of `DTYPES`, with or without ``torch.``) or dtype, for weights.

    Raises:
        ValueError: weights cannot have this dtype.
    """
    import torch

    name = str(dtype).removeprefix("torch.")
    if isinstance(dtype, torch.dtype) and dtype == torch.float64:
        return dtype
    if name not in DTYPES:
        raise ValueError(
            f"the dtype {name!r} cannot be used for weights; choose float32, bfloat16 or float16 (or fp32, bf16, fp16)"
        )
    return getattr(torch, DTYPES[name])


def has_fast_bfloat16(device: str | torch.device) -> bool:
    """Whether a device multiplies matrices in bfloat16 faster than in float32.

    On CPUs this needs AMX or AVX512-BF16: others emulate bfloat16, which is several times slower than float32.
    """
    import torch

    if torch.device(device).type != "cpu":
        return True
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch do not have it
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
