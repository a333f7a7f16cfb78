"""The folders of the released code of Diff-2-in-1: ``nyu/{train,test}/{img,norm,caption}``, read and written.

Images, normals and captions are paired by their order in each folder only, and an image whose file name begins with
``r`` counts as a created one. Normals are 8-bit colours in the frame LUB, black where unknown.
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
# What an export writes.
_EXPORTED = re.compile(r"(a_real_|rgb_syn_|sn_syn_)\d+\.(png|txt)", re.ASCII)


def is_official(root: Path) -> bool:
    """Whether a folder has this layout: images beside normals or captions, and no manifest."""
    return (
        (root / "img").is_dir()
        and any((root / p).is_dir() for p in ("norm", "caption"))
        and not (root / "metadata.jsonl").exists()
    )


def index_official(root: Path, out: Path) -> Folder:
    """A data folder at ``out`` that lists the files of an official one, without copying them.

    Args:
        root: with ``img`` and, each with as many files, ``norm`` and ``caption`` if it has them.
        out: new folder, or that of an earlier index, for ``dataset.json`` and ``metadata.jsonl``.

    Raises:
        FileExistsError: ``out`` holds files of something else.
        FolderError: the folders do not have as many files each, so that they cannot be paired.
    """
    found = list(paired_rows(root))
    check_own_folder(out, (_INDEX,))
    out.mkdir(parents=True, exist_ok=True)
    labelled = (root / "norm").is_dir()
    header: dict[str, Any] = {"schema": SCHEMA, "name": root.resolve().parent.name or root.name}
    header |= {"root": str(root.resolve()), "targets": {"normals": DESCRIPTOR} if labelled else {}}
    rows = [to_json(row) + "\n" for row in found]
    write_text(
        out / _INDEX, f"twofold's index of {root.resolve()}; these files are replaced when it is made again\n"
    )
    write_text(out / "dataset.json", json.dumps(header, indent=1) + "\n")
    write_text(out / "metadata.jsonl", "".join(rows))
    return Folder(out)


def official_name(start: int) -> str:
    """The released code's name of NYU images created from NYU at a time step: ``nyu_nyu_T600``."""
    return f"nyu_nyu_T{start}"


def export_official(
    created: Folder, out: Path, start: int, split: str = "train", real: Folder | None = None
) -> Path:
    """Write created samples, and the real ones to train on beside them, as the released code reads them.

    Labels are rounded to 8 bits here, and only here; real files in that format are copied. Real files are named
    ``a_real_...`` and created ones ``rgb_syn_K``, ``sn_syn_K``: in each folder the real ones come first, so that the
    order pairs them.

    Args:
        created: with normals; its rows that were noised to ``start`` are written, in the order of their ids.
        out: parent of ``nyu_nyu_T<start>/<split>/{img,norm,caption}``, which is replaced.
        start: time step.
        split: ``train`` or ``test``.
        real: with normals.

    Returns:
        The folder of the split.

    Raises:
        FolderError: a sample has no normals, none was created from ``start``, or the folder holds other files than an
            earlier export's.
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
    """FolderError where the folder has files that an earlier export did not write."""
    for file in sorted(final.rglob("*")) if final.exists() else ():
        own = file.parent == final and file.name in PARTS and file.is_dir()
        if not own and not (file.parent.name in PARTS and _EXPORTED.fullmatch(file.name)):
            raise FolderError(
                f"{file} was not written by an export, so {final} is not replaced; choose another --out"
            )


def _write(root: Path, folder: Folder, index: int, image: str, normals: str) -> None:
    sample = folder[index]
    if "normals" not in sample.targets:
        raise FolderError(
            f"{sample.id} of {folder.root} has no normals, and the official layout holds normals only"
        )
    to = root / "img" / f"{image}.png", root / "norm" / f"{normals}.png"
    same = _official_files(folder, folder.rows[index])
    if same:
        for source, target in zip(same, to, strict=True):
            shutil.copyfile(source, target)
    else:
        write_image(to[0], sample.image)
        write_image(to[1], quantize_normals(sample.targets["normals"], sample.valid["normals"]))
    with atomic_write(root / "caption" / f"{image}.txt") as temporary:
        temporary.write_text(f"{sample.caption}\n", "utf-8")


def _official_files(folder: Folder, row: dict[str, Any]) -> tuple[Path, Path] | None:
    """The files of a row's image and normals where they are in the format of the released code; else None."""
    if any(key in entry for key in ("crop", "squeeze", "image") for entry in (row, folder.header)):
        return None
    descriptor = folder.descriptor(row, "normals")
    if any(descriptor.get(key) != value for key, value in DESCRIPTOR.items()) or descriptor.get("masks"):
        return None
    files = folder.files / row["file_name"], folder.files / descriptor["path"]
    return files if all(f.suffix == ".png" and f.is_file() for f in files) else None


def quantize_normals(normals: Tensor, valid: Tensor) -> Tensor:
    """Normals ``3 h w`` (RUB) as the released code's 8-bit colours in [0, 1], half to even; black where invalid."""
    levels = ((convert_frame(normals, "RUB", "LUB").clamp(-1, 1) + 1) / 2 * 255).round()
    return levels * valid / 255


def _start_of(row: dict[str, Any]) -> int | None:
    return ((row.get("provenance") or {}).get("generator") or {}).get("start")
