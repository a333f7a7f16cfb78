"""P3M-10k (Li et al. 2021, portraits) and AIM-500 (Li et al. 2021, all kinds of things): images with mattes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.paired import by_stem, first_folder, pair_by_stem, relative_path
from twofold.data.layout import FolderError, Row
from twofold.io import parse_object

# Where each split of P3M-10k is, in the authors' configuration and in the archive they distribute.
_P3M = {
    "train": (("train",), "blurred_image"),
    "P3M-500-P": (("validation1", "validation/P3M-500-P"), "blurred_image"),
    "P3M-500-NP": (("validation2", "validation/P3M-500-NP"), "original_image"),
}
KINDS = ("SO", "STM", "NS")


def portraits(root: Path, split: str) -> Iterator[Row]:
    """One row per portrait, in either layout of P3M-10k."""
    base = root / "P3M-10k" if (root / "P3M-10k").is_dir() else root
    places, image_dir = _P3M[split]
    yield from _mattes(root, first_folder(base, *places), image_dir, split)


def things(root: Path, split: str) -> Iterator[Row]:
    """AIM-500, with its category and type: salient opaque (SO) or transparent (STM), or non-salient (NS)."""
    base = first_folder(root, "validation", "AIM-500") if not (root / "original").is_dir() else root
    agreements = _read_categories(root / "aim_category_type.json")
    for row in _mattes(root, base, "original", split):
        yield row | agreements.get(row["id"].rpartition("/")[2], {})


def _mattes(root: Path, base: Path, image_dir: str, split: str) -> Iterator[Row]:
    """Rows of {images,mask,trimap} folders; the trimaps may be missing as a whole."""
    trimaps = by_stem(base / "trimap", (".png",)) if (base / "trimap").is_dir() else None
    for stem, image, matte in pair_by_stem(base / image_dir, base / "mask"):
        targets = {"matting": {"path": relative_path(root, matte)}}
        if trimaps is not None:
            if stem not in trimaps:
                raise FolderError(f"{base / 'trimap' / stem}.png does not exist; restore it")
            targets["trimap"] = {"path": relative_path(root, trimaps[stem])}
        yield {"id": f"{split}/{stem}", "file_name": relative_path(root, image), "targets": targets}


def _read_categories(path: Path) -> dict[str, dict[str, str]]:
    """Category and type by image from `aim_category_type.json`; {} without the file, FolderError when it is invalid."""
    if not path.is_file():
        return {}
    try:
        agreements = parse_object(path.read_bytes(), "it")
        found = {
            stem: {"category": str(one["category"]), "type": str(one["type"])}
            for stem, one in agreements.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FolderError(f"{path} does not give a category and a type for each image: {error}") from None
    wrong = sorted({one["type"] for one in found.values()} - set(KINDS))
    if wrong:
        raise FolderError(f"{path} has the type {wrong[0]!r}; types are {', '.join(KINDS)}")
    return found


# The authors' loaders ignore EXIF orientation.
_HEADER = {"image": {"exif": "ignore"}}
_TARGETS = {"matting": {"codec": "png8", "scale": 1 / 255}, "trimap": {"codec": "png8", "scale": 1 / 255}}

P3M10K = Converter(
    name="p3m10k",
    title="P3M-10k, portrait matting with blurred faces",
    licence="dataset release agreement with the text of the MIT licence",
    access="accept the agreement at github.com/JizhiziLi/P3M; P3M-10k.zip",
    splits=tuple(_P3M),
    targets=_TARGETS,
    rows=portraits,
    notes="Faces are blurred in train and P3M-500-P; P3M-500-NP are celebrities, not blurred. Mattes may have "
    "three equal channels. SAD grows with resolution: scores are taken at native size.",
    header=_HEADER,
)
AIM500 = Converter(
    name="aim500",
    title="AIM-500, automatic image matting",
    licence="dataset release agreement with the text of the MIT licence",
    access="accept the agreement at github.com/JizhiziLi/AIM; AIM-500",
    splits=("validation",),
    targets=_TARGETS,
    rows=things,
    notes="For evaluation only: no method trains on it. See-through things (type STM) dominate SAD, so report "
    "each type too; it is in the rows when aim_category_type.json lies in the folder.",
    header=_HEADER,
)
