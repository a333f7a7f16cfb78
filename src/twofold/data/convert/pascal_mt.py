"""PASCAL-Context for five tasks (Maninis et al. 2019): classes, human parts, saliency, normals, boundaries.

Parts and boundaries are not stored as maps: they are drawn here from Matlab files, so this converter writes new
files instead of naming old ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold.data.convert.converter import Converter
from twofold.data.convert.frames import read_normals
from twofold.data.convert.paired import first_file, read_names
from twofold.data.layout import FolderError
from twofold.data.targets import read_label
from twofold.geometry import convert_frame, unit
from twofold.image import read_image, resize_map
from twofold.image.errors import ImageError, decoding
from twofold.sample import Sample
from twofold.targets import target_spec

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
PERSON = 15
PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
# PASCAL-Part's names of a person's parts, without the l or r of those that come in pairs.
_PART = {
    "head": 1, "hair": 1, "ear": 1, "eye": 1, "ebrow": 1, "mouth": 1, "nose": 1, "neck": 2, "torso": 2,
    "uarm": 3, "larm": 4, "hand": 4, "uleg": 5, "lleg": 6, "foot": 6,
}  # fmt: skip
# Classes of PASCAL-Context (1 to 459) that NYUv2 has too, by name, and tvmonitor: only there could the network
# that made the normals have learned anything.
_NORMALS_ON = (
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56,
    59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122, 124,
    135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202,
    213, 215, 216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261,
    263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314,
    315, 319, 323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383,
    384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442,
    443, 444, 446, 454, 457,
)  # fmt: skip
_FRAME = "LUB"


def samples(root: Path, split: str) -> Iterator[Sample]:
    """One sample a line of ImageSets/Context/{split}.txt; `parts` only where there is a person with parts."""
    for name in read_names(root / "ImageSets" / "Context" / f"{split}.txt"):
        image = read_image(first_file(root / "JPEGImages", name, (".jpg",)))
        labels = _label_map(root / "pascal-context" / "trainval" / f"{name}.mat")
        found = {
            "semantic": _classes(root, name),
            "mask": _saliency(first_file(root / "sal_distill", name, (".png",))),
            "normals": _normals(first_file(root / "normals_distill", name, (".png",)), labels),
            "edge": _edges(labels),
        }
        parts = _parts(root / "human_parts" / f"{name}.mat")
        if parts is not None:
            found["parts"] = parts
        size = (image.shape[-2], image.shape[-1])
        fitted = {target: _fit(target, *maps, size) for target, maps in found.items()}
        yield Sample(
            image=image,
            targets={target: value for target, (value, _) in fitted.items()},
            valid={target: valid for target, (_, valid) in fitted.items()},
            id=f"{split}/{name}",
        )


def _fit(target: str, value: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A map at the image's size; some of the files have another."""
    if tuple(value.shape[-2:]) == size:
        return value, valid
    value, valid = resize_map(value, valid, size, nearest=not target_spec(target).is_direction)
    return target_spec(target).normalize(value, valid), valid


def _classes(root: Path, name: str) -> tuple[Tensor, Tensor]:
    """21 classes; the annotation of VOC 2012 goes before that of PASCAL-Context. 255 is not valid."""
    folders = ("VOC12", "pascal-context")
    path = next((p for f in folders if (p := root / "semseg" / f / f"{name}.png").is_file()), None)
    if path is None:
        raise FolderError(f"{root / 'semseg'} has no {name}.png in {' or '.join(folders)}; restore it")
    ids, valid = read_label(path, "semantic", {"ignore": [255]})
    if bool((ids[valid] >= len(CLASSES)).any()):
        raise FolderError(
            f"{path} has the class {int(ids[valid].max())}; classes are 0 to {len(CLASSES) - 1}"
        )
    return torch.where(valid, ids, 0.0), valid


def _saliency(path: Path) -> tuple[Tensor, Tensor]:
    """Foreground where a network predicted more than one half."""
    share, valid = read_label(path, "matting")
    return (share > 0.5).float(), valid


