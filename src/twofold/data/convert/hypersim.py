"""Hypersim (Roberts et al. 2021): 77,400 renderings of 461 indoor scenes, as its download script lays them out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, pinhole, read_table
from twofold.data.layout import FolderError, Row

SPLITS = "metadata_images_split_scene_v1.csv"

# The field of view is one for all cameras: 886.81 pixels of focal length, the middle at (511.5, 383.5).
K = pinhole(886.81, 886.81, 511.5, 383.5)

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
_MET: dict[str, Any] = {"masks": {"geometry": {**_HDF5, "invalid": [-1]}}}


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row a frame: those of the split's table, or ("all") every one that is there."""
    tree = Tree(root)
    for scene, camera, frame in _frames(tree, split):
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
            "size": [768, 1024],
            "targets": targets,
            "camera": {"K": K},
            "provenance": {"origin": "rendered"},
        }


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
            f"{table} does not exist; it says what {split!r} is. Get it, or convert the split 'all'"
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
        "depth": {**_HDF5, "kind": "euclidean", "unit": "m", **_MET},
        "normals": {**_HDF5, "frame": "RUB", "facing": "camera", "invalid": "zero", "unit": "vector", **_MET},
        "semantic": {**_HDF5, "label_offset": -1, "ignore": [-1]},
    },
    rows=rows,
    header={"image": {**_HDF5, "tone": "hypersim", **_MET}, "classes": list(NYU40)},
    notes="Pictures are linear light, tone-mapped when they are read. depth_meters is the distance from the "
    "camera, made z when it is read. Normals may be of any length, zero, or face away: they are made unit, left "
    "out, turned around. Some cameras are shifted, which one focal length does not say. The split needs "
    f"{SPLITS} in the tree; scenes that were not downloaded are left out. Published subsets are smaller: "
    "frames with NaN were dropped, depths beyond 65 m too.",
)
