"""ETH3D (Schöps et al. 2017), high-resolution multi-view: images of 24 megapixels with laser-scanned depth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from twofold.data.convert.converter import Converter
from twofold.data.convert.tree import Tree, read_list
from twofold.data.layout import FolderError, Row
from twofold.image.errors import ImageError, decoding
from twofold.image.stored import find_stored

TAR = "eth3d.tar"


def rows(root: Path, split: str) -> Iterator[Row]:
    """One row per image with depth, as the archives unpack or as Marigold packed them."""
    tree = Tree(root, TAR)
    for name, scene, depth in _triples(tree):
        shape = _size(tree, name)
        stored = find_stored(root / tree.path(depth))
        if stored.size != 4 * shape[0] * shape[1]:
            expected = f"{4 * shape[0] * shape[1]} for {shape[1]}x{shape[0]} floats"
            raise FolderError(f"{stored.name} has {stored.size} bytes, not {expected}; unpack it again")
        yield {
            "id": f"{scene}/{Path(name).stem}",
            "file_name": tree.path(name),
            "scene": scene,
            "size": shape,
            "targets": {"depth": {"path": tree.path(depth), "shape": shape}},
        }


def _triples(tree: Tree) -> Iterator[tuple[str, str, str]]:
    """(image, scene, depth): of the list, where it lies in the tree, else of all that have depth."""
    lines = read_list(tree.root, ("eth3d_filename_list.txt",), 2)
    if lines is not None:
        for name, depth in lines:
            yield str(name), str(name).split("/")[1], str(depth)
        return
    for name in tree.match("rgb/*/images/dslr_images/*.JPG"):
        scene, file = name.split("/")[1], name.rpartition("/")[2]
        yield name, scene, f"depth/{scene}_dslr_depth/{scene}/ground_truth_depth/dslr_images/{file}"
    for depth in tree.match("*/ground_truth_depth/dslr_images/*.JPG"):
        scene, file = depth.split("/")[0], depth.rpartition("/")[2]
        yield f"{scene}/images/dslr_images/{file}", scene, depth


def _size(tree: Tree, name: str) -> list[int]:
    """[height, width] of an image as its file has it, by its header."""
    try:
        with (
            decoding(str(tree.root / tree.path(name)), "unpack it again"),
            tree.open(name) as file,
            Image.open(file, formats=("JPEG",)) as image,
        ):
            return [image.height, image.width]
    except ImageError as error:
        raise FolderError(str(error)) from None


ETH3D = Converter(
    name="eth3d",
    title="ETH3D high-resolution multi-view, training, distorted DSLR images with depth",
    licence="CC BY-NC-SA 4.0 (not verified)",
    access="direct download, eth3d.net: *_dslr_jpg.7z and *_dslr_depth.7z; or Marigold's share, eth3d/eth3d.tar",
    splits=("train",),
    targets={"depth": {"codec": "raw_f32", "invalid": ["inf", "nan"], "unit": "m"}},
    rows=rows,
    header={"image": {"exif": "ignore"}, "eval": {"protocol": "depth/marigold-ls"}},
    notes="Depth files are called .JPG and are bare little-endian floats, 98 MB each; infinity is no data, not "
    "sky. Take the distorted images: the undistorted ones have another size. 454 images of 13 scenes.",
)
