"""Rendering many scenes: worker processes that are replaced regularly, a resumable folder, a
contact sheet.
"""

from __future__ import annotations

import logging
import multiprocessing as mp
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from twofold.data.folder import Folder
from twofold.data.writer import FolderWriter
from twofold.render.assets import Assets, find_assets
from twofold.render.classes import class_ids
from twofold.render.generate import FAMILIES, RENDERER_VERSION, render_one
from twofold.render.tracer import RendererMissing, mitsuba, variant, versions

log = logging.getLogger(__name__)
SCENES_PER_WORKER = 60
"""Scenes a worker process renders before it is replaced: the tracer's caches grow with every scene."""
MERGE_EVERY = 300
"""Rows are merged into the manifest after so many scenes, so that others may read the folder while it
grows."""


@dataclass(frozen=True)
class RenderJob:
    """The arguments of a worker process."""

    root: str
    header: dict[str, Any]
    seed: int
    width: int
    height: int
    spp: int
    assets: str | None


@dataclass(frozen=True)
class Progress:
    """One finished scene. `done` of `total`; `seconds` it took in its worker; `caption` of the image."""

    id: str
    done: int
    total: int
    seconds: float
    caption: str


def header(seed: int, width: int, height: int, spp: int, assets: Assets) -> dict[str, Any]:
    """The header of a rendered folder: everything its images depend on. Needs mitsuba."""
    mitsuba()
    return {
        "name": f"twofold-rendered-{seed}",
        "license": {"id": "CC0-1.0", "redistributable": True},
        "classes": class_ids(),
        "renderer": {
            "version": RENDERER_VERSION,
            "variant": variant(),
            "versions": versions(),
            "seed": seed,
            "size": [height, width],
            "spp": spp,
            "families": {name: share for name, (_, share) in FAMILIES.items()},
            "assets": assets.describe(),
        },
        "targets": {name: {} for name in ("depth", "normals", "mask", "semantic", "instance")},
    }


def sample_id(seed: int, index: int) -> str:
    """The id of a scene."""
    return f"{seed:04d}-{index:06d}"


def render(
    count: int,
    seed: int,
    out: str | os.PathLike[str],
    width: int = 256,
    height: int = 192,
    workers: int = 2,
    spp: int = 8,
    start: int = 0,
    assets: str | None = None,
) -> Generator[Progress]:
    """Render the scenes `start` .. `start + count - 1` of a seed into a data folder; yields one record a
    scene.

    Existing samples are skipped, so the same call resumes a killed job. FolderError when the folder
    was made with other settings, versions or assets; RendererMissing without mitsuba; RuntimeError when a
    worker process exits with an error. Closing the generator stops the workers.
    """
    if count < 1 or workers < 1 or spp < 1 or min(width, height) < 16 or start < 0 or seed < 0:
        raise ValueError(
            "count, workers and spp must be at least 1, the size at least 16x16, seed and start at least 0"
        )
    made = header(seed, width, height, spp, find_assets(assets))
    writer = FolderWriter(out, made)
    job = RenderJob(os.fspath(out), made, seed, width, height, spp, assets)
    todo = [i for i in range(start, start + count) if not writer.has(sample_id(seed, i))]
    done = count - len(todo)
    for record in _run_workers(job, todo, workers):
        done += 1
        yield Progress(**record, done=done, total=count)
        if done % MERGE_EVERY == 0:
            writer.finish()
    writer.finish()
    write_preview_sheet(Path(out), [sample_id(seed, i) for i in range(start, start + count)])


def _run_workers(job: RenderJob, todo: list[int], workers: int) -> Iterator[dict[str, Any]]:
    """Distribute slices of the indices over short-lived processes; yields their records as they arrive."""
    context = mp.get_context("spawn")
    slices = (
        [todo[k : k + SCENES_PER_WORKER] for k in range(0, len(todo), SCENES_PER_WORKER)]
        if len(todo) > SCENES_PER_WORKER * workers
        else []
    )
    slices = slices or [part for part in (todo[k::workers] for k in range(workers)) if part]
    running: dict[Connection, Any] = {}
    try:
        while slices or running:
            while slices and len(running) < workers:
                mine, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_run_worker, args=(job, slices.pop(0), theirs), daemon=True)
                process.start()
                theirs.close()
                running[mine] = process
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except EOFError:
                    process = running.pop(connection)
                    process.join()
                    if process.exitcode:
                        raise RuntimeError(
                            f"a rendering process failed (exit code {process.exitcode}); the same call resumes"
                        ) from None
                    continue
                if isinstance(message, BaseException):
                    raise message
                yield message
    finally:
        for process in running.values():
            process.terminate()


def _run_worker(job: RenderJob, indices: list[int], results: Connection) -> None:
    """Render the scenes of one worker process."""
    try:
        assets = find_assets(job.assets)
        writer = FolderWriter(job.root, job.header)
        for index in indices:
            began = time.monotonic()
            sample = render_one(job.seed, index, job.width, job.height, job.spp, assets)
            try:
                writer.write(sample)
            except FileNotFoundError:
                # The parent merged the rows and removed their folder between two steps of this process.
                writer.write(sample)
            results.send({"id": sample.id, "seconds": time.monotonic() - began, "caption": sample.caption})
    except (RendererMissing, ValueError, OSError, RuntimeError) as error:
        results.send(error)
    finally:
        results.close()


def write_preview_sheet(root: Path, ids: list[str], columns: int = 4, most: int = 32) -> Path:
    """`contact_sheet.png` in the folder: image, nearness and normals of the first scenes."""
    import numpy as np
    import torch

    from twofold.visualization import write_sheet

    folder = Folder(root)
    chosen = folder.select([i for i in ids if i in set(folder.ids)][:most])
    cells = []
    for k in range(len(chosen)):
        sample = chosen[k]
        near = 1 / sample.targets["depth"].clamp(min=0.1)
        near = (
            (near / near.flatten().quantile(0.99).clamp(min=1e-6)).clamp(0, 1).nan_to_num(0).expand(3, -1, -1)
        )
        cells.append(torch.cat([sample.image, near, sample.targets["normals"] * 0.5 + 0.5], 2))
    cells += [torch.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [torch.cat(cells[k : k + columns], 2) for k in range(0, len(cells), columns)]
    sheet = torch.cat(rows, 1)[:, :: max(1, int(np.ceil(len(rows) / 16))), :]
    path = root / "contact_sheet.png"
    write_sheet(path, sheet.clamp(0, 1))
    return path
