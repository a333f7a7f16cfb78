"""Hypersim, NYUv2 in two layouts, ScanNet, DIODE, iBims-1, Taskonomy and DSINE's package, of one room each."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

from trees.room import SIZE, camera, colors, framed, levels, npy, photo, png, seen
from twofold.geometry import Camera
from twofold.image import write_map

HYPERSIM = Camera(886.81, 886.81, 511.5, 383.5, 1024, 768)


def hdf5(path: Path, array: np.ndarray) -> None:
    """One array called "dataset", as Hypersim has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["dataset"] = array


def mat73(path: Path, **arrays: np.ndarray) -> Path:
    """As MATLAB writes version 7.3: HDF5 behind a block of 512 bytes, axes in reverse."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T
    with open(path, "r+b") as file:
        file.write(
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Tue Jan  1".ljust(124) + b"\x00\x02IM"
        )
    return path


def nyuv2_mat(root: Path) -> Path:
    """The authors' file with three images, in MATLAB's order of axes, and the split, counted from 1."""
    images = np.random.default_rng(0).integers(0, 256, (*SIZE, 3, 3), dtype=np.uint8)
    raw = np.stack([seen(camera(), i)[0] for i in range(3)], -1).astype(np.float32)
    raw[2, 3] = 0
    mat73(root / "nyu_depth_v2_labeled.mat", images=images, rawDepths=raw, depths=raw + 1, labels=raw > 3)
    savemat(root / "splits.mat", {"trainNdxs": np.array([[1], [3]]), "testNdxs": np.array([[2]])})
    return root


def cameras(root: Path, scenes: dict[str, np.ndarray], size: tuple[int, int] = (768, 1024)) -> None:
    """The makers' table of cameras: M_cam_from_uv of each scene, among other columns."""
    names = [f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3)]
    head = ["scene_name", "settings_output_img_height", "settings_output_img_width", "settings_camera_fov"]
    with open(root / "metadata_camera_parameters.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*head, *names])
        for scene, matrix in scenes.items():
            table.writerow([scene, float(size[0]), float(size[1]), 1.0471976, *matrix.flatten().tolist()])


def hypersim(root: Path) -> Path:
    """Two scenes: the first, for training, has two frames, one of them not public; the second was not fetched."""
    root.mkdir(parents=True, exist_ok=True)
    cameras(root, {"ai_001_001": np.diag([512 / 886.81, 384 / 886.81, -1.0])})
    z, normals = seen(HYPERSIM)
    distance = z * np.linalg.norm(HYPERSIM.rays().numpy(), axis=0)
    stored = framed(normals, "RUB") * 0.75  # of any length,
    stored[100:120] *= -1  # facing away,
    stored[:2] = 0  # or none
    distance[5, 5] = np.nan
    entity = np.ones(z.shape, dtype=np.int32)
    entity[-3:] = -1
    labels = np.full(z.shape, 2, dtype=np.int16)
    labels[0, :3] = (-1, 1, 40)
    light = np.repeat(np.linspace(0, 2, 1024)[None, :, None], 768, 0) * (1.0, 0.5, 0.25)
    light[-3:] = 1e4  # not geometry, so it must not darken the rest
    scene = root / "ai_001_001" / "images"
    for frame in ("0000", "0007"):
        hdf5(scene / "scene_cam_00_final_hdf5" / f"frame.{frame}.color.hdf5", light.astype(np.float16))
        geometry = scene / "scene_cam_00_geometry_hdf5"
        hdf5(geometry / f"frame.{frame}.depth_meters.hdf5", distance.astype(np.float32))
        hdf5(geometry / f"frame.{frame}.normal_cam.hdf5", stored.astype(np.float16))
        hdf5(geometry / f"frame.{frame}.render_entity_id.hdf5", entity)
    hdf5(geometry / "frame.0000.semantic.hdf5", labels)
    with open(root / "metadata_images_split_scene_v1.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ("scene_name", "camera_name", "frame_id", "included_in_public_release", "exclude_reason",
             "split_partition_name")
        )  # fmt: skip
        table.writerow(("ai_001_001", "cam_00", "0", "True", "", "train"))
        table.writerow(("ai_001_001", "cam_00", "7", "False", "noise", "train"))
        table.writerow(("ai_001_002", "cam_00", "0", "True", "", "train"))
    return root


def nyuv2_marigold(root: Path, listed: bool = True) -> Path:
    """Two test images and one for training; with the lists, which name only one of the two (`listed`)."""
    for split, scene, number, shift in (
        ("test", "kitchen_0004", "0001", 0.0),
        ("test", "office_0005", "0009", 0.5),
        ("train", "office_0001", "0003", 1.0),
    ):
        z, _ = seen(camera(), shift)
        raw = levels(z, 0.001)
        raw[:4, :4] = 0
        base = root / split / scene
        photo(base / f"rgb_{number}.png", seed=int(number))
        png(base / f"depth_{number}.png", raw)
        png(base / f"filled_{number}.png", levels(z, 0.001))
    if listed:
        base = "test/office_0005"
        line = f"{base}/rgb_0009.png {base}/depth_0009.png {base}/filled_0009.png\n"
        (root / "filename_list_test.txt").write_text(line)
    return root


def packed(tree: Path, tar: str) -> Path:
    """The folders of a tree as one tar beside its lists, whose members begin with `./`."""
    with tarfile.open(tree / tar, "w") as archive:
        for path in sorted(tree.rglob("*")):
            if path.is_file() and path.parent != tree:
                archive.add(path, f"./{path.relative_to(tree).as_posix()}")
                path.unlink()
    for path in sorted((p for p in tree.rglob("*") if p.is_dir()), reverse=True):
        path.rmdir()
    return tree


