"""The folders of the released code of Diff-2-in-1: ``{train,test}/{img,norm,caption}``, paired by order alone.

In each folder the n-th file, by name, belongs to the n-th of the others. An image whose name begins with ``r`` is
taken for a created one, any other for a real one: that is how real and created samples lie side by side in
``nyu_nyu_T600``, under names of which ``rgb_syn_3.png`` and ``sn_syn_3.png`` are no pair by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from twofold.data.convert.converter import Converter
from twofold.data.layout import FolderError, Row

PARTS = ("img", "norm", "caption")
DESCRIPTOR: dict[str, Any] = {"codec": "png8", "frame": "LUB", "invalid": "zero"}
_SUFFIX = {"img": ".png", "norm": ".png", "caption": ".txt"}
_SPLITS = ("train", "train-real", "train-created", "test")


def paired_rows(folder: Path, within: str = "") -> Iterator[Row]:
    """A row for each image of ``folder/img``, with the normals and the caption at its place in their folders.

    Args:
        folder: with ``img`` and, each with as many files, ``norm`` and ``caption`` where it has them.
        within: put before ids and paths: the folder relative to the root, such as ``train``.

    Raises:
        FolderError: the folders do not have as many files each, so that they cannot be paired.
    """
    files = {part: _sorted(folder / part, _SUFFIX[part]) for part in PARTS if (folder / part).is_dir()}
    counts = {part: len(found) for part, found in files.items()}
    if len(set(counts.values())) != 1 or not counts.get("img"):
        agreements = ", ".join(f"{n} in {part}" for part, n in counts.items()) or "no img"
        raise FolderError(
            f"{folder} pairs files by their order, and has {agreements}; give each image its own"
        )
    start = f"{within}/" if within else ""
    for i, image in enumerate(files["img"]):
        row: Row = {"id": f"{start}{image.stem}", "file_name": f"{start}img/{image.name}", "targets": {}}
        row["provenance"] = {"origin": "synthetic" if image.name.startswith("r") else "real"}
        if "norm" in files:
            row["targets"]["normals"] = {"path": f"{start}norm/{files['norm'][i].name}"}
        if "caption" in files:
            row["text"] = " ".join(files["caption"][i].read_text("utf-8").split())
        yield row


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image of a split; of ``train-real`` and ``train-created`` those of one kind."""
    part, _, kind = split.partition("-")
    if not (root / part / "img").is_dir():
        raise FolderError(f"{root} has no {part}/img; give the folder that holds train and test")
    expected = {"real": "real", "created": "synthetic"}.get(kind)
    return (r for r in paired_rows(root / part, part) if expected in (None, r["provenance"]["origin"]))


def _sorted(folder: Path, suffix: str) -> list[Path]:
    """Its images or texts, as the released code lists them; FolderError for a file of another kind."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    for path in files:
        if path.suffix != suffix:
            raise FolderError(f"{path} is no {suffix} file, as all of {folder} are to be; take it away")
    return files


DIFF2IN1 = Converter(
    name="diff2in1",
    title="normals in the folders of Diff-2-in-1's released code, real and created samples side by side",
    licence="of the images; none stated by NYU",
    access="Bae's nyu_dataset.zip with captions beside, or nyu_nyu_T600 as 'twofold create --layout official' "
    "or a person merged it",
    splits=_SPLITS,
    targets={"normals": {**DESCRIPTOR, "unit": "vector"}},
    rows=rows,
    notes="Files are paired by their order, not by name. An image whose name begins with r is a created one: "
    "train-real and train-created are the two kinds apart.",
    header={"eval": {"protocol": "normal/bae"}},
)
DIFF2IN1_SQUEEZED = replace(
    DIFF2IN1,
    name="diff2in1-squeezed",
    title="the same, as its programs read it: squeezed to 512 x 512",
    notes=DIFF2IN1.notes
    + " Images lose their shape, and a pixel along every border of the known: to train as "
    "that code does, and for nothing else.",
    header={"squeeze": 512},
)
