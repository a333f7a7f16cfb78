"""Reading of one target of a row from its files, and of its masks."""

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
    """Descriptor of the target `name` of a row: the header's, updated with the row's entries."""
    return merge_descriptors(header.get("targets", {}).get(name, {}), row["targets"][name])


def read_values(root: Path, how: Descriptor, where: str) -> np.ndarray:
    """The array of a descriptor's file in its stored type. ImageError or FolderError with the file."""
    if "path" not in how:
        raise FolderError(
            f"{where}: a mask of the header has no 'path' in this row; convert the data set again"
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
    """Read the target `name` and its valid mask: float32 c h w in its unit, bool 1 h w. Errors name the file.

    FolderError when it does not have the image's `size`, or a depth is not in metres (see `targets.depth_checks`).
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
            f"{path}: {name} has {target.shape[0]} channels, not {spec.channels}; is it a preview image?"
        )
    masks = [read_mask(root, m, target.shape[-2:], where) for m in how.get("masks", {}).values()]
    if masks:
        # A mask also invalidates the sky; without one, +inf is kept.
        known = torch.stack(masks).all(0)
        valid = valid & known
        target = torch.where(known if how.get("keep_invalid") else valid, target, 0.0)
    if tuple(target.shape[-2:]) != size:
        found, expected = "x".join(map(str, target.shape[-2:])), "x".join(map(str, size))
        raise FolderError(
            f"{where}: {name} is {found}, the image {expected}; resize one to the other ({path})"
        )
    problem = spec.problem(target, valid, how, array)
    if problem:
        raise FolderError(f"{path}: {problem}")
    return target, valid


def read_label(path: Path, name: str, how: Mapping[str, Any] | None = None) -> tuple[Tensor, Tensor]:
    """Read a label file without a manifest: (target, valid) as from `read_target`, with an optional descriptor.

    Without a `scale`, the largest level of the file's bits is 1. FolderError with the file.
    """
    stated: dict[str, Any] = {"codec": codec_of(path), **(how or {})}
    array = read_stored(path, codec=stated["codec"])
    try:
        return decode(name, as_map(array, path), stated, None, raster_format(path, array, stated["codec"]))
    except ValueError as error:
        raise FolderError(f"{path}: {error}") from None


def _check_camera(raw: Tensor, how: Descriptor, camera: Camera | None) -> None:
    """ValueError when decoding needs the camera's rays and map and camera differ in size."""
    rays = how.get("kind") == "euclidean" or how.get("facing") == "camera"
    if rays and camera is not None and raw.shape[-2:] != (camera.height, camera.width):
        found = f"{raw.shape[-2]}x{raw.shape[-1]}"
        raise ValueError(f"it is {found}, the image {camera.height}x{camera.width}; resize one to the other")


def read_mask(root: Path, how: Descriptor, size: tuple[int, ...], where: str) -> Tensor:
    """Read a mask file of a target: bool 1 h w, True where valid.

    The descriptor has either `valid` (stored values, or "nonzero") or `invalid` (stored values). FolderError otherwise,
    or when the mask does not have `size`.
    """
    if ("valid" in how) == ("invalid" in how):
        raise FolderError(
            f"{where}: the mask {how.get('path')!r} needs either 'valid' or 'invalid' in its descriptor"
        )
    array = read_values(root, how, where)
    path = root / how["path"]
    try:
        raw = validity_levels(as_map(array, path), raster_format(path, array, how.get("codec", "")))
    except ValueError as error:
        raise FolderError(f"{path}: {error}") from None
    if raw.shape[0] != 1 or raw.shape[-2:] != tuple(size):
        found, expected = "x".join(map(str, raw.shape)), "x".join(map(str, (1, *size)))
        raise FolderError(
            f"{root / how['path']}: the mask is {found}, its target {expected}; resize one to the other"
        )
    stated = how.get("valid", how.get("invalid"))
    if stated == "nonzero":
        found = raw != 0
    else:
        try:
            values = [float(v) for v in (stated if isinstance(stated, list | tuple) else [stated])]
        except (TypeError, ValueError):
            raise FolderError(
                f"{where}: the mask {how['path']!r} has the values {stated!r}; expected numbers"
            ) from None
        found = torch.isin(raw, torch.tensor(values))
        if "valid" in how and not bool(found.any()) and len(raw.unique()) > 1:
            raise FolderError(
                f"{path} has {value_list(raw)}, and none of them is in its 'valid'; fix 'valid' in its descriptor"
            )
    return found if "valid" in how else ~found


def stored_lengths(root: Path, how: Descriptor, where: str) -> Tensor:
    """The stored length of each normal: float32 1 h w."""
    raw = as_map(read_values(root, how, where), root / how["path"])
    vectors = stored_vectors(raw, {"codec": codec_of(how["path"]), **how})
    return torch.linalg.vector_norm(vectors, dim=0, keepdim=True)
