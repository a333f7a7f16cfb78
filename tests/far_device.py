"""A device for tests: computes as the CPU does, is not the CPU to the code under test, and refuses float64 as MPS does.

Inside `far_device()` a tensor made on or moved to `DEVICE` is a `Far`: a shell around a tensor of the CPU. What is
computed of it is again on the device; mixing it with a tensor of the CPU that has more than one element, or giving it
float64, raises what torch raises for MPS.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

# The one device that torch knows by name and lets be used without a library behind it.
DEVICE = torch.device("lazy")


class Far(Tensor):
    """A tensor on the device; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Far:
        if inner.dtype == torch.float64:
            raise TypeError("Cannot convert a tensor to float64 on this device: it has no float64")
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=DEVICE, requires_grad=False
        )
        made.held = inner
        return made

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"Far({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # ty: ignore[incompatible-method-override]
        return _run(func, args, kwargs or {})


def _is_device(value: Any) -> bool:
    return value is not None and torch.device(value).type == DEVICE.type


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat = tree_flatten((args, kwargs))[0]
    far = [x for x in flat if isinstance(x, Far)]
    near = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, Far)]
    name = func.overloadpacket.__name__
    moves = name in ("_to_copy", "copy_", "_local_scalar_dense")
    if far and not moves and any(x.ndim for x in near):
        raise RuntimeError(
            f"{name}: expected all tensors to be on the same device, found the CPU and {DEVICE}"
        )
    to = kwargs.get("device")
    inner = tree_map(lambda x: x.held if isinstance(x, Far) else x, args)
    options = tree_map(lambda x: x.held if isinstance(x, Far) else x, kwargs)
    if "device" in options:
        options = {**options, "device": torch.device("cpu")}
    found = func(*inner, **options)
    if name == "copy_":
        return args[0]
    stays = bool(far) if to is None else _is_device(to)
    if far and func._schema.is_mutable and isinstance(args[0], Far):
        return args[0]
    return tree_map(lambda x: Far(x) if stays and isinstance(x, Tensor) else x, found)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def far_device() -> Generator[torch.device]:
    """Inside, `DEVICE` can be computed on."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Mode(), torch.no_grad():
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def near(x: Tensor) -> Tensor:
    """The numbers of a tensor of the device."""
    return x.held if isinstance(x, Far) else x
