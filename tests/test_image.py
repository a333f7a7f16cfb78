"""Invariants of reading, writing and resizing images and maps; bad files raise one line with advice."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.image import (
    ImageError,
    longest_edge_size,
    pad_to_multiple,
    read_image,
    read_map,
    resize,
    resize_map,
    write_image,
    write_map,
)
from twofold.io import atomic, atomic_write

EIGHT_BITS = 0.5 / 255 + 1e-6


def png(width: int, height: int, bits: int, color: int, rows: bytes) -> bytes:
    """A PNG written by hand: what Pillow cannot write, and what is not true."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int = 40, width: int = 50) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def refuses(source, *words: str, read=read_image, **options) -> None:
    """`source` gives an ImageError of one line that names the file and holds the words."""
    with pytest.raises(ImageError) as caught:
        read(source, **options)
    output = str(caught.value)
    assert "\n" not in output and len(output) < 400, output
    for word in (*words, *([Path(source).name] if isinstance(source, Path) else [])):
        assert word in output, output
    # Nothing of Pillow's hangs below the message.
    assert (
        caught.value.__cause__ is None and caught.value.__suppress_context__
    ) or not caught.value.__context__


# ---- images


def test_a_written_image_is_read_back_within_half_a_level(tmp_path):
    x = torch.rand(3, 7, 9)
    write_image(tmp_path / "a.png", x)
    y = read_image(tmp_path / "a.png")
    assert y.dtype == torch.float32 and y.is_contiguous() and (x - y).abs().max() <= EIGHT_BITS
    write_image(tmp_path / "b.png", y)
    assert torch.equal(read_image(tmp_path / "b.png"), y)


def test_path_text_bytes_and_pil_read_alike(tmp_path):
    write_image(tmp_path / "a.png", torch.rand(3, 7, 9))
    path = tmp_path / "a.png"
    expected = read_image(path)
    for source in (str(path), path.read_bytes(), Image.open(path)):
        assert torch.equal(read_image(source), expected)


def test_values_outside_are_clipped_and_grey_is_written_as_grey(tmp_path):
    write_image(tmp_path / "a.png", torch.tensor([[[-1.0, 0.0, 1.0, 2.0]]]))
    assert Image.open(tmp_path / "a.png").mode == "L"
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_read_exactly(kind):
    x = read_image(encoded(noise(), kind))
    assert torch.equal((x * 255).round().byte().permute(1, 2, 0), torch.from_numpy(np.array(noise())))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_files_read_about_right(kind):
    smooth = noise().resize((5, 4)).resize((50, 40), Image.Resampling.BICUBIC)
    x = read_image(encoded(smooth, kind))
    assert (x - read_image(smooth)).abs().mean() < 0.05


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "RGBA", "PA"])
def test_every_mode_gives_three_channels_of_its_colours(mode):
    x = read_image(
        Image.new("RGB", (4, 3), (255, 255, 255)).convert("L" if mode == "1" else "RGB").convert(mode)
    )
    assert x.shape == (3, 3, 4) and (x > 0.98).all()


def test_cmyk_jpeg_keeps_its_colours():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    x = read_image(encoded(red, "JPEG", quality=95))
    assert (x[0] > 0.95).all() and (x[1:] < 0.05).all()


def test_sixteen_bit_grey_keeps_its_levels():
    levels = np.array([[0, 1, 300, 65535]], dtype=np.uint16)
    x = read_image(encoded(Image.fromarray(levels), "PNG"))
    assert torch.allclose(x[1, 0], torch.tensor([0, 1 / 65535, 300 / 65535, 1]), atol=1e-7)


def test_sixteen_bit_colour_is_read_to_a_level():
    rows = b"\0" + struct.pack(">6H", 0, 32768, 65535, 256, 257, 25700)
    x = read_image(png(2, 1, 16, 2, rows))
    expected = torch.tensor([[0, 32768, 65535], [256, 257, 25700]]) / 65535
    assert (x[:, 0].T - expected).abs().max() <= 1 / 255


