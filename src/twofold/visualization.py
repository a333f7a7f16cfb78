"""Preview images of maps, and contact sheets; for display only, never for metrics."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from twofold.image import ImageError, resize, write_image
from twofold.image.bands import by_rows
from twofold.image.errors import decoding
from twofold.io import escape

# Grey level of invalid pixels.
UNKNOWN = 0.5
_TITLE = 18
# Text entry in the PNG of a contact sheet, which identifies it.
_SHEET = "twofold contact sheet"


@lru_cache(maxsize=8)
def _table(name: str) -> Tensor:
    """256 colours of a colour map of the `cmap` library: float32 256 3."""
    from cmap import Colormap  # imported here: it takes a third of a second and is rarely needed

    return torch.from_numpy(np.asarray(Colormap(name).lut(256)[:, :3], dtype=np.float32))


def color_depth(depth: Tensor, valid: Tensor | None = None, colormap: str = "Spectral") -> Tensor:
    """Depth *b 1 h w in [0, 1], 0 near, to colours *b 3 h w in [0, 1]: near is red and far is blue.

    Values outside are clipped (+inf, the sky, is the farthest); NaN and pixels that are not `valid` (bool *b 1 h w)
    are grey. Scale depth in metres first: see `scaled_depth`. ValueError for another number of channels.
    """
    if depth.shape[-3] != 1:
        raise ValueError(f"a depth has 1 channel, this is {tuple(depth.shape)}")
    table = _table(colormap).to(depth.device)

    def colored(depth: Tensor, valid: Tensor | None) -> Tensor:
        known = ~depth.isnan() if valid is None else valid & ~depth.isnan()
        level = (depth.float().nan_to_num(nan=0.0, posinf=1.0).clamp(0, 1) * 255).round().long()
        return torch.where(known, table[level.squeeze(-3)].movedim(-1, -3), UNKNOWN)

    return by_rows(colored, depth, valid)


def color_disparity(disparity: Tensor, valid: Tensor | None = None, colormap: str = "Spectral") -> Tensor:
    """Inverse depth *b 1 h w in [0, 1], 1 near, in the colours of `color_depth`: near is red, far is blue."""
    return color_depth(1 - disparity, valid, colormap)


def color_mask(mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """A mask or matte *b 1 h w in [0, 1] as grey *b 3 h w, foreground white; NaN and invalid pixels are UNKNOWN."""
    if mask.shape[-3] != 1:
        raise ValueError(f"a mask has 1 channel, this is {tuple(mask.shape)}")
    return color_image(mask.expand(*mask.shape[:-3], 3, -1, -1), valid)


def color_image(image: Tensor, valid: Tensor | None = None, linear: bool = False) -> Tensor:
    """A map *b 3 h w in [0, 1] that is an image, unchanged, or converted to sRGB if it is `linear` light.

    Values outside are clipped; NaN and pixels that are not `valid` (bool *b 1 h w) are grey. ValueError for another
    number of channels.
    """
    if image.shape[-3] != 3:
        raise ValueError(f"an image has 3 channels, this has shape {tuple(image.shape)}")
    color = image.float().nan_to_num(nan=math.nan, posinf=1.0, neginf=0.0).clamp(0, 1)
    if linear:
        color = torch.where(
            color > 0.0031308, 1.055 * color.clamp(min=1e-3) ** (1 / 2.4) - 0.055, 12.92 * color
        )
    known = ~image.isnan().any(-3, keepdim=True)
    return torch.where(known if valid is None else valid & known, color, UNKNOWN)


def scaled_depth(depth: Tensor, valid: Tensor) -> Tensor:
    """One image's depth in metres (1 h w), its 2nd and 98th percentiles scaled to 0 and 1, for `color_depth`.

    The sky stays +inf; all NaN without a valid pixel.
    """
    ends = robust_range(depth, valid)
    if ends is None:
        return torch.full_like(depth, math.nan)
    return (depth - ends[0]) / max(ends[1] - ends[0], 1e-6)


def robust_range(x: Tensor, valid: Tensor) -> tuple[float, float] | None:
    """The 2nd and 98th percentiles (the nearest ranks) of the valid pixels; None without one."""
    values = x.float().cpu().numpy()[valid.cpu().numpy()]  # torch selects by indices of 8 bytes
    if not values.size:
        return None
    ranks = [round(q * (values.size - 1)) for q in (0.02, 0.98)]
    values.partition(ranks)  # in place; sorting large maps takes 4 times their memory
    low, high = (float(values[rank]) for rank in ranks)
    return low, high


def color_normals(normals: Tensor, valid: Tensor | None = None) -> Tensor:
    """Normals *b 3 h w (unit vectors, RUB) to colours in [0, 1], (n + 1) / 2; invalid pixels and zero vectors are grey.

    A wall that faces the viewer is light blue.
    """
    if normals.shape[-3] != 3:
        raise ValueError(f"normals have 3 channels, this is {tuple(normals.shape)}")

    def colored(normals: Tensor, valid: Tensor | None) -> Tensor:
        color = (normals.float().nan_to_num(nan=0.0).clamp(-1, 1) + 1) / 2
        return color if valid is None else torch.where(valid, color, UNKNOWN)

    return by_rows(colored, normals, valid)


def side_by_side(images: Sequence[Tensor], gap: int = 4) -> Tensor:
    """Images (3 h w in [0, 1]) in one row, resized to the height of the first, with a white gap between: 3 H W."""
    if not images:
        raise ValueError("there is no image to show")
    height = images[0].shape[-2]
    level = [_rgb(x) for x in images]
    level = [resize(x, (height, max(1, round(x.shape[-1] * height / x.shape[-2])))) for x in level]
    white = torch.ones(3, height, gap)
    return torch.cat([part for x in level for part in (white, x)][1:], dim=-1)


def sheet(images: Sequence[Tensor], columns: int, titles: Sequence[str] = (), gap: int = 4) -> Tensor:
    """A contact sheet 3 H W on white: images (3 h w or 1 h w in [0, 1]) row by row, with a title above each.

    Images are resized to fit into the size of the first, keeping their aspect ratio. The last images have no title if
    there are fewer titles than images. ValueError without images or columns, or with too many titles.
    """
    if not images or columns < 1 or len(titles) > len(images):
        raise ValueError(f"no sheet of {len(images)} images, {columns} columns and {len(titles)} titles")
    height, width = images[0].shape[-2:]
    top = _TITLE if titles else 0
    cells = [_cell(x, height, width) for x in images]
    if top:
        named = [*titles, *[""] * (len(images) - len(titles))]
        cells = [torch.cat([_title(t, width), x], dim=-2) for t, x in zip(named, cells, strict=True)]
    rows = math.ceil(len(cells) / columns)
    canvas = torch.ones(3, rows * (height + top + gap) - gap, columns * (width + gap) - gap)
    for number, cell in enumerate(cells):
        y, x = (number // columns) * (height + top + gap), (number % columns) * (width + gap)
        canvas[:, y : y + height + top, x : x + width] = cell
    return canvas


def write_sheet(path: str | os.PathLike[str], x: Tensor) -> None:
    """Write a contact sheet 3 h w in [0, 1] to a PNG file; only a sheet that this function wrote is replaced.

    Raises:
        FileExistsError: the path exists and is another file.
    """
    path = Path(path)
    if os.path.lexists(path) and not _is_sheet(path):
        raise FileExistsError(
            errno.EEXIST,
            "it exists and is not a contact sheet of twofold; move it, or choose another name",
            str(path),
        )
    write_image(path, x, text={"Software": _SHEET})


def _is_sheet(path: Path) -> bool:
    try:
        with decoding(str(path)), Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Software") == _SHEET
    except (ImageError, OSError):
        return False


def _rgb(image: Tensor) -> Tensor:
    """3 h w or 1 h w on any device as float32 3 h w on the CPU, clipped to [0, 1], NaN as UNKNOWN."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image to show is 3 h w or 1 h w, not {tuple(image.shape)}")
    return image.detach().float().cpu().nan_to_num(nan=UNKNOWN).clamp(0, 1).expand(3, -1, -1)


def _cell(image: Tensor, height: int, width: int) -> Tensor:
    """The image resized to fit into 3 height width, centred on white."""
    x = _rgb(image)
    scale = min(height / x.shape[-2], width / x.shape[-1])
    h, w = max(1, round(x.shape[-2] * scale)), max(1, round(x.shape[-1] * scale))
    cell = torch.ones(3, height, width)
    y0, x0 = (height - h) // 2, (width - w) // 2
    cell[:, y0 : y0 + h, x0 : x0 + w] = resize(x, (h, w))
    return cell


def _title(text: str, width: int) -> Tensor:
    """Black text on white, 3 _TITLE width, cut off at the right."""
    strip = Image.new("L", (width, _TITLE), 255)
    ImageDraw.Draw(strip).text((2, 2), escape(text), fill=0, font=ImageFont.load_default(13))
    return torch.from_numpy(np.array(strip)).float().div(255).expand(3, -1, -1)
