"""Converters of depth and normals, each on a small tree in the native format: read back, and damaged trees refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trees import indoor, outdoor, room
from twofold.data import Folder, FolderError, validate
from twofold.data.convert import CONVERTERS, Converter, convert
from twofold.geometry import Camera, convert_frame, normals_from_depth, unproject
from twofold.sample import Provenance


def convert_tree(name: str, tree: Path, split: str, **options) -> Path:
    return convert(CONVERTERS[name], tree, split, tree.parent / f"{name}-{split}", **options)


def converted(name: str, tree: Path, split: str, **options) -> Folder:
    """The converted folder, in which `validate` finds no problem."""
    out = convert_tree(name, tree, split, **options)
    report = validate(out)
    assert report.ok, report
    return Folder(out)


def near(found: torch.Tensor, expected: np.ndarray, off: float) -> None:
    """Equal up to `off` wherever `expected` is finite."""
    known = np.isfinite(expected)
    assert np.abs(found.numpy() - expected)[known].max() <= off


def degrees(found: torch.Tensor, valid: torch.Tensor, expected: np.ndarray) -> float:
    """The largest angle between normals in RUB (3 h w) and the expected ones (h w 3, RDF), where valid."""
    truth = torch.from_numpy(room.framed(expected, "RUB")).permute(2, 0, 1)
    cosine = (found.double() * truth).sum(0)[valid[0]].clamp(-1, 1)
    return float(torch.rad2deg(torch.acos(cosine)).max())


# ---- Hypersim


@pytest.fixture(scope="module")
def hypersim(tmp_path_factory) -> Path:
    return indoor.hypersim(tmp_path_factory.mktemp("native") / "hypersim")


def test_hypersim_distance_becomes_z_and_its_radiance_is_tone_mapped(hypersim, tmp_path):
    folder = Folder(convert(CONVERTERS["hypersim"], hypersim, "train", tmp_path / "out"))
    # One of the two frames is public, and the tree does not contain the other scene of the table.
    assert folder.ids == ("ai_001_001/cam_00/0000",)
    sample = folder[0]
    assert sample.origin == Provenance("rendered") and isinstance(sample.camera, Camera)
    z, normals = room.seen(indoor.HYPERSIM)
    depth, valid = sample.targets["depth"], sample.valid["depth"]
    unknown = torch.zeros_like(valid)
    unknown[:, -3:], unknown[:, 5, 5] = True, True  # no entity; NaN
    assert torch.equal(valid, ~unknown) and (depth[unknown] == 0).all()
    near(depth[0], np.where(unknown[0].numpy(), np.nan, z), 1e-5 * 4)
    # In closed form: distance * f / sqrt(x^2 + y^2 + f^2).
    row, column = 100, 900
    ray = math.sqrt((column - 511.5) ** 2 + (row - 383.5) ** 2 + 886.81**2)
    distance = z[row, column] * ray / 886.81
    assert depth[0, row, column] == pytest.approx(distance * 886.81 / ray, rel=1e-6)
    # Normals: unit length, facing the camera, invalid where they are zero.
    assert degrees(sample.targets["normals"], sample.valid["normals"], normals) < 0.1
    assert not sample.valid["normals"][:, :2].any() and sample.valid["normals"][:, 2:-3].all()
    # NYU40: 2 is a floor, with the id 1; -1 is no label.
    labels = sample.targets["semantic"][0]
    assert labels[0, 1:4].tolist() == [0, 39, 1] and not sample.valid["semantic"][0, 0, 0]
    assert folder.header["classes"][int(labels[5, 5])] == "floor"
    # Exposure: of the pixels with geometry, brightness at the 90th percentile becomes 0.8.
    brightness = np.linspace(0, 2, 1024).astype(np.float16) * (0.3 + 0.59 / 2 + 0.11 / 4)
    where = int(np.argmin(np.abs(brightness - np.percentile(brightness, 90))))
    linear = sample.image[:, 10, where].double() ** 2.2
    weighted = float((linear * torch.tensor([0.3, 0.59, 0.11], dtype=torch.float64)).sum())
    assert weighted ** (1 / 2.2) == pytest.approx(0.8, abs=2e-3)
    assert sample.image.min() >= 0 and sample.image.max() <= 1
    report = validate(folder.root)
    assert len(report.problems) == 1 and "lengths from 0.7" in report.problems[0], report


def test_hypersim_splits_need_the_table_of_splits(hypersim, tmp_path):
    assert len(Folder(convert(CONVERTERS["hypersim"], hypersim, "all", tmp_path / "all"))) == 2
    with pytest.raises(FolderError, match="no images"):
        convert(CONVERTERS["hypersim"], hypersim, "test", tmp_path / "test")
    with pytest.raises(FolderError, match="has no split 'trian'"):
        convert(CONVERTERS["hypersim"], hypersim, "trian", tmp_path / "out")
    bare = tmp_path / "bare" / "ai_001_001"
    bare.mkdir(parents=True)
    with pytest.raises(FolderError, match=r"metadata_images_split_scene_v1\.csv does not exist"):
        convert(CONVERTERS["hypersim"], bare.parent, "val", tmp_path / "val")


# M_cam_from_uv of cameras that are upright, wider and shifted, tilted and shifted, or turned sideways.
UPRIGHT = np.diag([0.5773502691896258, 0.4330127018922193, -1.0])
HYPERSIM_CAMERAS = {
    "ai_001_001": UPRIGHT,
    "ai_001_002": np.array([[0.65, 0, 0.05], [0, 0.48, -0.08], [0, 0, -1]]),
    "ai_001_003": np.array([[0.57, 0, 0], [0, 0.43, 0.1], [0, 0.12, -0.97]]),
    "ai_001_004": np.array([[0.57, 0.01, 0.02], [0, 0.43, 0], [-0.15, 0.05, -1.02]]),
}


@dataclass(frozen=True)
class Table:
    """The rays of a camera of Hypersim's table, by Hypersim's formula: p = M (u, v, 1), v upward."""

    matrix: np.ndarray
    size: tuple[int, int]

    def points(self) -> np.ndarray:
        height, width = self.size
        u = np.linspace(-1 + 1 / width, 1 - 1 / width, width)
        v = np.linspace(-1 + 1 / height, 1 - 1 / height, height)[::-1]
        grid = np.stack([*np.meshgrid(u, v), np.ones(self.size)])
        return np.einsum("ij,jhw->ihw", self.matrix, grid)

    def rays(self) -> torch.Tensor:
        x, y, z = self.points()
        return torch.from_numpy(np.stack([x / -z, -y / -z, np.ones_like(z)]))


def test_each_hypersim_scene_is_converted_with_its_own_camera(tmp_path):
    size, tree = (60, 80), tmp_path / "native"
    tree.mkdir()
    indoor.cameras(tree, HYPERSIM_CAMERAS, size)
    for scene, matrix in HYPERSIM_CAMERAS.items():
        view = Table(matrix, size)
        z, normals = room.seen(view)  # ty: ignore[invalid-argument-type]
        p = view.points()
        # z = distance * (-p_z / |p|), inverted.
        distance = z / (-p[2] / np.linalg.norm(p, axis=0))
        images = tree / scene / "images"
        indoor.hdf5(images / "scene_cam_00_final_hdf5/frame.0000.color.hdf5", np.ones((*size, 3), np.float16))
        geometry = images / "scene_cam_00_geometry_hdf5"
        indoor.hdf5(geometry / "frame.0000.depth_meters.hdf5", distance.astype(np.float32))
        away = room.framed(normals, "RUB") * np.where(np.arange(80) % 2, 1, -1)[None, :, None]
        indoor.hdf5(geometry / "frame.0000.normal_cam.hdf5", away.astype(np.float32))
        indoor.hdf5(geometry / "frame.0000.render_entity_id.hdf5", np.ones(size, np.int32))
    folder = Folder(convert_tree("hypersim", tree, "all"))
    assert len(folder) == len(HYPERSIM_CAMERAS)
    for sample, matrix in zip(folder, HYPERSIM_CAMERAS.values(), strict=True):
        z, normals = room.seen(Table(matrix, size))  # ty: ignore[invalid-argument-type]
        depth, camera = sample.targets["depth"], sample.camera
        assert sample.valid["depth"].all() and isinstance(camera, Camera)
        assert float((depth[0].double() / torch.from_numpy(z) - 1).abs().max()) < 1e-5
        # Planar walls stay planar: every point lies on the wall of its pixel.
        points = unproject(depth.double(), camera)
        expected = Table(matrix, size).rays() * torch.from_numpy(z)
        assert float((points - expected).abs().max()) < 1e-4
        assert degrees(sample.targets["normals"], sample.valid["normals"], normals) < 0.1
        found, known = normals_from_depth(depth.double(), camera)
        right = torch.from_numpy(room.framed(normals, "RUB")).permute(2, 0, 1)
        agree = (found * right).sum(0)[known[0]] > 0.999
        assert agree.float().mean() > 0.9  # except at the edges between walls
        # A single camera for all scenes would be wrong.
        one = torch.linalg.vector_norm(Table(UPRIGHT, size).rays(), dim=0)
        own = torch.linalg.vector_norm(Table(matrix, size).rays(), dim=0)
        assert (float((own / one - 1).abs().max()) > 0.01) == (matrix is not UPRIGHT)


def test_hypersim_needs_the_table_of_cameras(hypersim, tmp_path):
    tree = Path(shutil.copytree(hypersim, tmp_path / "tree"))
    table = tree / "metadata_camera_parameters.csv"
    text = table.read_text()
    (tree / "contrib/mikeroberts3000").mkdir(parents=True)
    table.rename(tree / "contrib/mikeroberts3000" / table.name)
    assert Folder(convert(CONVERTERS["hypersim"], tree, "train", tmp_path / "out")).rows
    for broken, words in (
        (None, r"metadata_camera_parameters\.csv does not exist.*18 %.*Get it from"),
        (text.replace("ai_001_001", "ai_009_009"), "has no camera of ai_001_001"),
        (text.replace("-1.0", "0.0"), "has no camera"),
        (text.replace("768.0", "high"), "has no camera"),
        ("scene_name\nai_001_001\n", "no column 'settings_output_img_height'"),
    ):
        shutil.rmtree(tree / "contrib", ignore_errors=True)
        if broken is not None:
            table.write_text(broken)
        with pytest.raises(FolderError, match=words):
            convert(CONVERTERS["hypersim"], tree, "train", tmp_path / "again")


def test_far_depths_of_hypersim_do_not_overflow(tmp_path):
    """70 m as 16-bit millimetres would overflow to 4.464 m; the native floats hold 70 m."""
    tree = indoor.hypersim(tmp_path / "native")
    path = next(tree.rglob("frame.0000.depth_meters.hdf5"))
    indoor.hdf5(path, np.full((768, 1024), 70.0, np.float32))
    sample = Folder(convert_tree("hypersim", tree, "train"), targets=("depth",))[0]
    assert sample.targets["depth"][0, 383, 511] == pytest.approx(70.0, abs=1e-3)


# ---- indoors


@pytest.mark.parametrize("tar", [False, True])
def test_nyuv2_of_marigold_reads_raw_depth_of_a_list_or_of_all(tar, tmp_path):
    tree = indoor.nyuv2_marigold(tmp_path / "nyu")
    if tar:
        indoor.packed(tree, "nyu_labeled_extracted.tar")
    folder = converted("nyuv2-marigold", tree, "test")
    assert folder.ids == ("test/office_0005/0009",)
    z, _ = room.seen(room.camera(), 0.5)
    sample = folder[0]
    assert not sample.valid["depth"][:, :4, :4].any() and sample.valid["depth"].sum() == 24 * 32 - 16
    near(sample.targets["depth"][0, 4:], z[4:], 0.0005 + 1e-6)
    assert torch.allclose(sample.image[:, 1, 1], torch.tensor([23.0, 12, 4]) / 255)
    filled = converted("nyuv2-marigold-filled", tree, "test")
    assert filled[0].valid["depth"].all()
    (tree / "filename_list_test.txt").unlink()
    assert len(converted("nyuv2-marigold", tree, "test")) == 2
    assert len(converted("nyuv2-marigold", tree, "train")) == 1


def test_nyuv2_mat_is_read_from_its_single_file(tmp_path):
    tree = indoor.nyuv2_mat(tmp_path / "nyu")
    assert converted("nyuv2-mat", tree, "train").ids == ("000000", "000002")
    folder = converted("nyuv2-mat", tree, "test")
    z, _ = room.seen(room.camera(), 1)
    depth, valid = folder[0].targets["depth"][0], folder[0].valid["depth"][0]
    assert folder.ids == ("000001",) and not valid[2, 3] and valid.sum() == 24 * 32 - 1
    near(torch.where(valid, depth, math.nan), np.where(valid, z, np.nan), 1e-6)
    images = np.random.default_rng(0).integers(0, 256, (*room.SIZE, 3, 3), dtype=np.uint8)
    assert torch.allclose(folder[0].image, torch.from_numpy(images[..., 1]).permute(2, 0, 1) / 255)
    (tree / "splits.mat").unlink()
    assert len(converted("nyuv2-mat", tree, "all")) == 3
    with pytest.raises(FolderError, match=r"splits\.mat does not exist"):
        convert_tree("nyuv2-mat", tree, "test")
    whole = (tree / "nyu_depth_v2_labeled.mat").read_bytes()
    (tree / "nyu_depth_v2_labeled.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FolderError, match=r"nyu_depth_v2_labeled\.mat is damaged or cut short"):
        convert_tree("nyuv2-mat", tree, "all")


@pytest.mark.parametrize("captions", [True, False])
def test_nyuv2_bae_pairs_files_by_name(captions, tmp_path):
    tree = indoor.nyuv2_bae(tmp_path / "nyu", captions)
    folder = converted("nyuv2-bae", tree, "test")
    assert folder.ids == ("test/000000", "test/000007", "test/001448")
    for sample in folder:
        stem = str(sample.id).split("/")[1]
        assert sample.caption == (f"a room called {stem}" if captions else "")
        _, normals = room.seen(room.camera(), int(stem) / 1000)
        assert degrees(sample.targets["normals"], sample.valid["normals"], normals) < 0.5
        assert not sample.valid["normals"][:, :3].any() and sample.valid["normals"][:, 3:].all()


@pytest.mark.parametrize(("name", "off"), [("scannet", 0.0005), ("ibims", 50 / 65535 / 2)])
def test_depth_in_whole_numbers_becomes_metres(name, off, tmp_path):
    tree = getattr(indoor, name)(tmp_path / name)
    folder = converted({"scannet": "scannet-marigold", "ibims": "ibims1"}[name], tree, "test")
    z, _ = room.seen(room.camera())
    assert len(folder) == 2
    near(folder[1].targets["depth"][0, :, 2:], z[:, 2:], off + 1e-6)
    # iBims' two masks hide a column each; a *positive* mask_invalid means valid.
    valid = folder[1].valid["depth"][0]
    assert valid[:, 2:].all() and bool(valid[:, :2].any()) == (name == "scannet")


@pytest.mark.parametrize("frame", ["LUB", "RUB", "RDF"])
def test_framenet_frame_is_inferred_from_floors_and_walls(tmp_path, frame):
    """The normals that are read do not depend on the stored frame."""
    folder = converted("scannet-framenet", indoor.framenet(tmp_path / "scannet-frames", frame), "train")
    assert folder.ids == ("scene0000_00/frame-000010", "scene0706_01/frame-000010")
    assert folder.rows[0]["targets"]["normals"]["frame"] == frame
    _, expected = room.seen(room.camera())
    sample = folder[0]
    known = sample.valid["normals"][0]
    assert not known[:2].any() and known[2:].all()
    expected = convert_frame(torch.from_numpy(expected).permute(2, 0, 1), "RDF", "RUB").float()
    torch.testing.assert_close(sample.targets["normals"][:, known], expected[:, known], rtol=0, atol=0.01)


def test_framenet_splits_and_errors(tmp_path):
    tree = indoor.framenet(tmp_path / "scannet-frames")
    assert converted("scannet-framenet", tree, "test").ids == ("scene0707_00/frame-000010",)
    (tree / "test.txt").write_text("scene0000_00\n")
    listed = convert(CONVERTERS["scannet-framenet"], tree, "test", tmp_path / "listed")
    assert Folder(listed).ids == ("scene0000_00/frame-000010",)
    (tree / "scene0000_00" / "frame-000010-orient-mask.png").unlink()
    with pytest.raises(ValueError, match=r"orient-mask\.png does not exist"):
        convert(CONVERTERS["scannet-framenet"], tree, "train", tmp_path / "broken")
    flat = np.full((*room.SIZE, 3), 200, dtype=np.uint8)
    for path in tree.rglob("*-normal.png"):
        room.png(path, flat)
    with pytest.raises(ValueError, match=r"no normal .* is known|frame of the normals is not clear"):
        convert(CONVERTERS["scannet-framenet"], tree, "train", tmp_path / "flat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="of its split train"):
        convert(CONVERTERS["scannet-framenet"], tmp_path / "empty", "train", tmp_path / "none")


def test_scannet_list_selects_and_orders_the_images(tmp_path):
    tree = indoor.scannet(tmp_path / "scannet")
    line = "scene0678_01/color/001300.jpg scene0678_01/depth/001300.png\n"
    (tree / "scannet_val_sampled_list_800_1.txt").write_text(line)
    assert converted("scannet-marigold", tree, "test").ids == ("scene0678_01/001300",)


@pytest.mark.parametrize("within", ["", "val"])
def test_diode_depth_is_valid_where_the_mask_is_one(within, tmp_path):
    tree = indoor.diode(tmp_path / "diode", within)
    folder = converted("diode", tree, "val")
    assert len(folder) == 2 and len(converted("diode", tree, "val-outdoor")) == 1
    z, _ = room.seen(room.camera())
    depth, valid = folder[0].targets["depth"], folder[0].valid["depth"]
    assert not valid[:, :5].any() and (depth[:, :5] == 0).all() and valid[:, 5:].all()
    near(depth[0, 5:], z[5:], 1e-6)


@pytest.mark.parametrize("place", indoor.TASKONOMY)
def test_taskonomy_depth_of_65535_is_invalid(place, tmp_path):
    tree = indoor.taskonomy(tmp_path / "tasks", place)
    folder = converted("taskonomy", tree, "val")
    assert folder.ids == ("beechwood/point_3_view_12",) and len(converted("taskonomy", tree, "all")) == 2
    depth, valid = folder[0].targets["depth"][0], folder[0].valid["depth"][0]
    # 65535 is missing data, not a depth of 65535 / 512 = 128 m.
    assert not valid[2, 2] and depth[2, 2] == 0 and valid.sum() == 24 * 32 - 1
    z, _ = room.seen(room.camera())
    near(torch.where(valid, depth, math.nan), np.where(valid, z, np.nan), 0.5 / 512 + 1e-6)
    (tree / "train_val_test_full.csv").write_text("id,train,val,test\n")
    with pytest.raises(FolderError, match="must hold one"):
        convert_tree("taskonomy", tree, "train")


@pytest.mark.parametrize("name", indoor.DSINE)
def test_dsine_normals_are_lub_in_every_file_format(name, tmp_path):
    folder = converted(f"dsine-{name}", indoor.dsine(tmp_path / name, name), "test")
    sample = folder[0]
    view = room.camera()
    assert folder.ids == (indoor.DSINE[name],) and sample.camera == view
    _, normals = room.seen(view)
    most = {"ibims": 0.05, "sintel": 0.05, "vkitti": 0.05}.get(name, 0.5)
    assert degrees(sample.targets["normals"], sample.valid["normals"], normals) < most
    assert not sample.valid["normals"][:, :2].any() and sample.valid["normals"][:, 2:].all()


@pytest.mark.parametrize("frame", ["RUB", "RDF", "RDB"])
@pytest.mark.parametrize("name", ["ibims", "scannet"])
def test_validate_detects_a_wrong_normal_frame(name, frame, tmp_path):
    report = validate(convert_tree(f"dsine-{name}", indoor.dsine(tmp_path / name, name, frame), "test"))
    assert not report.ok and all("'frame'" in problem for problem in report.problems)


def test_validate_detects_a_wrong_normal_frame_without_cameras(tmp_path):
    report = validate(convert_tree("nyuv2-bae", indoor.nyuv2_bae(tmp_path / "nyu", frame="RUB"), "test"))
    assert not report.ok and "if x pointed the other way" in report.problems[-1], report


# ---- outdoors


@pytest.mark.parametrize("folders", [("vkitti_2.0.3_rgb", "vkitti_2.0.3_depth"), ("rgb", "depth"), ("", "")])
def test_virtual_kitti_sky_is_infinite(folders, tmp_path):
    tree = outdoor.vkitti2(tmp_path / "vk", folders)
    assert converted("vkitti2", tree, "marigold-train").ids == ("Scene20/15-deg-left/Camera_1/00003",)
    assert converted("vkitti2", tree, "marigold-val").ids == ("Scene01/clone/Camera_0/00003",)
    sample = converted("vkitti2", tree, "all")[0]
    depth, valid = sample.targets["depth"][0], sample.valid["depth"][0]
    assert depth[:3].isinf().all() and not valid[:3].any() and valid[3:].all()
    assert depth[4, 4] == pytest.approx(655.34)
    z, _ = room.seen(room.camera())
    near(depth[5:], z[5:], 0.005 + 1e-6)


@pytest.mark.parametrize("place", ["", "data_depth_annotated/val/"])
def test_kitti_is_cropped_to_its_benchmark_and_skips_images_without_depth(place, tmp_path):
    tree = outdoor.kitti(tmp_path / "kitti", place)
    folder = converted("kitti-eigen", tree, "test")
    assert folder.ids == (f"{outdoor.DRIVE}/image_02/0000000069",)
    sample = folder[0]
    assert sample.image.shape == (3, 352, 1216) and sample.targets["depth"].shape == (1, 352, 1216)
    # 1242 - 1216 = 26, so 13 columns on the left; all of the 23 rows above.
    assert sample.targets["depth"][0, -1, 620 - 13] == pytest.approx(5 + 1 / 256)
    assert (
        sample.valid["depth"][0, 200 - 23, ::7].sum() == 0 and sample.valid["depth"][0, 200 - 23, 1::7].all()
    )
    assert isinstance(sample.camera, Camera)
    assert sample.camera.cx == pytest.approx(609.5593 - 13) and sample.camera.cy == pytest.approx(
        172.854 - 23
    )
    assert folder.ids == converted("kitti-eigen", tree, "all").ids
    with pytest.raises(FolderError, match=r"eigen_train_files_with_gt\.txt does not exist"):
        convert_tree("kitti-eigen", tree, "train")


def test_a_kitti_image_smaller_than_the_benchmark_crop_is_refused(tmp_path):
    tree = outdoor.kitti(tmp_path / "kitti", size=(300, 1242))
    with pytest.raises(FolderError, match=r"300x1242, and the window .* exceeds it"):
        Folder(convert_tree("kitti-eigen", tree, "test"))[0]


@pytest.mark.parametrize("marigold", [False, True])
def test_eth3d_infinity_is_invalid(marigold, tmp_path):
    tree = outdoor.eth3d(tmp_path / "eth3d", marigold)
    sample = converted("eth3d", tree, "train")[0]
    depth, valid = sample.targets["depth"][0], sample.valid["depth"][0]
    assert (
        sample.id == "office/DSC_0219" and not valid[:3].any() and (depth[:3] == 0).all() and valid[3:].all()
    )
    near(depth[3:], room.seen(room.camera())[0][3:], 1e-6)


def test_cityscapes_disparity_becomes_depth_with_the_camera_of_its_image(tmp_path):
    folder = converted("cityscapes-depth", outdoor.cityscapes(tmp_path / "cs"), "train")
    depth, valid = folder[0].targets["depth"][0], folder[0].valid["depth"][0]
    fb = 2262.52 * 0.209313
    # Stored 0 is none, 1 a disparity of 0 pixels, 257 of 1, 1 + 256 * 30 of 30.
    assert valid[0, :3].tolist() == [False, False, True] and valid.sum() == 24 * 32 - 2
    assert depth[0, 2] == pytest.approx(fb, rel=1e-6) and depth[5, 5] == pytest.approx(fb / 30, rel=1e-6)
    camera = folder[0].camera
    assert isinstance(camera, Camera) and (camera.fx, camera.cx) == (2262.52, 1096.98)


@pytest.mark.parametrize(
    ("name", "write_tree", "split", "tar"),
    [
        ("nyuv2-marigold", indoor.nyuv2_marigold, "test", "nyu_labeled_extracted.tar"),
        (
            "nyuv2-marigold",
            lambda root: indoor.nyuv2_marigold(root, False),
            "test",
            "nyu_labeled_extracted.tar",
        ),
        ("kitti-eigen", outdoor.kitti, "test", "kitti_eigen_split_test.tar"),
        ("scannet-marigold", indoor.scannet, "test", "scannet_val_sampled_800_1.tar"),
        ("diode", lambda root: indoor.diode(root, ""), "val", "diode_val.tar"),
        ("eth3d", lambda root: outdoor.eth3d(root, True), "train", "eth3d.tar"),
    ],
)
def test_a_published_tar_is_read_like_its_unpacked_tree(name, write_tree, split, tar, tmp_path):
    plain = converted(name, write_tree(tmp_path / "tree"), split)
    samples = list(plain)
    shutil.rmtree(plain.root)
    packed = converted(name, indoor.packed(tmp_path / "tree", tar), split)
    assert packed.ids == plain.ids and all("::" in row["file_name"] for row in packed.rows)
    for was, now in zip(samples, packed, strict=True):
        assert torch.equal(was.image, now.image) and was.camera == now.camera
        assert torch.equal(was.targets["depth"], now.targets["depth"])
        assert torch.equal(was.valid["depth"], now.valid["depth"])


# ---- damaged trees


def truncate(pattern: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        path = sorted(tree.rglob(pattern))[-1]
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return change


def remove(pattern: str) -> Callable[[Path], None]:
    return lambda tree: sorted(tree.rglob(pattern))[-1].unlink()


def resize(pattern: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        path = sorted(tree.rglob(pattern))[-1]
        size = (30, 40)
        if path.suffix == ".npy":
            room.npy(path, np.ones((*size, 1), np.float32))
        else:
            room.png(path, np.full(size, 900, np.uint16))

    return change


def to_8_bits(pattern: str) -> Callable[[Path], None]:
    return lambda tree: indoor.grey(sorted(tree.rglob(pattern))[-1])


def text(pattern: str, words: str) -> Callable[[Path], None]:
    return lambda tree: (sorted(tree.rglob(pattern))[-1].write_text(words), None)[1]


BROKEN: list[tuple[str, Callable[[Path], Path], str, Callable[[Path], None], str]] = [
    ("hypersim", indoor.hypersim, "train", truncate("*0000.depth_meters.hdf5"), r"0000\.depth_meters\.hdf5.*cut short"),
    ("hypersim", indoor.hypersim, "train", truncate("*0000.color.hdf5"), r"0000\.color\.hdf5.*cut short"),
    ("hypersim", indoor.hypersim, "train", remove("*0000.render_entity_id.hdf5"), "render_entity_id.*does not exist"),
    ("hypersim", indoor.hypersim, "train", text("*.csv", "scene,frame\n"), "csv has no column 'scene_name'"),
    ("vkitti2", outdoor.vkitti2, "all", truncate("depth_*.png"), "depth_00003.png is damaged"),
    ("vkitti2", outdoor.vkitti2, "all", remove("depth_*.png"), "depth_00003.png does not exist"),
    ("vkitti2", outdoor.vkitti2, "all", to_8_bits("depth_*.png"), "depth_00003.png has 8 bits"),
    ("vkitti2", outdoor.vkitti2, "all", resize("depth_*.png"), r"30x40, the image 24x32.*depth_00003\.png"),
    ("nyuv2-marigold", indoor.nyuv2_marigold, "test", remove("depth_0009.png"), "depth_0009.png does not exist"),
    ("nyuv2-marigold", indoor.nyuv2_marigold, "test", to_8_bits("depth_0009.png"), "depth_0009.png has 8 bits"),
    ("nyuv2-marigold", indoor.nyuv2_marigold, "test", truncate("rgb_0009.png"), "rgb_0009.png is damaged"),
    ("nyuv2-marigold", indoor.nyuv2_marigold, "test", text("filename*.txt", "a b.png\n"), "txt:1 has 2 columns"),
    ("nyuv2-bae", indoor.nyuv2_bae, "test", remove("000007.txt"), "caption/000007.txt does not exist"),
    ("nyuv2-bae", indoor.nyuv2_bae, "test", remove("img/000007.png"), "norm/000007.png has no image"),
    ("nyuv2-bae", indoor.nyuv2_bae, "test", remove("norm/000007.png"), "norm/000007.png does not exist"),
    ("nyuv2-bae", indoor.nyuv2_bae, "test", resize("norm/000007.png"), "norm/000007.png has 16 bits"),
    ("kitti-eigen", outdoor.kitti, "test", remove("image_02/0000000069.png"), "0000000069.png does not exist"),
    ("kitti-eigen", outdoor.kitti, "test", resize("groundtruth/*/*.png"), "30x40, the image 375x1242.*69.png"),
    ("kitti-eigen", outdoor.kitti, "test", text("eigen*.txt", "a.png None\n"), "txt:1 has 2 columns, not 3"),
    ("kitti-eigen", outdoor.kitti, "test", text("calib*.txt", "P_rect_02: 1 2\n"), "calib_cam_to_cam.txt has no P_re"),
    ("scannet-marigold", indoor.scannet, "test", to_8_bits("001300.png"), "001300.png has 8 bits"),
    ("scannet-marigold", indoor.scannet, "test", resize("001300.png"), r"30x40.*001300\.png"),
    ("diode", indoor.diode, "val", remove("*_depth_mask.npy"), "_depth_mask.npy does not exist"),
    ("diode", indoor.diode, "val", truncate("*_depth.npy"), "_depth.npy is damaged"),
    ("diode", indoor.diode, "val", resize("*_depth_mask.npy"), "_depth_mask.npy: the mask is 1x30x40"),
    ("eth3d", outdoor.eth3d, "train", truncate("ground_truth_depth/*/*.JPG"), "DSC_0219.JPG has 1536 bytes, not 3072"),
    ("eth3d", outdoor.eth3d, "train", truncate("images/*/*.JPG"), "DSC_0219.JPG"),
    ("ibims1", indoor.ibims, "test", remove("mask_invalid/office_02.png"), "mask_invalid/office_02.png does not exist"),
    ("ibims1", indoor.ibims, "test", to_8_bits("depth/office_02.png"), "depth/office_02.png has 8 bits"),
    ("taskonomy", indoor.taskonomy, "all", remove("*depth_zbuffer.png"), "_depth_zbuffer.png does not exist"),
    ("taskonomy", indoor.taskonomy, "train", text("*.csv", "name,train\n"), "csv has no column 'id'"),
    ("cityscapes-depth", outdoor.cityscapes, "train", remove("*_camera.json"), "_camera.json does not exist"),
    ("cityscapes-depth", outdoor.cityscapes, "train", text("*_camera.json", '{"extrinsic": {}}'), "_camera.json is no"),
    ("cityscapes-depth", outdoor.cityscapes, "train", to_8_bits("*_disparity.png"), "_disparity.png has 8 bits"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write_tree", "split", "change", "words"), BROKEN)
def test_an_error_in_a_tree_names_the_file(name, write_tree, split, change, words, tmp_path):
    tree = write_tree(tmp_path / "tree")
    change(tree)
    with pytest.raises(ValueError, match=words) as error:
        list(Folder(convert_tree(name, tree, split)))
    assert "\n" not in str(error.value) and str(tree) in str(error.value)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("ibims", truncate("*_normal.exr"), "_normal.exr is damaged"),
        ("sintel", remove("*_intrins.npy"), "_intrins.npy does not exist"),
        ("vkitti", truncate("*_normal.png"), "_normal.png is damaged"),
        ("vkitti", to_8_bits("*_normal.png"), "_normal.png has 8 bits"),
        ("nyuv2", resize("*_normal.png"), "_normal.png has 16 bits"),
        ("scannet", lambda tree: room.npy(next(tree.rglob("*.npy")), np.eye(4)), "no 3x3 matrix"),
    ],
)
def test_an_error_in_a_dsine_package_names_the_file(name, change, words, tmp_path):
    tree = indoor.dsine(tmp_path / name, name)
    if change is not None and words == "_normal.png has 8 bits":
        path = next(tree.rglob("*_normal.png"))
        room.png(path, room.colors(room.seen(room.camera())[1], "LUB"))
    else:
        change(tree)
    with pytest.raises(ValueError, match=words) as error:
        list(Folder(convert_tree(f"dsine-{name}", tree, "test")))
    assert str(tree) in str(error.value)


# ---- conversion


def test_conversion_writes_a_header_and_a_manifest_and_leaves_the_tree_unchanged(tmp_path):
    tree = indoor.scannet(tmp_path / "scannet")
    before = sorted(tree.rglob("*"))
    out = convert_tree("scannet-marigold", tree, "test")
    assert sorted(p.name for p in out.iterdir()) == ["dataset.json", "metadata.jsonl"]
    assert sorted(tree.rglob("*")) == before
    header = json.loads((out / "dataset.json").read_text())
    assert header["root"] == str(tree) and header["count"] == 2 and "redistribution" in header["licence"]
    assert header["converter"] == {"name": "scannet-marigold", "version": 1}
    assert len(Folder(convert_tree("scannet-marigold", tree, "test", limit=1))) == 1
    with pytest.raises(FolderError, match="which is not changed"):
        convert(CONVERTERS["scannet-marigold"], tree, "test", tree / "out")


def test_another_data_folder_is_not_overwritten(tmp_path):
    tree = indoor.scannet(tmp_path / "scannet")
    out = convert_tree("scannet-marigold", tree, "test")
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    bytes_before = (out / "metadata.jsonl").read_bytes()
    with pytest.raises(FolderError, match="is another data folder"):
        convert(CONVERTERS["scannet-marigold"], other, "test", out)
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "metadata.jsonl").write_text("{}")
    with pytest.raises(FolderError, match="without a header"):
        convert(CONVERTERS["scannet-marigold"], tree, "test", tmp_path / "loose")
    assert (out / "metadata.jsonl").read_bytes() == bytes_before


def test_a_moved_tree_is_reported(tmp_path):
    tree = indoor.scannet(tmp_path / "scannet")
    out = convert_tree("scannet-marigold", tree, "test")
    tree.rename(tmp_path / "elsewhere")
    with pytest.raises(FolderError, match=f"{tree}, which is not there; convert it again"):
        Folder(out)


def test_symbolic_links_out_of_the_tree_are_refused(tmp_path):
    tree = indoor.scannet(tmp_path / "scannet")
    secret = tmp_path / "secret.png"
    path = sorted(tree.rglob("depth/*.png"))[0]
    path.rename(secret)
    path.symlink_to(secret)
    with pytest.raises(FolderError, match="link out of the folder"):
        convert_tree("scannet-marigold", tree, "test")


def test_an_invalid_row_is_reported_as_an_error_of_its_converter(tmp_path):
    indoor.scannet(tmp_path / "tree")
    unsafe = {"id": "a", "file_name": "../a.png", "targets": {}}
    common: Any = {
        "name": "x",
        "title": "x",
        "licence": "x",
        "access": "x",
        "splits": ("all",),
        "targets": {},
    }
    with pytest.raises(FolderError, match=r"x, all, 'a'.*leaves the folder"):
        convert(
            Converter(rows=lambda root, split: iter([unsafe]), **common),
            tmp_path / "tree",
            "all",
            tmp_path / "o",
        )
    good = {"id": "a", "file_name": "scene0314_00/color/000800.jpg"}
    with pytest.raises(FolderError, match="occurs twice"):
        convert(Converter(rows=lambda root, split: iter([good, good]), **common), tmp_path / "tree", "all",
                tmp_path / "o")  # fmt: skip
    with pytest.raises(ValueError, match="rows or samples"):
        Converter(**common)
