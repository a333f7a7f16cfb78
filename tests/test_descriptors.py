"""Settings of files in the manifest: masks, crops, disparity, facing, tone mapping, rotation; and `validate`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trees import indoor, room
from twofold.data import Folder, FolderError, validate
from twofold.data.codecs import decode, write_target
from twofold.data.images import hypersim_tone
from twofold.geometry import Camera, convert_frame
from twofold.image import ImageError, read_image
from twofold.image.stored import members

SIZE = room.SIZE
Z, NORMALS = room.seen(room.camera())


def folder(root: Path, header: dict[str, Any], *rows: dict[str, Any], photo: bool = True) -> Path:
    """A data folder of these rows, with one smooth image."""
    root.mkdir(exist_ok=True)
    if photo:
        room.photo(root / "a.png")
    (root / "dataset.json").write_text(json.dumps(header))
    lines = [json.dumps({"id": f"s{i}", "file_name": "a.png", **row}) + "\n" for i, row in enumerate(rows)]
    (root / "metadata.jsonl").write_text("".join(lines))
    return root


def refused(root: Path, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        list(Folder(root))
    assert "\n" not in str(error.value)


# ---- depth


@pytest.mark.parametrize("kind", ["z", "euclidean", "disparity"])
def test_every_kind_of_depth_is_z_in_the_end(kind, tmp_path):
    view = room.camera()
    rays = np.linalg.norm(view.rays().numpy(), axis=0)
    stored = {"z": Z, "euclidean": Z * rays, "disparity": 0.2 * view.fx / Z}[kind].astype(np.float32)
    room.npy(tmp_path / "f" / "d.npy", stored)
    how = {"kind": kind} | ({"baseline": 0.2} if kind == "disparity" else {})
    row = {"targets": {"depth": {"path": "d.npy"}}, "camera": {"K": view.matrix().tolist()}}
    sample = Folder(folder(tmp_path / "f", {"targets": {"depth": how}}, row))[0]
    assert sample.valid["depth"].all()
    assert torch.allclose(sample.targets["depth"][0].double(), torch.from_numpy(Z), rtol=1e-6)


def test_disparity_needs_baseline_and_focal_length():
    raw = torch.tensor([[[0.0, 4.0, -1.0, math.nan]]])
    z, valid = decode("depth", raw, {"codec": "npy", "kind": "disparity", "baseline": 0.5, "focal": 100})
    assert z.flatten().tolist() == [0, 12.5, 0, 0] and valid.sum() == 1
    camera = Camera(200, 100, 0, 0, 4, 1)
    assert decode("depth", raw, {"kind": "disparity", "baseline": 0.5}, camera)[0][0, 0, 1] == 25
    for how, view in (({"focal": 100}, camera), ({"baseline": 0.5}, None)):
        with pytest.raises(ValueError, match="baseline"):
            decode("depth", raw, {"kind": "disparity", **how}, view)


@pytest.mark.parametrize("kind", [np.int32, np.uint16, bool])
def test_whole_numbers_are_not_taken_for_metres(kind, tmp_path):
    room.npy(tmp_path / "f" / "d.npy", np.ones(SIZE, kind))
    row = {"targets": {"depth": {"path": "d.npy"}}}
    refused(folder(tmp_path / "f", {}, row), r"d\.npy: a depth stored as whole numbers needs 'scale'")
    room.png(tmp_path / "f" / "d.png", room.levels(Z, 0.001))
    png = {"targets": {"depth": {"path": "d.png"}}}
    refused(folder(tmp_path / "f", {}, png), r"d\.png.*needs 'scale'")
    output = Folder(folder(tmp_path / "f", {"targets": {"depth": {"scale": 0.001}}}, png))[0]
    assert float(output.targets["depth"].max()) == pytest.approx(float(Z.max()), abs=1e-3)


# ---- normals


def test_normals_that_face_away_are_flipped_with_the_option(tmp_path):
    view = room.camera()
    stored = room.framed(NORMALS, "RUB").astype(np.float32)
    stored[::2] *= -0.6
    room.npy(tmp_path / "f" / "n.npy", stored)
    row = {"targets": {"normals": {"path": "n.npy"}}, "camera": {"K": view.matrix().tolist()}}
    header = {"targets": {"normals": {"frame": "RUB", "facing": "camera"}}}
    sample = Folder(folder(tmp_path / "f", header, row))[0]
    truth = torch.from_numpy(room.framed(NORMALS, "RUB")).permute(2, 0, 1).float()
    assert torch.allclose(sample.targets["normals"], truth, atol=1e-6)
    with pytest.raises(ValueError, match="K in the row"):
        decode("normals", torch.ones(3, 2, 2), {"codec": "npy", "frame": "RUB", "facing": "camera"})
    without = folder(tmp_path / "f", header, {"targets": {"normals": {"path": "n.npy"}}})
    refused(without, "camera")


def test_normals_in_a_png_require_the_bit_depth(tmp_path):
    room.png(tmp_path / "f" / "n.png", room.colors(NORMALS, "LUB", 65535))
    row = {"targets": {"normals": {"path": "n.png", "frame": "LUB"}}}
    refused(folder(tmp_path / "f", {}, row), "png8 or png16")
    row["targets"]["normals"]["codec"] = "png16"
    sample = Folder(folder(tmp_path / "f", {}, row))[0]
    expected = convert_frame(torch.from_numpy(NORMALS).permute(2, 0, 1), "RDF", "RUB").float()
    assert (sample.targets["normals"] - expected).abs().max() < 1e-4


def test_a_colour_is_invalid_only_as_a_whole():
    raw = torch.tensor([[127.0, 127, 127], [127, 255, 128], [0, 0, 0]]).T[:, None]
    how = {"codec": "png8", "frame": "RUB", "invalid": ["zero", [127, 127, 127]]}
    assert decode("normals", raw, how)[1].flatten().tolist() == [False, True, False]
    grey = {**how, "invalid": [127]}
    assert decode("normals", raw, grey)[1].flatten().tolist() == [False, True, True]
    with pytest.raises(ValueError, match="2 channels, the map 3"):
        decode("normals", raw, {**how, "invalid": [[127, 127]]})


# ---- colours that are ids


def test_colours_become_the_ids_of_their_palette(tmp_path):
    palette = [[0, 0, 0], [255, 0, 1], [128, 64, 128], [1, 0, 255]]
    ids = np.random.default_rng(0).integers(0, 4, SIZE)
    room.png(tmp_path / "f" / "s.png", np.array(palette, np.uint8)[ids])
    row = {"targets": {"semantic": {"path": "s.png"}}}

    def output(**how) -> Path:
        return folder(tmp_path / "f", {"targets": {"semantic": {"codec": "png8", **how}}}, row)

    sample = Folder(output(palette=palette))[0]
    assert torch.equal(sample.targets["semantic"][0], torch.from_numpy(ids).float())
    assert sample.valid["semantic"].all()
    part = Folder(output(palette=palette[1:], ignore=[palette[0]], label_offset=10))[0]
    assert torch.equal(part.valid["semantic"][0], torch.from_numpy(ids) > 0)
    assert torch.equal(part.targets["semantic"][0], torch.from_numpy(np.where(ids > 0, ids + 9, 0)).float())
    refused(output(palette=palette[:3]), r"s\.png: the colour \[1, 0, 255\] is not in the palette")
    refused(output(), "1 channel")
    for wrong in ([], [[0, 0]], [[0, 0, 300]], [["a", 0, 0]]):
        refused(output(palette=wrong), "a list of colours")
    with pytest.raises(ValueError, match="cannot be written"):
        write_target(tmp_path / "s", "semantic", torch.zeros(1, 2, 2), torch.ones(1, 2, 2) > 0,
                     {"codec": "png8", "palette": palette})  # fmt: skip


# ---- masks


@pytest.mark.parametrize(
    ("rule", "column"), [({"valid": "nonzero"}, 0), ({"valid": [1, 255]}, 1), ({"invalid": [0, 7]}, 1)]
)
def test_the_mask_s_rule_determines_valid_depth(rule, column, tmp_path):
    mask = np.full(SIZE, 255, np.uint8)
    mask[:, 0], mask[:, 1], mask[:, 2] = 0, 7, 1
    room.png(tmp_path / "f" / "m.png", mask)
    depth = Z.astype(np.float32)
    depth[3] = np.inf
    room.npy(tmp_path / "f" / "d.npy", depth)
    header = {"targets": {"depth": {"masks": {"seen": {"codec": "png8", **rule}}}}}
    row = {"targets": {"depth": {"path": "d.npy", "masks": {"seen": {"path": "m.png"}}}}}
    sample = Folder(folder(tmp_path / "f", header, row))[0]
    required = torch.ones(SIZE, dtype=torch.bool)
    required[:, : column + 1], required[3] = False, False
    assert torch.equal(sample.valid["depth"][0], required)
    # Of what a mask hides nothing is known, not even that it is far.
    assert (sample.targets["depth"][0][~required] == 0).all()


def test_ambiguous_masks_are_refused(tmp_path):
    room.npy(tmp_path / "f" / "d.npy", Z.astype(np.float32))
    room.npy(tmp_path / "f" / "m.npy", np.ones(SIZE))

    def one(header: dict, own: dict) -> Path:
        targets = {"depth": {"path": "d.npy", "masks": {"seen": own}}}
        return folder(
            tmp_path / "f", {"targets": {"depth": {"masks": {"seen": header}}}}, {"targets": targets}
        )

    refused(one({}, {"path": "m.npy"}), "'valid' or 'invalid'")
    refused(one({"valid": [1], "invalid": [0]}, {"path": "m.npy"}), "'valid' or 'invalid'")
    refused(one({"valid": [1]}, {"path": "none.npy"}), "none.npy does not exist")
    refused(one({"valid": [1]}, {"path": "../m.npy"}), "leaves the folder")
    refused(one({"valid": [1]}, {}), "not a path")
    bare = {"targets": {"depth": {"path": "d.npy"}}}
    refused(
        folder(tmp_path / "f", {"targets": {"depth": {"masks": {"seen": {"valid": [1]}}}}}, bare), "no 'path'"
    )
    wrong = {"targets": {"depth": {"path": "d.npy", "masks": ["m.npy"]}}}
    refused(folder(tmp_path / "f", {}, wrong), "objects by name")


# ---- crops


def test_a_crop_applies_to_image_targets_and_camera(tmp_path):
    view = room.camera()
    room.npy(tmp_path / "f" / "d.npy", Z.astype(np.float32))
    row = {"targets": {"depth": {"path": "d.npy"}}, "camera": {"K": view.matrix().tolist()}, "size": [10, 12]}
    sample = Folder(folder(tmp_path / "f", {"crop": [5, 3, 12, 10]}, row))[0]
    whole = read_image(tmp_path / "f" / "a.png")
    assert torch.equal(sample.image, whole[:, 3:13, 5:17]) and isinstance(sample.camera, Camera)
    assert torch.equal(sample.targets["depth"][0], torch.from_numpy(Z).float()[3:13, 5:17])
    # What a pixel sees does not depend on the crop.
    assert torch.equal(sample.camera.rays(), view.rays()[:, 3:13, 5:17])
    own = Folder(
        folder(tmp_path / "f", {"crop": [5, 3, 12, 10]}, {**row, "crop": [0, 0, 4, 4], "size": None})
    )
    assert own[0].image.shape == (3, 4, 4)
    for crop, words in (
        ([5, 3, 32, 10], "exceeds it"),
        ([-1, 0, 4, 4], "exceeds it"),
        ("middle", "a crop is"),
    ):
        refused(folder(tmp_path / "f", {"crop": crop}, row), words)


# ---- images


def test_an_exif_rotation_with_targets_must_be_ignored_or_applied_explicitly(tmp_path):
    root = tmp_path / "f"
    root.mkdir()
    upright = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: the size is the same
    Image.fromarray(upright).save(root / "a.png", exif=exif)
    room.npy(root / "d.npy", np.ones((4, 6), np.float32))
    row = {"targets": {"depth": {"path": "d.npy"}}}
    refused(folder(root, {}, row, photo=False), r"a\.png has an EXIF rotation")
    stored = torch.from_numpy(upright).permute(2, 0, 1) / 255
    ignored = Folder(folder(root, {"image": {"exif": "ignore"}}, row, photo=False))[0]
    assert torch.allclose(ignored.image, stored)
    applied = Folder(folder(root, {"image": {"exif": "apply"}}, row, photo=False))[0]
    assert torch.allclose(applied.image, stored.flip(-1, -2))
    assert torch.allclose(Folder(folder(root, {}, {}, photo=False))[0].image, stored.flip(-1, -2))


def test_images_may_be_arrays_and_tar_members(tmp_path):
    root = tmp_path / "f"
    light = np.random.default_rng(0).random((6, 8, 3))
    indoor.hdf5(root / "a.hdf5", light)
    array: dict[str, Any] = {"codec": "hdf5", "key": "dataset"}
    header = {"image": array}
    row = {"file_name": "a.hdf5"}
    sample = Folder(folder(root, header, row))[0]
    assert torch.allclose(sample.image, torch.from_numpy(light).permute(2, 0, 1).float())
    indoor.hdf5(root / "a.hdf5", np.rint(light * 255).astype(np.uint8))
    refused(folder(root, header, row), r"a\.hdf5: values are .* not in \[0, 1\]")
    array["scale"] = 1 / 255
    assert (Folder(folder(root, header, row))[0].image - sample.image).abs().max() < 0.003
    refused(folder(root, {"image": {**array, "tone": "film"}}, row), "'tone'")
    tree = tmp_path / "tree"
    room.photo(tree / "x" / "a.png", seed=9)
    whole = read_image(tree / "x" / "a.png")
    indoor.packed(tree, "a.tar")
    member = {"file_name": "a.tar::./x/a.png"}
    assert torch.equal(Folder(folder(tree, {}, member, photo=False))[0].image, whole)
    refused(
        folder(tree, {}, {"file_name": "a.tar::x/b.png"}, photo=False), r"a\.tar has no member 'x/b\.png'"
    )
    refused(folder(tree, {}, {"file_name": "a.tar::../a.png"}, photo=False), "leaves the folder")
    data = bytearray((tree / "a.tar").read_bytes())
    start = members(tree / "a.tar")["x/a.png"][0]
    data[start : start + 8] = bytes(8)
    (tree / "a.tar").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.tar::\./x/a\.png"):
        Folder(folder(tree, {}, member, photo=False))[0]


def test_the_tone_of_hypersim():
    light = torch.rand(3, 40, 50) * 7
    valid = torch.ones(1, 40, 50, dtype=torch.bool)
    image_file = hypersim_tone(light, valid)
    # Exposure undoes any brightness of the light, and nothing else.
    assert torch.allclose(hypersim_tone(light * 13, valid), image_file, atol=1e-5)
    assert image_file.min() >= 0 and image_file.max() <= 1
    half = valid.clone()
    half[:, 20:] = False
    blinding = light.clone()
    blinding[:, 20:] *= 1e6
    assert torch.equal(hypersim_tone(blinding, half)[:, :20], hypersim_tone(light, half)[:, :20])
    holes = light.clone()
    holes[:, 0, 0] = math.nan
    holes[:, 0, 1] = -1
    assert (hypersim_tone(holes, valid)[:, 0, :2] == 0).all()
    assert (hypersim_tone(light * 1e-6, valid) == 0).all()  # nothing to expose for
    assert torch.allclose(hypersim_tone(light / 7, ~valid), (light / 7) ** (1 / 2.2))


# ---- a whole folder


def test_validate_finds_what_reading_does_not(tmp_path):
    root = tmp_path / "f"
    room.npy(root / "mm.npy", (Z * 1e3).astype(np.float32))
    room.npy(root / "alpha.npy", np.full(SIZE, 255.0))
    room.npy(root / "ids.npy", np.full(SIZE, 1.5))
    room.npy(root / "none.npy", np.full(SIZE, np.nan))
    room.npy(root / "sky.npy", np.full(SIZE, np.inf))
    rows = [
        {"targets": {"depth": {"path": "mm.npy"}}},
        {"targets": {"matting": {"path": "alpha.npy"}}},
        {"targets": {"semantic": {"path": "ids.npy"}}},
        {"targets": {"depth": {"path": "none.npy"}}},
        {"targets": {"depth": {"path": "sky.npy"}}},
    ]
    found = validate(folder(root, {"count": 9}, *rows)).problems
    output = [
        "has the count 9, the manifest 5 samples",
        'Set "scale": 0.001 in its descriptor for millimetres',
        "matting goes from 255 to 255",
        "ids are integers",
        "no valid",
        "no valid pixel: 100% are infinite (sky)",
        "all 1 semantic labels hold the id 1.5",
    ]
    assert len(found) == len(output)
    for problem, words in zip(found, output, strict=True):
        assert words in problem
    assert all(
        name in problem
        for name, problem in zip(("mm", "alpha", "ids", "none", "sky"), found[1:-1], strict=True)
    )


def test_validate_can_check_a_subset(tmp_path):
    room.npy(tmp_path / "f" / "d.npy", Z.astype(np.float32))
    rows = [{"targets": {"depth": {"path": "d.npy" if i != 3 else "lost.npy"}}} for i in range(6)]
    root = folder(tmp_path / "f", {}, *rows)
    report = validate(root, limit=3)
    assert report.ok and report.targets["depth"]["samples"] == 3 and report.count == 6
    assert not validate(root).ok and not validate(root, limit=6).ok


def test_wrong_annotations_of_people_are_found(tmp_path):
    points = [[4.0, 5.0, 2]] * 17
    rows = [
        {
            "targets": {
                "keypoints": {
                    "points": points,
                    "box": [0, 0, 20, 20],
                    "ann_id": id,
                    "image_id": 1,
                    "area": 9.0,
                }
            }
        }
        for id in (0, 1)
    ]
    found = validate(folder(tmp_path / "f", {}, *rows)).problems
    assert len(found) == 1 and found[0].startswith("s0: keypoints has the annotation id 0"), found


def test_reading_needs_the_folder_only(tmp_path):
    with pytest.raises(FolderError, match="has no 'path'"):
        Folder(folder(tmp_path / "f", {}, {"targets": {"depth": {}}}))


ODD: tuple[Any, ...] = (
    None, True, -1, 1e308, "x", [], {}, [1, 2, 3], [-5, 0, 4, 4], [[1], [2, 3]], [None], {"m": {}},
    {"m": {"path": "d.npy", "valid": {}}}, {"m": {"path": "d.npy", "valid": ["x"]}},
)  # fmt: skip
KEYS = (
    "path codec key index shape masks scale offset kind baseline focal invalid infinite valid_range frame facing "
    "threshold ignore label_offset stored palette"
)


def refused_or_read(root: Path, header: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether the folder could be read; if not, the error was one short line."""
    try:
        Folder(folder(root, header, row, photo=not (root / "a.png").exists()))[0]
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 500, (header, row)
        return False
    return True


