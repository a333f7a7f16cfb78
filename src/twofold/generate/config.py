"""How one sample is generated from another: everything that decides its numbers, checked when it is passed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from ..diffusion import Sampler
from ..io import derive_seed


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class GenerationConfig:
    """How samples are generated (SDEdit, Meng et al. 2022; as data for dense tasks: Diff-2-in-1, Zheng et al. 2025).

    Attributes:
        strength: how far the source is noised, as a fraction of the schedule, in (0, 1]: 0.6 is time step 600 of 1000.
        steps: denoising steps, from that time step to the first; with ``compat`` the nominal steps.
        sampler: ``ddim``; ``dpmpp_2m``, of second order, which needs a third of the steps; ``euler``, DDIM's step in
            other coordinates; or ``lcm``, for distilled networks.
        guidance: scale of classifier-free guidance (Ho & Salimans 2022); 1 is none.
        seed: of all samples; the noise of each is seeded by (seed, source id, index).
        size: longest edge of the generated images; 0 keeps the source's.
        label_mode: ``reencode``: labels are predicted from the stored image, with the settings of the predictor;
            ``denoise``: the task's head reads the features of the last denoising step.
        mask: where labels are valid: where the ``source``'s own label of the same kind is, or ``all`` over.
        scoring: ``all`` scores, or only ``cheap`` ones, which need no further predictions.
        compat: ``official``: the time steps of the released code of Diff-2-in-1, see `compat.diff2in1`.
    """

    strength: float = 0.6
    steps: int = 30
    sampler: Sampler = "ddim"
    guidance: float = 3.0
    seed: int = 0
    size: int = 0
    label_mode: Literal["reencode", "denoise"] = "reencode"
    mask: Literal["source", "all"] = "source"
    scoring: Literal["all", "cheap"] = "all"
    compat: Literal["", "official"] = ""

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength:g}; pass a number above 0 and at most 1")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; pass 1 or more")
        if self.size < 0:
            raise ValueError(f"size is {self.size}; pass the longest edge in pixels, or 0 for the source's")
        if self.compat == "official" and (self.guidance != 1 or self.sampler != "ddim"):
            raise ValueError(
                "compat 'official' samples by DDIM without guidance; pass guidance=1 and sampler='ddim'"
            )

    @property
    def record(self) -> dict[str, Any]:
        """As plain values, for files."""
        return asdict(self)


DEFAULT_CONFIG = GenerationConfig()

# The released code's: 50 nominal steps, the label from the features of the last step, valid over the whole image.
OFFICIAL = GenerationConfig(
    steps=50, guidance=1.0, size=512, label_mode="denoise", mask="all", compat="official"
)


def noise_seed(seed: int, source: str, index: int) -> int:
    """The seed of one sample's noise: 63 bits, independent of the other samples and of their order."""
    return derive_seed(seed, source, index)
