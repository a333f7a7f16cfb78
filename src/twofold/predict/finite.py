"""Checks of network outputs for NaN and infinity, before they are decoded, clamped or scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Elements checked at a time.
_PART = 2**18
_REMEDY = "use float32 (--dtype float32), and check that the checkpoint is not damaged"


class NonFiniteError(FloatingPointError):
    """A network returned NaN or infinity.

    Attributes:
        positions: indices of the affected images in the batch that was passed; empty if there was only one image.
    """

    def __init__(self, message: str, positions: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.positions = positions


def check_finite(x: Tensor, what: str) -> None:
    """Check that a network's output is finite.

    Clamping hides infinity, and comparisons and argmax hide NaN, so this runs before every decoding.

    Args:
        x: any floating-point tensor.
        what: its name in the message, such as ``"the normals output"``.

    Raises:
        NonFiniteError: an element is NaN or infinite.
    """
    # In parts, because torch.isfinite makes two copies of its argument.
    count = sum(int(part.isfinite().sum()) for part in x.reshape(-1).split(_PART))
    if count < x.numel():
        share = 1 - count / x.numel()
        raise NonFiniteError(f"{what} is NaN or infinite in {_percent(share)} of its values; {_REMEDY}")


def check_outputs(name: str, outputs: Sequence[tuple[Sequence[Tensor], Tensor | None]]) -> None:
    """`check_finite` of a network's outputs, of every image of a batch.

    Args:
        name: of the task.
        outputs: of each image, the output of each ensemble member and their uncertainty.

    Raises:
        NonFiniteError: with the positions of all affected images.
    """
    found: dict[int, str] = {}
    for i, (members, uncertainty) in enumerate(outputs):
        try:
            for k, output in enumerate(members):
                member = f" of ensemble member {k}" if len(members) > 1 else ""
                check_finite(output, f"the network's {name} output{member}")
            if uncertainty is not None:
                check_finite(uncertainty, f"the uncertainty of the network's {name} output")
        except NonFiniteError as error:
            found[i] = str(error)
    if found:
        where = ", ".join(str(i) for i in found)
        many = f"images {where} of {len(outputs)} (counted from 0): " if len(outputs) > 1 else ""
        raise NonFiniteError(many + next(iter(found.values())), tuple(found))


def clamp_finite(x: Tensor, low: float, high: float) -> Tensor:
    """``x.clamp(low, high)`` that turns infinity into NaN, so that `check_finite` still finds it."""
    return x.clamp(low, high).masked_fill(~x.isfinite(), float("nan"))


def finite_per_image(*tensors: Tensor) -> Tensor:
    """Whether each image's part of all tensors ``b ...`` is finite: bool ``b``.

    Raises:
        ValueError: no tensor is passed.
    """
    if not tensors:
        raise ValueError("no tensor to check; pass at least one")
    found = tensors[0].flatten(1).isfinite().all(1)
    for x in tensors[1:]:
        found = found & x.flatten(1).isfinite().all(1)
    return found


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