@pytest.mark.parametrize(("name", "channels"), [("depth", 1), ("normals", 3), ("semantic", 1)])
def test_any_descriptor_is_read_or_refused_in_one_line(name, channels, tmp_path):
    """A manifest may come from anyone."""
    root = tmp_path / "f"
    room.npy(root / "d.npy", np.ones((*SIZE, channels), np.float32))
    known = {"path": "d.npy", "codec": "npy", "frame": "RUB"}
    camera = {"K": room.camera().matrix().tolist()}
    read = 0
    for key in KEYS.split():
        for i, value in enumerate(ODD):
            # Once by the header and once by the row: both are untrusted.
            output = {"targets": {name: {key: value} if i % 2 else {}}}
            own = known if i % 2 else known | {key: value}
            read += refused_or_read(root, output, {"targets": {name: own}, "camera": camera})
    assert 50 < read < 200


@pytest.mark.parametrize(
    "key", ["image", "crop", "size", "camera", "targets", "text", "provenance", "file_name", "id"]
)
def test_any_row_is_read_or_refused_in_one_line(key, tmp_path):
    image = ("codec", "key", "shape", "tone", "scale", "masks", "exif") if key == "image" else ()
    for i, value in enumerate([*ODD, *({k: odd} for k in image for odd in ODD)]):
        own = {key: value}
        refused_or_read(tmp_path / "f", own if i % 2 else {}, {} if i % 2 else own)


@pytest.mark.parametrize(("frame", "ok"), [("RUB", True), ("LUB", False), ("RDB", False), ("RDF", False)])
@pytest.mark.parametrize("known", [True, False])
def test_validate_tells_the_right_frame_from_its_mirrors(frame, ok, known, tmp_path):
    """Most walls of a room face sideways: neither the axis alone nor the image's centre determines their facing."""
    room.npy(tmp_path / "f" / "n.npy", room.framed(NORMALS, "RUB").astype(np.float32))
    row = {"targets": {"normals": {"path": "n.npy", "frame": frame}}}
    camera = {"camera": {"K": room.camera().matrix().tolist()}} if known else {}
    report = validate(folder(tmp_path / "f", {}, {**row, **camera}))
    assert report.ok == ok, report
