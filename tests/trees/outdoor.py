"""Virtual KITTI 2, KITTI's depth, ETH3D and Cityscapes' disparity: one street each, which looks like a room."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from trees.room import SIZE, camera, levels, photo, png, seen
from twofold.geometry import Camera

VKITTI = Camera(725.0087, 725.0087, 620.5, 187.0, 1242, 375)
DRIVE = "2011_09_26_drive_0002_sync"


def vkitti2(root: Path, folders: tuple[str, str] = ("vkitti_2.0.3_rgb", "vkitti_2.0.3_depth")) -> Path:
    """Two scenes, in weathers that are trained on and one that is not; the top is sky, one pixel is far."""
    z, _ = seen(camera())
    raw = levels(z, 0.01)
    raw[:3] = 65535
    raw[4, 4] = 65534
    for scene, variation, lens in (
        ("Scene01", "clone", "Camera_0"),
        ("Scene01", "fog", "Camera_0"),
        ("Scene20", "15-deg-left", "Camera_1"),
    ):
        frames = f"{scene}/{variation}/frames"
        photo(root / folders[0] / frames / "rgb" / lens / "rgb_00003.jpg")
        png(root / folders[1] / frames / "depth" / lens / "depth_00003.png", raw)
    return root


def kitti(root: Path, place: str = "", size: tuple[int, int] = (375, 1242)) -> Path:
    """One drive with two frames, one of them without truth, and Eigen's list of three columns."""
    depth = np.zeros(size, np.uint16)
    depth[200:, ::7] = 256 * 20
    depth[-1, 620] = 256 * 5 + 1
    image_path = root / "2011_09_26" / DRIVE / "image_02" / "data"
    truth = root / place / DRIVE / "proj_depth" / "groundtruth" / "image_02"
    for frame in ("0000000000", "0000000069"):
        photo(image_path / f"{frame}.png", size)
    png(truth / "0000000069.png", depth)
    rows = []
    for frame, known in (("0000000000", False), ("0000000069", True)):
        gt = f"{DRIVE}/proj_depth/groundtruth/image_02/{frame}.png" if known else "None"
        rows.append(f"2011_09_26/{DRIVE}/image_02/data/{frame}.png {gt} 721.5377\n")
    (root / "eigen_test_files_with_gt.txt").write_text("".join(rows))
    numbers = "7.215377e+02 0.0 6.095593e+02 4.485728e+01 0.0 7.215377e+02 1.728540e+02 2.163791e-01 0.0 0.0 1.0 0.0"
    calibration = f"calib_time: 09-Jan-2012 13:57:47\nP_rect_02: {numbers}\n"
    (root / "2011_09_26" / "calib_cam_to_cam.txt").write_text(calibration)
    return root


def eth3d(root: Path, marigold: bool = False) -> Path:
    """One scene with one photograph, whose depth file is called like it and has holes of infinity."""
    z, _ = seen(camera())
    z[:3] = np.inf
    if marigold:
        image_path = root / "rgb/office/images/dslr_images/DSC_0219.JPG"
        depth = root / "depth/office_dslr_depth/office/ground_truth_depth/dslr_images/DSC_0219.JPG"
    else:
        image_path = root / "office/images/dslr_images/DSC_0219.JPG"
        depth = root / "office/ground_truth_depth/dslr_images/DSC_0219.JPG"
    photo(image_path, format="JPEG")
    depth.parent.mkdir(parents=True)
    depth.write_bytes(z.astype("<f4").tobytes())
    return root


CITY = {
    "extrinsic": {
        "baseline": 0.209313,
        "pitch": 0.038,
        "roll": 0.0,
        "x": 1.7,
        "y": 0.1,
        "yaw": -0.0195,
        "z": 1.22,
    },
    "intrinsic": {"fx": 2262.52, "fy": 2265.3017905988554, "u0": 1096.98, "v0": 513.137},
}


def cityscapes(root: Path) -> Path:
    """One image of one city; 0 is no disparity, 1 is a disparity of nothing."""
    stem = "aachen_000000_000019"
    stored = np.full(SIZE, 1 + 256 * 30, np.uint16)
    stored[0, :3] = (0, 1, 257)
    for kind, suffix in (("leftImg8bit", ".png"), ("disparity", ".png"), ("camera", ".json")):
        path = root / kind / "train" / "aachen" / f"{stem}_{kind}{suffix}"
        path.parent.mkdir(parents=True)
        if kind == "leftImg8bit":
            photo(path)
        elif kind == "disparity":
            png(path, stored)
        else:
            path.write_text(json.dumps(CITY))
    return root