def test_transparency_is_laid_over_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 51))
    assert torch.allclose(read_image(image)[:, 0].T, torch.tensor([[1, 0, 0], [1, 0.8, 0.8]]), atol=1e-6)
    grey = Image.new("LA", (1, 1), (0, 0))
    assert read_image(encoded(grey, "PNG")).flatten().tolist() == [1, 1, 1]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([0, 0, 255])
    assert read_image(encoded(palette, "PNG", transparency=0)).flatten().tolist() == [1, 1, 1]
    assert read_image(encoded(palette, "PNG")).flatten().tolist() == [0, 0, 1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_s_rotation_is_applied(orientation):
    upright = noise(6, 8)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert torch.equal(read_image(encoded(stored, "PNG", exif=exif)), read_image(upright))


def test_an_image_with_a_damaged_exif_block_is_read():
    x = read_image(encoded(noise(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"))
    assert torch.equal(x, read_image(noise()))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_refused(kind, tmp_path):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    path = tmp_path / f"moving.{kind.lower()}"
    path.write_bytes(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    refuses(path, "several images", "save the one")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("part", [0.0, 0.002, 0.01, 0.5, 0.9])
def test_a_truncated_file_is_refused(kind, part, tmp_path):
    whole = encoded(noise(), kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(whole[: int(len(whole) * part)])
    refuses(path)


def test_flipped_bytes_never_leak_another_error():
    rng = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = np.frombuffer(encoded(noise(16, 16), kind), dtype=np.uint8)
        for _ in range(60):
            hurt = whole.copy()
            hurt[rng.integers(0, len(hurt), 6)] = rng.integers(0, 256, 6)
            try:
                x = read_image(hurt.tobytes(), max_pixels=1_000_000)
            except ImageError as error:
                assert "\n" not in str(error)
            else:
                assert x.shape[0] == 3 and x.isfinite().all()


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(9000, 9000, 8, 2, b""))
    refuses(path, "9000x9000", "50 megapixels", "smaller")
    path.write_bytes(png(100_000, 100_000, 8, 2, b""))
    refuses(path, "smaller")
    refuses(encoded(noise(), "PNG"), "50x40", max_pixels=1999)
    assert read_image(encoded(noise(), "PNG"), max_pixels=2000).shape == (3, 40, 50)


def test_files_that_are_not_images_are_refused(tmp_path):
    for name, content in {"text.jpg": b"hello", "page.png": b"<html></html>", "empty.png": b""}.items():
        (tmp_path / name).write_bytes(content)
        refuses(tmp_path / name)
    refuses(tmp_path / "missing.png", "does not exist")
    refuses(tmp_path, "is a folder")
    refuses(b"", "0 bytes")
    refuses("a\0b.png", "not exist")
    refuses("two\nlines.png", "does not exist")
    refuses("x" * 300)
    refuses([torch.zeros(3, 2, 2)], "list")
    refuses(png(0, 3, 8, 2, b""))
    refuses(Image.new("RGB", (0, 3)), "no pixels")


def test_programs_in_image_files_are_not_executed():
    refuses(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n", "not an image")


def test_files_of_measurements_are_not_read_as_images():
    refuses(Image.fromarray(np.full((2, 2), 7.5, dtype=np.float32)), "7.5", "measurements")
    refuses(Image.fromarray(np.full((2, 2), -1, dtype=np.int32)), "measurements")


@pytest.mark.parametrize("shape", [(4, 2, 2), (3, 0, 2), (2, 2)])
def test_tensors_that_are_not_images_are_not_written(shape, tmp_path):
    with pytest.raises(ImageError, match=r"a\.png"):
        write_image(tmp_path / "a.png", torch.zeros(shape))
    with pytest.raises(ImageError, match="NaN"):
        write_image(tmp_path / "a.png", torch.full((3, 2, 2), float("nan")))
    with pytest.raises(ImageError, match=r"\.png"):
        write_image(tmp_path / "a.jpg", torch.zeros(3, 2, 2))
    assert list(tmp_path.iterdir()) == []


# ---- files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.suffix == ".txt"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_image(tmp_path / "a.png", torch.zeros(3, 2, 2))
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic_write(tmp_path / "nowhere" / "a.png"):
        pass


# ---- maps


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".exr", ".tiff", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_float_map_written_and_read_is_itself(suffix, channels, tmp_path):
    if suffix == ".exr":
        pytest.importorskip("OpenEXR")
    elif channels == 3 and suffix.startswith(".t"):
        pytest.importorskip("tifffile")
    x = torch.randn(channels, 5, 7)
    x[0, 0, :2] = torch.tensor([float("inf"), float("nan")])
    write_map(tmp_path / f"m{suffix}", x)
    y = read_map(tmp_path / f"m{suffix}")
    assert y.dtype == torch.float32 and torch.equal(torch.nan_to_num(y), torch.nan_to_num(x))
    assert y.isnan().sum() == 1


def test_sixteen_bit_png_holds_every_level(tmp_path):
    x = torch.arange(65536).reshape(1, 256, 256).float()
    write_map(tmp_path / "m.png", x)
    assert torch.equal(read_map(tmp_path / "m.png"), x)


def test_half_floats_stay_half_on_disk(tmp_path):
    x = torch.rand(3, 5, 7).half()
    write_map(tmp_path / "m.npy", x)
    assert np.load(tmp_path / "m.npy").dtype == np.float16
    assert torch.equal(read_map(tmp_path / "m.npy"), x.float())


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (1, 6, 8)])
def test_the_ways_people_store_one_channel_read_alike(shape, tmp_path):
    np.save(tmp_path / "m.npy", np.arange(48, dtype=np.float64).reshape(shape))
    assert torch.equal(read_map(tmp_path / "m.npy"), torch.arange(48.0).reshape(1, 6, 8))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_give_their_stored_levels(bits, tmp_path):
    (tmp_path / "m.png").write_bytes(png(4, 1, bits, 0, b"\0" + bytes([0b00011011] * 2)))
    stored = {1: [0, 0, 0, 1], 2: [0, 1, 2, 3], 4: [1, 11, 1, 11]}
    assert read_map(tmp_path / "m.png").flatten().tolist() == stored[bits]


def test_palettes_give_indices_and_eight_bits_give_levels(tmp_path):
    palette = Image.fromarray(np.array([[0, 7, 200]], dtype=np.uint8), mode="P")
    palette.putpalette([9] * 768)
    palette.save(tmp_path / "p.png")
    assert read_map(tmp_path / "p.png").flatten().tolist() == [0, 7, 200]
    noise().save(tmp_path / "c.png")
    assert read_map(tmp_path / "c.png").shape == (3, 40, 50) and read_map(tmp_path / "c.png").max() == 255


def test_sixteen_bit_colour_keeps_all_bits_and_the_order_of_channels(tmp_path):
    (tmp_path / "m.png").write_bytes(png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 1, 256, 65535, 3, 4, 5)))
    pytest.importorskip("cv2")
    assert read_map(tmp_path / "m.png")[:, 0].T.tolist() == [[1, 256, 65535], [3, 4, 5]]


def test_a_missing_reader_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    (tmp_path / "m.png").write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 1, 2, 3)))
    refuses(tmp_path / "m.png", "cv2", "twofold[io]", read=read_map)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("object.npy", np.array([{"a": 1}], dtype=object)),
        ("text.npy", np.array([["a"]])),
        ("complex.npy", np.ones((2, 2), dtype=complex)),
        ("line.npy", np.ones(4)),
        ("many.npy", np.ones((9, 9, 9))),
        ("none.npy", np.ones((0, 4))),
        ("large.npy", np.ones((101, 100))),
    ],
)
def test_arrays_that_are_no_maps_are_refused(name, array, tmp_path):
    np.save(tmp_path / name, array, allow_pickle=True)
    refuses(tmp_path / name, read=read_map, max_pixels=10_000)


