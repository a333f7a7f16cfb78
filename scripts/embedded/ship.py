"""Compress a pack into one small file for transfer to another machine, and expand it again.

    python -m scripts.embedded.ship out PACK FILE.tar [--limit-mib 55]
    python -m scripts.embedded.ship in FILE.tar PACK

Images become JPEG (quality 92), log depth 16-bit PNG (steps of 2^-11), normals and masks lossless WebP: about 45 kB per
sample of 288x384. Samples are spaced evenly over the pack.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from .pack import HEADER, KINDS, Pack

_STEPS, _OFFSET, _SKY, _UNKNOWN = 2048, 8.0, 65535, 65534


def _encoded(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    depth = arrays["log_depth"].astype(np.float32)
    levels = np.nan_to_num((depth + _OFFSET) * _STEPS, nan=0.0, posinf=0.0).round().clip(0, _UNKNOWN - 1)
    levels = np.where(np.isposinf(depth), _SKY, np.where(np.isnan(depth), _UNKNOWN, levels)).astype(np.uint16)
    found: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "image.jpg": (Image.fromarray(arrays["image"]), {"format": "JPEG", "quality": 92}),
        "log_depth.png": (Image.fromarray(levels), {"format": "PNG"}),
        "normals.webp": (Image.fromarray(arrays["normals"].view(np.uint8)), {"format": "WEBP", "lossless": True}),
        "mask.webp": (Image.fromarray(arrays["mask"]).convert("RGB"), {"format": "WEBP", "lossless": True}),
    }  # fmt: skip
    out = {}
    for name, (image, how) in found.items():
        file = io.BytesIO()
        image.save(file, **how)
        out[name] = file.getvalue()
    return out


def _decoded(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    found = {name: np.array(Image.open(io.BytesIO(data))) for name, data in files.items()}
    levels = found["log_depth.png"].astype(np.int64)
    depth = levels / _STEPS - _OFFSET
    depth = np.where(levels == _SKY, np.inf, np.where(levels == _UNKNOWN, np.nan, depth)).astype(np.float16)
    normals = np.ascontiguousarray(found["normals.webp"]).view(np.int8)
    return {
        "image": found["image.jpg"],
        "log_depth": depth,
        "normals": normals,
        "mask": found["mask.webp"][..., 0],
    }


def ship_out(pack: Pack, path: Path, limit: int) -> int:
    """Write evenly spaced samples into a tar of at most ``limit`` bytes, and return their number."""
    probe = [
        sum(map(len, _encoded(_numpy(pack, i)).values()))
        for i in range(0, len(pack), max(1, len(pack) // 16))
    ]
    count = min(len(pack), int(limit / (np.mean(probe) * 1.05 + 4 * 1024)))
    with tarfile.open(path, "w") as tar:
        _add(tar, HEADER, json.dumps({"size": list(pack.size)}).encode())
        for k in tqdm(range(count), desc="encoding", disable=None):
            i = k * len(pack) // count
            for name, data in _encoded(_numpy(pack, i)).items():
                _add(tar, f"{pack.ids[i]}/{name}", data)
            if tar.offset > limit:
                return k + 1
    return count


def _numpy(pack: Pack, i: int) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in pack[i].items()}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def ship_in(path: Path, root: Path) -> int:
    """Expand a file of `ship_out` to a pack, and return its number of samples."""
    root.mkdir(parents=True)
    ids: list[str] = []
    files = {name: (root / f"{name}.bin").open("wb") for name in KINDS}
    waiting: dict[str, bytes] = {}
    size: list[int] = []
    with tarfile.open(path) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            data = b"" if stream is None else stream.read()
            if member.name == HEADER:
                size = json.loads(data)["size"]
                continue
            sample, _, part = member.name.rpartition("/")
            waiting[part] = data
            if len(waiting) == 4:
                for name, array in _decoded(waiting).items():
                    files[name].write(array.tobytes())
                ids.append(sample)
                waiting = {}
    for file in files.values():
        file.close()
    (root / HEADER).write_text(json.dumps({"size": size, "ids": ids}))
    return len(ids)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("direction", choices=("out", "in"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--limit-mib", type=float, default=55)
    given = parser.parse_args()
    if given.direction == "out":
        count = ship_out(Pack(given.source), given.target, int(given.limit_mib * 2**20))
    else:
        count = ship_in(given.source, given.target)
    print(f"{given.target}: {count} samples")


if __name__ == "__main__":
    main()
