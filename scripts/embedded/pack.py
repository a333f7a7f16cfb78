"""Data folders as memory-mapped arrays, which can be appended to while the training loop reads them.

A pack holds, for each sample, ``image`` (uint8, h w 3), ``log_depth`` (float16, h w: +inf is the sky, NaN unknown),
``normals`` (int8, h w 3: 127 times the unit vector, 0 unknown) and ``mask`` (uint8, h w: 0, 1, 255 unknown).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from twofold.data.folder import Folder
from twofold.image import resize, resize_map
from twofold.sample import Sample

KINDS = {"image": (np.uint8, 3), "log_depth": (np.float16, 0), "normals": (np.int8, 3), "mask": (np.uint8, 0)}
HEADER = "pack.json"


def as_arrays(sample: Sample, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Resize a sample to ``size`` (height, width) and convert it to the arrays of a pack."""
    if tuple(sample.image.shape[-2:]) != size:
        sample = _resized(sample, size)
    h, w = size
    depth, normals = np.full(size, np.nan, np.float32), np.zeros((h, w, 3), np.int8)
    mask = np.full(size, 255, np.uint8)
    if "depth" in sample.targets:
        metres, valid = sample.targets["depth"][0].numpy(), sample.valid["depth"][0].numpy()
        depth[valid] = np.log(np.maximum(metres[valid], 1e-3))
        depth[np.isposinf(metres)] = np.inf
    if "normals" in sample.targets:
        valid = sample.valid["normals"][0].numpy()
        normals[valid] = (sample.targets["normals"].permute(1, 2, 0).numpy() * 127).round()[valid]
    if "mask" in sample.targets:
        valid = sample.valid["mask"][0].numpy()
        mask[valid] = sample.targets["mask"][0].numpy()[valid] > 0.5
    image = (sample.image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return {"image": image, "log_depth": depth.astype(np.float16), "normals": normals, "mask": mask}


def _resized(sample: Sample, size: tuple[int, int]) -> Sample:
    moved = {k: resize_map(v, sample.valid[k], size, nearest=True) for k, v in sample.targets.items()}
    return Sample(
        resize(sample.image, size).clamp(0, 1),
        {k: v[0] for k, v in moved.items()},
        {k: v[1] for k, v in moved.items()},
        sample.caption,
        sample.id,
    )


class Pack:
    """A pack on disk; `refresh` includes samples that were appended since.

    Args:
        root: its folder.
        device: device of the arrays: mapped from disk on a CPU, copied to any other device.
    """

    def __init__(self, root: Path, device: torch.device | str = "cpu") -> None:
        self.root, self.device = root, torch.device(device)
        self.refresh()

    def refresh(self) -> None:
        """Map the arrays at their current length."""
        header = json.loads((self.root / HEADER).read_text())
        self.size: tuple[int, int] = (header["size"][0], header["size"][1])
        self.ids: list[str] = header["ids"]
        if self.ids:
            self.arrays = {name: self._array(name) for name in KINDS}

    def _array(self, name: str) -> torch.Tensor:
        dtype, channels = KINDS[name]
        shape = (len(self.ids), *self.size, *([channels] if channels else []))
        mapped = np.memmap(self.root / f"{name}.bin", dtype, "c", shape=shape)
        return torch.from_numpy(mapped).to(self.device)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """The arrays of one sample, ``h w`` or ``h w c``."""
        return {name: array[index] for name, array in self.arrays.items()}


def append(folder: Path, root: Path, size: tuple[int, int], limit: int = 0) -> int:
    """Append the samples of a data folder that a pack lacks, and return its number of samples.

    Raises:
        ValueError: the pack has another size.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = root / HEADER
    header = json.loads(path.read_text()) if path.exists() else {"size": list(size), "ids": []}
    if tuple(header["size"]) != size:
        raise ValueError(f"{root} has samples of {header['size']} pixels, not {list(size)}; pass that size")
    there, found = set(header["ids"]), Folder(folder)
    wanted = [i for i, row in enumerate(found.rows) if row["id"] not in there]
    wanted = wanted[: max(0, limit - len(there))] if limit else wanted
    h, w = size
    files = {name: (root / f"{name}.bin").open("ab") for name in KINDS}
    try:
        for name, (dtype, channels) in KINDS.items():  # what a killed call left beyond the header's samples
            files[name].truncate(len(header["ids"]) * h * w * (channels or 1) * np.dtype(dtype).itemsize)
        for count, i in enumerate(tqdm(wanted, desc=f"packing {folder.name}", disable=None)):
            for name, array in as_arrays(found[i], size).items():
                files[name].write(array.tobytes())
            header["ids"].append(found.rows[i]["id"])
            if count % 100 == 99:
                _save(header, files, path)
        _save(header, files, path)
    finally:
        for file in files.values():
            file.close()
    return len(header["ids"])


def _save(header: dict, files: dict, path: Path) -> None:
    for file in files.values():
        file.flush()
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(header))
    os.replace(temporary, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--size", default="288x384", help="height x width in pixels")
    parser.add_argument("--limit", type=int, default=0, help="samples at most; 0 is all")
    given = parser.parse_args()
    h, w = (int(n) for n in given.size.split("x"))
    print(f"{given.pack}: {append(given.folder, given.pack, (h, w), given.limit)} samples")


if __name__ == "__main__":
    main()
