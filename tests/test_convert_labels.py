"""Converters of masks, mattes, classes, keypoints and several tasks, each on a small tree in the native format."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trees import matting, multi, people, seg
from twofold.data import Folder, FolderError, validate
from twofold.data.codecs import decode, write_target
from twofold.data.convert import CONVERTERS, convert
from twofold.data.convert.cityscapes import CLASSES
from twofold.data.convert.composition import composite
from twofold.image import read_image, read_map
from twofold.sample import Provenance


def converted(name: str, tree: Path, split: str, **options) -> Folder:
    """The converted folder, in which `validate` finds no problem."""
    out = convert(CONVERTERS[name], tree, split, tree.parent / f"{name}-{split}", **options)
    report = validate(out)
    assert report.ok, report
    return Folder(out)


def refused(name: str, tree: Path, split: str, words: str) -> None:
    """Conversion or reading fails with a one-line error that matches `words`."""
    out = tree.parent / "refused"
    shutil.rmtree(out, ignore_errors=True)
    with pytest.raises(ValueError, match=words) as error:
        list(Folder(convert(CONVERTERS[name], tree, split, out)))
    assert "\n" not in str(error.value)


def test_every_converter_has_complete_documentation():
    for name, converter in CONVERTERS.items():
        assert name == converter.name and name == name.lower() and " " not in name
        assert converter.title and converter.licence and converter.access and converter.splits
        assert json.loads(json.dumps(dict(converter.header))) == dict(converter.header)


# ---- Cityscapes


def test_cityscapes_labels_become_nineteen_class_ids(tmp_path):
    folder = converted("cityscapes", seg.cityscapes(tmp_path / "cs"), "train")
    assert folder.ids[0] == "train/aachen/aachen_000000_000019" and len(folder) == 4
    assert folder.header["classes"][:2] == ["road", "sidewalk"] and len(folder.header["classes"]) == 19
    stored = torch.from_numpy(seg.ids(19, 33)).float()[None]
    sample = folder[0]
    for id, label in enumerate(CLASSES.values()):
        assert torch.equal(sample.targets["semantic"] == id, stored == label) or id == 0
    scored = torch.isin(stored, torch.tensor([float(v) for v in CLASSES.values()]))
    assert torch.equal(sample.valid["semantic"], scored) and (sample.targets["semantic"][~scored] == 0).all()


def test_cityscapes_train_extra_has_coarse_labels(tmp_path):
    folder = converted("cityscapes", seg.cityscapes(tmp_path / "cs"), "train_extra", limit=1)
    assert len(folder) == 1 and "gtCoarse" in folder.rows[0]["targets"]["semantic"]["path"]
    with pytest.raises(FolderError, match="no split 'test'"):
        convert(CONVERTERS["cityscapes"], tmp_path / "cs", "test", tmp_path / "out")


def test_errors_in_a_cityscapes_tree_name_the_file(tmp_path):
    tree = seg.cityscapes(tmp_path / "cs")
    labels = tree / "gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelIds.png"
    labels.unlink()
    refused("cityscapes", tree, "val", f"{labels.name} does not exist")
    shutil.rmtree(tree / "leftImg8bit/val")
    refused("cityscapes", tree, "val", "leftImg8bit has no folder val")
    image_path = tree / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    image_path.rename(image_path.with_name("ulm_000000_000019_leftImg8bit.png"))
    refused("cityscapes", tree, "train", "ulm_000000_000019_leftImg8bit.png does not begin with its city")


# ---- ADE20K


def test_ade20k_labels_start_at_one_and_grey_and_cmyk_images_are_read(tmp_path):
    folder = converted("ade20k", seg.ade20k(tmp_path / "ade"), "validation")
    assert folder.ids == tuple(f"validation/ADE_val_{n:08d}" for n in (1, 2, 3))
    assert folder.rows[0]["scene"] == "living_room"
    assert len(folder.header["classes"]) == len(set(folder.header["classes"])) == 150
    for number, sample in enumerate(folder, start=1):
        stored = torch.from_numpy(seg.ids(number, 150)).float()[None]
        assert torch.equal(sample.valid["semantic"], stored > 0)
        assert torch.equal(sample.targets["semantic"][stored > 0], stored[stored > 0] - 1)
        assert sample.image.shape == (3, *seg.SIZE)
    # The folder itself is accepted as well as its parent.
    inner = converted("ade20k", tmp_path / "ade" / "ADEChallengeData2016", "training")
    assert len(inner) == 3


def test_errors_in_an_ade20k_tree_name_the_file(tmp_path):
    tree = seg.ade20k(tmp_path / "ade")
    base = tree / "ADEChallengeData2016"
    (base / "images/training/ADE_train_00000002.jpg").unlink()
    refused("ade20k", tree, "training", "ADE_train_00000002.png has no image")
    labels = base / "annotations/validation/ADE_val_00000001.png"
    # The full ADE20K encodes its classes in red and green.
    seg.photo(labels)
    refused("ade20k", tree, "validation", "ADE_val_00000001.png: it has 3 channels that differ")
    labels.unlink()
    refused("ade20k", tree, "validation", "ADE_val_00000001.jpg has no partner")
    (base / "objectInfo150.txt").rename(base / "images/validation/ADE_val_00000003.jpeg")
    refused("ade20k", tree, "validation", "has both ADE_val_00000003.jpeg and ADE_val_00000003.jpg")
    shutil.rmtree(base / "annotations")
    refused("ade20k", tree, "validation", "no folder annotations/validation")


# ---- DIS5K


def test_dis5k_foreground_is_above_128(tmp_path):
    folder = converted("dis5k", seg.dis5k(tmp_path / "d"), "DIS-TE1")
    assert folder.ids[0] == "DIS-TE1/1#Accessories#1#Bag#252841"
    for sample in folder:
        mask = sample.targets["mask"][0]
        assert mask[2, 3:9].sum() == 0 and (mask[3:6, 3:9] == 1).all() and mask.sum() == 18
        assert sample.valid["mask"].all()
    converted("dis5k", tmp_path / "d" / "DIS5K", "DIS-VD")


def test_errors_in_a_dis5k_tree_name_the_file(tmp_path):
    tree = seg.dis5k(tmp_path / "d")
    mask = tree / "DIS5K/DIS-TR/gt/1#Accessories#1#Bag#252841.png"
    mask.write_bytes(mask.read_bytes()[:40])
    refused("dis5k", tree, "DIS-TR", "Bag#252841.png is .*damaged")
    seg.save(mask, np.zeros((3, 3)))
    refused("dis5k", tree, "DIS-TR", "mask is 3x3")
    mask.unlink()
    refused("dis5k", tree, "DIS-TR", "Bag#252841.jpg has no partner")
    refused("dis5k", tree, "DIS-TE4", "no folder DIS-TE4 or DIS5K/DIS-TE4")


# ---- mattes


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("split", ["train", "P3M-500-P", "P3M-500-NP"])
def test_p3m10k_is_read_in_both_layouts(tmp_path, zipped, split):
    folder = converted("p3m10k", matting.p3m10k(tmp_path / "p3m", zipped), split)
    assert folder.ids[0] == f"{split}/p_00000000" and len(folder) == (3 if split == "train" else 2)
    for number, sample in enumerate(folder):
        expected = torch.from_numpy(matting.matte(number)).float()[None] / 255
        assert (sample.targets["matting"] - expected).abs().max() < 1e-6 and sample.valid["matting"].all()
        assert ("trimap" in sample.targets) == (split != "train")
        if split != "train":
            assert sample.targets["trimap"][0, 0, :3].tolist() == pytest.approx([0, 128 / 255, 1])
            assert "original" in folder.rows[number]["file_name"] or split == "P3M-500-P"


def test_errors_in_a_p3m10k_tree_name_the_file(tmp_path):
    tree = matting.p3m10k(tmp_path / "p3m", False)
    (tree / "validation1/trimap/p_00000001.png").unlink()
    refused("p3m10k", tree, "P3M-500-P", "trimap/p_00000001.png does not exist")
    (tree / "train/mask/p_00000002.png").unlink()
    refused("p3m10k", tree, "train", "p_00000002.jpg has no partner in .*mask")
    shutil.rmtree(tree / "validation2")
    refused("p3m10k", tree, "P3M-500-NP", "no folder validation2 or validation/P3M-500-NP")


@pytest.mark.parametrize("nested", [True, False])
def test_aim500_records_the_type_of_each_image(tmp_path, nested):
    folder = converted("aim500", matting.aim500(tmp_path / "aim", nested), "validation")
    assert [(row["type"], row["category"]) for row in folder.rows] == [
        ("SO", "animal"), ("STM", "transparent"), ("NS", "plant"),
    ]  # fmt: skip
    assert set(folder[0].targets) == {"matting", "trimap"}


def test_errors_in_an_aim500_tree_name_the_file(tmp_path):
    tree = matting.aim500(tmp_path / "aim", True)
    types = tree / "aim_category_type.json"
    types.write_text('{"p_00000000": {"type": "XX", "category": "animal"}}')
    refused("aim500", tree, "validation", "aim_category_type.json has the type 'XX'")
    types.write_text('["p_00000000"]')
    refused("aim500", tree, "validation", "aim_category_type.json does not give")
    types.unlink()
    assert "type" not in converted("aim500", tree, "validation").rows[0]
    seg.photo(tree / "validation/original/p_00000000.png")
    refused("aim500", tree, "validation", r"has both p_00000000.jpg and p_00000000.png")


def test_exif_orientation_is_ignored_as_in_the_published_loaders(tmp_path):
    """The published loaders of these data sets ignore EXIF orientation, and the maps have no orientation tag."""
    tree = matting.p3m10k(tmp_path / "p3m", False)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((*seg.SIZE, 3))
    seg.save(tree / "train/blurred_image/p_00000000.jpg", pixels, exif=exif)
    assert converted("p3m10k", tree, "train")[0].image.shape == (3, *seg.SIZE)
    for name in ("p3m10k", "aim500", "dis5k", "ade20k", "coco-keypoints"):
        assert CONVERTERS[name].header["image"] == {"exif": "ignore"}


def test_composition1k_composites_each_foreground_over_its_backgrounds(tmp_path):
    tree = matting.composition1k(tmp_path / "dim", each=20)
    folder = converted("composition1k", tree, "test")
    assert len(folder) == 40 and "test/boy-0_0" in folder.ids and "test/boy-1_19" in folder.ids
    sample = folder.select(["test/boy-1_3"])[0]
    foreground = read_image(tree / "Combined_Dataset/Test_set/Other/fg/boy 1.png") * 255
    background = read_image(tree / "backgrounds/2008_000023.jpg")[:, :8, :12] * 255
    alpha = torch.from_numpy(matting.matte(1)).float()[None] / 255
    expected = (alpha * foreground + (1 - alpha) * background).numpy().astype(np.float64)
    got = (sample.image * 255).round().numpy()
    assert (got <= expected + 0.02).all() and (expected - got < 1.01).all()
    assert isinstance(sample.origin, Provenance)
    assert sample.origin.generator["composed"]["background"] == "2008_000023.jpg"
    assert (sample.targets["matting"] - alpha).abs().max() < 1e-6
    assert set(sample.targets["trimap"].unique().mul(255).round().tolist()) <= {0, 128, 255}


def test_a_composite_equals_the_foreground_at_alpha_1_and_the_background_at_alpha_0():
    foreground, background = (
        torch.rand(3, 6, 8).mul(255).round() / 255,
        torch.rand(3, 9, 9).mul(255).round() / 255,
    )
    assert torch.allclose(composite(foreground, background, torch.ones(1, 6, 8)), foreground, atol=1e-6)
    assert torch.allclose(
        composite(foreground, background, torch.zeros(1, 6, 8)), background[:, :6, :8], atol=1e-6
    )
    # A background that is too small is enlarged with its aspect ratio.
    flat = torch.full((3, 2, 4), 51 / 255)
    assert torch.allclose(
        composite(foreground, flat, torch.zeros(1, 6, 8)), torch.tensor(51 / 255), atol=1e-6
    )


def test_errors_in_a_composition1k_tree_name_the_file(tmp_path):
    tree = matting.composition1k(tmp_path / "dim", each=20)
    (tree / "backgrounds/2008_000001.jpg").unlink()
    refused("composition1k", tree, "test", "2008_000001.jpg does not exist")
    seg.save(tree / "Combined_Dataset/Test_set/Adobe-licensed images/alpha/boy 0.png", np.zeros((3, 3)))
    refused("composition1k", tree, "test", "boy 0.png .* different sizes")
    (tree / "Combined_Dataset/Test_set/test_fg_names.txt").write_text("girl.png\n")
    refused("composition1k", tree, "test", "no foreground 'girl'")
    (tree / "Combined_Dataset/Test_set/test_fg_names.txt").write_text("\n")
    refused("composition1k", tree, "test", "test_fg_names.txt is empty")


# ---- keypoints


def test_coco_has_one_row_per_person_with_keypoints(tmp_path):
    out = convert(CONVERTERS["coco-keypoints"], people.coco(tmp_path / "coco"), "val2017", tmp_path / "out")
    folder = Folder(out)
    assert folder.ids == (
        "val2017/000000000139/230831", "val2017/000000000139/233201", "val2017/000000000785/442619",
    )  # fmt: skip
    row = folder.rows[2]
    keypoints = row["targets"]["keypoints"]
    assert row["size"] == [48, 64] and row["file_name"] == "val2017/000000000785.jpg"
    assert keypoints["ann_id"] == 442619 and keypoints["image_id"] == 785
    # As stored: nothing is shifted by half a pixel.
    assert keypoints["points"][0] == [10.2, 20, 2] and keypoints["points"][6] == [0, 0, 0]
    assert keypoints["box"] == [8.5, 15.25, 20.0, 30.5] and keypoints["area"] == 401.5
    assert len(keypoints["points"]) == len(folder.header["keypoints"]) == 17


def test_errors_in_coco_annotations_name_the_file(tmp_path):
    tree = people.coco(tmp_path / "coco")
    good = people.read(tree)
    name = "person_keypoints_val2017.json"
    for change, words in (
        ({"id": 0}, f"{name}: annotation 0: ids begin at 1"),
        ({"image_id": 5}, f"{name}: annotation 1 is of the image 5"),
        ({"keypoints": [1, 2, 2]}, f"{name}: annotation 1 has 3 numbers"),
        ({"keypoints": [7] * 51}, f"{name}: annotation 1 has points that are neither"),
    ):
        one = {**people.annotation(1, 139), **change}
        people.write(tree, {**good, "annotations": [one]})
        refused("coco-keypoints", tree, "val2017", words)
    people.write(tree, {**good, "annotations": [{"id": 1, "image_id": 139, "bbox": [], "area": 1}]})
    refused("coco-keypoints", tree, "val2017", "has no 'keypoints'; is it person_keypoints")
    people.write(tree, {"images": []})
    refused("coco-keypoints", tree, "val2017", "no list 'annotations'")
    people.write(tree, {**good, "annotations": good["annotations"][3:]})
    refused("coco-keypoints", tree, "val2017", "has no images")
    people.write(tree, good)
    (tree / "val2017/000000000785.jpg").unlink()
    refused("coco-keypoints", tree, "val2017", "000000000785.jpg does not exist")
    (tree / "annotations" / name).write_text("{")
    refused("coco-keypoints", tree, "val2017", f"{name} is not JSON")
    (tree / "annotations" / name).unlink()
    refused("coco-keypoints", tree, "val2017", f"{name} does not exist")


# ---- several tasks


@pytest.mark.parametrize("mti", [False, True])
@pytest.mark.parametrize("frame", ["LUB", "RUB", "RDB", "RDF"])
def test_nyud_infers_the_frame_of_its_normals(tmp_path, frame, mti):
    folder = converted("nyud-mt", multi.nyud_mt(tmp_path / "nyud", frame, mti), "train")
    assert folder.ids == ("train/1", "train/2")
    assert folder.rows[0]["targets"]["normals"]["frame"] == frame
    sample = folder[0]
    assert set(sample.targets) == {"semantic", "depth", "normals", "edge"}
    z = torch.from_numpy(multi.depth(1))[None]
    assert torch.equal(sample.valid["depth"], z > 0) and torch.equal(sample.targets["depth"], z)
    assert sample.targets["normals"][2][sample.valid["normals"][0]].min() > -0.02
    edge = sample.targets["edge"][0]
    assert edge[10, 0] == pytest.approx(1) and edge[0, 20] == pytest.approx(100 / 255) and edge[0, 0] == 0
    stored = read_map(tmp_path / "nyud/segmentation/1.png")
    assert torch.equal(sample.valid["semantic"], stored > 0)
    assert sample.targets["semantic"].max() <= 39


def to_16_bits(folder: Path) -> None:
    """Rewrite every 8-bit PNG of a folder with 16 bits and the same values relative to full scale."""
    cv2 = pytest.importorskip("cv2")
    for path in folder.glob("*.png"):
        levels = np.asarray(Image.open(path))
        cv2.imwrite(str(path), levels[..., ::-1].astype(np.uint16) * 257)


@pytest.mark.parametrize(("name", "part"), [("nyud-mt", "normals"), ("pascal-mt", "normals_distill")])
def test_normals_of_16_bits_equal_those_of_8_bits(tmp_path, name, part):
    found = []
    for bits in (8, 16):
        tree = getattr(multi, name.replace("-", "_"))(tmp_path / str(bits) / "tree")
        if bits == 16:
            to_16_bits(tree / part)
        sample = converted(name, tree, "train")[0]
        found.append((sample.targets["normals"], sample.valid["normals"]))
    (first, known), (second, known_again) = found
    assert known.any() and torch.equal(known, known_again)
    torch.testing.assert_close(first, second, atol=2e-3, rtol=0)


def test_errors_in_an_nyud_tree_name_the_file(tmp_path):
    tree = multi.nyud_mt(tmp_path / "nyud")
    for stem in ("1", "2"):
        seg.save(tree / "normals" / f"{stem}.png", np.full((*multi.NYU, 3), (128, 128, 255)))
    refused("nyud-mt", tree, "train", "normals: the frame of the normals is not clear")
    # In an unused frame (x left, y down) each axis is consistent, but the signs match no known frame.
    shutil.rmtree(tree)
    multi.nyud_mt(tree, "LUB")
    for path in (tree / "normals").iterdir():
        levels = np.asarray(Image.open(path))
        turned = np.stack([levels[..., 0], 255 - levels[..., 1], levels[..., 2]], -1)
        seg.save(path, np.where(levels.any(-1, keepdims=True), turned, 0))
    refused("nyud-mt", tree, "train", "frame of the normals is not clear .*x -1.00, y -1.00")
    seg.save(tree / "normals/3.png", np.zeros((3, 4, 3)))
    refused("nyud-mt", tree, "val", "3.png does not fit .*3.npy")
    (tree / "edge/3.png").unlink()
    refused("nyud-mt", tree, "val", "edge/3.png or .*edge/3.npy does not exist")
    (tree / "gt_sets/val.txt").write_text("")
    refused("nyud-mt", tree, "val", "val.txt is empty")
    (tree / "gt_sets/val.txt").unlink()
    refused("nyud-mt", tree, "val", "val.txt does not exist")


def test_pascal_targets_are_rendered_from_matlab_files(tmp_path):
    folder = converted("pascal-mt", multi.pascal_mt(tmp_path / "pascal"), "train")
    with_people, without = folder[0], folder[1]
    assert set(with_people.targets) == {"semantic", "mask", "normals", "edge", "parts"}
    assert set(without.targets) == {"semantic", "mask", "normals", "edge"}
    classes, valid = with_people.targets["semantic"][0], with_people.valid["semantic"][0]
    assert not valid[0].any() and valid[1:].all() and (classes[5:15, 10:20] == 15).all()
    # Hair belongs to the head and a foot to the lower leg; later persons cover earlier ones.
    parts = with_people.targets["parts"][0]
    assert (
        (parts[5:8, 10:15] == 1).all()
        and (parts[8:11, 10:15] == 3).all()
        and (parts[11:14, 10:20] == 6).all()
    )
    assert parts[0:4, 0:4].sum() == 0, "the head of a dog is not a person part"
    mask = with_people.targets["mask"][0]
    assert mask[0, 0] == 0 and mask[0, 1] == 1 and mask[15].sum() == 0
    # The normals of the sky are unknown.
    known = with_people.valid["normals"][0]
    assert known[:12, :15].all() and not known[:12, 15:].any() and known[12:].all()
    assert with_people.targets["normals"][2][known].min() > 0.99
    edge = with_people.targets["edge"][0]
    assert edge[5].sum() == 1 and edge[:, 3].sum() == 1 and set(edge.unique().tolist()) == {0, 1}
    # Maps of half size are resized to the image.
    assert without.targets["normals"].shape == (3, *multi.PASCAL) and without.targets["mask"][0, 2:10].all()


def test_pascal_boundaries_equal_the_published_loader(tmp_path):
    """Thinned pixels with a non-zero OpenCV Laplacian of the labels, the common training target of this data set."""
    cv2, morphology = pytest.importorskip("cv2"), pytest.importorskip("skimage.morphology")
    from twofold.data.convert.pascal_mt import _edges

    labels = np.random.default_rng(0).integers(0, 4, (6, 8)).repeat(4, 0).repeat(4, 1)
    expected = morphology.thin(np.abs(cv2.Laplacian(labels.astype(np.uint16), cv2.CV_64F)) > 0)
    assert np.array_equal(_edges(torch.from_numpy(labels)[None])[0][0].numpy() > 0, expected)


def test_errors_in_a_pascal_tree_name_the_file(tmp_path):
    tree = multi.pascal_mt(tmp_path / "pascal")
    name = "2008_000002"

    def broken(path: str, change, words: str) -> None:
        file = tree / path
        original = file.read_bytes()
        change(file)
        refused("pascal-mt", tree, "train", words)
        file.write_bytes(original)

    labels, parts = f"pascal-context/trainval/{name}.mat", f"human_parts/{name}.mat"
    broken(labels, os.remove, f"{name}.mat does not exist")
    broken(labels, lambda f: f.write_bytes(b"no matlab"), f"{name}.mat cannot be read as Matlab 5")
    broken(labels, lambda f: f.write_bytes((tree / parts).read_bytes()), f"{name}.mat has no 'LabelMap'")
    broken(parts, lambda f: multi.savemat(f, {"anno": np.zeros(3)}), f"{name}.mat is not an annotation")
    horse = [multi._object("person", 15, (0, 0, 4, 4), [("hoof", (0, 0, 2, 2))])]
    anno = multi._records(("imname", "objects"), [(name, multi._row(horse))])
    broken(parts, lambda f: multi.savemat(f, {"anno": anno}), f"{name}.mat has a part .* 'hoof'")
    broken(
        f"semseg/VOC12/{name}.png",
        lambda f: seg.save(f, np.full((20, 30), 21)),
        f"{name}.png has the class 21",
    )
    broken(f"normals_distill/{name}.png", lambda f: seg.save(f, np.zeros((20, 30))), "normals have 3")
    broken("ImageSets/Context/train.txt", os.remove, "train.txt does not exist")
    for folder in ("VOC12", "pascal-context"):
        (tree / "semseg" / folder / f"{name}.png").unlink()
    refused("pascal-mt", tree, "train", f"no {name}.png in VOC12 or pascal-context")


# ---- codecs


@pytest.mark.parametrize("name", ["semantic", "parts"])
def test_ids_with_a_stored_numbering_round_trip(tmp_path, name):
    ids = torch.randint(0, 19, (1, 9, 9)).float()
    how = {"codec": "png8", "stored": list(CLASSES.values())}
    whole = torch.ones(1, 9, 9, dtype=torch.bool)
    raw = read_map(write_target(tmp_path / "a", name, ids, whole, how))
    assert set(raw.unique().int().tolist()) <= set(CLASSES.values())
    back, valid = decode(name, raw, how)
    assert torch.equal(back, ids) and valid.all()
    unlisted = torch.tensor([[[7.0, 6, 255, -1, 7.5, 33]]])
    back, valid = decode(name, unlisted, how)
    assert valid.flatten().tolist() == [True, False, False, False, False, True] and back[0, 0, -1] == 18


def test_mattes_of_three_equal_channels_are_read_as_one():
    raw = torch.tensor([0.0, 128, 255]).expand(3, 1, 3)
    value, valid = decode("matting", raw, {"codec": "png8", "scale": 1 / 255})
    assert (
        value.shape == (1, 1, 3) and value[0, 0].tolist() == pytest.approx([0, 128 / 255, 1]) and valid.all()
    )


def test_trees_have_the_native_encodings(tmp_path):
    """The test trees contain grey and CMYK JPEGs, and labels in 8-bit grey."""
    base = seg.ade20k(tmp_path) / "ADEChallengeData2016"
    modes = {Image.open(p).mode for p in (base / "images/training").iterdir()}
    assert modes == {"RGB", "L", "CMYK"}
    assert {Image.open(p).mode for p in (base / "annotations/training").iterdir()} == {"L"}