def nyuv2_bae(root: Path, captions: bool = True, frame: str = "LUB") -> Path:
    """Three test images whose names leave gaps, each with a caption that names it."""
    for stem in ("000000", "000007", "001448"):
        _, normals = seen(camera(), int(stem) / 1000)
        photo(root / "test" / "img" / f"{stem}.png", seed=int(stem) % 100)
        png(root / "test" / "norm" / f"{stem}.png", colors(normals, frame, holes=3))
        if captions:
            (root / "test" / "caption").mkdir(exist_ok=True)
            (root / "test" / "caption" / f"{stem}.txt").write_text(f"a room called\n {stem} \n")
    return root


def scannet(root: Path) -> Path:
    """Two scans, no list."""
    for scene, frame in (("scene0314_00", "000800"), ("scene0678_01", "001300")):
        z, _ = seen(camera())
        photo(root / scene / "color" / f"{frame}.jpg", seed=int(frame) % 90)
        png(root / scene / "depth" / f"{frame}.png", levels(z, 0.001))
    return root


def framenet(root: Path, frame: str = "LUB") -> Path:
    """Two scans of the training part and one of the test part, of a frame each; what was not measured holds numbers."""
    for scene in ("scene0000_00", "scene0706_01", "scene0707_00"):
        _, normals = seen(camera())
        stem = root / scene / "frame-000010"
        photo(stem.with_name(f"{stem.name}-color.png"), seed=int(scene[5:9]) % 90)
        png(stem.with_name(f"{stem.name}-normal.png"), colors(normals, frame, 255))
        known = np.full(SIZE, 255, dtype=np.uint8)
        known[:2] = 0
        png(stem.with_name(f"{stem.name}-orient-mask.png"), known)
    return root


def diode(root: Path, within: str = "val") -> Path:
    """One room and one street; the mask is 1 where the scanner saw something, the depth is of one channel."""
    for part, scene in (("indoors", "scene_00019"), ("outdoor", "scene_00022")):
        z, _ = seen(camera())
        depth = z[..., None].astype(np.float32)
        mask = np.ones(SIZE)
        mask[:5] = 0
        depth[:5] = 300.0  # what was not measured may hold anything
        stem = f"{part}_{scene}_010"
        base = root / within / part / scene / "scan_00183"
        photo(base / f"{stem}.png")
        npy(base / f"{stem}_depth.npy", depth)
        npy(base / f"{stem}_depth_mask.npy", mask)
    return root


def ibims(root: Path) -> Path:
    """Two rooms; a positive mask_invalid means valid."""
    base = root / "ibims1_core_raw"
    for name in ("kitchen_01", "office_02"):
        z, _ = seen(camera())
        valid, solid = np.full(SIZE, 255, np.uint8), np.full(SIZE, 1, np.uint8)
        valid[:, 0] = 0
        solid[:, 1] = 0
        photo(base / "rgb" / f"{name}.png")
        png(base / "depth" / f"{name}.png", levels(z, 50 / 65535))
        png(base / "mask_invalid" / f"{name}.png", valid)
        png(base / "mask_transp" / f"{name}.png", solid)
    (base / "imagelist.txt").write_text("kitchen_01\noffice_02\n")
    return root


TASKONOMY = ("{building}/{domain}", "{domain}/{building}", "{domain}/taskonomy/{building}")


def taskonomy(root: Path, place: str = TASKONOMY[2]) -> Path:
    """Two buildings, in one of the three ways they are laid out; a window is missing."""
    for building in ("allensville", "beechwood"):
        z, _ = seen(camera())
        raw = levels(z, 1 / 512)
        raw[2, 2] = 65535
        for domain in ("rgb", "depth_zbuffer"):
            folder = root / place.format(building=building, domain=domain)
            path = folder / f"point_3_view_12_domain_{domain}.png"
            photo(path) if domain == "rgb" else png(path, raw)
    (root / "train_val_test_tiny.csv").write_text("id,train,val,test\nallensville,1,0,0\nbeechwood,0,1,0\n")
    return root


DSINE = {"nyuv2": "test/000000", "scannet": "scene0532_00/000450", "ibims": "ibims/corridor_01",
         "sintel": "alley_1/frame_0001", "vkitti": "Scene01/000000"}  # fmt: skip


def dsine(root: Path, name: str, frame: str = "LUB") -> Path:
    """One image of one of DSINE's sets: 8 or 16 bits or floats, with its camera."""
    view = camera()
    _, normals = seen(view)
    stem = root / DSINE[name]
    photo(stem.with_name(f"{stem.name}_img.{'jpg' if name == 'vkitti' else 'png'}"))
    path = stem.with_name(f"{stem.name}_normal.{'exr' if name in ('ibims', 'sintel') else 'png'}")
    if path.suffix == ".png":
        png(path, colors(normals, frame, 65535 if name == "vkitti" else 255, holes=2))
    else:
        stored = framed(normals, frame).astype(np.float32)
        stored[:2] = 0
        write_map(path, torch.from_numpy(stored).permute(2, 0, 1))
    npy(stem.with_name(f"{stem.name}_intrins.npy"), view.matrix().numpy())
    return root


def grey(path: Path) -> None:
    """A 16-bit map as the 8-bit preview that some tools make of it."""
    with Image.open(path) as image:
        Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).save(path)
