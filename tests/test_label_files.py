"""Laws of stored labels: one mask in every lossless way there is reads as one mask, or is refused with what to do."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.data import Folder, FolderError, FolderWriter, validate
from twofold.evaluate.predictions import decode_file
from twofold.evaluate.protocol import EvaluationError
from twofold.image import write_image
from twofold.sample import Sample

SIZE = (6, 10)
MASK = np.zeros(SIZE, np.uint8)
MASK[1:4, 2:7] = 1
COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0)}


def png(path: Path, levels: np.ndarray, bits: int, color: int = 0) -> Path:
    """Levels h w, or h w c, of 1 to 16 bits as a PNG of a colour type, whatever Pillow would make of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    h, w = levels.shape[:2]
    if bits < 8:
        flat = np.unpackbits(levels.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        lines = np.packbits(flat.reshape(h, -1), axis=-1)
    else:
        lines = levels.astype(">u2" if bits == 16 else "u1").reshape(h, -1)
    data = b"".join(b"\0" + line.tobytes() for line in lines)
    head = struct.pack(">IIBBBBB", w, h, bits, color, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def palette(path: Path, index: np.ndarray, colours: dict[int, tuple[int, int, int]], **options) -> Path:
    image = Image.fromarray(index.astype(np.uint8), mode="P")
    table = np.zeros((256, 3), np.uint8)
    for i, colour in colours.items():
        table[i] = colour
    image.putpalette(table.flatten().tolist())
    image.save(path, **options)
    return path


def folder(root: Path, name: str, file: str, count: int = 1, **how) -> Path:
    """A data folder of an image and one label file."""
    header = {"name": "labels", "targets": {name: how}}
    (root / "dataset.json").write_text(json.dumps(header))
    write_image(root / "image.png", torch.rand(3, *SIZE))
    rows = [{"id": str(i), "file_name": "image.png", "targets": {name: {"path": file}}} for i in range(count)]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def read(root: Path, name: str, file: Path, **how):
    sample = Folder(folder(root, name, file.name, **how))[0]
    return sample.targets[name][0].numpy(), sample.valid[name][0].numpy()


def refused(root: Path, name: str, file: Path, words: str, **how) -> None:
    with pytest.raises(FolderError, match=words) as error:
        read(root, name, file, **how)
    output = str(error.value)
    assert str(file) in output and "\n" not in output
    report = validate(root)
    assert not report.ok and any(file.name in problem for problem in report.problems)


def grey(path: Path, levels: np.ndarray, **options) -> Path:
    Image.fromarray(levels).save(path, **options)
    return path


EQUAL = {
    "8bit.png": lambda p: grey(p, MASK * np.uint8(255)),
    "1bit.png": lambda p: png(p, MASK, 1),
    "2bit.png": lambda p: png(p, MASK * 3, 2),
    "4bit.png": lambda p: png(p, MASK * 15, 4),
    "16bit.png": lambda p: png(p, MASK * np.uint16(65535), 16),
    "16bit255.png": lambda p: png(p, MASK * np.uint16(255), 16),
    "grey_rgb.png": lambda p: grey(p, np.stack([MASK * np.uint8(255)] * 3, -1)),
    "opaque_la.png": lambda p: png(p, np.stack([MASK * 255, np.full(SIZE, 255)], -1), 8, 4),
    "opaque_rgba.png": lambda p: png(p, np.stack([MASK * 255] * 3 + [np.full(SIZE, 255)], -1), 8, 6),
    "palette_bw.png": lambda p: palette(p, MASK, {0: (0, 0, 0), 1: (255, 255, 255)}),
    "palette_wb.png": lambda p: palette(p, 1 - MASK, {0: (255, 255, 255), 1: (0, 0, 0)}),
    "palette_1bit.png": lambda p: palette(p, MASK, {0: (0, 0, 0), 1: (255, 255, 255)}, bits=1),
    "1bit.tiff": lambda p: Image.fromarray(MASK * np.uint8(255)).convert("1").save(p),
    "8bit.tiff": lambda p: grey(p, MASK * np.uint8(255)),
    "rgb.tiff": lambda p: grey(p, np.stack([MASK * np.uint8(255)] * 3, -1)),
    "palette.tiff": lambda p: palette(p, MASK, {0: (0, 0, 0), 1: (255, 255, 255)}),
    "bool.npy": lambda p: np.save(p, MASK.astype(bool)),
    "255.npy": lambda p: np.save(p, MASK * np.uint8(255)),
    "float.npy": lambda p: np.save(p, MASK.astype(np.float32)),
    "half.npy": lambda p: np.save(p, MASK.astype(np.float16)),
}


@pytest.mark.parametrize("how", [{}, {"threshold": 128}], ids=["silent", "stated"])
@pytest.mark.parametrize("name", EQUAL)
def test_a_mask_stored_in_any_unambiguous_way_is_the_same_mask(name, how, tmp_path):
    EQUAL[name](tmp_path / name)
    mask, valid = read(tmp_path, "mask", tmp_path / name, **how)
    assert valid.all() and np.array_equal(mask, MASK)
    assert validate(tmp_path).ok


@pytest.mark.parametrize("name", [n for n in EQUAL if "npy" not in n])
def test_a_matte_stored_in_any_unambiguous_way_is_the_same_matte(name, tmp_path):
    EQUAL[name](tmp_path / name)
    if name == "16bit255.png":
        refused(tmp_path, "matting", tmp_path / name, "values 0 and 255.*at most 0.00389")
        return
    for how in ({}, {"scale": 1 / 255}):
        if name == "16bit.png" and how:
            refused(tmp_path, "matting", tmp_path / name, "goes from 0 to 257.*set its 'scale'", **how)
            continue
        matte, valid = read(tmp_path, "matting", tmp_path / name, **how)
        assert valid.all() and np.allclose(matte, MASK, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in EQUAL if n not in ("palette_wb.png", "float.npy", "half.npy")])
def test_a_stored_prediction_of_a_mask_reads_as_the_mask(name, tmp_path):
    EQUAL[name](tmp_path / name)
    if name in ("16bit255.png", "255.npy"):
        with pytest.raises(EvaluationError, match="--scale"):
            decode_file(tmp_path / name, "mask")
        return
    assert np.allclose(decode_file(tmp_path / name, "mask")[0].numpy(), MASK, atol=1e-6)


AMBIGUOUS = {
    "01.png": (lambda p: grey(p, MASK), r"values 0 and 1 in 8 bits.*all background.*0 and 255.*\"threshold\": 0"),
    "02.png": (lambda p: grey(p, MASK * 2), "values 0 and 2 in 8 bits"),
    "01of4.png": (lambda p: png(p, MASK, 4), "values 0 and 1 in 4 bits.*0 and 15"),
    "01of16.png": (lambda p: png(p, MASK, 16), "values 0 and 1 in 16 bits"),
    "1.png": (lambda p: grey(p, np.ones_like(MASK)), "the value 1 everywhere"),
    "01_255.png": (
        lambda p: grey(p, np.where(np.arange(10) == 9, 255, MASK).astype(np.uint8)),
        "values 0, 1 and 255.*are these ids",
    ),
    "full.png": (lambda p: grey(p, MASK * np.uint8(50) + np.uint8(200)), "values 200 and 250.*all foreground"),
    "soft16.png": (
        lambda p: png(p, np.linspace(0, 65535, 60).reshape(SIZE), 16),
        "values from 0 to 65535.*\"threshold\" to 32768",
    ),
    "colour.png": (
        lambda p: grey(p, MASK[..., None] * np.array([255, 0, 0], np.uint8)),
        r"3 channels that differ, such as \(255, 0, 0\).*\"channel\"",
    ),
    "alpha.png": (
        lambda p: png(p, np.stack([np.full(SIZE, 255)] * 3 + [MASK * 255], -1), 8, 6),
        'alpha channel is not opaque.*"channel" to 3',
    ),
    "la.png": (lambda p: png(p, np.stack([MASK * 0, MASK * 255], -1), 8, 4), "\"channel\" to 1"),
    "voc.png": (lambda p: palette(p, MASK, COLOURS), r"is a palette file.*\(128, 0, 0\).*\"threshold\" of 0"),
    "clear.png": (
        lambda p: palette(p, MASK, {0: (255, 255, 255), 1: (255, 255, 255)}, transparency=0),
        "is a palette file",
    ),
    "key.png": (lambda p: grey(p, MASK * np.uint8(255), transparency=0), "declares .* transparent"),
    "01.npy": (lambda p: np.save(p, MASK), "values 0 and 1 in 8 bits"),
    "01.tiff": (lambda p: grey(p, MASK), "values 0 and 1 in 8 bits"),
    "minus.npy": (lambda p: np.save(p, MASK - 0.5), "values -0.5 and 0.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_mask_is_refused_with_advice(name, tmp_path):
    write, words = AMBIGUOUS[name]
    write(tmp_path / name)
    refused(tmp_path, "mask", tmp_path / name, words, threshold=128)
    if name != "soft16.png":  # thresholded at half of its range without a threshold
        refused(tmp_path, "mask", tmp_path / name, words)


def test_the_descriptor_decides_what_the_file_does_not(tmp_path):
    grey(tmp_path / "01.png", MASK)
    palette(tmp_path / "voc.png", MASK * 2, COLOURS)
    for file in ("01.png", "voc.png"):
        assert np.array_equal(read(tmp_path, "mask", tmp_path / file, threshold=0)[0], MASK)
    alpha = np.stack([np.full(SIZE, 255)] * 3 + [MASK * 255], -1)
    png(tmp_path / "alpha.png", alpha, 8, 6)
    assert np.array_equal(read(tmp_path, "mask", tmp_path / "alpha.png", channel=3)[0], MASK)
    refused(tmp_path, "mask", tmp_path / "alpha.png", "channels 0 to 3", channel=4)
    # All above 0 is foreground, and here all is.
    grey(tmp_path / "ids.png", MASK + np.uint8(1))
    assert read(tmp_path, "mask", tmp_path / "ids.png", threshold=0)[0].all()


def test_empty_full_and_soft_masks_stay_what_they_are(tmp_path):
    grey(tmp_path / "empty.png", np.zeros(SIZE, np.uint8))
    grey(tmp_path / "full.png", np.full(SIZE, 255, np.uint8))
    soft = np.linspace(0, 255, 60).astype(np.uint8).reshape(SIZE)
    grey(tmp_path / "soft.png", soft)
    assert not read(tmp_path, "mask", tmp_path / "empty.png")[0].any()
    assert read(tmp_path, "mask", tmp_path / "full.png")[0].all()
    assert np.array_equal(read(tmp_path, "mask", tmp_path / "soft.png")[0], soft > 128)
    png(tmp_path / "soft16.png", soft.astype(np.uint16) * 257, 16)
    assert np.array_equal(read(tmp_path, "mask", tmp_path / "soft16.png")[0], soft > 127)
    Image.fromarray(soft).save(tmp_path / "soft.jpg", quality=95)
    found, _ = read(tmp_path, "mask", tmp_path / "soft.jpg", codec="jpg8")
    assert (found != (soft > 128)).sum() <= 3
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "empty.jpg")
    assert not read(tmp_path, "mask", tmp_path / "empty.jpg", codec="jpg8")[0].any()


@pytest.mark.parametrize(
    ("name", "levels", "words"),
    [
        ("matting", MASK, "values 0 and 1.*at most 0.00392"),
        ("trimap", MASK * 2, "values 0 and 2.*at most 0.00784"),
        ("edge", MASK, "values 0 and 1"),
        ("matting", np.stack([MASK * 255, MASK, MASK], -1), r"3 channels that differ"),
    ],
)
def test_shares_in_other_levels_are_refused(name, levels, words, tmp_path):
    grey(tmp_path / "a.png", levels.astype(np.uint8))
    refused(tmp_path, name, tmp_path / "a.png", words, scale=1 / 255)
    refused(tmp_path, name, tmp_path / "a.png", words)
    palette(tmp_path / "voc.png", MASK, COLOURS)
    refused(tmp_path, name, tmp_path / "voc.png", "is a palette file", scale=1 / 255)
    if levels.ndim == 2:
        top = float(levels.max())
        assert np.allclose(read(tmp_path, name, tmp_path / "a.png", scale=1 / top)[0] * top, levels)


def test_ids_are_levels_and_the_indices_of_palettes(tmp_path):
    ids = np.arange(60).reshape(SIZE) % 3
    png(tmp_path / "2bit.png", ids, 2)
    palette(tmp_path / "p.png", ids, COLOURS)
    grey(tmp_path / "rgb.png", np.stack([ids] * 3, -1).astype(np.uint8))
    png(tmp_path / "la.png", np.stack([ids, np.full(SIZE, 255)], -1), 8, 4)
    for name in ("semantic", "instance", "parts"):
        for file in ("2bit.png", "p.png", "rgb.png", "la.png"):
            assert np.array_equal(read(tmp_path, name, tmp_path / file)[0], ids), file
            assert np.array_equal(decode_file(tmp_path / file, name)[0].numpy(), ids)
    # A descriptor with colours reads those of the file, whichever index each has.
    palette(tmp_path / "turned.png", 2 - ids, {2 - i: c for i, c in COLOURS.items()})
    assert np.array_equal(
        read(tmp_path, "semantic", tmp_path / "turned.png", palette=list(COLOURS.values()))[0], ids
    )
    table = np.array(list(COLOURS.values()), np.uint8)
    grey(tmp_path / "colour.png", table[ids])
    assert np.array_equal(
        read(tmp_path, "semantic", tmp_path / "colour.png", palette=list(COLOURS.values()))[0], ids
    )
    refused(tmp_path, "semantic", tmp_path / "colour.png", "3 channels that differ.*'palette'")
    grey(tmp_path / "a.jpg", ids.astype(np.uint8))
    refused(tmp_path, "semantic", tmp_path / "a.jpg", "JPEG compression changes ids", codec="jpg8")


def test_a_palette_is_no_depth_and_no_normals(tmp_path):
    palette(tmp_path / "p.png", MASK, COLOURS)
    refused(tmp_path, "depth", tmp_path / "p.png", "is a palette file", codec="png8", scale=0.01)
    refused(tmp_path, "normals", tmp_path / "p.png", "is a palette file", codec="png8", frame="RUB")
    png(tmp_path / "1bit.png", MASK, 1)
    refused(tmp_path, "depth", tmp_path / "1bit.png", "1 bits", codec="png", scale=0.01)
    rgba = np.stack([np.full(SIZE, 128), np.full(SIZE, 128), np.full(SIZE, 255), np.full(SIZE, 255)], -1)
    png(tmp_path / "rgba.png", rgba, 8, 6)
    normals, valid = read(tmp_path, "normals", tmp_path / "rgba.png", codec="png8", frame="RUB")
    assert valid.all() and abs(float(normals[0, 0])) < 0.01


def test_masks_of_other_targets_are_levels_too(tmp_path):
    depth = np.full(SIZE, 2000, np.uint16)
    png(tmp_path / "d.png", depth, 16)
    where = {"scale": 0.001, "codec": "png16"}
    for name, write in EQUAL.items():
        if name.startswith("palette") or name.endswith("tiff"):
            continue
        write(tmp_path / name)
        mask = {"path": name, "valid": "nonzero"}
        _, valid = read(tmp_path, "depth", tmp_path / "d.png", **where, masks={"known": mask})
        assert np.array_equal(valid, MASK), name
    mask = {"path": "1bit.png", "valid": [255]}
    with pytest.raises(
        FolderError, match=r"1bit\.png has values 0 and 1, and none of them is in its 'valid'"
    ):
        read(tmp_path, "depth", tmp_path / "d.png", **where, masks={"known": mask})


@pytest.mark.parametrize(
    ("name", "level", "how", "words"),
    [
        ("mask", 0, {}, "of 3 mask labels 3 are empty .* 0 full"),
        ("mask", 255, {}, "0 are empty .* 3 full"),
        ("matting", 0, {}, "of 3 matting labels 3 are empty"),
        ("trimap", 255, {}, "3 full"),
        ("semantic", 4, {}, "all 3 semantic labels hold the id 4"),
    ],
)
def test_validate_complains_when_no_label_of_a_folder_shows_contrast(name, level, how, words, tmp_path):
    grey(tmp_path / "a.png", np.full(SIZE, level, np.uint8))
    report = validate(folder(tmp_path, name, "a.png", count=3, **how))
    assert len(report.problems) == 1
    assert report.targets[name]["samples"] == 3
    assert re.search(words, report.problems[0]), report.problems


def test_ids_beyond_the_classes_of_the_header_are_a_problem(tmp_path):
    grey(tmp_path / "a.png", MASK * np.uint8(3))
    folder(tmp_path, "semantic", "a.png")
    header = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**header, "classes": ["a", "b", "c"]}))
    assert any("the id 3, and the header lists 3 classes" in p for p in validate(tmp_path).problems)
    (tmp_path / "dataset.json").write_text(json.dumps({**header, "classes": ["a", "b", "c", "d"]}))
    assert validate(tmp_path).ok


