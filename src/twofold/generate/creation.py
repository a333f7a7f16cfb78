"""Which samples are created from a data folder, in which order, and which of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..data.folder import Folder
from ..data.selection import Selection, select_indices
from ..io import Shard
from .provenance import sample_id
from .scores import ScoreThreshold
from .synthetic_data import SyntheticDataGenerator


@dataclass(frozen=True)
class CreationOptions:
    """Which samples are created from a folder.

    Attributes:
        strengths: ``per_image`` samples of each source at each; in place of `GenerationConfig.strength`.
        per_image: samples of each source at each strength.
        filters: thresholds; a sample that violates one is listed in ``rejected.jsonl`` with its row, and not stored.
        batch: samples that are computed together. Which ones does not depend on existing samples nor on shards, so that
            a killed run ends with the same files to the last bit.
        shard: this process's share of the work.
        count, fraction, selection, selection_seed: how many of the sources, and which, see
            `data.selection.select_indices`. A
            recipe's `Source` with the same values (``limit``, ``fraction``) has the same samples.
    """

    strengths: tuple[float, ...] = (0.6,)
    per_image: int = 1
    filters: tuple[ScoreThreshold, ...] = ()
    batch: int = 1
    shard: Shard = field(default_factory=Shard)
    count: int = 0
    fraction: float = 1.0
    selection: Selection = "even"
    selection_seed: int = 0

    def __post_init__(self) -> None:
        if not self.strengths or self.per_image < 1 or self.batch < 1 or self.count < 0:
            raise ValueError(
                "pass at least one strength, per_image and batch of 1 or more, and no negative count"
            )
        if not 0 < self.fraction <= 1 or (self.count and self.fraction != 1):
            raise ValueError(
                f"count is {self.count} and fraction {self.fraction:g}; pass a count, or a fraction in (0, 1]"
            )

    def sources(self, total: int) -> list[int]:
        """Which of ``total`` sources are used, by index."""
        return select_indices(total, self.count, self.fraction, self.selection, self.selection_seed)


DEFAULT_OPTIONS = CreationOptions()


@dataclass(frozen=True)
class CreationItem:
    """One sample to create: its id, and the row of its source."""

    key: str
    source: int
    strength: float
    index: int


def list_items(
    generator: SyntheticDataGenerator, folder: Folder, options: CreationOptions
) -> list[CreationItem]:
    """Every sample in the order of strengths, source ids and indices, whatever the order of the folder's rows.

    Raises:
        ValueError: two strengths that round to one time step.
    """
    rows = options.sources(len(folder))
    rows.sort(key=lambda i: folder.rows[i]["id"])
    items: list[CreationItem] = []
    for strength in options.strengths:
        start = generator.backbone.schedule.step_at(strength)
        items += [
            CreationItem(sample_id(folder.rows[row]["id"], start, index), row, strength, index)
            for row in rows
            for index in range(options.per_image)
        ]
    if len({item.key for item in items}) < len(items):
        raise ValueError("two strengths round to one time step; pass each once")
    return items


def batches(items: Sequence[CreationItem], size: int) -> list[list[CreationItem]]:
    """Items as batches of at most ``size``, each of one strength."""
    chunks: list[list[CreationItem]] = []
    for strength in dict.fromkeys(item.strength for item in items):
        same = [item for item in items if item.strength == strength]
        chunks += [same[i : i + size] for i in range(0, len(same), size)]
    return chunks
