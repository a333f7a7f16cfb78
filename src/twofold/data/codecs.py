"""Conversion between stored values and the library's units, as specified by a descriptor.

A descriptor is a dict: the header's `targets[name]`, updated with the row's entries.

    codec        png8, png16, jpg8, npy, npz, exr, tiff, hdf5, mat or raw_f32; by default from the suffix
    key, index, shape   name of an array, index of a map in a stack, shape of raw floats: see `image.arrays`
    masks        by name: other files that mark the valid pixels of this target; each has a `path`, entries of its own
                 codec, and either `valid` (stored values, or "nonzero") or `invalid` (stored values)
    scale        depth: metres per stored unit (with `offset` added); required for integers
    kind         depth: "z"; "euclidean" (distance from the camera's centre; needs the camera); "disparity":
                 scale * stored + offset is in pixels, and z is `baseline` (metres) * `focal` (pixels; by default
                 the camera's) / disparity
    invalid      stored values of invalid pixels: one or a list of numbers, "nan", "inf", "zero" (all channels 0);
                 within the list, a list is the colour of a pixel
    infinite     depth: the stored value of the sky
    valid_range  depth: [min, max] in metres; valid is strictly between
    keep_invalid depth: true keeps the stored metres of invalid pixels, which otherwise become 0 (NaN always does);
                 for `compat.genpercept`, whose encodings read them
    frame        normals: RUB, LUB or RDF; required
    facing       normals: "camera" negates normals that face away from it (needs the camera)
    threshold    mask: foreground is above it, in stored units; by default half of the full scale (128 in 8 bits)
    soft         mask: true scales stored levels to [0, 1] instead of thresholding them; for `compat.genpercept`
    channel      index of the channel that holds the target: 3 is the alpha of RGBA
    ignore       mask, semantic, instance: like `invalid`
    label_offset semantic, instance, parts: added to the stored id
    palette      semantic, instance, parts: the colours [r, g, b] in the order of their ids, from 0; for reading only.
                 Without it the ids of a palette file are its indices
    stored       semantic, instance, parts: the stored values in the order of their ids, from 0; others are invalid
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from twofold.geometry import Camera
from twofold.image import READ_CODECS, write_image, write_map
from twofold.image.raster_format import RasterFormat
from twofold.targets import TARGETS, Descriptor, target_spec
from twofold.targets.levels import CODEC_TOP

SUFFIXES = {"png8": ".png", "png16": ".png", "npy": ".npy", "npz": ".npz", "exr": ".exr", "tiff": ".tiff"}

# Defaults of `FolderWriter`; not used for reading.
DEFAULT_CODECS: dict[str, Mapping[str, Any]] = {
    name: spec.storage for name, spec in TARGETS.items() if spec.storage
}


def decode(
    name: str,
    raw: Tensor,
    how: Descriptor,
    camera: Camera | None = None,
    stored: RasterFormat | None = None,
) -> tuple[Tensor, Tensor]:
    """Convert the raw map c h w of target `name` to (target, valid): float32 c h w in its unit, bool 1 h w.

    Unknown targets are read as scale * raw + offset. `stored` is the format of the file, by default that of the codec.
    ValueError when the descriptor is incomplete, the map has the wrong channels, or its levels are ambiguous (see
    `targets.levels` and `targets.mask_levels`).
    """
    if how.get("codec", "npy") not in READ_CODECS:
        raise ValueError(
            f"the codec {how['codec']!r} is not one of {', '.join(READ_CODECS)}; convert it first"
        )
    spec = target_spec(name)
    return spec.decode(spec.read_levels(raw, how, stored), how, camera)


def write_target(stem: Path, name: str, target: Tensor, valid: Tensor, how: Descriptor) -> Path:
    """Write a target (c h w, valid 1 h w) to `stem` + the codec's suffix, and return that path.

    ValueError when a value does not fit the codec; values are never clipped.
    """
    codec = how.get("codec")
    if codec not in SUFFIXES:
        raise ValueError(f"the codec {codec!r} of {name} is not one of {', '.join(SUFFIXES)}")
    path = stem.with_name(stem.name + SUFFIXES[codec])
    target, valid = target.detach().float().cpu(), valid.cpu()
    try:
        spec = target_spec(name)
        spec.check(target, valid)
        raw = spec.encode(target, valid, how)
    except ValueError as error:
        raise ValueError(f"{path} was not written: {error}") from None
    if codec in CODEC_TOP and not (raw.min() >= 0 and raw.max() <= CODEC_TOP[codec]):
        span = f"{float(raw.min()):g} to {float(raw.max()):g}"
        raise ValueError(
            f"{path}: {codec} stores 0 to {CODEC_TOP[codec]}, and {name} needs {span}; use another codec or scale"
        )
    if codec == "png8":
        write_image(path, raw.round() / 255)
    else:
        write_map(path, raw)
    return path