def _normals(path: Path, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Normals as a network made them, valid on the classes it may have known."""
    vectors, _ = read_normals(path)
    known = torch.isin(labels, torch.tensor(_NORMALS_ON, dtype=labels.dtype))
    if known.shape[-2:] != vectors.shape[-2:]:
        height, width = vectors.shape[-2:]
        known = resize_map(known.float(), torch.ones_like(known), (height, width), nearest=True)[0] > 0.5
    known = known & (torch.linalg.vector_norm(vectors, dim=0, keepdim=True) > 0.5)
    return torch.where(known, unit(convert_frame(vectors, _FRAME, "RUB")), 0.0), known


def _edges(labels: Tensor) -> tuple[Tensor, Tensor]:
    """1 where the label changes, thinned to lines of one pixel."""
    try:
        from skimage.morphology import thin
    except ImportError:
        raise FolderError(
            "pascal-mt thins boundaries with scikit-image; run: pip install scikit-image"
        ) from None
    from scipy.ndimage import laplace

    changes = laplace(labels[0].numpy().astype(np.float64), mode="mirror") != 0
    edge = torch.from_numpy(thin(changes))[None].float()
    return edge, torch.ones_like(edge, dtype=torch.bool)


def _label_map(path: Path) -> Tensor:
    """The classes of PASCAL-Context, 1 h w, whole numbers from 0 to 459."""
    labels = _matlab(path, "LabelMap")
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise FolderError(f"{path}: its LabelMap is {labels.dtype} {labels.shape}, not whole numbers h w")
    return torch.from_numpy(labels.astype(np.int64))[None]


def _parts(path: Path) -> tuple[Tensor, Tensor] | None:
    """Parts of people, later people over earlier ones; None when nobody has any."""
    try:
        # A record 'anno' of (name, objects); an object is (class, number, mask, parts), a part (name, mask).
        objects = _matlab(path, "anno")[0, 0][1].ravel()
        people = [one for one in objects if int(one[1].flat[0]) == PERSON and one[3].size]
        if not people:
            return None
        ids = np.zeros(people[0][2].shape, dtype=np.float32)
        for one in people:
            for part in one[3].ravel():
                ids[part[1].astype(bool)] = _part(str(part[0].flat[0]), path)
    except (IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FolderError):
            raise
        raise FolderError(f"{path} is not an annotation of PASCAL-Part ({error}); unpack it again") from None
    found = torch.from_numpy(ids)[None]
    return found, torch.ones_like(found, dtype=torch.bool)


def _part(name: str, path: Path) -> int:
    for known in (name, name[1:] if name[:1] in "lr" else name):
        if known in _PART:
            return _PART[known]
    raise FolderError(f"{path} has a part of a person called {name!r}, which PASCAL-Part does not know")


def _matlab(path: Path, variable: str) -> Any:
    """A variable of a Matlab 5 file; FolderError naming the file when it is not there."""
    from scipy.io import loadmat

    if not path.is_file():
        raise FolderError(f"{path} does not exist; unpack the whole data set")
    try:
        with decoding(str(path), "unpack it again"):
            data = loadmat(path, variable_names=[variable])
    except ImageError as error:
        raise FolderError(f"{path} cannot be read as Matlab 5: {error}") from None
    if variable not in data:
        raise FolderError(f"{path} has no {variable!r}; unpack it again")
    return data[variable]


PASCAL_MT = Converter(
    name="pascal-mt",
    title="PASCAL-Context, the multi-task archive (PASCAL_MT)",
    licence="terms of PASCAL VOC and Flickr; the networks' labels came with CC BY-NC code (not verified)",
    access="PASCAL_MT.tgz, linked by github.com/facebookresearch/astmt and the repository of InvPT",
    splits=("train", "val"),
    targets={
        "semantic": {"codec": "png8", "ignore": [255]},
        "parts": {"codec": "png8", "ignore": [255]},
        "mask": {"codec": "png8", "threshold": 128, "ignore": []},
        "normals": {"codec": "png8", "frame": _FRAME, "invalid": "zero", "unit": "vector", "pseudo_gt": True},
        "edge": {"codec": "png8", "scale": 1 / 255, "invalid": []},
    },
    samples=samples,
    notes="Writes files, about as large as the archive. Saliency (mask) and normals are predictions of networks, "
    "not measured. The frame of the normals was never published: LUB is assumed. Validate, check the sheet, and "
    "change 'frame' in dataset.json if floors or side walls are wrong. 21 classes, not 59. Images without people "
    "have no parts. Boundaries are drawn from the 459 classes.",
    header={"classes": list(CLASSES), "parts": list(PARTS)},
)
