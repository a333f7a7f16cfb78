"""Creation over a whole folder: every sample whole, its row after it; by one process or many, killed or not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.folder import Folder
from ..data.layout import FolderError, Row, read_header, read_pending, read_rows, to_json, write_text
from ..data.selection import Selection, selected
from ..data.writer import FolderWriter
from ..finite import NonFiniteError
from ..image import ImageError
from ..image.stored import find_stored
from ..io import DiskFullError, FormatError, check_types, file_lock, parse_object, remove_leftovers
from ..sample import Origin, Sample
from .captioner import CaptionError
from .labels import descriptors
from .provenance import sample_id, versions
from .scores import Keep
from .synthetic_data import Creator

REJECTED, REJECTS = ".rejected", "rejected.jsonl"


class CreateError(ValueError):
    """A folder of created samples that cannot be gone on with. One line: what is wrong, and the way out."""


@dataclass(frozen=True)
class Job:
    """What is created of a folder.

    Attributes:
        strengths: of each source, one sample or ``per_image`` at each; they go over `Settings.strength`.
        per_image: samples of each source at each strength.
        keep: thresholds; a sample that misses one is listed in ``rejected.jsonl`` with its row, and not stored.
        batch: samples that go through the network together. Which ones does not depend on what is there already, nor on
            shards, so that a killed job ends with the same files to the last bit.
        shard: (i, n): this process takes the i-th of n parts, from 0.
        count, fraction, selection, selection_seed: how many of the sources, and which, as `data.selection.selected`
            takes them, and as a recipe's `Source` does (``limit``, ``fraction``): so both are the same samples.
    """

    strengths: tuple[float, ...] = (0.6,)
    per_image: int = 1
    keep: tuple[Keep, ...] = ()
    batch: int = 1
    shard: tuple[int, int] = (0, 1)
    count: int = 0
    fraction: float = 1.0
    selection: Selection = "even"
    selection_seed: int = 0

    def __post_init__(self) -> None:
        if not self.strengths or self.per_image < 1 or self.batch < 1 or self.count < 0:
            raise ValueError("a job has a strength, one sample a picture or more, and batches of one or more")
        if not 0 < self.fraction <= 1 or (self.count and self.fraction != 1):
            raise ValueError(
                f"a job takes a count of its sources or a fraction in (0, 1], not {self.count} and {self.fraction:g}"
            )
        if not 0 <= self.shard[0] < self.shard[1]:
            raise ValueError(f"there is no part {self.shard[0] + 1} of {self.shard[1]}")

    def sources(self, total: int) -> list[int]:
        """Which of ``total`` sources are used, by index."""
        return selected(total, self.count, self.fraction, self.selection, self.selection_seed)


STANDARD_JOB = Job()


@dataclass(frozen=True)
class _Item:
    """One sample to be created, its key, and the row of its source."""

    key: str
    source: int
    strength: float
    index: int


def create(
    creator: Creator, folder: Folder, out: str | os.PathLike[str], job: Job = STANDARD_JOB
) -> Iterator[Row]:
    """Create samples of a folder into another, and yield what became of each, once it is on the disk.

    Args:
        creator: draws and labels; its settings' strength is replaced by each of the job's.
        folder: the sources.
        out: a data folder, new, or begun with the same settings.
        job: what is created.

    Yields:
        ``{"id", "source", "strength", "status"}``: ``created`` with its ``row``; ``there``, from before; ``rejected``
        with ``why`` and ``row``; ``failed`` with ``error``, where a source cannot be read, or a network returned NaN
        or infinity for it.

    Raises:
        CreateError: the folder was begun with other settings, or a source has changed since.
        ValueError: a threshold on a score that is not computed.
    """
    root = Path(out)
    for keep in job.keep:
        if keep.looks and creator.settings.scoring == "free":
            raise ValueError(f"'{keep}' needs scoring 'all': {keep.score} takes further looks of the network")
    items = plan(creator, folder, job)
    try:
        writer = FolderWriter(root, header(creator, folder, job))
    except FolderError as error:
        if "other settings" not in str(error):
            raise
        raise CreateError(_conflict(root, header(creator, folder, job))) from error
    with file_lock(root, shared=True):  # another process may be merging its rows
        known = _known(root)
        _sweep(root)
    chunks = batches(items, job.batch)
    makers = {strength: creator.at(strength) for strength in job.strengths}
    for chunk in chunks[job.shard[0] :: job.shard[1]]:
        yield from _chunk(makers[chunk[0].strength], folder, writer, chunk, known, job)
    finish(writer)


def plan(creator: Creator, folder: Folder, job: Job) -> list[_Item]:
    """Every sample of a job in the order of strengths, source ids and indices, whatever the order of the folder's rows.

    Raises:
        ValueError: two strengths that are one time step.
    """
    rows = job.sources(len(folder))
    rows.sort(key=lambda i: folder.rows[i]["id"])
    items: list[_Item] = []
    for strength in job.strengths:
        start = creator.backbone.schedule.step_at(strength)
        part = [
            _Item(sample_id(folder.rows[row]["id"], start, index), row, strength, index)
            for row in rows
            for index in range(job.per_image)
        ]
        items += part
    if len({item.key for item in items}) < len(items):
        raise ValueError("two of the strengths are one time step; name each once")
    return items


def batches(items: Sequence[_Item], size: int) -> list[list[_Item]]:
    """Items as batches of at most ``size``, each of one strength."""
    found: list[list[_Item]] = []
    for strength in dict.fromkeys(item.strength for item in items):
        part = [item for item in items if item.strength == strength]
        found += [part[i : i + size] for i in range(0, len(part), size)]
    return found


def header(creator: Creator, folder: Folder, job: Job) -> dict[str, Any]:
    """What ``dataset.json`` says: all that one folder's samples have in common."""
    targets = descriptors(creator.predictors)
    common = {k: v for k, v in creator.settings.record.items() if k != "strength"}
    classes = next((p.task.classes for p in creator.predictors.values() if p.task.classes), ())
    said: dict[str, Any] = {
        "name": f"{folder.header.get('name') or folder.root.name}-created",
        "licence": folder.header.get("licence", "that of its sources and of the model"),
        "targets": targets,
        "created": {
            **common,
            "weights": creator.weights,
            "dtype": versions(creator.backbone)["dtype"],
            "tasks": list(creator.predictors),
            "template": creator.template,
            "captioner": creator.captioner,
            "keep": [str(k) for k in job.keep],
        },
    }
    if classes:
        said["classes"] = list(classes)
    return json.loads(to_json(said, "the header"))


