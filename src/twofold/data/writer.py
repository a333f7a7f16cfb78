"""Writing of data folders; a killed process loses at most the sample it was writing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twofold.data.codecs import DEFAULT_CODECS, write_target
from twofold.data.layout import (
    HEADER,
    MANIFESTS,
    PENDING,
    SCHEMA,
    FolderError,
    Row,
    read_header,
    read_pending,
    read_rows,
    to_json,
    write_text,
)
from twofold.data.points import INLINE_TARGETS, check_joints
from twofold.image import ImageError, write_image
from twofold.image.memory import check_range
from twofold.io import OutputFolder, UnsafeNameError, check_name, check_own_folder, safe_output_path
from twofold.sample import Provenance, Sample

# Names that need no escaping in any file system or shell.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class FolderWriter:
    """Adds samples to a new or existing folder. Several processes may write different ids at the same time.

    Files are written atomically and a sample's row last, so a sample with a row is complete. Rows are stored in `.rows`
    until one process calls `finish`, after the others are done.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        header: Mapping[str, Any],
        codecs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Open or create the folder.

        header: the content of `dataset.json` (JSON values). `header["targets"]` has a descriptor for each target, or {}
            for that of `codecs.DEFAULT_CODECS`; without the entry, all of those.
        codecs: descriptors by target name, which override those of the header.

        FolderError when the folder exists with another header, or with other files and without one.
        """
        self.root = Path(root)
        self.header = _complete(header, codecs or {})
        try:
            check_own_folder(self.root, (HEADER, PENDING, ".sources"))  # the index that `create` makes first
        except FileExistsError as error:
            raise FolderError(f"{self.root}: {error.strerror}") from None
        (self.root / PENDING).mkdir(parents=True, exist_ok=True)
        found = read_header(self.root)
        found.pop("count", None)
        if found and found != self.header:
            keys = sorted(k for k in {*found, *self.header} if found.get(k) != self.header.get(k))
            raise FolderError(
                f"{self.root} was begun with other settings ({', '.join(keys)}); use a new folder"
            )
        if not found:
            write_text(self.root / HEADER, to_json(self.header, "the header", indent=1) + "\n")
        self._merged = {row["id"] for row in self._manifest()}
        self._output = OutputFolder(self.root)

    def _manifest(self) -> list[Row]:
        return read_rows(self.root) if (self.root / MANIFESTS[0]).exists() else []

    def _pending(self, id: str) -> Path:
        return self.root / PENDING / f"{id}.json"

    def has(self, id: str) -> bool:
        """Whether the sample `id` has been written."""
        return id in self._merged or self._pending(id).is_file()

    def write(self, sample: Sample, inline: Mapping[str, Mapping[str, Any]] | None = None) -> Row:
        """Write one sample (not a batch) and return its row.

        inline: inline targets by name (see `points`): joints of the whole image.

        The image is in [0, 1]; uint8 is divided by 255.

        FolderError when the id exists or has invalid characters, a target is not in the header, or the image has
        another range; ValueError when a value is not in its target's unit or does not fit its codec, joints are
        invalid, or a link leads out of the folder; OSError when the folder was deleted or replaced since it was opened.
        """
        self._output.check()
        inline = dict(inline or {})
        id, row = self._describe(sample, inline)
        try:
            check_range(sample.image, "its image")
        except ImageError as error:
            raise FolderError(f"{id} was not written: {error}") from None
        image = safe_output_path(self.root, row["file_name"], "the image", nested=True)
        image.parent.mkdir(parents=True, exist_ok=True)
        write_image(image, sample.image)
        for name, target in sample.targets.items():
            stem = safe_output_path(self.root, f"{name}/{id}", "the target", nested=True)
            stem.parent.mkdir(parents=True, exist_ok=True)
            path = write_target(stem, name, target, sample.valid[name], self.header["targets"][name])
            row["targets"][name] = {"path": path.relative_to(self.root).as_posix()}
        row["targets"] |= {name: dict(how) for name, how in inline.items()}
        self._pending(id).parent.mkdir(parents=True, exist_ok=True)
        write_text(self._pending(id), to_json(row, f"the row of {id}"))
        return row

    def _describe(self, sample: Sample, inline: Mapping[str, Mapping[str, Any]]) -> tuple[str, Row]:
        """Check a sample, and return its id and its row without targets."""
        id, camera, origin = sample.id, sample.camera, sample.origin
        if not isinstance(id, str) or not isinstance(origin, Provenance) or isinstance(camera, tuple):
            raise FolderError(f"{self.root} takes one sample at a time, not a batch")
        if not _ID.fullmatch(id) or len(id) > 200:
            raise FolderError(f"{id!r} cannot be an id: use letters, digits, '.', '_', '-' and '/'")
        if self.has(id):
            raise FolderError(
                f"{self.root} already has {id!r}; check `has` before writing, or use another id"
            )
        for name, how in inline.items():
            if name in sample.targets:
                raise FolderError(f"{id} has {name} as a map and as numbers; pass one of them")
            check_joints({**self.header["targets"].get(name, {}), **how})
        unknown = {*sample.targets, *inline} - set(self.header["targets"])
        if unknown:
            raise FolderError(f"{id} has targets that are not in the header: {', '.join(sorted(unknown))}")
        size = list(sample.image.shape[-2:])
        if camera is not None and [camera.height, camera.width] != size:
            raise FolderError(
                f"{id}: the camera is {camera.height}x{camera.width}, the image {size}; resize it"
            )
        return id, {
            "id": id,
            "file_name": f"image/{id}.png",
            "text": sample.caption,
            "size": size,
            "targets": {},
            "camera": {"K": None if camera is None else camera.matrix().tolist()},
            "provenance": {
                "origin": origin.kind,
                "parents": list(origin.parents),
                "generator": dict(origin.generator) or None,
            },
        }

    def finish(self) -> int:
        """Merge all rows, sorted by id, into `metadata.jsonl`, write the count into the header, and return it.

        May be called again after more samples; a kill loses nothing. OSError when the folder was deleted or replaced
        since it was opened.
        """
        self._output.check()
        pending = read_pending(self.root)
        rows = {row["id"]: row for row in [*self._manifest(), *pending.values()]}
        lines = [to_json(rows[id], f"the row of {id}") + "\n" for id in sorted(rows)]
        write_text(self.root / MANIFESTS[0], "".join(lines))
        header = {**self.header, "count": len(rows)}
        write_text(self.root / HEADER, to_json(header, "the header", indent=1) + "\n")
        for path in pending:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            # Only when empty: another writer may have started.
            (self.root / PENDING).rmdir()
        self._merged = set(rows)
        return len(rows)


def _complete(header: Mapping[str, Any], codecs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The header with its schema and complete descriptors, as read back from JSON."""
    named = header.get("targets", DEFAULT_CODECS)
    targets = {
        name: {**DEFAULT_CODECS.get(name, {}), **named[name], **codecs.get(name, {})} for name in named
    }
    for name, how in targets.items():
        try:
            check_name(name, "the target")
        except UnsafeNameError as error:
            raise FolderError(str(error)) from None
        if "codec" not in how and name not in INLINE_TARGETS:
            raise FolderError(f"the target {name!r} has no 'codec' in the header, and no default")
    complete = {"schema": SCHEMA, **{k: v for k, v in header.items() if k != "count"}, "targets": targets}
    return json.loads(to_json(complete, "the header"))
