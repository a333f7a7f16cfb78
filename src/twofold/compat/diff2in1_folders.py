"""Reads and writes the folders of the released code of Diff-2-in-1: ``nyu/{train,test}/{img,norm,caption}``.

Images, normals and captions are paired by their order in each folder only. The released code treats an image whose
file name begins with ``r`` as generated. Normals are 8-bit colours in the frame LUB, black at unknown pixels.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.convert.diff2in1 import DESCRIPTOR, PARTS, paired_rows
from ..data.folder import Folder
from ..data.layout import SCHEMA, FolderError, write_text
from ..geometry import convert_frame
from ..image import write_image
from ..io import atomic_folder, atomic_write, check_own_folder, to_json

_INDEX = "index.txt"  # marks the folder of an index, which may be written again
# Names of exported files.
_EXPORTED = re.compile(r"(a_real_|rgb_syn_|sn_syn_)\d+\.(png|txt)", re.ASCII)


def is_official(root: Path) -> bool:
    """Whether a folder has this layout: images, normals or captions, and no manifest."""
    return (
        (root / "img").is_dir()
        and any((root / p).is_dir() for p in ("norm", "caption"))
        and not (root / "metadata.jsonl").exists()
    )


def index_official(root: Path, out: Path) -> Folder:
    """Make a data folder that refers to the files of a folder in this layout, without copying them.

    Args:
        root: folder with ``img``, and ``norm`` or ``caption`` with as many files.
        out: a new folder, or that of an earlier index, for ``dataset.json`` and ``metadata.jsonl``.

    Raises:
        FileExistsError: ``out`` has other files.
        FolderError: the folders have different numbers of files, so that they cannot be paired.
    """
    rows = "".join(to_json(row) + "\n" for row in paired_rows(root))
    check_own_folder(out, (_INDEX,))
    out.mkdir(parents=True, exist_ok=True)
    labelled = (root / "norm").is_dir()
    header: dict[str, Any] = {"schema": SCHEMA, "name": root.resolve().parent.name or root.name}
    header |= {"root": str(root.resolve()), "targets": {"normals": DESCRIPTOR} if labelled else {}}
    write_text(
        out / _INDEX, f"twofold's index of {root.resolve()}; these files are replaced when it is made again\n"
    )
    write_text(out / "dataset.json", json.dumps(header, indent=1) + "\n")
    write_text(out / "metadata.jsonl", rows)
    return Folder(out)


def official_name(start: int) -> str:
    """The released code's name of images generated from NYU with noise of a time step, such as ``nyu_nyu_T600``."""
    return f"nyu_nyu_T{start}"


def export_official(
    created: Folder, out: Path, start: int, split: str = "train", real: Folder | None = None
) -> Path:
    """Write generated samples, and the real samples to train on, in the layout of the released code.

    Labels are rounded to 8 bits; real files in that format are copied. Real files are named ``a_real_K`` and generated
    ones ``rgb_syn_K`` and ``sn_syn_K``, so that real files come first in every folder and the order pairs the files.

    Args:
        created: data folder of generated samples with normals. Only samples generated from time step ``start`` are
            written, in the order of their ids.
        out: parent of ``nyu_nyu_T<start>/<split>/{img,norm,caption}``, which is replaced.
        start: time step whose noise was added to the sources.
        split: ``train`` or ``test``.
        real: data folder of real samples with normals.

    Returns:
        The folder of the split.

    Raises:
        FolderError: a sample has no normals, none was generated from ``start``, or the folder has files that no export
            wrote.
    """
    chosen = [i for i, row in enumerate(created.rows) if _start_of(row) == start]
    if not chosen:
        raise FolderError(f"{created.root} has no sample created from time step {start}")
    final = out / official_name(start) / split
    _check_replaceable(final)
    with atomic_folder(final) as work:
        for part in PARTS:
            (work / part).mkdir(parents=True)
        for k in range(len(real) if real is not None else 0):
            assert real is not None
            _write(work, real, k, f"a_real_{k + 1:05d}", f"a_real_{k + 1:05d}")
        for k, index in enumerate(chosen, 1):
            _write(work, created, index, f"rgb_syn_{k}", f"sn_syn_{k}")
        shutil.rmtree(final, ignore_errors=True)
    return final


def _check_replaceable(final: Path) -> None:
    """FolderError if the folder has files that no export wrote."""
    for file in sorted(final.rglob("*")) if final.exists() else ():
        subfolder = file.parent == final and file.name in PARTS and file.is_dir()
        if not subfolder and not (file.parent.name in PARTS and _EXPORTED.fullmatch(file.name)):
            raise FolderError(
                f"{file} was not written by an export, so {final} is not replaced; choose another --out"
            )


def _write(root: Path, folder: Folder, index: int, image: str, normals: str) -> None:
    sample = folder[index]
    if "normals" not in sample.targets:
        raise FolderError(
            f"{sample.id} of {folder.root} has no normals, which are the only target of the official layout"
        )
    image_path, normals_path = root / "img" / f"{image}.png", root / "norm" / f"{normals}.png"
    files = _official_files(folder, folder.rows[index])
    if files:
        shutil.copyfile(files[0], image_path)
        shutil.copyfile(files[1], normals_path)
    else:
        write_image(image_path, sample.image)
        write_image(normals_path, quantize_normals(sample.targets["normals"], sample.valid["normals"]))
    with atomic_write(root / "caption" / f"{image}.txt") as temporary:
        temporary.write_text(f"{sample.caption}\n", "utf-8")


def _official_files(folder: Folder, row: dict[str, Any]) -> tuple[Path, Path] | None:
    """The files of image and normals of a row if they have the format of the released code; else None."""
    if any(key in entry for key in ("crop", "squeeze", "image") for entry in (row, folder.header)):
        return None
    descriptor = folder.descriptor(row, "normals")
    if any(descriptor.get(key) != value for key, value in DESCRIPTOR.items()) or descriptor.get("masks"):
        return None
    files = folder.files / row["file_name"], folder.files / descriptor["path"]
    return files if all(f.suffix == ".png" and f.is_file() for f in files) else None


def quantize_normals(normals: Tensor, valid: Tensor) -> Tensor:
    """Convert normals ``3 h w`` (RUB) to the released code's 8-bit colours in [0, 1]; black at invalid pixels."""
    levels = ((convert_frame(normals, "RUB", "LUB").clamp(-1, 1) + 1) / 2 * 255).round()
    return levels * valid / 255


def _start_of(row: dict[str, Any]) -> int | None:
    return ((row.get("provenance") or {}).get("generator") or {}).get("start")
