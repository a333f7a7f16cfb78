"""A data folder of a recipe, and which of its samples are used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..data.selection import Selection, select_indices

Pixels = Annotated[int, Field(ge=1)]
Size = tuple[Pixels, Pixels]


class Source(BaseModel):
    """A data folder, its share of the examples drawn (relative to the others'), and how many of its samples to use.

    Attributes:
        path: of the folder.
        share: of the examples, relative to the other sources'; it is kept exactly, not on average.
        limit: how many samples are used; 0 is all.
        fraction: of the samples that are used, in place of ``limit`` (GenPercept, Table 12).
        selection: which ones: ``even``, at equal distances over the whole folder, or ``random`` by ``selection_seed``
            (Diff-2-in-1's data efficiency), see `data.selection`. ``twofold create`` with the same options takes the
            same.
        selection_seed: of a random selection; a smaller one of one seed is a part of a larger one.
        size: height and width of this folder's examples, in place of the recipe's.
        crop: window of its images, in place of its header's: ``[left, top, width, height]`` or ``kitti-benchmark``.
        depth_range: metres; depth is valid strictly between (GenPercept: 1e-5 to 65 for Hypersim, to 80 for VKITTI2).
        labels: labels of its examples: those ``stored`` with them, or those that the ``teacher``, the averaged weights
            as they are at that step, answers. Stored labels then only say where there is something to be learned; a
            sample without any is learned from all over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    path: str
    share: float = Field(1.0, ge=0)
    limit: int = Field(0, ge=0)
    fraction: float = Field(1.0, gt=0, le=1)
    selection: Selection = "even"
    selection_seed: int = Field(0, ge=0)
    size: Size | None = None
    crop: tuple[int, int, int, int] | Literal["", "kitti-benchmark"] = ""
    depth_range: tuple[float, float] | None = None
    labels: Literal["stored", "teacher"] = "stored"

    @property
    def override(self) -> dict[str, Any]:
        """Entries that replace those of the folder's header, for `data.Folder`."""
        window = {"crop": self.crop if isinstance(self.crop, str) else list(self.crop)} if self.crop else {}
        limits = {"targets": {"depth": {"valid_range": list(self.depth_range)}}} if self.depth_range else {}
        return window | limits

    @model_validator(mode="after")
    def _one_limit(self) -> Source:
        if self.limit and self.fraction != 1:
            raise ValueError(f"{self.path}: give a limit or a fraction, not both")
        return self

    def indices(self, count: int) -> list[int]:
        """Which of ``count`` samples to use."""
        return select_indices(count, self.limit, self.fraction, self.selection, self.selection_seed)
