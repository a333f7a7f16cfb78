"""How one sample is created from another: everything that decides its numbers, checked where it is said."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Settings:
    """How samples are created (SDEdit, Meng et al. 2022; as data for dense tasks: Diff-2-in-1, Zheng et al. 2025).

    Attributes:
        strength: how far the source is noised, as a share of the schedule, in (0, 1]: 0.6 is time step 600 of 1000.
        steps: looks of the network at each sample, from that time step to the first; with ``compat`` the nominal steps.
        sampler: ``ddim``; ``dpmpp_2m``, of second order, which needs a third of the steps; ``euler``, DDIM's step in
            other coordinates; or ``lcm``, for distilled networks.
        guidance: of the caption over the empty one (Ho & Salimans 2022); 1 is none.
        seed: of all samples; each has its own noise by (seed, source id, index).
        size: longest edge samples are created at; 0 is the source's own.
        label_mode: ``reencode``: a label is what the predictor says of the stored picture, asked as it was taught;
            ``denoise``: the task's head reads the features of the last look of the denoising walk.
        mask: where labels hold: where the ``source``'s own label of the same kind does, or ``all`` over.
        scoring: ``all`` scores, or those that are ``free``: that need no further look of the network.
        compat: ``official`` walks as the released code of Diff-2-in-1 does, see `walk.official_path`.
    """

    strength: float = 0.6
    steps: int = 30
    sampler: Literal["ddim", "dpmpp_2m", "euler", "lcm"] = "ddim"
    guidance: float = 3.0
    seed: int = 0
    size: int = 0
    label_mode: Literal["reencode", "denoise"] = "reencode"
    mask: Literal["source", "all"] = "source"
    scoring: Literal["all", "free"] = "all"
    compat: Literal["", "official"] = ""

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"a strength of {self.strength:g} is not in (0, 1]")
        if self.steps < 1:
            raise ValueError(f"{self.steps} steps lead nowhere; take one or more")
        if self.size < 0:
            raise ValueError(f"a longest edge of {self.size} pixels is none; 0 keeps the source's own size")
        if self.compat == "official" and (self.guidance != 1 or self.sampler != "ddim"):
            raise ValueError(
                "compat 'official' walks by DDIM and without guidance; set guidance=1 and sampler='ddim'"
            )

    @property
    def record(self) -> dict[str, Any]:
        """As plain values, for files."""
        return asdict(self)


STANDARD = Settings()

# As the released code has it: 50 nominal steps, the label read off the walk, no mask but the whole picture.
OFFICIAL = Settings(steps=50, guidance=1.0, size=512, label_mode="denoise", mask="all", compat="official")


def draw_seed(seed: int, source: str, index: int) -> int:
    """The seed of one sample's noise: 63 bits, whatever else is created, in whatever order."""
    told = hashlib.sha256(f"{seed}/{source}/{index}".encode()).digest()
    return int.from_bytes(told[:8], "little") >> 1