def _conflict(root: Path, wanted: Mapping[str, Any]) -> str:
    found = read_header(root)
    mine, theirs = dict(wanted.get("created") or {}), dict(found.get("created") or {})
    keys = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k)) or ["sources or targets"]
    return f"{root} was begun with other settings ({', '.join(keys)}); use another --out"


def _known(root: Path) -> dict[str, Row]:
    """Every sample that is there, or was rejected, by key."""
    rows = read_rows(root) if (root / "metadata.jsonl").exists() else []
    rows += list(read_pending(root).values())
    rows += _rejected(root) + list(_pending_rejected(root).values())
    return {row["id"]: row for row in rows}


def _chunk(
    maker: Creator,
    folder: Folder,
    writer: FolderWriter,
    chunk: Sequence[_Item],
    known: Mapping[str, Row],
    job: Job,
) -> Iterator[Row]:
    """The samples of one batch. All are made when one is missing: a batch is always the same batch."""
    told = {item.key: _event(folder, item) for item in chunk}
    sources: list[tuple[_Item, Sample, str]] = []
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
            told[item.key] |= {"status": "failed", "error": " ".join(str(error).split())}
    for (item, _, sha), sample in zip(sources, _made(maker, sources, job.batch), strict=True):
        if isinstance(sample, NonFiniteError | CaptionError):
            told[item.key] |= {"status": "failed", "error": str(sample)}
        else:
            told[item.key] |= _store(writer, _with_file(sample, folder, item, sha), known, job.keep)
    for item in chunk:
        event = told[item.key]
        yield event if "status" in event else {**event, "status": "there"}


def _made(
    maker: Creator, sources: Sequence[tuple[_Item, Sample, str]], batch: int
) -> list[Sample | NonFiniteError | CaptionError]:
    """A sample of each source, or why there is none: where one of a batch fails, each is made alone."""
    if not sources:
        return []
    try:
        return list(maker.make([s for _, s, _ in sources], [i.index for i, _, _ in sources], batch))
    except (NonFiniteError, CaptionError) as error:
        if len(sources) == 1:
            return [error]
    return [made for source in sources for made in _made(maker, [source], 1)]


