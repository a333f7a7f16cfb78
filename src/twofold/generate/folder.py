"""Synthetic samples of a whole data folder, written atomically; resumable, and shared between processes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.folder import Folder
from ..data.layout import FolderError, Row, read_header, read_pending, read_rows, to_json
from ..data.writer import FolderWriter
from ..image import ImageError
from ..image.stored import find_stored
from ..io import DiskFullError, FormatError, check_types, file_lock, remove_leftovers
from ..predict.finite import NonFiniteError
from ..sample import Provenance, Sample
from .captioner import CaptionError
from .creation import DEFAULT_OPTIONS, CreationItem, CreationOptions, batches, list_items
from .labels import label_descriptors
from .provenance import versions
from .rejected import CreateError, merge_rejected, put_rejected, read_rejected
from .scores import ScoreThreshold
from .synthetic_data import SyntheticDataGenerator


def create_samples(
    generator: SyntheticDataGenerator,
    folder: Folder,
    out: str | os.PathLike[str],
    options: CreationOptions = DEFAULT_OPTIONS,
) -> Iterator[Row]:
    """Create samples of a folder in another one, and yield the outcome of each, once it is on the disk.

    Args:
        generator: of images and labels; each strength of the options replaces that of its configuration.
        folder: the sources.
        out: a data folder: new, or started with the same settings.
        options: which samples are created.

    Yields:
        ``{"id", "source", "strength", "status"}``: ``created`` with its ``row``; ``kept``, from an earlier run;
        ``rejected`` with ``reasons`` and ``row``; ``failed`` with ``error``, where a source cannot be read, or a
        network returned NaN or infinity for it.

    Raises:
        CreateError: the folder was started with other settings, or a source has changed since.
        ValueError: a threshold on a score that is not computed.
    """
    root = Path(out)
    for threshold in options.filters:
        if threshold.needs_predictions and generator.config.scoring == "cheap":
            raise ValueError(
                f"'{threshold}' needs further predictions, and scoring is 'cheap'; use scoring 'all'"
            )
    items = list_items(generator, folder, options)
    try:
        writer = FolderWriter(root, folder_header(generator, folder, options))
    except FolderError as error:
        if "other settings" not in str(error):
            raise
        raise CreateError(_conflict(root, folder_header(generator, folder, options))) from error
    with file_lock(root, shared=True):  # another process may be merging its rows
        known = _existing(root)
        _remove_partial_files(root)
    chunks = batches(items, options.batch)
    generators = {strength: generator.with_strength(strength) for strength in options.strengths}
    for chunk in options.shard.select(chunks):
        yield from _create_batch(generators[chunk[0].strength], folder, writer, chunk, known, options)
    finish(writer)


def folder_header(
    generator: SyntheticDataGenerator, folder: Folder, options: CreationOptions
) -> dict[str, Any]:
    """``dataset.json``: what the samples of one folder have in common."""
    targets = label_descriptors(generator.predictors)
    common = {k: v for k, v in generator.config.record.items() if k != "strength"}
    classes = next((p.task.classes for p in generator.predictors.values() if p.task.classes), ())
    header: dict[str, Any] = {
        "name": f"{folder.header.get('name') or folder.root.name}-created",
        "licence": folder.header.get("licence", "that of its sources and of the model"),
        "targets": targets,
        "created": {
            **common,
            "weights": generator.weights,
            "dtype": versions(generator.backbone)["dtype"],
            "tasks": list(generator.predictors),
            "template": generator.template,
            "captioner": generator.captioner,
            "filters": [str(threshold) for threshold in options.filters],
        },
    }
    if classes:
        header["classes"] = list(classes)
    return json.loads(to_json(header, "the header"))


def _conflict(root: Path, expected: Mapping[str, Any]) -> str:
    found = read_header(root)
    mine, theirs = dict(expected.get("created") or {}), dict(found.get("created") or {})
    keys = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k)) or ["sources or targets"]
    return f"{root} was started with other settings ({', '.join(keys)}); use another --out"


def _existing(root: Path) -> dict[str, Row]:
    """Every sample that was created or rejected, by id."""
    rows = read_rows(root) if (root / "metadata.jsonl").exists() else []
    rows += list(read_pending(root).values())
    rows += read_rejected(root)
    return {row["id"]: row for row in rows}


def _create_batch(
    generator: SyntheticDataGenerator,
    folder: Folder,
    writer: FolderWriter,
    chunk: Sequence[CreationItem],
    known: Mapping[str, Row],
    options: CreationOptions,
) -> Iterator[Row]:
    """The samples of one batch. All are generated when one is missing, so that a batch is always the same."""
    events = {item.key: _event(folder, item) for item in chunk}
    sources: list[tuple[CreationItem, Sample, str]] = []
    for item in chunk:
        try:
            sha = _file_digest(folder, item.source)
            _check_source(known.get(item.key), sha, folder, item)
            if all(i.key in known for i in chunk):
                continue
            sources.append((item, folder[item.source], sha))
        except DiskFullError:
            raise
        except (FolderError, ImageError, OSError) as error:
            events[item.key] |= {"status": "failed", "error": " ".join(str(error).split())}
    for (item, _, sha), sample in zip(sources, _generate(generator, sources, options.batch), strict=True):
        if isinstance(sample, NonFiniteError | CaptionError):
            events[item.key] |= {"status": "failed", "error": str(sample)}
        else:
            events[item.key] |= _store(writer, _with_file(sample, folder, item, sha), known, options.filters)
    for item in chunk:
        event = events[item.key]
        yield event if "status" in event else {**event, "status": "kept"}


def _generate(
    generator: SyntheticDataGenerator, sources: Sequence[tuple[CreationItem, Sample, str]], batch: int
) -> list[Sample | NonFiniteError | CaptionError]:
    """A sample of each source, or its error: where one of a batch fails, each is generated by itself."""
    if not sources:
        return []
    try:
        return list(generator.generate([s for _, s, _ in sources], [i.index for i, _, _ in sources], batch))
    except (NonFiniteError, CaptionError) as error:
        if len(sources) == 1:
            return [error]
    return [result for source in sources for result in _generate(generator, [source], 1)]


def _event(folder: Folder, item: CreationItem) -> Row:
    return {"id": item.key, "source": folder.rows[item.source]["id"], "strength": item.strength}


def _store(
    writer: FolderWriter, sample: Sample, known: Mapping[str, Row], filters: Sequence[ScoreThreshold]
) -> Row:
    """Write one sample, or its row among the rejected."""
    key = str(sample.id)
    origin = _origin(sample)
    reasons = [reason for f in filters if (reason := f.violation(origin.generator["scores"]))]
    if key in known:
        return {"status": "kept"}
    with file_lock(writer.root, shared=True):
        if writer.has(key):
            return {"status": "kept"}
        if not reasons:
            return {"status": "created", "row": writer.write(sample)}
        row = put_rejected(writer.root, sample, reasons)
        return {"status": "rejected", "reasons": reasons, "row": row}


def finish(writer: FolderWriter) -> int:
    """Merge the pending rows of created and of rejected samples, and return the number of the former.

    Each of several processes may call it: one after the other merges what is pending by then.
    """
    root = writer.root
    with file_lock(root):
        merge_rejected(root)
        return writer.finish()


def _origin(sample: Sample) -> Provenance:
    """Of one sample."""
    assert isinstance(sample.origin, Provenance)
    return sample.origin


def _with_file(sample: Sample, folder: Folder, item: CreationItem, sha: str) -> Sample:
    """The sample, with the file of its source in its provenance."""
    origin = _origin(sample)
    source = {"folder": str(folder.header.get("name") or folder.root.name), "file_sha256": sha}
    generator = {**origin.generator, "source": {**origin.generator["source"], **source}}
    return replace(sample, origin=replace(origin, generator=generator))


def _file_digest(folder: Folder, index: int) -> str:
    stored = find_stored(folder.files / folder.rows[index]["file_name"])
    return hashlib.sha256(stored.read()).hexdigest()


# Entries of a row that are compared with its source.
_CHECKED = {"source": dict, "caption.source": str, "caption.text": str}


def _check_source(row: Row | None, sha: str, folder: Folder, item: CreationItem) -> None:
    """CreateError when the source of an existing sample has changed since."""
    if row is None:
        return
    try:
        check_types(
            row,
            {f"provenance.generator.{key}": kind for key, kind in _CHECKED.items()},
            f"the row of {item.key}",
        )
    except FormatError as error:
        raise CreateError(f"{error}; use another --out") from None
    generator = row["provenance"]["generator"]
    changed = generator["source"].get("file_sha256") != sha and "image"
    if generator["caption"]["source"] == "row":
        text = folder.rows[item.source].get("text") or folder.rows[item.source].get("caption") or ""
        changed = changed or (generator["caption"]["text"] != text and "caption")
    if changed:
        raise CreateError(
            f"the {changed} of source {folder.rows[item.source]['id']!r} has changed since {item.key} was created; "
            "use another --out"
        )


def _remove_partial_files(root: Path) -> None:
    """Remove temporary files of killed processes."""
    for folder in {p.parent for p in root.rglob(".tmp-*")}:
        remove_leftovers(folder)
