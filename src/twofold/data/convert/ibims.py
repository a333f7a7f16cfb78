"""iBims-1 (Koch et al. 2018): 100 rooms, laser-scanned. Its normals: see `dsine`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, read_list
from twofold.data.layout import Row


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image of ibims1_core_raw, or of the folder that holds it."""
    tree = Tree(root)
    top = "ibims1_core_raw/" if (root / "ibims1_core_raw").is_dir() else ""
    lines = read_list(root / top, ("imagelist.txt",), 1)
    image_dir = tree.match(f"{top}rgb/*.png")
    for stem in [Path(p).stem for p in image_dir] if lines is None else [str(line[0]) for line in lines]:
        masks = {m: {"path": tree.path(f"{top}mask_{m}/{stem}.png")} for m in ("invalid", "transp")}
        yield {
            "id": stem,
            "file_name": tree.path(f"{top}rgb/{stem}.png"),
            "scene": stem.rpartition("_")[0],
            "targets": {"depth": {"path": tree.path(f"{top}depth/{stem}.png"), "masks": masks}},
        }


_MASK = {"codec": "png8", "valid": "nonzero"}
IBIMS1 = Converter(
    name="ibims1",
    title="iBims-1 core, raw files (ibims1_core_raw)",
    licence="CC BY-NC-SA 4.0 (not verified)",
    access="Technical University of Munich, mediatum.ub.tum.de/1455541: ibims1_core_raw.zip",
    splits=("test",),
    targets={
        "depth": {
            "codec": "png16",
            "scale": 50 / 65535,
            "invalid": [0],
            "unit": "m",
            "masks": {"invalid": dict(_MASK), "transp": dict(_MASK)},
        }
    },
    rows=rows,
    notes="In mask_invalid a positive number means valid, in spite of its name; in mask_transp it means not "
    "transparent. A pixel counts where both do.",
)
