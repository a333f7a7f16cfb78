"""What the raw numbers of a stored map mean: from file values to the library's units, and back.

A descriptor is a plain dict: the header's `targets[name]`, with the row's own entries over it.

    codec        png8, png16, jpg8, npy, npz, exr, tiff, hdf5, mat or raw_f32 (by default, what the suffix says)
    key, index, shape   which array of a file, which map of a stack, how large raw floats are: see `image.arrays`
    masks        by name: other files that say where this target holds; each has a `path`, what its own codec
                 needs, and either `valid` (stored values, or "nonzero") or `invalid` (stored values)
    scale        depth: metres per stored unit (with `offset` added); must be said for whole numbers
    kind         depth: "z"; "euclidean" (distance from the camera's centre; needs the camera); "disparity":
                 scale * stored + offset is in pixels, z is `baseline` (metres) * `focal` (pixels; by default
                 the camera's) over it
    invalid      stored values without meaning: one or a list of numbers, "nan", "inf", "zero" (all channels 0);
                 within the list, a list is the colour of a pixel
    infinite     depth: the stored value that says "the sky"
    valid_range  depth: [least, most] in metres; valid is strictly between
    keep_invalid depth: true keeps the stored metres of invalid pixels, which otherwise become 0 (NaN still does);
                 for `tasks.compat`, whose encodings read them
    frame        normals: RUB, LUB or RDF; must be said
    facing       normals: "camera" turns those around that face away (needs the camera)
    threshold    mask: foreground is above it, in stored units (by default half of the full scale: 128 in 8 bits)
    soft         mask: true gives stored levels as 0 to 1 instead of comparing them with the threshold; for
                 `tasks.compat`
    channel      which channel of several holds the target, from 0: 3 is the alpha of RGBA
    ignore       mask, semantic, instance: like `invalid`
    label_offset semantic, instance, parts: added to the stored id
    palette      semantic, instance, parts: the colours [r, g, b] in the order of their ids, from 0; only read.
                 Without it the indices of a file that is stored by a palette are its ids
    stored       semantic, instance, parts: the stored values in the order of their ids, from 0; others are invalid
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twofold.data.ids import decode_ids, encode_ids, ignored
from twofold.data.levels import IDS, SHARES, matches, read_levels
from twofold.data.masks import decode_mask, decode_share, encode_mask
from twofold.data.write_checks import check_target
from twofold.geometry import Camera, convert_frame, unit
from twofold.image import READ_CODECS, write_image, write_map
from twofold.image.raster_format import RasterFormat

Descriptor = Mapping[str, Any]

SUFFIXES = {"png8": ".png", "png16": ".png", "npy": ".npy", "npz": ".npz", "exr": ".exr", "tiff": ".tiff"}
_LEVELS = {"png8": 255, "jpg8": 255, "png16": 65535}
# Stored as whole numbers, which never are metres or vectors by themselves.
_WHOLE = (*_LEVELS, "png")

# What `FolderWriter` uses when the header does not say otherwise. Reading never falls back on these.
DEFAULT_CODECS: dict[str, dict[str, Any]] = {
    "depth": {"codec": "png16", "scale": 0.002, "kind": "z", "invalid": [0], "infinite": 65535, "unit": "m"},
    "normals": {"codec": "npy", "frame": "RUB", "invalid": "zero", "unit": "vector"},
    "mask": {"codec": "png8", "threshold": 128, "ignore": [128]},
    "matting": {"codec": "png16", "scale": 1 / 65535},
    "semantic": {"codec": "png16", "ignore": [65535]},
    "instance": {"codec": "png16", "ignore": [65535]},
}


def decode(
    name: str,
    raw: Tensor,
    how: Descriptor,
    camera: Camera | None = None,
    stored: RasterFormat | None = None,
) -> tuple[Tensor, Tensor]:
    """The raw map c h w of target `name` to (target, valid): float32 c h w in its unit, bool 1 h w.

    Targets the library does not know are read as scale * raw + offset. `stored` is the format of the file; without
    it, the bits that the codec names are assumed. ValueError when the descriptor does not say enough, the map has the
    wrong channels, or what its levels mean is ambiguous (see `levels` and `masks`).
    """
    if how.get("codec", "npy") not in READ_CODECS:
        raise ValueError(
            f"the codec {how['codec']!r} is not one of {', '.join(READ_CODECS)}; convert it first"
        )
    levels = read_levels(name, raw, how, stored)
    if name == "mask":
        return decode_mask(levels, how)
    if name in SHARES:
        return decode_share(name, levels, how)
    if name in IDS:
        return decode_ids(levels, how)
    return _DECODERS.get(name, _decode_plain)(levels.values, how, camera)


def write_target(stem: Path, name: str, target: Tensor, valid: Tensor, how: Descriptor) -> Path:
    """Writes a target (c h w, valid 1 h w) to `stem` + the codec's suffix, and gives that path.

    ValueError when a value does not fit the codec: nothing is clipped in silence.
    """
    codec = how.get("codec")
    if codec not in SUFFIXES:
        raise ValueError(f"the codec {codec!r} of {name} is not one of {', '.join(SUFFIXES)}")
    path = stem.with_name(stem.name + SUFFIXES[codec])
    target, valid = target.detach().float().cpu(), valid.cpu()
    try:
        check_target(name, target, valid)
        raw = _ENCODERS.get(name, _encode_plain)(target, valid, how)
    except ValueError as error:
        raise ValueError(f"{path} was not written: {error}") from None
    if codec in _LEVELS and not (raw.min() >= 0 and raw.max() <= _LEVELS[codec]):
        span = f"{float(raw.min()):g} to {float(raw.max()):g}"
        raise ValueError(f"{path}: {codec} holds 0 to {_LEVELS[codec]}, {name} needs {span}; change it")
    if codec == "png8":
        write_image(path, raw.round() / 255)
    else:
        write_map(path, raw)
    return path


def _one_channel(raw: Tensor, name: str) -> Tensor:
    if raw.shape[0] != 1:
        raise ValueError(f"a {name} has 1 channel, this has {raw.shape[0]}. Is it the colour preview?")
    return raw


def _decode_depth(raw: Tensor, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
    raw = _one_channel(raw, "depth map")
    if "scale" not in how and how.get("codec") in _WHOLE:
        raise ValueError("a depth stored as whole numbers needs 'scale' (metres per unit) in its descriptor")
    z = raw * float(how.get("scale", 1.0)) + float(how.get("offset", 0.0))
    kind = how.get("kind", "z")
    if kind == "euclidean":
        if camera is None:
            raise ValueError("a euclidean depth needs the camera's K in its row")
        z = z / torch.linalg.vector_norm(camera.rays(), dim=0, keepdim=True).float()
    elif kind == "disparity":
        z = _by_disparity(z, how, camera)
    elif kind != "z":
        raise ValueError(f"depth of the kind {kind!r} is not read; convert it to z, euclidean or disparity")
    unknown = matches(raw, how.get("invalid"))
    far = matches(raw, how.get("infinite", "inf"))
    if how.get("codec") not in _WHOLE:
        far |= raw == math.inf  # a float map says it so, whatever number an integer one would use
    far &= ~unknown
    least, most = how.get("valid_range") or (0.0, math.inf)
    valid = (z > float(least)) & (z < float(most)) & (z > 0) & ~unknown & ~far
    other = torch.where(z.isfinite(), z, 0.0) if how.get("keep_invalid") else torch.zeros_like(z)
    return torch.where(valid, z, torch.where(far, math.inf, other)), valid


def _by_disparity(pixels: Tensor, how: Descriptor, camera: Camera | None) -> Tensor:
    """Disparity in pixels to metres along z; where it is not positive, 0."""
    focal = how.get("focal", None if camera is None else camera.fx)
    if not how.get("baseline") or focal is None:
        raise ValueError("a disparity needs its 'baseline' (metres), and 'focal' (pixels) or the camera's K")
    return torch.where(pixels > 0, float(how["baseline"]) * float(focal) / pixels, 0.0)


def _encode_depth(z: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
    whole = how["codec"] in _LEVELS
    raw = (z - float(how.get("offset", 0.0))) / float(how.get("scale", 1.0))
    far = (z == math.inf) & ~valid
    top = how.get("infinite") if whole else math.inf
    if top is None and bool(far.any()):
        raise ValueError("this depth has sky (+inf), and its codec names no value for it; set 'infinite'")
    if whole:
        # At least 1, because 0 says "unknown"; below the value of the sky, because that says "sky".
        raw = raw.round().clamp(min=1)
        if top is not None and bool((raw[valid] >= top).any()):
            most = f"{float(z[valid].max()):g} m"
            raise ValueError(f"a depth of {most} does not fit the codec; mark it +inf, or change 'scale'")
    return torch.where(valid, raw, torch.where(far, float(top or 0), 0.0))


def stored_vectors(raw: Tensor, how: Descriptor) -> Tensor:
    """Stored normals 3 h w as vectors in the file's own frame, of the length they were stored with."""
    if raw.shape[0] != 3:
        raise ValueError(f"a map of normals has 3 channels, this has {raw.shape[0]}")
    if how.get("codec") == "png":
        raise ValueError("normals in a PNG need the 'codec' png8 or png16 in their descriptor")
    levels = _LEVELS.get(how.get("codec", ""))
    return raw if levels is None else raw / levels * 2 - 1


