"""A data folder of a recipe, and the selection of its samples."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..data.selection import Selection, select_indices

Pixels = Annotated[int, Field(ge=1)]
Size = tuple[Pixels, Pixels]


class Source(BaseModel):
    """A data folder, its share of the examples, and the selection of its samples.

    Attributes:
        path: of the folder.
        share: of the examples, relative to the other sources' shares; exact, not on average.
        limit: number of samples that are used; 0 is all.
        fraction: of the samples that are used, instead of ``limit`` (GenPercept, Table 12).
        selection: ``even``, evenly spaced over the folder, or ``random`` by ``selection_seed`` (Diff-2-in-1's data
            efficiency), see `data.selection`. ``twofold create`` with the same options selects the same samples.
        selection_seed: of a random selection; with one seed, a smaller selection is a subset of a larger one.
        size: height and width of this folder's examples, pixels, instead of the recipe's.
        crop: crop of its images, instead of its header's: ``[left, top, width, height]`` or ``kitti-benchmark``.
        depth_range: metres; depth is valid strictly between (GenPercept: 1e-5 to 65 for Hypersim, to 80 for VKITTI2).
        labels: ``stored`` uses the labels of the folder, ``teacher`` pseudo-labels of the EMA teacher at that step.
            With ``teacher``, the valid pixels of a stored label are those of the pseudo-label; without a stored label
            all pixels are valid.
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
            raise ValueError(f"{self.path}: pass a limit or a fraction, not both")
        return self

    def indices(self, count: int) -> list[int]:
        """Indices of the selected ones of ``count`` samples."""
        return select_indices(count, self.limit, self.fraction, self.selection, self.selection_seed)
