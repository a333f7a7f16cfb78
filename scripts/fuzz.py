"""Fuzzing of every reader with hostile files: damaged, truncated, with wrong sizes and types.

    python scripts/fuzz.py [--count 10000] [--seed 0] [--keep DIR]

Each file is a valid one with a few mutations. A reader may read it, or refuse it with an error of the library in one
printable line; anything else (another exception, a crash, more than 10 s, more than 1 GB) is a finding, whose file is
kept. Run it before a release; `tests/test_fuzz.py` runs a small corpus of the same kind.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import io
import json
import multiprocessing
import random
import resource
import struct
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MAX_SECONDS = 10.0
MAX_BYTES = 2**30
Check = Callable[[Path], None]


@dataclass(frozen=True)
class Seed:
    """A valid file: its name, its bytes, and its reader."""

    name: str
    data: bytes
    check: str


# ---- valid files


def seeds() -> list[Seed]:
    """Small valid files of every kind."""
    return [*_images(), *_maps(), *_texts()]


def _images() -> Iterator[Seed]:
    levels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    rgb = Image.fromarray(levels)
    for kind, mode in (
        ("png", "RGB"), ("png", "P"), ("png", "1"), ("png", "I;16"), ("png", "RGBA"), ("jpg", "RGB"), ("jpg", "CMYK"),
        ("webp", "RGB"), ("tif", "RGB"), ("tif", "F"), ("bmp", "RGB"), ("gif", "P"), ("ppm", "RGB"), ("avif", "RGB"),
        ("jp2", "RGB"), ("tga", "RGB"),
    ):  # fmt: skip
        grey = {"I;16": levels[..., 0].astype(np.uint16) * 257, "F": levels[..., 0].astype(np.float32) / 255}
        image = Image.fromarray(grey[mode]) if mode in grey else rgb.convert(mode)
        yield Seed(f"{mode.replace(';', '')}.{kind}", _saved(image, kind), "image")
    yield Seed("profile.png", _saved(rgb, "png", icc_profile=_profile()), "image")
    exif = Image.Exif()
    exif[0x0112] = 6
    yield Seed("turned.jpg", _saved(rgb, "jpg", exif=exif), "image")
    try:
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(rgb).save(buffer)
        yield Seed("a.heic", buffer.getvalue(), "image")
    except ImportError:
        pass


def _profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    format = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(kind, kind.upper())
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _maps() -> Iterator[Seed]:
    array = np.random.default_rng(1).random((12, 16), dtype=np.float32) * 5
    color = np.random.default_rng(2).random((12, 16, 3), dtype=np.float32) * 5
    for name, writer in _map_writers(array, color).items():
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, name)
                writer(path)
                if path.suffix != ".hdr":
                    yield Seed(name, path.read_bytes(), "map")
                if path.suffix in (".exr", ".hdr", ".tiff"):
                    yield Seed(f"image{path.suffix}", path.read_bytes(), "image")
        except ImportError:
            continue
    for name in ("wide.png", "labels.png"):
        levels = (array * 1000).astype(np.uint16) if name == "wide.png" else array.astype(np.uint8)
        yield Seed(name, _saved(Image.fromarray(levels), "png"), "map")


def _map_writers(array: np.ndarray, color: np.ndarray) -> dict[str, Check]:
    def exr(path: Path) -> None:
        exr_: Any = importlib.import_module("OpenEXR")
        exr_.File({"type": exr_.scanlineimage}, {"RGB": color}).write(str(path))

    def hdr(path: Path) -> None:
        import cv2

        path.write_bytes(cv2.imencode(".hdr", color)[1].tobytes())

    def tiff(path: Path) -> None:
        import tifffile

        tifffile.imwrite(path, color)

    def hdf5(path: Path) -> None:
        import h5py

        with h5py.File(path, "w") as file:
            file.create_dataset("depth", data=array, chunks=(4, 16), compression="gzip")

    def mat(path: Path) -> None:
        from scipy.io import savemat

        savemat(path, {"depth": array})

    def packed(path: Path) -> None:
        np.savez_compressed(path, depth=array)

    writers: dict[str, Check] = {"a.npy": lambda path: np.save(path, array), "a.npz": packed}
    return writers | {"a.exr": exr, "a.hdr": hdr, "a.tiff": tiff, "a.h5": hdf5, "a.mat": mat}


def _texts() -> Iterator[Seed]:
    row = {
        "id": "a", "file_name": "a.png", "text": "a room", "size": [20, 24], "real": False, "crop": [0, 0, 24, 20],
        "camera": {"K": [[20.0, 0.0, 12.0], [0.0, 20.0, 10.0], [0.0, 0.0, 1.0]]},
        "image": {"exif": "apply"},
        "targets": {"mask": {"path": "m.png", "masks": {"known": {"path": "m.png", "valid": [0, 255]}}},
                    "keypoints": {"points": [[1, 2, 2]] * 17, "ann_id": 3, "image_id": 4, "area": 30.0}},
        "provenance": {"origin": "synthetic", "parents": ["b"], "generator": {"seed": 3, "start": 600}},
    }  # fmt: skip
    header = {
        "schema": "twofold-data/1", "name": "fuzz", "count": 1, "licence": "none", "classes": ["wall", "floor"],
        "crop": None, "squeeze": 0, "image": {"exif": "apply"},
        "targets": {"mask": {"codec": "png8", "threshold": 128, "invalid": [7]}, "keypoints": {}},
    }  # fmt: skip
    yield Seed("metadata.jsonl", (json.dumps(row) + "\n").encode(), "rows")
    yield Seed("dataset.json", json.dumps(header).encode(), "header")
    done = {
        "schema": "twofold-predictions/1", "name": "a", "input": "a.png", "input_sha256": "0" * 64, "size": [20, 24],
        "status": "done", "version": "1", "tasks": {"depth": {
            "files": {"npy": {"path": "a_depth.npy", "bytes": 3, "sha256": "1" * 64}},
            "settings": {"saved_frame": "RUB"}, "seconds": 1.5}},
    }  # fmt: skip
    yield Seed("predictions.jsonl", (json.dumps(done) + "\n").encode() * 2, "log")
    listed = {"id": "a", "path": "a.npy", "frame": "RUB", "scale": 2.0}
    yield Seed("list.jsonl", (json.dumps(listed) + "\n").encode(), "list")
    evaluated = {"schema": "twofold-rows/2", "identity": {"data": {"name": "fuzz"}}}
    line = {"id": "a", "status": "done", "values": {"x": 1.0}, "sums": {"x": [1.0, 2.0], "y": "=x"}}
    yield Seed(
        "rows.jsonl", "".join(json.dumps(x) + "\n" for x in (evaluated, line, line)).encode(), "evaluation"
    )
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        data = _saved(Image.new("L", (4, 4)), "png")
        item = tarfile.TarInfo("a/b.png")
        item.size = len(data)
        archive.addfile(item, io.BytesIO(data))
    yield Seed("a.tar", tar.getvalue(), "tar")
    person = {"image_id": 4, "category_id": 1, "keypoints": [1.0] * 51, "score": 0.5}
    yield Seed("people.json", json.dumps([person]).encode(), "people")


# ---- mutations

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, float("nan"), float("inf"), 0.5, "", "a", "..",
    "/", "/etc/passwd", "../../x", "a/../../b", "\x00", "\x1b[2J", "\u202e", "\ud800", "n" * 300, "x" * 5000, "C:\\x",
    [], {}, [[]], [None], [1, 2, 3, 4], ["a"], {"a": 1}, {"": None}, {"path": 3}, {"path": "../x"}, [1e308] * 4,
    "a.tar::b", "a::b", [[[[[[]]]]]],
)  # fmt: skip
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(rng: random.Random, seed: Seed) -> bytes:
    """Apply a few random changes to a valid file."""
    data = bytearray(seed.data)
    if seed.name.endswith((".json", ".jsonl")) and rng.random() < 0.8:
        return _mutate_json(rng, bytes(data))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        _mutate_bytes(rng, data)
    return bytes(data)


def _mutate_bytes(rng: random.Random, data: bytearray) -> None:
    if not data:
        return
    # Headers matter more than pixels.
    place = rng.randrange(min(len(data), rng.choice((16, 64, 256, len(data)))))
    match rng.randrange(7):
        case 0:
            data[place] = rng.randrange(256)
        case 1:
            data[place] ^= 1 << rng.randrange(8)
        case 2:
            del data[place:]
        case 3:
            del data[place : place + rng.randrange(1, 64)]
        case 4:
            data[place:place] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 16)))
        case 5:
            number, order = rng.choice(_NUMBERS), rng.choice("<>")
            data[place : place + 4] = struct.pack(f"{order}I", number)
        case _:
            data[place:place] = data[: rng.randrange(1, 256)]


def _mutate_json(rng: random.Random, data: bytes) -> bytes:
    lines = [json.loads(line) for line in data.decode().splitlines()]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        number = rng.randrange(len(lines))
        places = list(_places(lines[number]))
        if not places or rng.random() < 0.05:
            lines[number] = copy.deepcopy(rng.choice(HOSTILE))
            continue
        owner, key = rng.choice(places)
        change = rng.random()
        if change < 0.1 and isinstance(owner, dict):
            del owner[key]
        elif change < 0.2 and isinstance(owner, dict):
            owner[str(rng.choice(HOSTILE))] = copy.deepcopy(owner[key])
        elif change < 0.25:
            owner[key] = json.loads("[" * 50 + "]" * 50)
        else:
            owner[key] = copy.deepcopy(rng.choice(HOSTILE))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return text.encode() if rng.random() < 0.95 else b"[" * 100_000 + text.encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


# ---- readers


def check(seed: Seed, data: bytes, folder: Path) -> str:
    """Read a mutated file in a new folder; "" if it is read or properly refused, else the problem."""
    from twofold.image.errors import ImageError

    path = _place(seed, data, folder)
    try:
        CHECKS[seed.check](path)
    except Exception as error:  # noqa: BLE001 - any is a finding
        own = type(error).__module__.startswith("twofold")
        text = str(error)
        if own and text.replace("\n", "").isprintable() and "\n" not in text and len(text) < 2000:
            return ""
        if own and not isinstance(error, ImageError) and len(text) < 2000 and "\n" not in text:
            return ""  # commands escape what they print
        return "".join(traceback.format_exception(error)[-3:])
    return ""


def _place(seed: Seed, data: bytes, folder: Path) -> Path:
    """Write the file where its reader expects it, with the other files it needs."""
    if seed.check in ("rows", "header"):
        (folder / "a.png").write_bytes(_saved(Image.new("RGB", (24, 20)), "png"))
        (folder / "m.png").write_bytes(_saved(Image.new("L", (24, 20), 255), "png"))
        for text in _texts():
            if text.check in ("rows", "header"):
                (folder / text.name).write_bytes(text.data)
    name = "predictions.jsonl" if seed.check == "list" else seed.name
    path = folder / name
    path.write_bytes(data)
    return path


def _check_image(path: Path) -> None:
    from twofold.image import read_image

    x = read_image(path, max_pixels=10**6)
    assert x.ndim == 3 and x.shape[0] == 3 and bool(x.isfinite().all()), "an image is 3 h w and finite"
    assert float(x.min()) >= 0 and float(x.max()) <= 1, "an image is in [0, 1]"


def _check_map(path: Path) -> None:
    from twofold.image import read_map

    assert read_map(path, max_pixels=10**6).ndim == 3, "a map is c h w"


def _check_folder(path: Path) -> None:
    from twofold.data import Folder, FolderError, validate
    from twofold.data.pack import pack
    from twofold.image import ImageError

    root = path.parent
    validate(root)
    try:
        folder = Folder(root)
        for i in range(len(folder)):
            try:
                repr(folder[i])
            except (FolderError, ImageError):
                continue
        list(pack(folder, root.parent / f"{root.name}-packed"))
    finally:
        import shutil

        shutil.rmtree(root.parent / f"{root.name}-packed", ignore_errors=True)


def _check_result_log(path: Path) -> None:
    from twofold.predict.result_log import ResultLog

    ResultLog(path.parent)


def _check_list(path: Path) -> None:
    from twofold.evaluate.benchmarks import EVAL_PROTOCOLS
    from twofold.evaluate.predictions import read_list

    read_list(path.parent, next(s for s in EVAL_PROTOCOLS.values() if s.target == "depth"))


def _check_evaluation(path: Path) -> None:
    from twofold.evaluate.rows import read_all, unpack_from

    for row in read_all(path.parent, {"data": {"name": "fuzz"}}).values():
        for name in row.get("sums", {}):
            unpack_from(row["sums"], name)


def _check_tar(path: Path) -> None:
    from twofold.data.pack import check_shard
    from twofold.image import read_map
    from twofold.image.stored import members

    for member in members(path):
        read_map(f"{path}::{member}", max_pixels=10**6)
    check_shard(path)


def _check_people(path: Path) -> None:
    from types import SimpleNamespace

    from twofold.evaluate.pose import CocoResults

    CocoResults(path, SimpleNamespace(rows=[]))  # ty: ignore[invalid-argument-type]


CHECKS: dict[str, Check] = {
    "image": _check_image,
    "map": _check_map,
    "rows": _check_folder,
    "header": _check_folder,
    "log": _check_result_log,
    "list": _check_list,
    "evaluation": _check_evaluation,
    "tar": _check_tar,
    "people": _check_people,
}


# ---- the run


def corpus(count: int, seed: int = 0) -> Iterator[tuple[Seed, bytes]]:
    """`count` mutated files, the kinds in turn; the same for the same seed."""
    known = seeds()
    for number in range(count):
        yield (
            known[number % len(known)],
            mutate(random.Random(f"{seed}/{number}"), known[number % len(known)]),
        )


def _import() -> None:
    """Import the readers' dependencies before the processes are forked, without starting threads."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(seeds()):
            place = Path(folder, str(number))
            place.mkdir()
            check(one, one.data, place)


