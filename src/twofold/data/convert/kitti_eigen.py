"""KITTI's depth (Geiger et al. 2012; truth of Uhrig et al. 2017) by the split of Eigen et al. 2014."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, intrinsic_matrix, read_list
from twofold.data.layout import FolderError, Row

# Where people unpack the annotated depth: beside the drives, or as its archive has it.
_PLACES = ("", "gt_depth/", "train/", "val/", "data_depth_annotated/train/", "data_depth_annotated/val/")
TAR = "kitti_eigen_split_test.tar"


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image with truth: of the split's list, or ("all") of every annotated depth of the left camera."""
    tree = Tree(root, TAR, unless="2011_09_26")
    for name, depth in _pairs(tree, split):
        parts = name.split("/")
        if len(parts) != 5 or not parts[1].endswith("_sync"):
            raise FolderError(f"{root / name} is not DATE/DRIVE_sync/image_02/data/FRAME.png; fix the list")
        day, drive, camera, _, file = parts
        yield {
            "id": f"{drive}/{camera}/{Path(file).stem}",
            "file_name": tree.path(name),
            "scene": drive,
            "targets": {"depth": {"path": tree.path(depth)}},
            "camera": {"K": _camera(tree, day, camera)},
        }


def _pairs(tree: Tree, split: str) -> Iterator[tuple[str, str]]:
    """(image, depth) of a split, those without truth left out."""
    if split == "all":
        for place in _PLACES:
            for depth in tree.match(f"{place}*_sync/proj_depth/groundtruth/image_02/*.png"):
                drive, file = depth.removeprefix(place).split("/")[0], depth.rpartition("/")[2]
                image = f"{drive[:10]}/{drive}/image_02/data/{file}"
                if tree.has(image):
                    yield image, depth
        return
    name = f"eigen_{split}_files_with_gt.txt"
    lines = read_list(tree.root, (name, f"data_split/kitti/{name}", f"kitti/{name}"), 3)
    if lines is None:
        raise FolderError(f"{tree.root / name} does not exist; it is the list of the split. Or convert 'all'")
    for image, depth, _ in lines:
        if image is not None and depth is not None:
            found = next((f"{p}{depth}" for p in _PLACES if tree.has(f"{p}{depth}")), depth)
            yield image, found


def _camera(tree: Tree, day: str, camera: str) -> list[list[float]] | None:
    """The rectified camera of a day, where its calibration lies in the tree."""
    name = f"{day}/calib_cam_to_cam.txt"
    if not tree.has(name):
        return None
    with tree.open(name) as file:
        lines = dict(line.split(":", 1) for line in file.read().decode("utf-8").splitlines() if ":" in line)
    key = f"P_rect_{camera.removeprefix('image_')}"
    try:
        numbers = [float(n) for n in lines[key].split()]
        fx, cx, fy, cy = numbers[0], numbers[2], numbers[5], numbers[6]
    except (KeyError, ValueError, IndexError):
        raise FolderError(f"{tree.root / name} has no {key}; copy it again") from None
    return intrinsic_matrix(fx, fy, cx, cy)


KITTI_EIGEN = Converter(
    name="kitti-eigen",
    title="KITTI raw drives with the annotated depth, Eigen's split",
    licence="CC BY-NC-SA 3.0 (not verified)",
    access="register at cvlibs.net/datasets/kitti: the raw drives and data_depth_annotated.zip; or Marigold's "
    "share, kitti/kitti_eigen_split_test.tar",
    splits=("train", "test", "all"),
    targets={"depth": {"codec": "png16", "scale": 1 / 256, "invalid": [0], "unit": "m"}},
    rows=rows,
    header={"crop": "kitti-benchmark", "eval": {"protocol": "depth/marigold-ls"}},
    notes="Train and test need Eigen's list, eigen_test_files_with_gt.txt, in the tree: 697 lines, of which 45 "
    "have no truth ('None') and are left out, so 652. Images are of several sizes and are cut to 352x1216. "
    "Truth is sparse. Scores are taken within Eigen's crop (Marigold) or Garg's (most others): both are called "
    "'KITTI Eigen split'.",
)
