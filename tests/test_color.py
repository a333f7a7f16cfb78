"""Embedded colour profiles are applied: every image that is read is sRGB."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from profiles import cmyk_profile, grey_profile, rgb_profile, srgb_encoded, to_srgb
from twofold.data import Folder
from twofold.image import read_image, read_map
from twofold.image.errors import ImageWarning

COLOURS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
LEVEL = 1 / 255


def encoded(image: Image.Image, kind: str, profile: bytes, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, icc_profile=profile, **options)
    return buffer.getvalue()


def pixels(x: torch.Tensor) -> np.ndarray:
    return x.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("name", "gamma"), [("p3", 2.2), ("adobe", 2.19921875), ("prophoto", 1.8)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_wide_gamut_profiles_become_srgb(name: str, gamma: float, kind: str) -> None:
    # A flat colour survives lossy formats.
    colour = (180, 90, 60)
    flat = Image.new("RGB", (16, 16), colour)
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    x = pixels(read_image(encoded(flat, kind, rgb_profile(name, gamma), **options)))
    expected = to_srgb(np.array(colour) / 255, name, gamma)
    assert np.abs(x - expected).max() < 2.5 * LEVEL
    assert np.abs(expected - np.array(colour) / 255).max() > 8 * LEVEL


def test_colours_equal_the_closed_form_with_and_without_alpha() -> None:
    x = pixels(read_image(encoded(Image.fromarray(COLOURS), "PNG", rgb_profile("p3"))))
    expected = to_srgb(COLOURS / 255, "p3")
    assert np.abs(x - expected).max() < 3 * LEVEL
    alpha = np.full((16, 16, 1), 51, dtype=np.uint8)
    blended = pixels(
        read_image(encoded(Image.fromarray(np.concatenate([COLOURS, alpha], -1)), "PNG", rgb_profile("p3")))
    )
    assert np.abs(blended - (expected * 0.2 + 0.8)).max() < 3 * LEVEL


@pytest.mark.parametrize("profile", ["lcms", "gamma"])
def test_an_srgb_profile_changes_no_pixel(profile: str) -> None:
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(COLOURS)
    if profile == "gamma":  # a grey image with an sRGB profile
        image = image.convert("L")
    assert torch.equal(read_image(encoded(image, "PNG", data)), read_image(image.convert("RGB")))


def test_grey_profiles_apply_their_curve_in_8_and_16_bits() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    x = pixels(read_image(encoded(Image.fromarray(ramp), "PNG", grey_profile(1.0))))[0, :, 0]
    assert np.abs(x - srgb_encoded(ramp[0] / 255)).max() < 2 * LEVEL
    wide = np.linspace(0, 65535, 4000).astype(np.uint16)[None]
    y = pixels(read_image(encoded(Image.fromarray(wide), "PNG", grey_profile(1.8))))[0, :, 1]
    expected = srgb_encoded((wide[0] / 65535) ** 1.8)
    assert np.abs(y - expected).max() < 2 * LEVEL
    assert len(np.unique(y)) > 1000  # more than 8 bits of precision remain
    alpha = Image.merge("LA", [Image.new("L", (2, 2), 128), Image.new("L", (2, 2), 255)])
    assert abs(float(read_image(encoded(alpha, "PNG", grey_profile(1.0))).mean()) - 0.737) < 0.01


def test_grey_images_use_the_neutral_axis_of_an_rgb_profile() -> None:
    grey = Image.new("L", (4, 4), 128)
    x = read_image(encoded(grey, "JPEG", rgb_profile("adobe", 1.0)))
    assert np.abs(pixels(x) - srgb_encoded(np.array(128 / 255))).max() < 3 * LEVEL
    assert (x[0] - x[2]).abs().max() < 2 * LEVEL
    wide = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    y = read_image(encoded(wide, "PNG", rgb_profile("adobe", 1.0)))
    assert np.abs(pixels(y) - srgb_encoded(np.array(32896 / 65535))).max() < 3 * LEVEL


def test_cmyk_is_converted_with_its_profile() -> None:
    image = Image.new("CMYK", (8, 8), (200, 10, 90, 128))
    x = read_image(encoded(image, "TIFF", cmyk_profile()))
    # L* of about 50 and no colour, whatever C, M and Y are.
    assert (x - 0.466).abs().max() < 0.02


@pytest.mark.parametrize("kind", ["noise", "cut", "empty header", "foreign"])
def test_an_unusable_colour_profile_is_ignored_with_a_warning(kind: str, tmp_path: Path) -> None:
    profile = {
        "noise": b"not a profile" * 20,
        "cut": rgb_profile("p3")[:200],
        "empty header": bytes(128),
        "foreign": cmyk_profile(),
    }[kind]
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.fromarray(COLOURS), "PNG", profile))
    with pytest.warns(ImageWarning, match=r"photo\.png: its colour profile cannot be used") as caught:
        x = read_image(path)
    assert "sRGB" in str(caught[0].message) and "\n" not in str(caught[0].message)
    assert torch.equal(x, read_image(Image.fromarray(COLOURS)))


def test_data_folders_convert_images_to_srgb_and_not_maps(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(COLOURS), "PNG", rgb_profile("p3"))
    (tmp_path / "a.png").write_bytes(data)
    row = {"id": "a", "file_name": "a.png", "targets": {"albedo": {"path": "a.png"}}}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    header = {"schema": "twofold-data/1", "targets": {"albedo": {"codec": "png8", "scale": 1 / 255}}}
    (tmp_path / "dataset.json").write_text(json.dumps(header))
    sample = Folder(tmp_path)[0]
    assert np.abs(pixels(sample.image) - to_srgb(COLOURS / 255, "p3")).max() < 3 * LEVEL
    assert torch.equal(read_map(tmp_path / "a.png").byte().permute(1, 2, 0), torch.from_numpy(COLOURS))


def test_profiles_of_images_in_memory_are_applied() -> None:
    opened = Image.open(io.BytesIO(encoded(Image.fromarray(COLOURS), "PNG", rgb_profile("adobe"))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(pixels(read_image(opened)) - to_srgb(COLOURS / 255, "adobe")).max() < 3 * LEVEL
