"""Captions of a whole data folder, written into its manifest."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from ..data.folder import Folder
from ..data.layout import MANIFESTS, FolderError, Row, check_row, to_json, write_text
from ..image import ImageError
from ..io import DiskFullError, append_line, file_lock
from ..sample import Sample
from .captioner import CaptionError, generate_captions, open_captioner

JOURNAL = "captions.jsonl"
"""Captions that are not in the manifest yet; a killed run resumes after them."""
SOURCE = "caption_source"
"""Key of a row that names the captioner of its text."""


def caption_folder(
    root: Path, name: str, device: str = "cpu", batch: int = 8, overwrite: bool = False
) -> Generator[dict[str, Any]]:
    """Caption the images of a data folder and write the texts into its rows (``text``), at the end and at once.

    Rows with a text keep it. Only images are read, not labels. Captions are appended to ``captions.jsonl`` until all
    are there, so a killed run resumes.

    Args:
        root: the folder.
        name: of the captioner, see `captioner.open_captioner`.
        device: of the captioner.
        batch: images computed together.
        overwrite: whether rows that have a text get a new one.

    Yields:
        Of each row: its ``id`` and ``status``, ``captioned``, ``kept`` or ``failed``, with the ``text`` or the
        ``error``.

    Raises:
        FolderError: it is not a data folder, or holds unfinished captions of another captioner.
        ValueError: the captioner cannot be opened.
    """
    folder = Folder(root, targets=())
    with file_lock(
        folder.root, busy=FolderError(f"another command writes into {root}; wait for it and run this again")
    ):
        captions = _unfinished(folder, name)
        todo: list[int] = []
        for i, row in enumerate(folder.rows):
            if row["id"] in captions:
                yield {"id": row["id"], "status": "captioned", "text": captions[row["id"]]}
            elif _has_text(row) and not (overwrite and row.get(SOURCE) != name):
                yield {"id": row["id"], "status": "kept", "text": row.get("text") or row.get("caption")}
            else:
                todo.append(i)
        if todo:
            open_captioner(name, device)
        for start in range(0, len(todo), batch):
            for event in _caption_batch(folder, todo[start : start + batch], name, device):
                if event["status"] == "captioned":
                    captions[event["id"]] = event["text"]
                    append_line(folder.root / JOURNAL, to_json({**event, SOURCE: name}, event["id"]))
                yield event
        _write(folder, captions, name)


def _has_text(row: Row) -> bool:
    return any(isinstance(row.get(key), str) and row[key].strip() for key in ("text", "caption"))


def _unfinished(folder: Folder, name: str) -> dict[str, str]:
    """The captions of a killed run by id. FolderError when another captioner wrote them."""
    path = folder.root / JOURNAL
    found: dict[str, str] = {}
    whole: list[str] = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(text)
        except ValueError:
            continue  # a line cut short by a kill
        if row[SOURCE] != name:
            raise FolderError(
                f"{path} has unfinished captions of {row[SOURCE]}, not of {name}; run that captioner to its end "
                "first, or delete the file"
            )
        found[row["id"]] = row["text"]
        whole.append(text + "\n")
    if path.exists():
        write_text(path, "".join(whole))
    return found


def _caption_batch(folder: Folder, indices: Sequence[int], name: str, device: str) -> list[dict[str, Any]]:
    """The events of some rows; where one of them fails, each is captioned by itself."""
    samples: list[Sample] = []
    events: dict[int, dict[str, Any]] = {}
    for i in indices:
        try:
            samples.append(folder[i])
        except DiskFullError:
            raise
        except (FolderError, ImageError, OSError) as error:
            events[i] = {
                "id": folder.ids[i],
                "status": "failed",
                "error": " ".join(str(error).split()),
            }
    readable = [i for i in indices if i not in events]
    for i, result in zip(readable, _texts(samples, name, device), strict=True):
        failed = isinstance(result, CaptionError)
        outcome = {"error": str(result)} if failed else {"text": result}
        events[i] = {"id": folder.ids[i], "status": "failed" if failed else "captioned", **outcome}
    return [events[i] for i in indices]


def _texts(samples: Sequence[Sample], name: str, device: str) -> list[str | CaptionError]:
    if not samples:
        return []
    try:
        return list(generate_captions([s.image for s in samples], [str(s.id) for s in samples], name, device))
    except CaptionError as error:
        if len(samples) == 1:
            return [error]
    return [text for sample in samples for text in _texts([sample], name, device)]


def _write(folder: Folder, captions: dict[str, str], name: str) -> None:
    """Write captions into the manifest; rows without a new one keep their bytes."""
    path = next(folder.root / m for m in MANIFESTS if (folder.root / m).is_file())
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line) if line.strip() else {}
        id = check_row(row, f"{path}:{number}")["id"] if row else None
        if id in captions:
            line = to_json({**row, "text": captions[id], SOURCE: name}, f"the row of {id}")
        lines.append(line + "\n")
    if captions:
        write_text(path, "".join(lines))
    (folder.root / JOURNAL).unlink(missing_ok=True)