def test_arrays_larger_than_their_file_are_refused(tmp_path):
    np.save(tmp_path / "m.npy", np.ones((50, 50)))
    whole = (tmp_path / "m.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:500])
    refuses(tmp_path / "cut.npy", read=read_map)
    (tmp_path / "lie.npy").write_bytes(whole.replace(b"(50, 50)", b"(1000000, 1000000)", 1))
    refuses(tmp_path / "lie.npy", read=read_map)


def test_archives_that_are_no_maps_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    refuses(tmp_path / "two.npz", "2 arrays", read=read_map)
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros((4000, 4000)))
    refuses(tmp_path / "bomb.npz", "4000x4000", read=read_map, max_pixels=1_000_000)
    (tmp_path / "junk.npz").write_bytes(b"PK\3\4junk")
    refuses(tmp_path / "junk.npz", read=read_map)


@pytest.mark.parametrize("name", ["m.png", "m.npy", "m.npz", "m.exr", "m.tiff"])
def test_damaged_or_missing_maps_are_refused(name, tmp_path):
    refuses(tmp_path / name, "does not exist", read=read_map)
    (tmp_path / name).write_bytes(b"")
    refuses(tmp_path / name, "empty", read=read_map)
    (tmp_path / name).write_bytes(b"this is not a map" * 9)
    refuses(tmp_path / name, read=read_map)


def test_the_size_of_a_map_is_limited(tmp_path):
    for name in ("m.png", "m.tiff", "m.exr"):
        write_map(tmp_path / name, torch.zeros(1, 40, 50))
        refuses(tmp_path / name, "50x40", read=read_map, max_pixels=1999)


def test_images_are_not_read_as_maps(tmp_path):
    noise().save(tmp_path / "m.jpg")
    refuses(tmp_path / "m.jpg", ".npy", read=read_map)


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("m.jpg", torch.zeros(1, 2, 2)),
        ("m.png", torch.zeros(3, 2, 2)),
        ("m.png", torch.full((1, 2, 2), -1.0)),
        ("m.png", torch.full((1, 2, 2), 65536.0)),
        ("m.png", torch.full((1, 2, 2), float("nan"))),
        ("m.exr", torch.zeros(2, 2, 2)),
        ("m.npy", torch.zeros(2, 2)),
    ],
)
def test_values_outside_a_format_s_range_are_not_written(name, x, tmp_path):
    with pytest.raises(ImageError, match=name):
        write_map(tmp_path / name, x)
    assert list(tmp_path.iterdir()) == []