def _decode_normals(raw: Tensor, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
    if "frame" not in how:
        raise ValueError("normals need their 'frame' (RUB, LUB or RDF) in their descriptor")
    vectors = stored_vectors(raw, how)
    square = (vectors * vectors).sum(0, keepdim=True)
    # A zero vector is no direction; NaN and infinity do not compare as inside either.
    valid = (square > 0.25) & (square < math.inf) & ~matches(raw, how.get("invalid", "zero"))
    normals = unit(convert_frame(torch.where(valid, vectors, 0.0), how["frame"], "RUB"))
    if how.get("facing") == "camera":
        if camera is None:
            raise ValueError("normals to be turned to the camera need its K in their row")
        normals = torch.where(facing(normals, camera), normals, -normals)
    return normals, valid


def facing(normals: Tensor, camera: Camera | None) -> Tensor:
    """Where normals (3 h w, RUB) face the camera, bool 1 h w: against the pixel's ray, or the axis if unknown."""
    if camera is None:
        return normals[2:3] > 0
    rays = convert_frame(camera.rays(), "RDF", "RUB")
    return (normals * rays.to(normals)).sum(0, keepdim=True) < 0


def _encode_normals(normals: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
    vectors = torch.where(valid, convert_frame(normals, "RUB", how["frame"]), 0.0)
    levels = _LEVELS.get(how["codec"])
    if levels is None:
        # Half floats: 0.03 degrees at most, half the size.
        return vectors.half() if how["codec"] in ("npy", "npz") else vectors
    return torch.where(valid, ((vectors + 1) / 2 * levels).round(), 0.0)


def _decode_plain(raw: Tensor, how: Descriptor, camera: Camera | None) -> tuple[Tensor, Tensor]:
    value = raw * float(how.get("scale", 1.0)) + float(how.get("offset", 0.0))
    valid = value.isfinite().all(0, keepdim=True) & ~matches(raw, how.get("invalid"))
    return torch.where(valid, value, 0.0), valid


def _encode_mask(mask: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
    return encode_mask(mask, valid, float(_LEVELS.get(how["codec"], 255)), ignored(valid, how))


def _encode_plain(value: Tensor, valid: Tensor, how: Descriptor) -> Tensor:
    raw = (value - float(how.get("offset", 0.0))) / float(how.get("scale", 1.0))
    if how["codec"] not in _LEVELS:
        return torch.where(valid, raw, math.nan)
    return torch.where(valid, raw.round(), ignored(valid, {"ignore": how.get("invalid", [])}))


_DECODERS: dict[str, Callable[[Tensor, Descriptor, Camera | None], tuple[Tensor, Tensor]]] = {
    "depth": _decode_depth,
    "normals": _decode_normals,
}
_ENCODERS: dict[str, Callable[[Tensor, Tensor, Descriptor], Tensor]] = {
    "depth": _encode_depth,
    "normals": _encode_normals,
    "mask": _encode_mask,
    **dict.fromkeys(IDS, encode_ids),
}