# ---- predictions


def test_predictions_of_masks_that_may_mean_two_things_are_refused(tmp_path):
    for file in (grey(tmp_path / "01.png", MASK), png(tmp_path / "16.png", MASK * np.uint16(255), 16)):
        for target in ("mask", "matting", "saliency"):
            with pytest.raises(EvaluationError, match="pass --scale 1 if 1 is foreground"):
                decode_file(file, target)
        top = 1 if file.name == "01.png" else 255
        assert np.array_equal(decode_file(file, "mask", 1 / top)[0].numpy(), MASK)
    for name in ("colour.png", "alpha.png", "voc.png"):
        AMBIGUOUS[name][0](tmp_path / name)
        with pytest.raises(EvaluationError, match=name):
            decode_file(tmp_path / name, "mask")
    palette(tmp_path / "p.png", MASK, COLOURS)
    for target in ("depth", "normals"):
        with pytest.raises(EvaluationError, match="palette"):
            decode_file(tmp_path / "p.png", target)


# ---- writing


def sample(image: torch.Tensor, **targets: torch.Tensor) -> Sample:
    valid = {name: torch.ones(1, *SIZE, dtype=torch.bool) for name in targets}
    return Sample(image, targets, valid, id="a")


def test_images_in_another_range_are_refused_by_the_writer_or_converted_where_that_is_certain(tmp_path):
    writer = FolderWriter(tmp_path / "f", {"name": "f", "targets": {"mask": {}}})
    photo = torch.rand(3, *SIZE)
    for image, words in (
        (
            photo * 2 - 1,
            r"a was not written: its image has values from -.*\[-1, 1\]; use \(image \+ 1\) / 2",
        ),
        (photo * 255, "levels of 8 bits; divide by 255"),
        (photo * 1000 - 300, "deviation"),
        (torch.where(photo > 0.5, torch.nan, photo), "NaN"),
        (torch.where(photo > 0.5, torch.inf, photo), "infinite"),
    ):
        with pytest.raises(FolderError, match=words):
            writer.write(sample(image))
    assert not list((tmp_path / "f").rglob("*.png"))
    levels = (photo * 255).round().to(torch.uint8)
    writer.write(sample(levels))
    writer.finish()
    assert torch.equal((Folder(tmp_path / "f")[0].image * 255).round(), levels.float())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mask", 255.0, "mask goes from 255 to 255, not 0 to 1"),
        ("mask", float("nan"), "mask is NaN"),
        ("matting", 255.0, "matting goes from 255"),
        ("matting", -0.5, "matting goes from -0.5"),
        ("depth", -1.0, "depth is -1 where it is valid"),
        ("depth", 0.0, "depth is 0 where it is valid"),
        ("depth", float("inf"), "depth is NaN or infinite at valid pixels"),
        ("semantic", 1.5, "1.5 is not an id"),
        ("normals", 128.0, "lengths from 222 to 222"),
    ],
)
@pytest.mark.parametrize("codec", ["", "npy"])
def test_labels_in_another_unit_are_not_written(name, value, words, codec, tmp_path):
    how = {"codec": codec} if codec else {}
    writer = FolderWriter(tmp_path / "f", {"name": "f", "targets": {name: how}})
    target = torch.full((3 if name == "normals" else 1, *SIZE), value)
    with pytest.raises(ValueError, match=f"not written.*{words}"):
        writer.write(sample(torch.rand(3, *SIZE), **{name: target}))