def _work(channel: Any, begin: int, count: int, seed: int, keep: str) -> None:
    """Check the files from `begin` on, and report before and after each."""
    import warnings

    warnings.simplefilter("ignore")
    known = seeds()
    for number in range(begin, count):
        one = known[number % len(known)]
        channel.send((number, None))
        data = mutate(random.Random(f"{seed}/{number}"), one)
        Path(keep, "current").write_bytes(data)
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            wrong = check(one, data, Path(folder))
        seconds = time.process_time() - start
        if not wrong and seconds > MAX_SECONDS:
            wrong = f"took {seconds:.1f} s"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if not wrong and peak > MAX_BYTES:
            wrong = f"took {peak / 2**20:.0f} MB"
        channel.send((number, (wrong, seconds)))
        if wrong.endswith("MB"):
            return  # the peak of a process never falls
    channel.send((count, ("", 0.0)))


def run(count: int, seed: int, keep: Path) -> int:
    """Check `count` files in processes that may crash or hang, print the findings, and return their number."""
    keep.mkdir(parents=True, exist_ok=True)
    _import()
    known, found, begin, start = seeds(), 0, 0, time.monotonic()
    slowest = (0.0, "")
    while begin < count:
        here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(
            target=_work, args=(there, begin, count, seed, str(keep))
        )
        child.start()
        there.close()
        number, wrong = begin, ""
        while number < count:
            if not here.poll(6 * MAX_SECONDS):  # of a machine that may be busy
                wrong = "hangs"
            else:
                try:
                    number, result = here.recv()
                    if result is None:
                        continue
                    wrong, seconds = result
                    slowest = max(slowest, (seconds, f"{number} {known[number % len(known)].name}"))
                except EOFError:
                    child.join()
                    wrong = f"crashed with exit code {child.exitcode}"
            if wrong:
                found += 1
                name = f"{number:06d}-{known[number % len(known)].name}"
                (keep / "current").rename(keep / name)
                print(f"{keep / name}: {wrong}", flush=True)
                if wrong.startswith(("hangs", "crashed")) or wrong.endswith("MB"):
                    break
                wrong = ""
        child.kill()
        child.join()
        begin = number + 1
    (keep / "current").unlink(missing_ok=True)
    took = time.monotonic() - start
    print(f"{count} files, {found} findings, {took:.0f} s, slowest {slowest[0]:.1f} s ({slowest[1]})")
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="where files of findings are kept"
    )
    options = parser.parse_args()
    return 1 if run(options.count, options.seed, options.keep) else 0


if __name__ == "__main__":
    sys.exit(main())