# ---- sizes


def test_resizing_keeps_constants_and_averages():
    assert torch.allclose(resize(torch.full((3, 7, 9), 0.3), (20, 4)), torch.tensor(0.3))
    x = torch.rand(2, 3, 32, 32)
    small = resize(x, (8, 8))
    assert small.shape == (2, 3, 8, 8) and torch.allclose(small.mean(), x.mean(), atol=0.02)
    assert resize(x.half(), (8, 8)).dtype == torch.float32
    assert torch.equal(resize(x, (32, 32)), x)


def test_resizing_commutes_with_flipping():
    x = torch.rand(3, 12, 18)
    assert torch.allclose(resize(x.flip(-1), (5, 7)), resize(x, (5, 7)).flip(-1), atol=1e-6)


def test_invalid_pixels_never_bleed_into_valid_ones():
    x, valid = torch.full((1, 8, 8), 2.0), torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, :, 5:] = False
    for junk in (1000.0, float("nan"), float("-inf")):
        y, keep = resize_map(torch.where(valid, x, junk), valid, (16, 5))
        assert keep.any() and not keep.all()
        assert torch.allclose(y[keep], torch.tensor(2.0), atol=1e-5) and (y[~keep] == 0).all()


def test_the_sky_stays_infinite_and_invalid():
    x, valid = torch.full((1, 8, 8), 2.0), torch.ones(1, 8, 8, dtype=torch.bool)
    x[:, :4], valid[:, :4] = float("inf"), False
    y, keep = resize_map(x, valid, (4, 4))
    assert (
        y[0, :, 0].tolist() == [float("inf")] * 2 + [2.0] * 2
        and keep[0, :, 0].tolist() == [False] * 2 + [True] * 2
    )


def test_ids_do_not_mix():
    x = torch.randint(0, 5, (1, 9, 9)).float() * 10
    y, keep = resize_map(x, torch.ones(1, 9, 9, dtype=torch.bool), (14, 4), nearest=True)
    assert set(y.unique().tolist()) <= set(x.unique().tolist()) and keep.all()


def test_padding_is_undone_by_its_size_and_repeats_the_edge():
    x = torch.rand(3, 10, 13)
    padded, (h, w) = pad_to_multiple(x, 8)
    assert padded.shape == (3, 16, 16) and torch.equal(padded[..., :h, :w], x)
    assert torch.equal(padded[..., 12, :w], x[..., -1, :]) and torch.equal(padded[..., :h, 15], x[..., -1])
    assert pad_to_multiple(padded, 8)[0] is padded
    assert pad_to_multiple(torch.rand(2, 3, 1, 1), 64)[0].shape == (2, 3, 64, 64)


def test_the_longest_edge_has_the_requested_length():
    assert longest_edge_size(480, 640, 320) == (240, 320)
    assert longest_edge_size(90, 120, 50) == (37, 50)  # 37.5, rounded down as the originals do
    assert longest_edge_size(1000, 10, 100) == (100, 1)
    assert longest_edge_size(1, 1000, 10) == (1, 10)
    with pytest.raises(ValueError, match="at least 1"):
        longest_edge_size(0, 5, 10)
    with pytest.raises(ValueError, match="size"):
        resize(torch.rand(3, 4, 4), (0, 4))


def test_leftovers_of_other_hosts_stay_for_a_day(tmp_path, monkeypatch):
    """Whether a process lives is known of one's own host only; storage may be shared."""
    with atomic_write(tmp_path / "a.png") as own:
        own.touch()
    pid = own.name.split("-")[2]
    assert own.name.split("-")[1] == atomic.host_name()
    assert pid == str(os.getpid())
    monkeypatch.setattr("socket.gethostname", lambda: "node-1.cluster")
    names = {
        "dead": f".tmp-{atomic.host_name()}-999999999-000000ab.png",
        "living": f".tmp-{atomic.host_name()}-{pid}-000000ab.png",
        "foreign": ".tmp-node_2-999999999-000000ab.png",
        "foreign, old": ".tmp-node_2-999999999-000000cd.png",
        "of another program, old": ".tmp-999999999-000000cd.png",
    }
    for which, name in names.items():
        (tmp_path / name).touch()
        if "old" in which:
            os.utime(tmp_path / name, (0, time.time() - 25 * 3600))
    atomic.remove_leftovers(tmp_path)
    left = {which for which, name in names.items() if (tmp_path / name).exists()}
    assert left == {"living", "foreign", "of another program, old"}
