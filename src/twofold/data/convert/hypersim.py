"""Hypersim (Roberts et al. 2021): 77,400 renderings of 461 indoor scenes, as its download script lays them out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, read_table
from twofold.data.layout import FolderError, Row
from twofold.geometry import Camera

SPLITS = "metadata_images_split_scene_v1.csv"

# The makers' table of cameras, which lies in their repository, not among the images.
CAMERAS = "metadata_camera_parameters.csv"
_PLACES = (CAMERAS, f"contrib/mikeroberts3000/{CAMERAS}")
_MATRIX = [[f"M_cam_from_uv_{row}{column}" for column in range(3)] for row in range(3)]
_SIZE = ("settings_output_img_height", "settings_output_img_width")
# A tilt below this, per pixel, is rounding of the table's numbers: less than 1e-6 of z at the edge.
_UPRIGHT = 1e-9

# Stored ids are 1 to 40; -1 is no label.
NYU40 = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes",
    "ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard",
    "person", "nightstand", "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture",
    "other prop",
)  # fmt: skip

_HDF5 = {"codec": "hdf5", "key": "dataset"}
# Where a ray met nothing, the renderer stored no entity.
_GEOMETRY_MASK: dict[str, Any] = {"masks": {"geometry": {**_HDF5, "invalid": [-1]}}}


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per frame: those of the split's table, or ("all") every one that is there."""
    tree = Tree(root)
    cameras: dict[str, tuple[list[list[float]], list[int]]] = {}
    for scene, camera, frame in _frames(tree, split):
        cameras = cameras or _cameras(root)
        if scene not in cameras:
            raise FolderError(f"{CAMERAS} has no camera of {scene}; fetch the whole table")
        matrix, size = cameras[scene]
        final = f"{scene}/images/scene_{camera}_final_hdf5/frame.{frame}"
        geometry = f"{scene}/images/scene_{camera}_geometry_hdf5/frame.{frame}"
        mask = {"geometry": {"path": f"{geometry}.render_entity_id.hdf5"}}
        targets: dict[str, Any] = {
            "depth": {"path": f"{geometry}.depth_meters.hdf5", "masks": mask},
            "normals": {"path": f"{geometry}.normal_cam.hdf5", "masks": mask},
        }
        if tree.has(f"{geometry}.semantic.hdf5"):
            targets["semantic"] = {"path": f"{geometry}.semantic.hdf5"}
        yield {
            "id": f"{scene}/{camera}/{frame}",
            "file_name": f"{final}.color.hdf5",
            "image": {"masks": mask},
            "scene": scene,
            "size": size,
            "targets": targets,
            "camera": {"K": matrix},
            "provenance": {"origin": "rendered"},
        }


def _cameras(root: Path) -> dict[str, tuple[list[list[float]], list[int]]]:
    """By scene, the intrinsic matrix K and [height, width].

    The table's M maps (u, v, 1) to a point p of the pixel's ray in the camera's frame (x right, y up, z to the viewer);
    u and v go from -1 to 1 between the image's edges, v upward. K is the inverse of the map from pixels to p in RDF, so
    that z = distance * (-p_z / |p|) (ml-hypersim, contrib/mikeroberts3000).
    """
    path = next((root / place for place in _PLACES if (root / place).is_file()), None)
    if path is None:
        raise FolderError(
            f"{root / CAMERAS} does not exist; scenes have cameras of their own, and without them depth is up to 18 % "
            f"off. Get it from github.com/apple/ml-hypersim ({_PLACES[1]})"
        )
    columns = ("scene_name", *_SIZE, *(name for row in _MATRIX for name in row))
    return {entry["scene_name"]: _camera(entry, path) for entry in read_table(path, columns)}


def _camera(entry: dict[str, str], path: Path) -> tuple[list[list[float]], list[int]]:
    where = f"{path}, {entry['scene_name']}"
    try:
        height, width = (int(float(entry[name])) for name in _SIZE)
        to_point = np.array([[float(entry[name]) for name in row] for row in _MATRIX])
        to_uv = np.array([[2 / width, 0, 1 / width - 1], [0, -2 / height, 1 - 1 / height], [0, 0, 1]])
        matrix = np.linalg.inv(np.diag([1.0, -1.0, -1.0]) @ to_point @ to_uv)
        matrix /= matrix[2, 2]
        if np.abs(matrix[2, :2]).max() < _UPRIGHT:
            matrix[2, :2] = matrix[0, 1] = matrix[1, 0] = 0.0
        camera = Camera.from_matrix(matrix.tolist(), width, height)
    except (ValueError, ZeroDivisionError, np.linalg.LinAlgError) as error:
        raise FolderError(f"{where} has no camera: {error}; fetch the table again") from None
    return camera.matrix().tolist(), [height, width]


def _frames(tree: Tree, split: str) -> Iterator[tuple[str, str, str]]:
    """(scene, camera, frame) of a split; scenes that were not downloaded are left out."""
    if split == "all":
        for name in tree.match("ai_*/images/scene_cam_*_final_hdf5/frame.*.color.hdf5"):
            scene, _, camera, file = name.split("/")
            yield scene, camera.removeprefix("scene_").removesuffix("_final_hdf5"), file.split(".")[1]
        return
    table = tree.root / SPLITS
    if not table.is_file():
        raise FolderError(
            f"{table} does not exist; it defines the split {split!r}. Download it, or convert the split 'all'"
        )
    columns = ("scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name")
    for entry in read_table(table, columns):
        public = entry["included_in_public_release"].strip().lower() == "true"
        here = entry["split_partition_name"].strip() == split
        if public and here and (tree.root / entry["scene_name"]).is_dir():
            yield entry["scene_name"], entry["camera_name"], f"{int(entry['frame_id']):04d}"


HYPERSIM = Converter(
    name="hypersim",
    title="Hypersim (ai_VVV_NNN/images/scene_cam_XX_{final,geometry}_hdf5)",
    licence="CC BY-SA 3.0",
    access="github.com/apple/ml-hypersim, its download script; 1.9 TB whole, single files can be fetched",
    splits=("train", "val", "test", "all"),
    targets={
        "depth": {**_HDF5, "kind": "euclidean", "unit": "m", **_GEOMETRY_MASK},
        "normals": {
            **_HDF5,
            "frame": "RUB",
            "facing": "camera",
            "invalid": "zero",
            "unit": "vector",
            **_GEOMETRY_MASK,
        },
        "semantic": {**_HDF5, "label_offset": -1, "ignore": [-1]},
    },
    rows=rows,
    version=2,
    header={"image": {**_HDF5, "tone": "hypersim", **_GEOMETRY_MASK}, "classes": list(NYU40)},
    notes="Images are linear light, tone-mapped when they are read. depth_meters is the distance from the "
    "camera, made z when it is read. Normals may be of any length, zero, or face away: they are made unit, left "
    f"out, turned around. Cameras are shifted and tilted scene by scene: {CAMERAS} of the makers' repository must lie "
    f"in the tree. A split needs {SPLITS} there too; scenes that were not downloaded are left out. Published subsets "
    "are smaller: frames with NaN were dropped, depths beyond 65 m too.",
)
