"""Images of linear light in floats (OpenEXR, Radiance HDR, TIFF), tone-mapped to sRGB.

The primaries are assumed to be those of sRGB. Files with one channel (except an EXR's luminance, Y) or with many
negative values are maps (depth, normals) rather than images, and are refused.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold.image.arrays import ReadOptions, check_array
from twofold.image.errors import ImageError, check_file, check_size, decoding, import_reader
from twofold.image.rasters import read_exr
from twofold.image.stored import find_stored
from twofold.image.tone import hypersim_tone
from twofold.io import escape, report_disk_full

# Colours outside the gamut make some channels a little negative.
_MAX_NEGATIVE = 0.1


def read_linear(source: str | os.PathLike[str] | bytes, kind: str, max_pixels: int) -> Tensor:
    """Read a file of floats ("exr", "hdr" or "tiff"), or its bytes, as an image: float32 3 h w, sRGB in [0, 1].

    Linear light is tone-mapped by `tone.hypersim_tone`. A TIFF with all values in [0, 1] is read as sRGB, because only
    values above 1 identify linear light. ImageError for other files.
    """
    if isinstance(source, bytes):
        with tempfile.TemporaryDirectory() as folder:
            # Readers of EXR take named files only.
            copy = Path(folder) / f"image.{kind}"
            with report_disk_full(copy):
                copy.write_bytes(source)
            return _read(copy, f"the image of {len(source)} bytes", kind, max_pixels)
    return _read(check_file(source), escape(source), kind, max_pixels)


def _read(file: Path, name: str, kind: str, max_pixels: int) -> Tensor:
    if file.stat().st_size == 0:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    with decoding(name):
        pixels = np.asarray(_READERS[kind](file, name, max_pixels), dtype=np.float32)
    light = torch.from_numpy(np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1)))
    finite = light.isfinite().all(0, keepdim=True)
    if not finite.any():
        raise ImageError(f"{name} has no finite value; write it again")
    low, high = float(light[:, finite[0]].min()), float(light[:, finite[0]].max())
    if kind == "tiff" and low >= 0 and high <= 1 and finite.all():
        return light
    negative = float((light < 0).any(0).float().mean())
    if negative > _MAX_NEGATIVE:
        raise ImageError(
            f"{name} is negative in {negative:.0%} of its pixels, so it is not an image; is it a map?"
        )
    return _exposed(light, finite)


def _exposed(light: Tensor, finite: Tensor) -> Tensor:
    """Tone-map light of any unit; the exposure is set by the pixels that are not black."""
    brightness = light.mean(0, keepdim=True)
    lit = finite & (brightness > 0)
    if not lit.any():
        return torch.zeros_like(light)
    return hypersim_tone(light / brightness[lit].median(), lit)


def _read_exr(file: Path, name: str, max_pixels: int) -> np.ndarray:
    pixels = read_exr(find_stored(file), ReadOptions(max_pixels=max_pixels))
    if pixels.ndim == 2:
        exr: Any = import_reader("OpenEXR", f"{name}, an EXR file,")
        channels = [channel.name for channel in exr.File(str(file), header_only=True).header()["channels"]]
        if channels != ["Y"]:
            raise ImageError(
                f"{name} has one channel ({', '.join(channels)}), so it is not an image; is it a map?"
            )
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.dtype.kind != "f":
        raise ImageError(f"{name} holds integers; an EXR image has floats")
    return pixels


def _read_hdr(file: Path, name: str, max_pixels: int) -> np.ndarray:
    check_size(name, *_hdr_size(file, name), max_pixels)
    cv2: Any = import_reader("cv2", f"{name}, a Radiance HDR file,")
    pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.dtype != np.float32:
        raise ImageError(f"{name} is damaged or cut short; copy or make it again")
    return pixels[..., ::-1]


def _hdr_size(file: Path, name: str) -> tuple[int, int]:
    """(width, height) from the header, which ends at an empty line before "-Y height +X width"."""
    with file.open("rb") as stream:
        head = stream.read(2**16)
    place = head.find(b"\n\n")
    words = head[place + 2 :].split(b"\n", 1)[0].split()
    if place < 0 or len(words) != 4 or not (words[1].isdigit() and words[3].isdigit()):
        raise ImageError(f"{name} has no size in its header; copy or make it again")
    if words[0] != b"-Y" or words[2] != b"+X":
        raise ImageError(
            f"{name} is stored rotated or mirrored ({words[0]!r}, {words[2]!r}); write it upright"
        )
    return int(words[3]), int(words[1])


def _read_tiff(file: Path, name: str, max_pixels: int) -> np.ndarray:
    tifffile: Any = import_reader("tifffile", f"{name}, a TIFF of an uncommon kind,")
    with tifffile.TiffFile(file) as opened:
        if len(opened.pages) != 1:
            raise ImageError(f"{name} holds several images (TIFF); save the one you mean as PNG")
        page = opened.pages[0]
        check_array(name, page.shape, page.dtype, max_pixels)
        pixels = page.asarray()
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype.kind != "f" or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ImageError(
            f"{name} holds {pixels.dtype} {pixels.shape}; expected float colours; save it as PNG"
        )
    return pixels


_READERS = {"exr": _read_exr, "hdr": _read_hdr, "tiff": _read_tiff}
