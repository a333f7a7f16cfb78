"""Composition-1k (Xu et al. 2017, Deep Image Matting): foregrounds composited as by its authors.

The foregrounds may not be redistributed and the backgrounds are COCO and PASCAL VOC, so the composites are made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twofold.data.convert.converter import Converter
from twofold.data.convert.paired import by_stem, first_file, first_folder, read_names
from twofold.data.layout import FolderError
from twofold.data.targets import read_label
from twofold.image import read_image
from twofold.sample import Provenance, Sample

# Split -> folder, prefix of its lists, and number of backgrounds per foreground.
_SPLITS = {"train": ("Training_set", "training", 100), "test": ("Test_set", "test", 20)}
_CUTS = ("Adobe-licensed images", "Other")


def samples(root: Path, split: str) -> Iterator[Sample]:
    """Foreground i of the list over the backgrounds n*i to n*i + n - 1, in the order of both lists."""
    folder, word, each = _SPLITS[split]
    base = first_folder(root, f"Combined_Dataset/{folder}", folder)
    behind = iter(read_names(base / f"{word}_bg_names.txt"))
    backgrounds = first_folder(root, f"backgrounds/{split}", "backgrounds")
    trimaps = base / _CUTS[0] / "trimaps"
    for name in read_names(base / f"{word}_fg_names.txt"):
        stem = Path(name).stem
        front, matte = _read_foreground(base, stem)
        for number, background in enumerate(islice(behind, each)):
            path = backgrounds / background
            if not path.is_file():
                raise FolderError(
                    f"{path} does not exist; put the images of {word}_bg_names.txt into {backgrounds}"
                )
            targets = {"matting": matte}
            if split == "test":
                trimap = first_file(trimaps, f"{stem}_{number}", (".png",))
                targets["trimap"] = read_label(trimap, "trimap")[0]
            whole = torch.ones_like(matte, dtype=torch.bool)
            yield Sample(
                image=composite(front, read_image(path), matte),
                targets=targets,
                valid=dict.fromkeys(targets, whole),
                id=f"{split}/{_safe_id(stem)}_{number}",
                origin=Provenance("real", (), {"composed": {"foreground": name, "background": background}}),
            )


def composite(front: Tensor, behind: Tensor, matte: Tensor) -> Tensor:
    """Composite foreground over background, 3 h w in [0, 1]: in sRGB, truncated to 8 bits, like the authors' script.

    A smaller background is first enlarged to cover the foreground; its upper left corner is used.
    """
    height, width = front.shape[-2:]
    ratio = max(height / behind.shape[-2], width / behind.shape[-1])
    if ratio > 1:
        size = (math.ceil(behind.shape[-1] * ratio), math.ceil(behind.shape[-2] * ratio))
        pixels = (behind * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        larger = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        behind = torch.from_numpy(larger.transpose(2, 0, 1).astype(np.float32)) / 255
    mixed = matte * front + (1 - matte) * behind[:, :height, :width]
    # Add a hundredth of a level against rounding errors of level / 255.
    return (mixed * 255 + 0.01).floor() / 255


def _read_foreground(base: Path, stem: str) -> tuple[Tensor, Tensor]:
    """A foreground 3 h w and its matte 1 h w from one of the two folders."""
    for kind in _CUTS:
        if (base / kind / "fg").is_dir() and stem in (cuts := by_stem(base / kind / "fg")):
            front = read_image(cuts[stem])
            path = first_file(base / kind / "alpha", stem, (".png", ".jpg"))
            matte = read_label(path, "matting", {"codec": "jpg8"} if path.suffix == ".jpg" else {})[0]
            if matte.shape[-2:] != front.shape[-2:]:
                raise FolderError(f"{path} and {cuts[stem]} have different sizes; unpack the data set again")
            return front, matte
    raise FolderError(f"{base} has no foreground {stem!r} in {' or '.join(_CUTS)}; restore it")


def _safe_id(stem: str) -> str:
    """The name with characters that an id may not contain replaced by '-'."""
    return (
        "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem).lstrip("._-") or "x"
    )


COMPOSITION1K = Converter(
    name="composition1k",
    title="Composition-1k (Adobe Deep Image Matting) over COCO and PASCAL VOC",
    licence="by agreement with the authors, no redistribution (not verified)",
    access="by e-mail to the authors of Deep Image Matting; COCO train2014 and PASCAL VOC for the backgrounds",
    splits=tuple(_SPLITS),
    targets={
        "matting": {"codec": "png8", "scale": 1 / 255, "invalid": []},
        "trimap": {"codec": "png8", "scale": 1 / 255, "invalid": []},
    },
    samples=samples,
    notes="Writes composites: 43,100 for train, 1,000 for test, of which each may take some megabytes. Wants "
    "Combined_Dataset beside a folder 'backgrounds' (or backgrounds/train and backgrounds/test) with the images "
    "of the lists of names. Composed in sRGB; scores inside the trimap follow other tools than P3M's.",
)
