"""Classes of rendered scenes: ids, which classes are foreground, and English nouns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SemanticClass:
    """One semantic class. `foreground` says whether the foreground mask keeps it."""

    name: str
    foreground: bool
    plural: str = ""


_SHELL = (
    "sky",
    "wall",
    "floor",
    "ceiling",
    "window",
    "door",
    "curtain",
    "picture",
    "rug",
    "terrain",
    "road",
    "building",
)
_THINGS = (
    "table", "chair", "sofa", "bed", "shelf", "cabinet", "lamp", "book", "box", "bottle", "bowl", "vase",
    "cushion", "plant", "screen", "object", "person", "tree", "car", "fence", "rock", "pole", "bench", "cup",
    "ball", "mountain",
)  # fmt: skip
_PLURALS = {
    "shelf": "shelves",
    "box": "boxes",
    "bench": "benches",
    "person": "people",
    "terrain": "terrain",
    "sky": "sky",
}
_BACKGROUND_THINGS = ("mountain",)

CLASSES: tuple[SemanticClass, ...] = tuple(
    SemanticClass(name, name in _THINGS and name not in _BACKGROUND_THINGS, _PLURALS.get(name, name + "s"))
    for name in _SHELL + _THINGS
)
"""Index = semantic id. Only ever append: stored data refer to these ids."""

IDS: dict[str, int] = {kind.name: i for i, kind in enumerate(CLASSES)}
SKY = IDS["sky"]
FOREGROUND: tuple[bool, ...] = tuple(kind.foreground for kind in CLASSES)


def class_ids() -> dict[str, int]:
    """Class name to semantic id, for the data set's header."""
    return dict(IDS)
