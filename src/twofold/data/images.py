"""Reading of the image of a row: an image file, or an array of a renderer that has to be tone-mapped.

A descriptor (the header's `image`, updated with the row's entries) is needed only for arrays, and for photographs with
an EXIF rotation:

    codec, key, index, shape   for an array; see `data.codecs`
    tone      "hypersim": linear light to sRGB by the method of Hypersim; the masks select the pixels that set exposure
    scale     for an array without tone: stored * scale is in [0, 1]
    masks     for "hypersim": by name, see `data.codecs`
    exif      for a photograph with targets and an EXIF orientation: "apply" if the targets are upright, "ignore" if
              they have the orientation of the stored pixels. Required, because both are common
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from twofold.data.descriptors import merge_descriptors
from twofold.data.layout import FolderError, Row, resolve_path
from twofold.data.targets import read_mask, read_values
from twofold.image import ImageError, read_image
from twofold.image.errors import decoding
from twofold.image.maps import as_map
from twofold.image.opening import open_image_file
from twofold.image.stored import find_stored
from twofold.image.tone import hypersim_tone

_TURN = 0x0112  # EXIF tag of the orientation


def read_row_image(root: Path, header: Mapping[str, Any], row: Row, where: str) -> Tensor:
    """The image of a row: float32 3 h w, sRGB in [0, 1]. ImageError or FolderError naming its file."""
    how = merge_descriptors(header.get("image") or {}, row.get("image") or {})
    path = resolve_path(root, row["file_name"], where)
    if "codec" not in how:
        return _read_image_file(path, how.get("exif", "refuse" if row.get("targets") else "apply"))
    raw = as_map(read_values(root, {**how, "path": row["file_name"]}, where), path)
    if raw.shape[0] != 3:
        raise FolderError(f"{path}: an image has 3 channels, this array {raw.shape[0]}; fix the header")
    if how.get("tone") == "hypersim":
        valid = torch.ones_like(raw[:1], dtype=torch.bool)
        for mask in how.get("masks", {}).values():
            valid &= read_mask(root, mask, raw.shape[-2:], where)
        return hypersim_tone(raw, valid)
    rgb = raw * float(how.get("scale", 1.0))
    if "tone" in how or not (rgb.min() >= 0 and rgb.max() <= 1):
        span = f"{float(rgb.min()):g} to {float(rgb.max()):g}"
        raise FolderError(
            f"{path}: values are {span}, not in [0, 1]; set 'tone' or 'scale' in the header's 'image'"
        )
    return rgb


def _read_image_file(path: Path, exif: str) -> Tensor:
    """An image file, or a member of a tar, with its EXIF orientation applied, ignored or refused."""
    stored = find_stored(path)
    data = stored.read() if stored.member else None
    try:
        unrotated = _without_rotation(data if data is not None else path)
        if unrotated is not None and exif != "apply":
            if exif != "ignore" or unrotated.format == "TIFF":  # Pillow always rotates TIFF files
                raise FolderError(
                    f"{path} has an EXIF rotation, and whether its targets are rotated is unknown; "
                    "set 'exif': 'apply' or 'ignore' in the header's 'image'"
                )
            return read_image(unrotated)
        return read_image(path if data is None else data)
    except ImageError as error:
        raise ImageError(str(error) if data is None else f"{stored.name}: {error}") from None


def _without_rotation(source: Path | bytes) -> Image.Image | None:
    """The opened image without its EXIF rotation; None if it has no rotation or cannot be read."""
    try:
        with decoding("EXIF"):
            image = open_image_file(source, "EXIF", ("JPEG", "TIFF", "PNG", "WEBP"))
            if image.getexif().get(_TURN, 1) == 1:
                image.close()
                return None
            del image.getexif()[_TURN]
    except ImageError:
        return None  # `read_image` reports the problem
    return image
