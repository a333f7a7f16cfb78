"""The folders of the released code of Diff-2-in-1: ``nyu/{train,test}/{img,norm,caption}``, read and written.

Pictures, normals and captions are paired there by their order in each folder alone, and a picture whose file name
begins with ``r`` is taken for a created one. Normals are 8-bit colours in the frame LUB, black where unknown.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.convert.diff2in1 import HOW, PARTS, paired_rows
from ..data.folder import Folder
from ..data.layout import SCHEMA, FolderError, write_text
from ..geometry import convert_frame
from ..image import write_image
from ..io import atomic_write, report_disk_full, to_json


def is_official(root: Path) -> bool:
    """Whether a folder is laid out so: pictures beside normals or captions, and no manifest."""
    return (
        (root / "img").is_dir()
        and any((root / p).is_dir() for p in ("norm", "caption"))
        and not (root / "metadata.jsonl").exists()
    )


def index_official(root: Path, out: Path) -> Folder:
    """A data folder at ``out`` that names the files of an official one, without copying them.

    Args:
        root: with ``img`` and, each with as many files, ``norm`` and ``caption`` if it has them.
        out: of ``dataset.json`` and ``metadata.jsonl``; written anew.

    Raises:
        FolderError: the folders do not have as many files each, so that nobody could say what belongs together.
    """
    found = list(paired_rows(root))
    out.mkdir(parents=True, exist_ok=True)
    labelled = (root / "norm").is_dir()
    said: dict[str, Any] = {"schema": SCHEMA, "name": root.resolve().parent.name or root.name}
    said |= {"root": str(root.resolve()), "targets": {"normals": HOW} if labelled else {}}
    rows = [to_json(row) + "\n" for row in found]
    write_text(out / "dataset.json", json.dumps(said, indent=1) + "\n")
    write_text(out / "metadata.jsonl", "".join(rows))
    return Folder(out)


def official_name(start: int) -> str:
    """What the released code calls NYU pictures created of NYU at a time step: ``nyu_nyu_T600``."""
    return f"nyu_nyu_T{start}"


def export_official(
    created: Folder, out: Path, start: int, split: str = "train", real: Folder | None = None
) -> Path:
    """Write created samples, and the real ones they are to be learned beside, as the released code reads them.

    Labels are rounded to 8 bits here, and only here; real files that are of that kind already are copied as they are.
    Real files are called ``a_real_...`` and created ones ``rgb_syn_K``, ``sn_syn_K``: in each folder the real come
    first, so that the order pairs them.

    Args:
        created: with normals; of its rows those noised to ``start``, in order of their ids.
        out: parent of ``nyu_nyu_T<start>/<split>/{img,norm,caption}``, which is replaced.
        start: time step.
        split: ``train`` or ``test``.
        real: with normals.

    Returns:
        The folder of the split.

    Raises:
        FolderError: a sample has no normals, or none was created from ``start``.
    """
    chosen = [i for i, row in enumerate(created.rows) if _start_of(row) == start]
    if not chosen:
        raise FolderError(f"{created.root} has no sample created from time step {start}")
    final = out / official_name(start) / split
    work = final.with_name(f".{split}-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        with report_disk_full(final):
            for part in PARTS:
                (work / part).mkdir(parents=True)
            for k in range(len(real) if real is not None else 0):
                assert real is not None
                _write(work, real, k, f"a_real_{k + 1:05d}", f"a_real_{k + 1:05d}")
            for k, index in enumerate(chosen, 1):
                _write(work, created, index, f"rgb_syn_{k}", f"sn_syn_{k}")
            shutil.rmtree(final, ignore_errors=True)
            work.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _write(root: Path, folder: Folder, index: int, picture: str, normals: str) -> None:
    sample = folder[index]
    if "normals" not in sample.targets:
        raise FolderError(
            f"{sample.id} of {folder.root} has no normals; the official layout is of normals only"
        )
    to = root / "img" / f"{picture}.png", root / "norm" / f"{normals}.png"
    same = _alike(folder, folder.rows[index])
    if same:
        for source, target in zip(same, to, strict=True):
            shutil.copyfile(source, target)
    else:
        write_image(to[0], sample.image)
        write_image(to[1], rounded(sample.targets["normals"], sample.valid["normals"]))
    with atomic_write(root / "caption" / f"{picture}.txt") as temporary:
        temporary.write_text(f"{sample.caption}\n", "utf-8")


def _alike(folder: Folder, row: dict[str, Any]) -> tuple[Path, Path] | None:
    """The files of a row's picture and normals where they are such as the released code reads; else None."""
    if any(key in said for key in ("crop", "squeeze", "image") for said in (row, folder.header)):
        return None
    how = folder.descriptor(row, "normals")
    if any(how.get(key) != value for key, value in HOW.items()) or how.get("masks"):
        return None
    files = folder.files / row["file_name"], folder.files / how["path"]
    return files if all(f.suffix == ".png" and f.is_file() for f in files) else None


def rounded(normals: Tensor, valid: Tensor) -> Tensor:
    """Normals ``3 h w`` (RUB) as the original's 8-bit colours in [0, 1], half to even; black where not ``valid``."""
    levels = ((convert_frame(normals, "RUB", "LUB").clamp(-1, 1) + 1) / 2 * 255).round()
    return levels * valid / 255


def _start_of(row: dict[str, Any]) -> int | None:
    return ((row.get("provenance") or {}).get("generator") or {}).get("start")
