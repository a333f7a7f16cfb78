"""NYUv2 (Silberman et al. 2012) in the two layouts it is evaluated from: Marigold's depth, Bae's normals."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, read_list, replace_suffix
from twofold.data.layout import FolderError, Row

TAR = "nyu_labeled_extracted.tar"


def marigold_rows(kind: str, root: Path, split: str) -> Iterator[Row]:
    """One row per image of {split}/{scene}/rgb_####.png, its depth `kind` ("depth", raw, or "filled")."""
    tree = Tree(root, TAR, unless=split)
    lists = (f"filename_list_{split}.txt", f"labeled/filename_list_{split}.txt")
    lines = read_list(root, lists, 3)
    names = tree.match(f"{split}/*/rgb_*.png") if lines is None else [str(line[0]) for line in lines]
    for number, name in enumerate(names):
        parts = name.split("/")
        if len(parts) != 3:
            raise FolderError(f"{root / name} is not {split}/SCENE/rgb_NUMBER.png; fix the list")
        scene, file = parts[1:]
        values = None if lines is None else lines[number][1 if kind == "depth" else 2]
        number_of = replace_suffix(file, ".png", "").removeprefix("rgb_")
        depth = values or f"{split}/{scene}/{kind}_{number_of}.png"
        yield {
            "id": f"{split}/{scene}/{number_of}",
            "file_name": tree.path(name),
            "scene": scene,
            "targets": {"depth": {"path": tree.path(depth)}},
        }


def bae_rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image of {split}/img, with the normals, and the caption, of the same name."""
    tree = Tree(root)
    captions = (root / split / "caption").is_dir()
    names = tree.match(f"{split}/img/*.png")
    _no_orphans(root, split, names)
    for name in names:
        stem = Path(name).stem
        row: Row = {
            "id": f"{split}/{stem}",
            "file_name": name,
            "targets": {"normals": {"path": tree.path(f"{split}/norm/{stem}.png")}},
        }
        if captions:
            with tree.open(f"{split}/caption/{stem}.txt") as file:
                row["text"] = " ".join(file.read().decode("utf-8").split())
        yield row


def _no_orphans(root: Path, split: str, names: list[str]) -> None:
    """FolderError for normals or captions without an image: something was removed, or renamed, by halves."""
    stems = {Path(name).stem for name in names}
    for kind, suffix in (("norm", ".png"), ("caption", ".txt")):
        for path in sorted((root / split / kind).glob(f"*{suffix}")):
            if path.stem not in stems and not path.name.startswith("."):
                raise FolderError(f"{path} has no image in {split}/img; restore it, or remove the file")


def _marigold(name: str, kind: str, title: str, notes: str) -> Converter:
    return Converter(
        name=name,
        title=title,
        licence="none stated by NYU; used in research",
        access="Marigold's evaluation share, nyuv2/nyu_labeled_extracted.tar (github.com/prs-eth/Marigold)",
        splits=("train", "test"),
        targets={"depth": {"codec": "png16", "scale": 0.001, "invalid": [0], "unit": "m"}},
        rows=partial(marigold_rows, kind),
        notes=notes
        + " Images have a white border of some 10 pixels. The tar is read in place, or unpack it. "
        "795 / 654 images.",
        header={"eval": {"protocol": "depth/marigold-ls"}},
    )


NYUV2_MARIGOLD = _marigold(
    "nyuv2-marigold", "depth", "NYUv2 labelled, raw depth, Marigold's layout",
    "Depth is the sensor's, with holes: what scores are measured on. It counts between 1e-3 and 10 m.",
)  # fmt: skip
NYUV2_MARIGOLD_FILLED = _marigold(
    "nyuv2-marigold-filled", "filled", "NYUv2 labelled, filled depth, Marigold's layout",
    "Depth has its holes filled in: for training, never for scores.",
)  # fmt: skip
NYUV2_BAE = Converter(
    name="nyuv2-bae",
    title="NYUv2 labelled, normals, Bae's layout ({train,test}/{img,norm,caption}), as Diff-2-in-1 has it",
    licence="none stated by NYU; used in research",
    access="nyu_dataset.zip, linked from github.com/baegwangbin/surface_normal_uncertainty",
    splits=("train", "test"),
    targets={"normals": {"codec": "png8", "frame": "LUB", "invalid": "zero", "unit": "vector"}},
    rows=bae_rows,
    notes="Normals of GeoNet and Ladicky, 8 bits, defined in the centre only: (0, 0, 0) elsewhere. Captions are "
    "paired by name. What Diff-2-in-1 generates lies in folders of the same form (nyu_nyu_T600): do not mix "
    "them with images. 795 / 654 images.",
    header={"eval": {"protocol": "normal/bae"}},
)
