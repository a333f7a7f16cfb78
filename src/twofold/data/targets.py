"""One target of a row, from its files: raw numbers, what they mean, and the masks that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold.data.codecs import Descriptor, decode
from twofold.data.descriptors import merge_descriptors
from twofold.data.layout import FolderError, Row, resolve_path
from twofold.geometry import Camera
from twofold.image.maps import as_map, codec_of, read_stored
from twofold.image.raster_format import raster_format
from twofold.targets import target_spec
from twofold.targets.direction import stored_vectors
from twofold.targets.levels import validity_levels, value_list


def descriptor(header: Mapping[str, Any], row: Row, name: str) -> dict[str, Any]:
    """How the target `name` of a row is stored: the header's descriptor under the row's own entries."""
    return merge_descriptors(header.get("targets", {}).get(name, {}), row["targets"][name])


def read_values(root: Path, how: Descriptor, where: str) -> np.ndarray:
    """The array of a descriptor's file, in the type it was stored with. ImageError or FolderError naming it."""
    if "path" not in how:
        raise FolderError(
            f"{where}: a mask that the header names has no 'path' in this row; convert it again"
        )
    return read_stored(
        resolve_path(root, how["path"], where),
        codec=how.get("codec", ""),
        key=how.get("key", ""),
        index=how.get("index"),
        shape=how.get("shape"),
    )


def read_target(
    root: Path, name: str, how: Mapping[str, Any], camera: Camera | None, size: tuple[int, int], where: str
) -> tuple[Tensor, Tensor]:
    """The target `name` and where it holds: float32 c h w in its unit, bool 1 h w. Errors name the file.

    It must have the image's `size`; a depth must be metres (see `targets.depth_checks`).
    """
    array, spec = read_values(root, how, where), target_spec(name)
    path = root / how["path"]
    how: dict[str, Any] = {"codec": codec_of(how["path"]), **how}
    try:
        spec.check_array(array, how)
        raw = as_map(array, path)
        _check_camera(raw, how, camera)
        target, valid = decode(name, raw, how, camera, raster_format(path, array, how["codec"]))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        what = " ".join(str(error).split())
        raise FolderError(what if str(path) in what else f"{path}: {what}") from None
    if spec.channels and target.shape[0] != spec.channels:
        raise FolderError(
            f"{path}: {name} has {target.shape[0]} channels, not {spec.channels}; is it a preview?"
        )
    masks = [read_mask(root, m, target.shape[-2:], where) for m in how.get("masks", {}).values()]
    if masks:
        # A mask marks the sky as unknown too; without one, +inf stays: known to be far.
        known = torch.stack(masks).all(0)
        valid = valid & known
        target = torch.where(known if how.get("keep_invalid") else valid, target, 0.0)
    if tuple(target.shape[-2:]) != size:
        found, expected = "x".join(map(str, target.shape[-2:])), "x".join(map(str, size))
        raise FolderError(f"{where}: {name} is {found}, the image {expected}; make them one size ({path})")
    problem = spec.problem(target, valid, how, array)
    if problem:
        raise FolderError(f"{path}: {problem}")
    return target, valid


def read_label(path: Path, name: str, how: Mapping[str, Any] | None = None) -> tuple[Tensor, Tensor]:
    """A label file that no manifest names: (target, valid) as `read_target` gives them, with a descriptor or none.

    Without a `scale`, the largest level that the file's bits can hold stands for 1. FolderError naming the file.
    """
    stated: dict[str, Any] = {"codec": codec_of(path), **(how or {})}
    array = read_stored(path, codec=stated["codec"])
    try:
        return decode(name, as_map(array, path), stated, None, raster_format(path, array, stated["codec"]))
    except ValueError as error:
        raise FolderError(f"{path}: {error}") from None


def _check_camera(raw: Tensor, how: Descriptor, camera: Camera | None) -> None:
    """ValueError when a map that is read by the camera's rays has another size than the image's camera."""
    rays = how.get("kind") == "euclidean" or how.get("facing") == "camera"
    if rays and camera is not None and raw.shape[-2:] != (camera.height, camera.width):
        found = f"{raw.shape[-2]}x{raw.shape[-1]}"
        raise ValueError(f"it is {found}, the image {camera.height}x{camera.width}; make them one size")


def read_mask(root: Path, how: Descriptor, size: tuple[int, ...], where: str) -> Tensor:
    """The valid pixels of a target by a mask's file: bool 1 h w.

    `valid` (stored values, or "nonzero") or `invalid` (stored values) is required; FolderError otherwise, and
    when its size is not `size`.
    """
    if ("valid" in how) == ("invalid" in how):
        raise FolderError(
            f"{where}: the mask {how.get('path')!r} must say its 'valid' or its 'invalid' values"
        )
    array = read_values(root, how, where)
    path = root / how["path"]
    try:
        raw = validity_levels(as_map(array, path), raster_format(path, array, how.get("codec", "")))
    except ValueError as error:
        raise FolderError(f"{path}: {error}") from None
    if raw.shape[0] != 1 or raw.shape[-2:] != tuple(size):
        found, expected = "x".join(map(str, raw.shape)), "x".join(map(str, (1, *size)))
        raise FolderError(f"{root / how['path']}: a mask of {found} for a target of {expected}; is it whole?")
    stated = how.get("valid", how.get("invalid"))
    if stated == "nonzero":
        found = raw != 0
    else:
        try:
            values = [float(v) for v in (stated if isinstance(stated, list | tuple) else [stated])]
        except (TypeError, ValueError):
            raise FolderError(f"{where}: the mask {how['path']!r} names the values {stated!r}") from None
        found = torch.isin(raw, torch.tensor(values))
        if "valid" in how and not bool(found.any()) and len(raw.unique()) > 1:
            raise FolderError(
                f"{path} has {value_list(raw)}, of which its 'valid' names none; was it stored in other levels? "
                "Fix 'valid' in its descriptor"
            )
    return found if "valid" in how else ~found


def stored_lengths(root: Path, how: Descriptor, where: str) -> Tensor:
    """The length that each normal was stored with: float32 1 h w."""
    raw = as_map(read_values(root, how, where), root / how["path"])
    vectors = stored_vectors(raw, {"codec": codec_of(how["path"]), **how})
    return torch.linalg.vector_norm(vectors, dim=0, keepdim=True)
