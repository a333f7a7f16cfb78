"""Formats of cameras, renderers and phones: each is read as its image, or refused in one line."""

from __future__ import annotations

import struct
import tokenize
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.image import ImageError, read_image, read_map
from twofold.image.errors import decoding
from twofold.image.formats import IMAGE_SUFFIXES, sniff
from twofold.io.limits import LIMIT_VARIABLE, parse_pixels, pixel_limit

SMOOTH = (
    np.stack(np.meshgrid(np.arange(48), np.arange(32), [1, 2, 3], indexing="xy"), 0).sum(0) * 2 + 20
).astype(np.uint8)


def light(height: int = 24, width: int = 30) -> np.ndarray:
    """Linear light h w 3 in some unit, far above 1."""
    rng = np.random.default_rng(0)
    brightness = rng.permutation(np.linspace(0.01, 50, height * width)).reshape(height, width, 1)
    return (brightness * rng.uniform(0.7, 1, (height, width, 3))).astype(np.float32)


def write(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".exr":
        exr = pytest.importorskip("OpenEXR")
        exr.File({"type": exr.scanlineimage}, {"RGB" if array.ndim == 3 else "Y": array}).write(str(path))
    elif path.suffix == ".hdr":
        cv2 = pytest.importorskip("cv2")
        path.write_bytes(cv2.imencode(".hdr", array[..., ::-1])[1].tobytes())
    else:
        pytest.importorskip("tifffile").imwrite(path, array)
    return path


def test_heic_is_read_upright_and_near_its_colours(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(Image.fromarray(SMOOTH)).save(tmp_path / "a.heic", quality=100)
    turned = heif.from_pillow(Image.fromarray(SMOOTH))
    turned.info["exif"] = exif.tobytes()
    turned.save(tmp_path / "b.heic", quality=100)
    x = read_image(tmp_path / "a.heic")
    assert (x - read_image(Image.fromarray(SMOOTH))).abs().max() < 0.03
    assert torch.equal(read_image((tmp_path / "a.heic").read_bytes()), x)
    y = read_image(tmp_path / "b.heic")
    assert y.shape == (3, 48, 32)
    assert (y - x.rot90(-1, (1, 2))).abs().max() < 0.03


@pytest.mark.parametrize("rle", [False, True])
def test_tga_is_read_by_its_suffix_only(tmp_path: Path, rle: bool) -> None:
    options = {"compression": "tga_rle"} if rle else {}
    Image.fromarray(SMOOTH).save(tmp_path / "a.tga", **options)
    assert torch.equal(read_image(tmp_path / "a.tga"), read_image(Image.fromarray(SMOOTH)))
    with pytest.raises(ImageError, match="not an image"):
        read_image((tmp_path / "a.tga").read_bytes())


@pytest.mark.parametrize("suffix", [".exr", ".hdr", ".tiff"])
def test_tone_mapping_does_not_depend_on_the_unit_of_linear_light(tmp_path: Path, suffix: str) -> None:
    array = light()
    x = read_image(write(tmp_path / f"a{suffix}", array))
    brightness = array @ np.array([0.3, 0.59, 0.11], np.float32)
    expected = (array * 0.8**2.2 / np.percentile(brightness, 90)) ** (1 / 2.2)
    tolerance = 0.02 if suffix == ".hdr" else 1e-4  # eight bits of mantissa are shared
    assert np.abs(x.permute(1, 2, 0).numpy() - expected.clip(0, 1)).max() < tolerance
    assert x.dtype == torch.float32 and x.is_contiguous()
    y = read_image(write(tmp_path / f"b{suffix}", array * np.float32(1000)))
    assert (x - y).abs().max() < tolerance
    assert torch.equal(read_image((tmp_path / f"a{suffix}").read_bytes()), x)


def test_a_float_tiff_in_0_to_1_is_not_tone_mapped(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((5, 7, 3), dtype=np.float32)
    assert np.array_equal(read_image(write(tmp_path / "a.tif", array)).permute(1, 2, 0).numpy(), array)


def test_light_of_few_lit_pixels_and_without_light_is_read(tmp_path: Path) -> None:
    array = np.zeros((10, 10, 3), np.float32)
    array[0, 0] = 1e-6
    assert abs(float(read_image(write(tmp_path / "a.exr", array))[:, 0, 0].mean()) - 0.8) < 1e-3
    assert not read_image(write(tmp_path / "b.exr", array * 0)).any()
    array[1, 1] = np.nan
    array[2, 2] = np.inf
    x = read_image(write(tmp_path / "c.exr", array))
    assert x.isfinite().all() and not x[:, 1:].any()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 4, 3), np.nan, np.float32), "no finite value"),
        (np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32), "is it a map"),
    ],
)
@pytest.mark.parametrize("suffix", [".exr", ".tiff"])
def test_maps_are_not_read_as_images(tmp_path: Path, suffix: str, array: np.ndarray, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read_image(write(tmp_path / f"a{suffix}", array))


def test_an_exr_file_with_depth_only_is_not_an_image_but_luminance_is(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    grey = light()[..., 0]
    exr.File({"type": exr.scanlineimage}, {"Z": grey}).write(str(tmp_path / "z.exr"))
    with pytest.raises(ImageError, match=r"one channel \(Z\)"):
        read_image(tmp_path / "z.exr")
    x = read_image(write(tmp_path / "y.exr", grey))
    assert torch.allclose(x[0], x[2]) and x.std() > 0.1


@pytest.mark.parametrize("suffix", [".exr", ".hdr", ".tiff", ".heic", ".tga", ".avif", ".jp2"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix in (".exr", ".hdr", ".tiff"):
        write(path, light())
    elif suffix == ".heic":
        pytest.importorskip("pillow_heif").from_pillow(Image.fromarray(SMOOTH)).save(path)
    else:
        Image.fromarray(SMOOTH).save(path)
    whole = path.read_bytes()
    for part in (0.02, 0.2, 0.5):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_sizes_are_checked_before_decoding(tmp_path: Path) -> None:
    for name in ("a.exr", "a.hdr", "a.tiff"):
        with pytest.raises(ImageError, match="30x24 pixels; the limit is"):
            read_image(write(tmp_path / name, light()), max_pixels=719)
    head = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 90000 +X 90000\n"
    (tmp_path / "bomb.hdr").write_bytes(head)
    with pytest.raises(ImageError, match="90000x90000 pixels"):
        read_image(tmp_path / "bomb.hdr")
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 60000, 60000, 24, 0)
    (tmp_path / "bomb.tga").write_bytes(header)
    with pytest.raises(ImageError, match="60000x60000 pixels"):
        read_image(tmp_path / "bomb.tga")


def test_the_limit_can_be_raised_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setenv(LIMIT_VARIABLE, "9999")
    for read in (read_image, read_map):
        with pytest.raises(ImageError, match="--max-pixels 10000"):
            read(tmp_path / "a.png")
    monkeypatch.setenv(LIMIT_VARIABLE, "10000")
    assert read_image(tmp_path / "a.png").shape == (3, 100, 100)
    # Beyond Pillow's own limit, without changing it.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_image(tmp_path / "a.png").shape == (3, 100, 100)
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setenv(LIMIT_VARIABLE, "many")
    with pytest.raises(ValueError, match=LIMIT_VARIABLE):
        pixel_limit()


class Foreign(Exception):
    """A class of a decoder's own."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("decode failed"), tokenize.TokenError("EOF in multi-line", (1, 0)), AssertionError(), Foreign("x"),
        ZeroDivisionError("division"), MemoryError(), RecursionError("deep"), OSError("broken"),
        OSError(5, "I/O error"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad\nbyte"), NotImplementedError("later"), KeyError("k"),
        UnboundLocalError("arr"),
    ],
    ids=repr,
)  # fmt: skip
def test_any_decoder_error_is_reported_for_the_file(error: Exception) -> None:
    with pytest.raises(ImageError) as caught, decoding("a.bin"):
        raise error
    output = str(caught.value)
    assert output.startswith("a.bin ") and "\n" not in output and output.isprintable()
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [NameError("x"), ImportError("no module"), KeyboardInterrupt()], ids=repr)
def test_a_mistake_of_the_program_stays_one(error: BaseException) -> None:
    with pytest.raises(type(error)), decoding("a.bin"):
        raise error


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("png", "png"), ("jpg", "jpeg"), ("gif", "gif"), ("tif", "tiff"), ("bmp", "bmp"), ("webp", "webp"), ("ppm", "ppm"),
     ("jp2", "jpeg2000"), ("avif", "avif"), ("tga", "")],
)  # fmt: skip
def test_formats_are_known_by_their_beginning(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(SMOOTH).save(path)
    assert sniff(path.read_bytes()[:32]) == kind
    assert f".{suffix}" in IMAGE_SUFFIXES


@pytest.mark.parametrize(
    "head", [b"", b"\0" * 32, b"BM", b"P7\n", b"%PDF-1.7", b"RIFF1234WAVEfmt ", b"{}", b"PK\3\4"]
)
def test_other_files_are_not_taken_for_images(head: bytes) -> None:
    assert sniff(head) == ""


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("200M", 200_000_000), ("3k", 3000), ("1g", 10**9)])
def test_limits_are_read_with_their_unit(text: str, number: int) -> None:
    assert parse_pixels(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "M", "many", "\u0663", "9" * 30, "1e9", " 7"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a number of pixels"):
        parse_pixels(text)


def test_bands_of_rows_give_the_numbers_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from twofold.image import bands
    from twofold.visualization import color_depth, color_normals

    depth, normals = torch.rand(2, 1, 37, 11) * 1.2 - 0.1, torch.randn(3, 37, 11)
    depth[0, 0, 3, 4] = float("nan")
    known = torch.rand(2, 1, 37, 11) > 0.2
    whole = color_depth(depth), color_depth(depth, known), color_normals(normals, known[0])
    monkeypatch.setattr(bands, "_BAND_PIXELS", 50)
    banded = color_depth(depth), color_depth(depth, known), color_normals(normals, known[0])
    assert all(torch.equal(a, b) for a, b in zip(whole, banded, strict=True))
    own = normals.clone()
    assert bands.by_rows(lambda x: x * 2, own, out=own) is own and torch.equal(own, normals * 2)
