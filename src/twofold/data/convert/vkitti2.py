"""Virtual KITTI 2 (Cabon et al. 2020): five drives, rendered in ten variations, by two cameras."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, intrinsic_matrix, replace_suffix
from twofold.data.layout import FolderError, Row

# The images of 1242x375 are all of one camera, up to its place.
K = intrinsic_matrix(725.0087, 725.0087, 620.5, 187.0)

# Marigold trained on four drives without fog, rain and the cameras turned by 30 degrees.
_CLEAR = ("clone", "morning", "overcast", "sunset", "15-deg-left", "15-deg-right")
_TRAIN = ("Scene02", "Scene06", "Scene18", "Scene20")


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per frame; the archives may have been unpacked side by side, or into each other."""
    tree = Tree(root)
    image_dir = _folder(root, "rgb")
    depths = _folder(root, "depth")
    for name in tree.match(f"{image_dir}Scene*/*/frames/rgb/Camera_*/rgb_*.jpg"):
        scene, variation, _, _, camera, file = name.removeprefix(image_dir).split("/")
        if split != "all":
            expected = _TRAIN if split == "marigold-train" else ("Scene01",)
            if scene not in expected or variation not in _CLEAR:
                continue
        frame = replace_suffix(file, ".jpg", "").removeprefix("rgb_")
        depth = f"{depths}{scene}/{variation}/frames/depth/{camera}/depth_{frame}.png"
        yield {
            "id": f"{scene}/{variation}/{camera}/{frame}",
            "file_name": name,
            "scene": scene,
            "targets": {"depth": {"path": tree.path(depth)}},
            "camera": {"K": K},
            "provenance": {"origin": "rendered"},
        }


def _folder(root: Path, kind: str) -> str:
    """Where the scenes of a kind lie: in the archive's own folder, in one called by its kind, or in the root."""
    for folder in (f"vkitti_2.0.3_{kind}/", f"{kind}/", ""):
        if next((root / folder).glob(f"Scene*/*/frames/{kind}"), None) is not None:
            return folder
    raise FolderError(f"{root} has no Scene*/*/frames/{kind}; unpack vkitti_2.0.3_{kind}.tar there")


VKITTI2 = Converter(
    name="vkitti2",
    title="Virtual KITTI 2.0.3 (vkitti_2.0.3_rgb, vkitti_2.0.3_depth)",
    licence="CC BY-NC-SA 3.0 (not verified)",
    access="direct download, europe.naverlabs.com: vkitti_2.0.3_rgb.tar, vkitti_2.0.3_depth.tar",
    splits=("marigold-train", "marigold-val", "all"),
    targets={"depth": {"codec": "png16", "scale": 0.01, "infinite": 65535, "unit": "m"}},
    rows=rows,
    notes="65535 (655.35 m) is the sky: read as +inf, known to be far, not valid. Everybody takes another subset: "
    "marigold-train is Scene02, 06, 18, 20 without fog, rain and 30 degrees (20,148 images), marigold-val the "
    "same of Scene01 (5,364). Training often cuts to 352x1216 and masks beyond 80 m. No normals are shipped.",
)