def _event(folder: Folder, item: _Item) -> Row:
    return {"id": item.key, "source": folder.rows[item.source]["id"], "strength": item.strength}


def _store(writer: FolderWriter, sample: Sample, known: Mapping[str, Row], keep: Sequence[Keep]) -> Row:
    """Writes one sample, or its row among the rejected."""
    key = str(sample.id)
    origin = _origin(sample)
    why = [reason for k in keep if (reason := k.missed(origin.generator["scores"]))]
    if key in known:
        return {"status": "there"}
    with file_lock(writer.root, shared=True):
        if writer.has(key):
            return {"status": "there"}
        if not why:
            return {"status": "created", "row": writer.write(sample)}
        row: Row = {
            "id": key,
            "why": why,
            "text": sample.caption,
            "provenance": {
                "origin": "synthetic",
                "parents": list(origin.parents),
                "generator": dict(origin.generator),
            },
        }
        path = writer.root / REJECTED / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, to_json(row, f"the row of {key}"))
        return {"status": "rejected", "why": why, "row": row}


def finish(writer: FolderWriter) -> int:
    """Merges the rows that wait, of created samples and of rejected ones, and gives the number of the former.

    May be called by each of several processes: one after the other merges what is there by then.
    """
    root = writer.root
    with file_lock(root):
        pending = _pending_rejected(root)
        rows = {row["id"]: row for row in [*_rejected(root), *pending.values()]}
        if rows:
            lines = [to_json(rows[key], f"the row of {key}") + "\n" for key in sorted(rows)]
            write_text(root / REJECTS, "".join(lines))
        for path in pending:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            (root / REJECTED).rmdir()
        return writer.finish()


def _rejected(root: Path) -> list[Row]:
    path = root / REJECTS
    if not path.exists():
        return []
    lines = enumerate(path.read_bytes().split(b"\n"), 1)
    return [_rejected_row(line, f"{path}, line {number},") for number, line in lines if line.strip()]


def _rejected_row(text: bytes, where: str) -> Row:
    """A row of a rejected sample; CreateError naming what is wrong with it."""
    try:
        row = parse_object(text, where)
        check_types(row, {"id": str, "why": list, "provenance.generator": dict}, where)
    except FormatError as error:
        raise CreateError(f"{error}; move the file away, or use another --out") from None
    return row


def _pending_rejected(root: Path) -> dict[Path, Row]:
    paths = sorted(p for p in (root / REJECTED).rglob("*.json") if not p.name.startswith("."))
    return {path: _rejected_row(path.read_bytes(), str(path)) for path in paths}


def _origin(sample: Sample) -> Origin:
    """Of one sample."""
    assert isinstance(sample.origin, Origin)
    return sample.origin


def _with_file(sample: Sample, folder: Folder, item: _Item, sha: str) -> Sample:
    """The sample, its origin saying also which file its source was."""
    origin = _origin(sample)
    source = {"folder": str(folder.header.get("name") or folder.root.name), "file_sha256": sha}
    told = {**origin.generator, "source": {**origin.generator["source"], **source}}
    return replace(sample, origin=replace(origin, generator=told))


def _file_digest(folder: Folder, index: int) -> str:
    stored = find_stored(folder.files / folder.rows[index]["file_name"])
    return hashlib.sha256(stored.read()).hexdigest()


# What a row says of how its sample was made.
_MADE = {"source": dict, "caption.from": str, "caption.text": str}


def _check_source(row: Row | None, sha: str, folder: Folder, item: _Item) -> None:
    """CreateError when a sample was made of another state of its source than is there now."""
    if row is None:
        return
    try:
        check_types(
            row,
            {f"provenance.generator.{key}": kind for key, kind in _MADE.items()},
            f"the row of {item.key}",
        )
    except FormatError as error:
        raise CreateError(f"{error}; use another --out") from None
    made = row["provenance"]["generator"]
    changed = made["source"].get("file_sha256") != sha and "picture"
    if made["caption"]["from"] == "row":
        text = folder.rows[item.source].get("text") or folder.rows[item.source].get("caption") or ""
        changed = changed or (made["caption"]["text"] != text and "caption")
    if changed:
        raise CreateError(
            f"the {changed} of source {folder.rows[item.source]['id']!r} has changed since {item.key} was created; "
            "use another --out"
        )


def _sweep(root: Path) -> None:
    """Takes away what killed processes left half written."""
    for folder in {p.parent for p in root.rglob(".tmp-*")}:
        remove_leftovers(folder)
