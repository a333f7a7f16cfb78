"""Laws of the readers of other people's files: right to the last bit, or one line that names the file."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from trees import indoor, room
from twofold.image import ImageError, read_map
from twofold.image.maps import as_map, codec_of, read_stored
from twofold.image.stored import find_stored, members

LEVELS = np.arange(6 * 8, dtype=np.uint16).reshape(6, 8) * 1300
FLOATS = (np.arange(6 * 8, dtype=np.float32).reshape(6, 8) - 20) / 7


def refuses(path: Path | str, words: str, **options) -> str:
    with pytest.raises(ImageError, match=words) as error:
        read_map(path, **options)
    output = str(error.value)
    assert "\n" not in output and str(path).split("::")[0] in output
    return output


# ---- HDF5


def hdf5(path: Path, **arrays) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


def test_hdf5_returns_the_named_dataset_in_its_type(tmp_path):
    path = hdf5(tmp_path / "a.hdf5", dataset=FLOATS, deep__down=LEVELS)
    assert np.array_equal(read_stored(path, key="dataset"), FLOATS)
    found = read_stored(path, key="deep/down")
    assert found.dtype == np.uint16 and np.array_equal(found, LEVELS)
    only = hdf5(tmp_path / "b.h5", whatever=FLOATS)
    assert torch.equal(read_map(only), torch.from_numpy(FLOATS)[None])
    stack = hdf5(tmp_path / "c.hdf5", maps=np.stack([FLOATS, FLOATS + 1]))
    assert np.array_equal(read_stored(stack, key="maps", index=1), FLOATS + 1)
    refuses(stack, "no map of index 2", key="maps", index=2)
    refuses(path, "holds dataset, deep; select one")
    refuses(path, "no dataset 'nothing'", key="nothing")
    refuses(path, "no dataset 'dataset/below'", key="dataset/below")
    refuses(path, "'deep' is a group", key="deep")


def test_hdf5_does_not_lead_out_of_its_file(tmp_path):
    secret = hdf5(tmp_path / "secret.h5", x=FLOATS)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(FLOATS.tobytes())
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["ext"] = h5py.ExternalLink(secret.name, "/x")
        file["soft"] = h5py.SoftLink("/ext")
        file.create_dataset("outside", FLOATS.shape, "f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
        layout = h5py.VirtualLayout(FLOATS.shape, "f4")
        layout[:] = h5py.VirtualSource(str(secret), "x", FLOATS.shape)
        file.create_virtual_dataset("virtual", layout)
    for key in ("ext", "soft"):
        refuses(path, "not followed", key=key)
    for key in ("outside", "virtual"):
        refuses(path, "other files", key=key)


def test_hdf5_sizes_are_checked_before_reading(tmp_path):
    path = tmp_path / "huge.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset", (60_000, 60_000), "f4", chunks=(1000, 1000))
        file.create_dataset("lumps", (10, 10), "f4", maxshape=(None, None), chunks=(30_000, 30_000))
    assert path.stat().st_size < 1e6
    refuses(path, "60000x60000 pixels; the limit", key="dataset")
    refuses(path, "chunks of", key="lumps")
    whole = hdf5(tmp_path / "whole.hdf5", dataset=np.random.default_rng(0).random((40, 50)))
    for share in (0.02, 0.5, 0.9):
        cut = tmp_path / "cut.hdf5"
        cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        refuses(cut, "cut short", key="dataset")
    words = hdf5(tmp_path / "words.hdf5", dataset=np.array([[b"a", b"b"]]))
    refuses(words, "not numbers", key="dataset")


# ---- MATLAB


@pytest.mark.parametrize("version", [5, 7.3])
def test_mat_files_of_both_kinds_read_as_matlab_shows_them(version, tmp_path):
    color = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
    depths = np.random.default_rng(1).random((6, 8, 5))
    arrays = {"depth": FLOATS, "color": color, "depths": depths, "images": np.stack([color, color * 2], -1)}
    path = tmp_path / "a.mat"
    if version == 5:
        savemat(path, arrays, do_compression=True)
    else:
        indoor.mat73(path, **arrays)
    assert np.array_equal(read_stored(path, key="depth"), FLOATS)
    assert np.array_equal(read_stored(path, key="color"), color)
    for index in range(5):
        assert np.array_equal(read_stored(path, key="depths", index=index), depths[..., index])
    assert np.array_equal(read_stored(path, key="images", index=1), color * 2)
    assert read_map(path, key="color").shape == (3, 6, 8)
    refuses(path, "no map of index 5", key="depths", index=5)
    refuses(path, "'nothing'", key="nothing")
    refuses(path, "select one with 'key'")
    refuses(path, "6x8|8x6|limit", key="depth", max_pixels=47)


def test_a_damaged_mat_file_is_refused(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"depth": np.random.default_rng(0).random((60, 80))})
    whole = path.read_bytes()
    for length in (10, 130, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:length])
        refuses(path, "a.mat", key="depth")
    savemat(path, {"depth": np.array([["a"]], dtype=object)})
    refuses(path, "a.mat", key="depth")


# ---- raw floats, arrays by key and index


def test_raw_floats_need_a_shape_that_fits_to_the_byte(tmp_path):
    path = tmp_path / "DSC_0219.JPG"
    floats = FLOATS.copy()
    floats[0] = np.inf
    path.write_bytes(floats.astype("<f4").tobytes())
    assert np.array_equal(read_stored(path, codec="raw_f32", shape=[6, 8]), floats)
    assert read_map(path, codec="raw_f32", shape=[2, 8, 3]).shape == (3, 2, 8)
    refuses(path, "set their 'shape'", codec="raw_f32")
    refuses(path, "192 bytes, not 224 for 7x8", codec="raw_f32", shape=[7, 8])
    refuses(path, "192 bytes, not 16000000000", codec="raw_f32", shape=[40_000, 100_000], max_pixels=10**10)
    refuses(path, "limit", codec="raw_f32", shape=[40_000, 100_000])
    refuses(path, "positive", codec="raw_f32", shape=[-6, -8])
    refuses(path, "not a map that can be read")
    refuses(path, "'shape' applies to raw_f32", codec="png8", shape=[6, 8])


def test_npz_by_key_and_npy_by_index(tmp_path):
    np.savez(tmp_path / "a.npz", depth=FLOATS, mask=LEVELS)
    assert np.array_equal(read_stored(tmp_path / "a.npz", key="mask"), LEVELS)
    refuses(tmp_path / "a.npz", "it has depth, mask", key="normals")
    np.save(tmp_path / "a.npy", np.stack([FLOATS] * 3 + [FLOATS * 9]))
    assert np.array_equal(read_stored(tmp_path / "a.npy", index=3), FLOATS * 9)
    refuses(tmp_path / "a.npy", "no map of index -1", index=-1)
    np.save(tmp_path / "objects.npy", np.array([{}] * 4, dtype=object), allow_pickle=True)
    refuses(tmp_path / "objects.npy", "objects.npy", index=0)


# ---- images that store numbers


def test_a_codec_must_be_what_the_file_is(tmp_path):
    room.png(tmp_path / "wide.png", LEVELS)
    room.png(tmp_path / "flat.png", (LEVELS >> 8).astype(np.uint8))
    assert np.array_equal(read_stored(tmp_path / "wide.png", codec="png16"), LEVELS)
    refuses(tmp_path / "wide.png", "has 16 bits per sample, its codec is png8", codec="png8")
    refuses(tmp_path / "flat.png", "has 8 bits per sample, its codec is png16", codec="png16")
    refuses(tmp_path / "flat.png", "'key' applies to", key="depth")
    refuses(tmp_path / "flat.png", "not one of png8", codec="bmp")
    Image.fromarray(LEVELS.astype(np.uint8)).save(tmp_path / "a.png", format="JPEG")
    refuses(tmp_path / "a.png", "a.png", codec="png8")


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_sixteen_bits(channels, tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    array = array if channels == 3 else array[..., 0]
    room.png(tmp_path / "a.png", array)
    assert np.array_equal(read_stored(tmp_path / "a.png", codec="png16"), array)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-40])
    refuses(tmp_path / "a.png", "damaged", codec="png16")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_one_flipped_bit_of_a_png_is_noticed(kind, channels, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (40, 50, channels)).astype(kind)
    room.png(tmp_path / "a.png", array if channels == 3 else array[..., 0])
    whole = (tmp_path / "a.png").read_bytes()
    assert read_stored(tmp_path / "a.png").shape[:2] == (40, 50)
    for place in np.linspace(8, len(whole) - 5, 40).astype(int):
        data = bytearray(whole)
        data[place] ^= 4
        (tmp_path / "a.png").write_bytes(data)
        refuses(tmp_path / "a.png", "a.png")


def test_a_wide_decompression_bomb_is_refused_by_its_header(tmp_path):
    """Of 400 megapixels, 16 bits a channel: the reader that decodes those has no limit of its own."""
    room.png(tmp_path / "a.png", np.zeros((1, 1, 3), np.uint16))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    refuses(tmp_path / "a.png", "large|limit", codec="png16")


def test_a_palette_gives_indices_and_a_jpeg_only_what_a_codec_promises(tmp_path):
    photo = Image.fromarray((np.arange(48) % 4).astype(np.uint8).reshape(6, 8))
    photo.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    photo.save(tmp_path / "p.png")
    assert read_map(tmp_path / "p.png", codec="png8")[0, 0, :4].tolist() == [0, 1, 2, 3]
    grey = np.full((16, 16), 77, np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.jpg")
    refuses(tmp_path / "a.jpg", "not a map")
    assert np.array_equal(read_stored(tmp_path / "a.jpg", codec="jpg8"), grey)
    Image.new("CMYK", (4, 4)).save(tmp_path / "c.jpg")
    refuses(tmp_path / "c.jpg", "mode CMYK", codec="jpg8")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_map_with_an_exif_rotation_is_refused(kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tmp_path / f"a.{'png' if kind == 'PNG' else 'jpg'}"
    Image.fromarray(LEVELS.astype(np.uint8)).save(path, format=kind, exif=exif)
    refuses(path, "EXIF rotation", codec="png8" if kind == "PNG" else "jpg8")


def test_a_file_with_several_images_is_not_a_map(tmp_path):
    images = [Image.fromarray(LEVELS.astype(np.uint8) + i) for i in range(2)]
    for name in ("a.png", "a.tiff"):
        images[0].save(tmp_path / name, save_all=True, append_images=images[1:])
        refuses(tmp_path / name, "several images")


def test_an_exr_is_whole_or_refused(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    parts = {"Depth.Z": FLOATS, "Normal": np.stack([FLOATS] * 3, -1)}
    exr.File(header, parts).write(str(tmp_path / "layers.exr"))
    assert np.array_equal(read_stored(tmp_path / "layers.exr", key="Depth.Z"), FLOATS)
    refuses(tmp_path / "layers.exr", "select one with 'key'")
    refuses(tmp_path / "layers.exr", "no channel 'X'", key="X")
    window = {**header, "displayWindow": (np.array([0, 0], np.int32), np.array([99, 99], np.int32)),
              "dataWindow": (np.array([0, 0], np.int32), np.array([7, 5], np.int32))}  # fmt: skip
    exr.File(window, {"Y": FLOATS}).write(str(tmp_path / "window.exr"))
    refuses(tmp_path / "window.exr", "only a window")


# ---- numbers that 32 bits cannot hold


def test_values_outside_the_float_range_are_refused():
    assert as_map(np.full((2, 2), 2**24), "a")[0, 0, 0] == 2**24
    assert as_map(np.full((2, 2), -(2**24)), "a")[0, 0, 0] == -(2**24)
    for wrong in (
        np.full((2, 2), 2**24 + 1),
        np.full((2, 2), -(2**24) - 1),
        np.full((2, 2), 2**63, np.uint64),
    ):
        with pytest.raises(ImageError, match=r"a.npy holds integers up to"):
            as_map(wrong, "a.npy")
    with pytest.raises(ImageError, match="beyond 3e38"):
        as_map(np.full((2, 2), 1e300), "a.npy")
    assert as_map(np.array([[np.inf, np.nan]]), "a").isinf().any()


def test_the_suffix_determines_the_codec_but_not_the_bits_of_a_png():
    names = {
        "a.png": "png",
        "a.TIF": "tiff",
        "a.h5": "hdf5",
        "a.mat": "mat",
        "a.npy": "npy",
        "a.jpg": "",
        "a": "",
    }
    assert {name: codec_of(name) for name in names} == names


# ---- members of tars


def tarred(path: Path, files: dict[str, bytes], mode: Literal["w", "w:gz"] = "w", form: int = 0) -> Path:
    with tarfile.open(path, mode, format=form or tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def as_bytes(folder: Path, name: str, array: np.ndarray) -> bytes:
    path = folder / name
    room.png(path, array) if path.suffix == ".png" else np.save(path, array)
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_a_member_of_a_tar_is_the_file_it_was(form, tmp_path):
    long = f"./{'deep/' * 12}depth_0001.png"
    files = {long: as_bytes(tmp_path, "a.png", LEVELS), "x.npy": as_bytes(tmp_path, "b.npy", FLOATS)}
    tar = tarred(tmp_path / "a.tar", files, form=form)
    assert sorted(members(tar)) == sorted([long[2:], "x.npy"])
    for name in (long, long[2:]):
        assert np.array_equal(read_stored(f"{tar}::{name}", codec="png16"), LEVELS)
    assert np.array_equal(read_stored(f"{tar}::./x.npy"), FLOATS)
    refuses(f"{tar}::x.npy", "unpack it", index=0)
    refuses(f"{tar}::nothing.png", "no member 'nothing.png'")
    refuses(f"{tar}::../a.tar", "no member")
    refuses(tar, "not a map")


def test_an_exr_and_a_mat_in_a_tar(tmp_path):
    pytest.importorskip("OpenEXR")
    from twofold.image import write_map

    write_map(tmp_path / "n.exr", torch.from_numpy(FLOATS)[None])
    savemat(tmp_path / "d.mat", {"depth": FLOATS})
    hdf5(tmp_path / "d.h5", dataset=FLOATS)
    names = ("n.exr", "d.mat", "d.h5")
    tar = tarred(tmp_path / "a.tar", {name: (tmp_path / name).read_bytes() for name in names})
    for name in names:
        assert np.array_equal(read_stored(f"{tar}::{name}"), FLOATS)


def test_links_and_devices_in_a_tar_are_not_seen(tmp_path):
    secret = tmp_path / "secret.npy"
    np.save(secret, FLOATS)
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as archive:
        for name, kind in (
            ("soft.npy", tarfile.SYMTYPE),
            ("hard.npy", tarfile.LNKTYPE),
            ("dev.npy", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    for name in ("soft.npy", "hard.npy", "dev.npy"):
        refuses(f"{tar}::{name}", "no member")


def test_a_tar_is_whole_uncompressed_and_indexed_anew_when_it_changes(tmp_path):
    files = {f"{i}.npy": as_bytes(tmp_path, "a.npy", FLOATS + i) for i in range(4)}
    tar = tarred(tmp_path / "a.tar", files)
    assert np.array_equal(read_stored(f"{tar}::2.npy"), FLOATS + 2)
    whole = tar.read_bytes()
    tar.write_bytes(whole[: 3 * 512 + 100])
    refuses(f"{tar}::0.npy", "a.tar .*download it again")
    tarred(tar, {"2.npy": files["3.npy"]})
    os.utime(tar, ns=(1, 1))
    assert np.array_equal(read_stored(f"{tar}::2.npy"), FLOATS + 3)
    packed = tarred(tmp_path / "z.tar", files, mode="w:gz")
    refuses(f"{packed}::0.npy", "not a complete, uncompressed tar")
    # Of two members of one name the last counts, as when it is unpacked.
    with tarfile.open(tar, "a") as archive:
        info = tarfile.TarInfo("2.npy")
        info.size = len(files["1.npy"])
        archive.addfile(info, io.BytesIO(files["1.npy"]))
    assert np.array_equal(read_stored(f"{tar}::2.npy"), FLOATS + 1)


def test_files_larger_than_the_limit_are_not_read(tmp_path, monkeypatch):
    tar = tarred(tmp_path / "a.tar", {"x.npy": as_bytes(tmp_path, "b.npy", FLOATS)})
    room.png(tmp_path / "a.png", LEVELS)
    monkeypatch.setattr("twofold.image.stored._MOST_BYTES", 100)
    refuses(f"{tar}::x.npy", "too many to read at once")
    refuses(tmp_path / "a.png", "too many to read at once")


def test_a_folder_may_be_called_like_a_tar(tmp_path):
    (tmp_path / "x.tar::y").mkdir()
    np.save(tmp_path / "x.tar::y" / "a.npy", FLOATS)
    assert not find_stored(tmp_path / "x.tar::y" / "a.npy").member


def test_a_missing_reader_is_named_with_its_extra(tmp_path, monkeypatch):
    path = hdf5(tmp_path / "a.hdf5", dataset=FLOATS)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    assert "twofold[io]" in refuses(path, "needs the package h5py")
